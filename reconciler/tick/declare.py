"""What the watched branch asks for: fetch, load, compile, put in force.

The one place where a commit becomes releases. A commit whose shared files are in error changes
nothing at all: policy, releases and schedules of the last good commit stay in force. An agent in
error keeps its stable release and the schedule it had; the others go on.

What a commit costs follows from what it changed: rows are written for the agents that differ from
the commit before, and no others are looked at.
"""

from __future__ import annotations

import json

from gateway.database import Row, Transaction
from gateway.values import AgentName, Millis
from reconciler.approvals.store import usable
from reconciler.config import AgentConfig, Suite
from reconciler.findings import Finding
from reconciler.gates.evidence import SuiteShape
from reconciler.record import audit
from reconciler.rollout import store
from reconciler.rollout.model import (
    CanaryPolicy,
    FirstRelease,
    GatePolicy,
    OnHarm,
    RolloutPolicy,
)
from reconciler.source.errors import RemoteUnavailable
from reconciler.tick.ceilings import publish_policy
from reconciler.tick.compiling import Compiled, compile_head
from reconciler.tick.context import Context, Declared
from reconciler.tick.force import force

LOOK_BACK = 50
"""Commits that are tried before it is said that there is no good one."""


def declare(context: Context) -> Declared | None:
    """The current declaration; fetched, and compiled again only when the head moved.

    When the remote cannot be reached the last known commit stays in force; when the head cannot
    be read, the last good one before it. Either way the tick says so. Returns None when there has
    never been a good commit.
    """
    _fetch(context)
    head = context.config.resolve(context.branch)
    if head is None:
        context.problems.append(
            f"the config repo has no branch {context.branch!r}: push it, or use --branch"
        )
        return context.declared
    approvals = _usable_approvals(context)
    if context.declared is not None and head in (context.declared.commit, context.seen_head):
        if context.asked is not None and approvals != context.approvals_seen:
            # Somebody approved something, or an approval expired: other things are in force.
            _in_force(context, context.asked, frozenset(), approvals)
        context.problems += context.head_problem
        return context.declared
    compiled = compile_head(context, head)
    why = _objection(context, compiled)
    if context.declared is None:
        with context.database.snapshot() as tx:
            context.news.published_until = audit.last_seq(tx)
    with context.database.transaction() as tx:
        _seen(tx, head, compiled.findings, context.clock.now())
    if compiled.found is not None and why is None:
        _in_force(context, compiled.found, compiled.changed, approvals)
        context.compiled = compiled.whole
        context.head_problem = []
    else:
        context.head_problem = [f"nothing of commit {head[:12]} is acted upon: {why}"]
        context.problems += context.head_problem
        if context.declared is None:
            # A process that has seen nothing yet goes on as one that has would.
            good = last_good(context, head)
            if good is not None:
                _in_force(context, good, None, approvals)
    context.seen_head = head
    return context.declared


def _objection(context: Context, compiled: Compiled) -> str | None:
    """Why nothing of a commit may be acted upon; None when it may."""
    if compiled.found is None:
        return str(compiled.findings[0]) if compiled.findings else "it cannot be read"
    branch = compiled.found.fleet.branch
    if branch != context.branch:
        return (
            f"interlock.yaml says that {branch!r} is watched, but this reconciler watches "
            f"{context.branch!r}; give --branch, or correct fleet.branch"
        )
    return None


def _in_force(
    context: Context,
    asked: Declared,
    changed: frozenset[AgentName] | None,
    approvals: tuple[str, ...],
) -> None:
    """Decide what of a good commit holds, and act on that from now on."""
    with context.database.transaction() as tx:
        forced, concerned = force(context, tx, asked, changed)
        adopt(context, tx, forced, concerned)
    context.asked = asked
    # Those that were used up now are not news at the next look.
    context.approvals_seen = _usable_approvals(context)
    _follow(context, forced, concerned)


def _usable_approvals(context: Context) -> tuple[str, ...]:
    with context.database.snapshot() as tx:
        return tuple(one.id for one in usable(tx, context.clock.now()))


def last_good(context: Context, head: str) -> Declared | None:
    """The newest commit before `head` that may be acted upon; None when there is none.

    Looks back over a bounded number of commits: a branch that has been broken for longer needs a
    person anyway.
    """
    history = context.config.first_parent_history(context.branch)
    earlier = [commit for commit in history if commit != head][-LOOK_BACK:]
    for commit in reversed(earlier):
        compiled = compile_head(context, commit)
        if _objection(context, compiled) is None:
            return compiled.found
    return None


def _fetch(context: Context) -> None:
    now = context.clock.now()
    if context.fetched_at is not None and now - context.fetched_at < context.fetch_every_ms:
        return
    try:
        context.config.fetch()
    except RemoteUnavailable as error:
        context.problems.append(f"config repo not fetched, the last known commit goes on: {error}")
    # After the fetch: one that takes long to fail must not be tried again at once.
    context.fetched_at = context.clock.now()


def _seen(tx: Transaction, head: str, findings: tuple[Finding, ...], now: Millis) -> None:
    """Tell the record that this commit was looked at, and what was found in it."""
    seen = tx.one("SELECT value FROM facts WHERE name = 'config_commit'")
    if seen is None or seen["value"] != head:
        errors = sum(1 for f in findings if f.severity == "error")
        audit.append(
            tx,
            now=now,
            actor="interlock",
            action="commit.seen",
            subject=head,
            reason=f"{errors} errors" if errors else "compiled",
        )
    for name, value in (
        ("config_commit", head),
        ("findings", json.dumps([finding.as_json() for finding in findings])),
    ):
        tx.execute(
            "INSERT INTO facts (name, value) VALUES (:name, :value)"
            " ON CONFLICT (name) DO UPDATE SET value = :value WHERE facts.value <> :value",
            name=name,
            value=value,
        )


def adopt(
    context: Context,
    tx: Transaction,
    declared: Declared,
    changed: frozenset[AgentName] | None,
) -> None:
    """Put a declaration in force: its policy, its releases, what it asks for.

    Only the agents in `changed` are written; None is everyone, and clears away whoever is not
    there any more. Nothing of the context changes before the transaction is durable: `_follow`.
    """
    now = context.clock.now()
    publish_policy(tx, declared, changed, now=now)
    if changed is None:
        names = {*declared.releases, *declared.broken}
        known = {row["digest"] for row in tx.read("SELECT digest FROM releases")}
        rows = {row["agent"]: row for row in tx.read("SELECT * FROM desired")}
        gone = sorted(rows.keys() - names)
    else:
        names = {n for n in changed if n in declared.releases or n in declared.broken}
        known, rows = set(), {}
        gone = sorted(changed - names)
    for name in sorted(names):
        own = declared.releases.get(name)
        for release in (*([own] if own else []), *declared.sentinels.get(name, {}).values()):
            if release.digest not in known:
                store.remember_release(
                    tx, release.digest, release.text(), commit=declared.commit, now=now
                )
        _desire(tx, declared, name, rows.get(name))
    for name in gone:
        tx.execute("DELETE FROM desired WHERE agent = :agent", agent=name)


def _desire(tx: Transaction, declared: Declared, agent: AgentName, before: Row | None) -> None:
    """What is asked for of one agent; its `commit_id` is the commit that last changed that."""
    config = declared.fleet.agents.get(agent)
    release = declared.releases.get(agent)
    row = {
        "agent": agent,
        "digest": release.digest if release else None,
        "team": config.team if config else "",
        "document": json.dumps(_summary(config) if config else {}),
        "findings": json.dumps([f.as_json() for f in declared.broken.get(agent, ())]),
    }
    if before is not None and all(before[name] == value for name, value in row.items()):
        return
    tx.execute(
        "INSERT INTO desired (agent, digest, team, commit_id, document, findings)"
        " VALUES (:agent, :digest, :team, :commit, :document, :findings)"
        " ON CONFLICT (agent) DO UPDATE SET digest = :digest, team = :team, commit_id = :commit,"
        " document = :document, findings = :findings",
        commit=declared.commit,
        **row,
    )


def _follow(context: Context, declared: Declared, changed: frozenset[AgentName] | None) -> None:
    """Go on from a declaration that is durably in force."""
    context.declared = declared
    context.news.changed(changed)


def _summary(config: AgentConfig) -> dict[str, object]:
    """What status and reports tell about an agent beside its release."""
    return {
        "schedule": config.trigger.schedule,
        "timezone": config.trigger.timezone,
        "rollout": config.rollout.name,
        "gated": config.rollout.gate is not None,
        "cases": len(config.suite.cases) if config.suite else 0,
        "model": config.main.model,
        "tools": sorted(config.main.tools),
        "owns": [claim.pattern for claim in config.owns],
        "max_cost_nano": config.limits.max_cost,
    }


def rollout_policy(config: AgentConfig) -> RolloutPolicy:
    """The agent's rollout policy, in the words of the rollout machine."""
    given = config.rollout
    gate = None
    if given.gate is not None:
        first = given.gate.first_release
        gate = GatePolicy(
            delta_permille=given.gate.delta_permille,
            looks=given.gate.looks,
            first_release=FirstRelease(
                min_pass_rate_permille=first.min_pass_rate_permille, approval=first.approval
            ),
            cost_ratio_permille=given.gate.cost_ratio_permille,
            latency_ratio_permille=given.gate.latency_ratio_permille,
            max_errors=given.gate.max_errors,
        )
    canary = None
    if given.canary is not None:
        canary = CanaryPolicy.model_validate(
            {
                "count": given.canary.count,
                "horizon": given.canary.horizon,
                "max_age_ms": given.canary.max_age_ms,
            }
        )
    return RolloutPolicy(
        name=given.name,
        gate=gate,
        canary=canary,
        on_harm=OnHarm(quality=given.on_harm.quality, safety=given.on_harm.safety),
    )


def shape(suite: Suite, *, sentinels: tuple[str, ...]) -> SuiteShape:
    """What the gate must know of a suite."""
    return SuiteShape(
        digest=suite.digest,
        cases=tuple(sorted(case.id for case in suite.cases)),
        critical=frozenset(case.id for case in suite.cases if case.critical),
        sentinels=tuple(sorted(sentinels)),
    )
