"""The plan of a change, where an agent has two values that it could be compared with.

What was admitted need not be live: its gate or its canary runs, or it was rejected, and the release
before it goes on. Exactly what was admitted is not asked for a second time, though it is looser
than what is live. And whatever is looser than what was admitted is asked for, though what is live
allows it still: a tool that was taken away is not given back by asking for it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gateway.database import Transaction
from gateway.values import AgentName
from reconciler.approvals.store import AGENT, InForce
from reconciler.plan import Plan, Side, Standing, Subject, diff
from reconciler.plan.diff import same
from reconciler.release import Release
from reconciler.rollout import store as rollouts


def plan_between(
    tx: Transaction, live: Side, desired: Side, rows: Mapping[AgentName, InForce]
) -> Plan:
    """`plan.diff`, with the approvals that it needs by what is live and by what was admitted.

    `rows` are what was admitted of the agents of `live`.
    """
    plan = diff(live, desired)
    admitted = {
        name: replace(standing, release=release)
        for name, standing in live.agents.items()
        if (row := rows.get(name)) is not None
        and (standing.release is None or standing.release.digest != row.digest)
        and (release := _release(tx, row.digest)) is not None
    }
    if not admitted:
        return plan
    again = {
        name: standing
        for name, standing in desired.agents.items()
        if name in admitted or standing.facts.get("formerly") in admitted
    }
    second = diff(replace(live, agents=admitted), replace(desired, agents=again))
    settled = {name for name in admitted if name in again and same(admitted[name], again[name])}
    return _joined(plan, second, again, settled)


def _joined(
    plan: Plan, second: Plan, again: Mapping[AgentName, Standing], settled: set[AgentName]
) -> Plan:
    subjects = {subject.scope: subject for subject in plan.subjects}
    depends = dict(plan.depends)
    for subject in second.subjects:
        if subject.scope.startswith(AGENT):
            subjects[subject.scope] = _both(subjects.get(subject.scope), subject)
    for name in again:
        scopes = depends.get(name, frozenset()) | second.depends.get(name, frozenset())
        if scopes:
            depends[name] = scopes
    for name in settled:
        subjects.pop(AGENT + name, None)
        depends.pop(name, None)
    return replace(
        plan, subjects=tuple(subjects[scope] for scope in sorted(subjects)), depends=depends
    )


def _both(one: Subject | None, other: Subject) -> Subject:
    if one is None:
        return other
    found = {(a.kind, a.text, a.owners): a for a in (*other.loosenings, *one.loosenings)}
    return replace(one, loosenings=tuple(found[key] for key in sorted(found)))


def _release(tx: Transaction, digest: str) -> Release | None:
    try:
        return rollouts.release(tx, digest) if digest else None
    except LookupError:
        return None
