"""What the watched branch asks for: fetch, load, compile, publish the policy.

The one place where a commit becomes releases. A commit whose shared files are in error changes
nothing at all: policy, releases and schedules of the last good commit stay in force. An agent in
error keeps its stable release and the schedule it had; the others go on.
"""

from __future__ import annotations

import json
from dataclasses import replace

from gateway import access
from gateway.database import Transaction
from gateway.policy import AgentPolicy, Policy
from gateway.values import AgentName, Millis
from reconciler.config import AgentConfig, Suite
from reconciler.config.load import load
from reconciler.config.policy import policy
from reconciler.findings import Finding
from reconciler.gates.evidence import SuiteShape
from reconciler.record import audit
from reconciler.release import Release, ceiling_of, compile_fleet, variant
from reconciler.rollout import store
from reconciler.rollout.model import (
    CanaryPolicy,
    FirstRelease,
    GatePolicy,
    OnHarm,
    RolloutPolicy,
)
from reconciler.source.errors import RemoteUnavailable
from reconciler.tick.context import Context, Declared

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
    if context.declared is not None and head in (context.declared.commit, context.seen_head):
        context.problems += context.head_problem
        return context.declared
    declared = compile_commit(context, head)
    if declared.found is not None and declared.found.fleet.branch != context.branch:
        context.problems.append(
            f"interlock.yaml at {head[:12]} says that {declared.found.fleet.branch!r} is watched, "
            f"but this reconciler watches {context.branch!r}; nothing of it is acted upon: give "
            "--branch, or correct fleet.branch"
        )
        return context.declared
    with context.database.transaction() as tx:
        _publish(context, tx, head, declared, context.clock.now())
    if declared.found is None:
        why = str(declared.findings[0]) if declared.findings else "it cannot be read"
        context.head_problem = [f"nothing of commit {head[:12]} is acted upon: {why}"]
        context.problems += context.head_problem
        if context.declared is None:
            # A process that has seen nothing yet goes on as one that has would.
            context.declared = last_good(context, head)
            if context.declared is not None:
                with context.database.transaction() as tx:
                    _adopt(tx, context.declared, context.clock.now())
    else:
        context.declared = declared.found
        context.head_problem = []
    context.seen_head = head
    return context.declared


def last_good(context: Context, head: str) -> Declared | None:
    """The newest commit before `head` whose shared files can be read; None when there is none.

    Looks back over a bounded number of commits: a branch that has been broken for longer needs a
    person anyway.
    """
    history = context.config.first_parent_history(context.branch)
    earlier = [commit for commit in history if commit != head][-LOOK_BACK:]
    for commit in reversed(earlier):
        found = compile_commit(context, commit).found
        if found is not None:
            return found
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


class Compiled:
    """One commit after compiling; `found` is None when nothing of it may be acted upon."""

    def __init__(self, found: Declared | None, findings: tuple[Finding, ...]) -> None:
        self.found = found
        self.findings = findings


def compile_commit(context: Context, commit: str) -> Compiled:
    """Load and compile one commit of the config repo. Reads git and nothing else."""
    tree = context.config.tree(commit)  # type: ignore[arg-type]
    loaded = load(tree, memo=context.memo)
    if loaded.fleet is None:
        return Compiled(None, loaded.findings)
    releases: dict[AgentName, Release] = {}
    broken = dict(loaded.broken)
    for agent, result in compile_fleet(loaded.fleet).items():
        if isinstance(result, Release):
            releases[agent] = result
        else:
            broken[agent] = result
    sentinels: dict[AgentName, dict[str, Release]] = {}
    for agent in releases:
        suite = loaded.fleet.agents[agent].suite
        for sentinel in suite.sentinels if suite else ():
            bad = variant(loaded.fleet.agents[agent], sentinel, loaded.fleet)
            if isinstance(bad, Release):
                sentinels.setdefault(agent, {})[sentinel.id] = bad
            else:
                broken[agent] = bad
    for agent in broken:
        releases.pop(agent, None)
    kept = {agent: config for agent in broken if (config := _kept(context, agent)) is not None}
    return Compiled(
        Declared(
            commit=commit,
            tree=tree,
            fleet=replace(loaded.fleet, agents={**loaded.fleet.agents, **kept}),
            releases=releases,
            sentinels=sentinels,
            broken=broken,
            findings=loaded.findings,
        ),
        loaded.findings,
    )


def _kept(context: Context, agent: AgentName) -> AgentConfig | None:
    """How a broken agent was declared at the commit its stable release came from.

    Its schedule and its rights go on from there, because its release does; None when nothing of
    it is live.
    """
    row = context.database.one(
        "SELECT r.first_commit FROM pointers p JOIN releases r ON r.digest = p.stable"
        " WHERE p.agent = :agent",
        agent=agent,
    )
    if row is None or context.config.resolve(row["first_commit"]) is None:
        return None
    fleet = load(context.config.tree(row["first_commit"]), memo=context.memo).fleet
    return fleet.agents.get(agent) if fleet is not None else None


def _publish(context: Context, tx: Transaction, head: str, compiled: Compiled, now: Millis) -> None:
    seen = tx.one("SELECT value FROM facts WHERE name = 'config_commit'")
    if seen is None or seen["value"] != head:
        errors = sum(1 for f in compiled.findings if f.severity == "error")
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
        ("findings", json.dumps([finding.as_json() for finding in compiled.findings])),
    ):
        tx.execute(
            "INSERT INTO facts (name, value) VALUES (:name, :value)"
            " ON CONFLICT (name) DO UPDATE SET value = :value",
            name=name,
            value=value,
        )
    if compiled.found is not None:
        _adopt(tx, compiled.found, now)


def _adopt(tx: Transaction, declared: Declared, now: Millis) -> None:
    """Put a good commit in force: its policy, its releases, what it asks for."""
    publish_policy(tx, declared, now)
    for release in declared.releases.values():
        store.remember_release(tx, release.digest, release.text(), commit=declared.commit, now=now)
    for variants in declared.sentinels.values():
        for release in variants.values():
            store.remember_release(
                tx, release.digest, release.text(), commit=declared.commit, now=now
            )
    tx.execute("DELETE FROM desired")
    names = sorted({*declared.releases, *declared.broken})
    for name in names:
        config = declared.fleet.agents.get(name)
        release_now = declared.releases.get(name)
        tx.execute(
            "INSERT INTO desired (agent, digest, team, commit_id, document, findings)"
            " VALUES (:agent, :digest, :team, :commit, :document, :findings)",
            agent=name,
            digest=release_now.digest if release_now else None,
            team=config.team if config else "",
            commit=declared.commit,
            document=json.dumps(_summary(config) if config else {}),
            findings=json.dumps([f.as_json() for f in declared.broken.get(name, ())]),
        )


def publish_policy(tx: Transaction, declared: Declared, now: Millis) -> None:
    """Make what the commit allows the current policy, as far as releases in use are concerned.

    Which tools and limits an agent has is what the head says: tightening works at once. Which
    *models* and which sub-agents it has is behaviour, and travels in a release: those of the
    releases that are live, in a canary or being gated stay admitted as long as the platform still
    declares the model, or a merged change would cut stable off before its successor is proven.
    """
    base = policy(declared.fleet)
    agents = dict(base.agents)
    for agent in sorted({*declared.fleet.agents, *declared.broken}):
        used = [store.release(tx, digest) for digest in _in_use(tx, agent)]
        for release in (*used, *declared.sentinels.get(agent, {}).values()):
            team = agents[agent].team if agent in agents else ""
            kept = ceiling_of(release, team)
            agents[agent] = _admitting(agents.get(agent, kept), kept, base)
    access.publish(tx, base.model_copy(update={"agents": agents}), now=now)


def _in_use(tx: Transaction, agent: str) -> list[str]:
    rows = tx.read(
        "SELECT stable AS digest FROM pointers WHERE agent = :agent"
        " UNION SELECT candidate FROM pointers WHERE agent = :agent"
        " UNION SELECT anchor FROM pointers WHERE agent = :agent"
        " UNION SELECT candidate FROM rollouts WHERE agent = :agent AND closed_at IS NULL",
        agent=agent,
    )
    return sorted(str(row["digest"]) for row in rows if row["digest"] is not None)


def _admitting(today: AgentPolicy, kept: AgentPolicy, platform: Policy) -> AgentPolicy:
    """Today's ceiling, with the models and the roles of a release that is in use."""
    roles = dict(today.roles)
    for role, grants in kept.roles.items():
        models = tuple(m for m in grants.models if platform.targets(m))
        if role not in roles:
            # A role the head no longer has may still think, but a tool taken away is gone at once.
            roles[role] = grants.model_copy(update={"models": models, "tools": {}})
            continue
        more = tuple(m for m in models if m not in roles[role].models)
        roles[role] = roles[role].model_copy(update={"models": roles[role].models + more})
    return today.model_copy(update={"roles": roles})


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
