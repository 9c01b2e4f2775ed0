"""What is in force: the newest commit, less what somebody must approve first.

Between compiling a commit and acting on it. The commit is compared with what is live; what it may
newly do waits until the owners of the stricter value have approved exactly that, whatever route it
took to the branch. What waits keeps its previous value: an agent its previous definition and
release, a shared setting the value it had. The first commit ever seen is the baseline.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from gateway.database import Transaction
from gateway.values import AgentName, Json, Millis, TeamName
from reconciler.approvals import decide, store
from reconciler.approvals.restore import restored
from reconciler.approvals.store import InForce
from reconciler.config import AgentConfig, TeamConfig
from reconciler.findings import Place
from reconciler.forge.model import Login
from reconciler.forge.people import authors_of
from reconciler.plan import Side, Standing, Subject, Unit
from reconciler.plan import waiting as waiting_agents
from reconciler.plan.sides import (
    FORMAT,
    facts_of,
    people_of_units,
    rules_of,
    standing_of,
    units_of,
)
from reconciler.record import audit
from reconciler.release import Release
from reconciler.rollout import store as rollouts
from reconciler.source.merging import commits_between
from reconciler.source.objects import CommitId, ObjectId
from reconciler.tick.admitted import plan_between
from reconciler.tick.compiling import at
from reconciler.tick.context import Context, Declared, Kept
from reconciler.tick.renames import rename

INTERLOCK_FILE = "interlock.yaml"
"""Where a thing is said to stand that nobody noted a place of."""


def force(
    context: Context, tx: Transaction, wanted: Declared, changed: Collection[AgentName] | None
) -> tuple[Declared, frozenset[AgentName] | None]:
    """What holds of the commit `wanted`, and the agents for which that may be news.

    `changed` are the agents that differ from the commit looked at before; None is everyone, at
    first sight. Rows, audit lines and used-up approvals are written in the transaction.
    """
    now = context.clock.now()
    live_units = retold_units(context, tx)
    if not live_units:
        _baseline(tx, wanted, now)
        return wanted, None
    before = context.declared
    if changed is None or before is None:
        changed, before = None, None
        names = {*wanted.releases, *wanted.broken, *store.agents_in_force(tx)}
    else:
        names = {*changed, *before.waiting}
    live, rows = live_side(context, tx, names, live_units)
    desired = desired_side(wanted, names)
    plan = plan_between(tx, live, desired, rows)
    usable = store.usable(tx, now)
    ready = decide.approved(plan.subjects, usable, teams=live.teams, now=now)
    waiting = [s for s in plan.subjects if s.digest not in ready]
    held = frozenset(s.scope for s in waiting)
    held_back = waiting_agents(plan, ready)
    # One that was renamed and waits goes on under the name it had.
    held_back |= {
        c.former: held_back[c.name]
        for c in plan.agents
        if c.former is not None and c.name in held_back
    }
    kept_back = frozenset(held_back)
    for subject in plan.subjects:
        # An agent that something else holds back has had nothing of its approval yet.
        if subject.digest in ready and subject.scope.removeprefix(store.AGENT) not in kept_back:
            _let_through(tx, subject, wanted.commit, now)
    last = store.newest_commit(tx) if waiting else None  # it looks through all that is in force
    _put_in_force(tx, wanted, names - kept_back, rows, now)
    _put_units(tx, desired.units, live_units, held, wanted.commit, now)
    _write_waiting(context, tx, wanted, last, waiting, usable, live.teams, now)
    fleet = restored(wanted.fleet, {name: unit.value for name, unit in live_units.items()}, held)
    found = replace(wanted, fleet=fleet, waiting=held_back)
    for name in wanted.broken.keys() - rows.keys():
        row = store.in_force_of(tx, store.AGENT + name)
        if row is not None:
            rows[name] = row
    forced = _with_kept(context, tx, found, kept_back, rows)
    return forced, None if changed is None else frozenset(names)


def live_side(
    context: Context, tx: Transaction, names: Iterable[AgentName], units: Mapping[str, Unit]
) -> tuple[Side, dict[AgentName, InForce]]:
    """What is live of these agents, and of everything shared.

    An agent's release is the one that is stable; before there is one, the one that was admitted.
    """
    agents: dict[AgentName, Standing] = {}
    rows: dict[AgentName, InForce] = {}
    for name in sorted(names):
        row = store.in_force_of(tx, store.AGENT + name)
        if row is None:
            continue
        rows[name] = row
        agents[name] = Standing(
            release=_live_release(tx, name, row), facts=_facts(context, name, row), place=row.place
        )
    teams, owners = people_of_units(units)
    live = Side(
        commit=None,
        agents=agents,
        units=units,
        teams=teams,
        owners=owners,
        size=store.count_of_agents(tx),
    )
    return live, rows


def _facts(context: Context, agent: AgentName, row: InForce) -> Mapping[str, Json]:
    """What is in force of an agent, as this version of the program tells it."""
    if row.format != FORMAT:
        earlier = at(context, row.commit)
        config = earlier.fleet.agents.get(agent) if earlier is not None else None
        if config is not None:
            return facts_of(config)
    return row.value if isinstance(row.value, dict) else {}


def _live_release(tx: Transaction, agent: AgentName, row: InForce) -> Release | None:
    pointer = rollouts.pointer(tx, agent)
    digest = pointer["stable"] if pointer is not None and pointer["stable"] else row.digest
    return _stored(tx, digest)  # what is not known counts as nothing: everything is new then


def _stored(tx: Transaction, digest: str) -> Release | None:
    try:
        return rollouts.release(tx, digest) if digest else None
    except LookupError:
        return None


def desired_side(wanted: Declared, names: Collection[AgentName]) -> Side:
    """What a commit asks for, of these agents and of everything shared."""
    fleet = wanted.fleet
    return Side(
        commit=wanted.commit,
        agents={
            name: standing_of(fleet.agents[name], wanted.releases[name])
            for name in sorted(names)
            if name in wanted.releases and name in fleet.agents
        },
        units=units_of(fleet),
        teams=dict(fleet.teams),
        owners=rules_of(fleet),
        broken={name: found for name, found in wanted.broken.items() if name in names},
        size=len(wanted.releases) + sum(1 for name in wanted.broken if name not in wanted.releases),
    )


def units_in_force(tx: Transaction) -> dict[str, Unit]:
    """Every shared setting in force; empty before the first commit was seen."""
    return {scope: Unit(row.value, row.place) for scope, row in store.units_in_force(tx).items()}


def retold_units(context: Context, tx: Transaction) -> dict[str, Unit]:
    """As `units_in_force`, told anew from their commits where another version stored them."""
    rows = store.units_in_force(tx)
    found = {scope: Unit(row.value, row.place) for scope, row in rows.items()}
    for scope, row in rows.items():
        if row.format != FORMAT and (earlier := at(context, row.commit)) is not None:
            told = units_of(earlier.fleet)
            if scope in told:
                found[scope] = told[scope]
    return found


def teams_in_force(tx: Transaction) -> dict[TeamName, TeamConfig]:
    """Who decides: the teams in force, not those a change brings along."""
    return people_of_units(units_in_force(tx))[0]


def _baseline(tx: Transaction, wanted: Declared, now: Millis) -> None:
    """Nothing was in force: the operator who sets this up vouches for what is there."""
    for name, unit in units_of(wanted.fleet).items():
        _put_unit(tx, name, unit, wanted.commit, now)
    _put_agents(tx, wanted, wanted.releases, now)
    audit.append(
        tx,
        now=now,
        actor="interlock",
        action="in_force.baseline",
        subject=wanted.commit,
        reason=f"the first commit seen: {len(wanted.releases)} agents as they are",
    )


def _put_unit(tx: Transaction, scope: str, unit: Unit, commit: str, now: Millis) -> None:
    place = unit.place or Place(INTERLOCK_FILE)
    store.put_in_force(tx, scope, unit.value, place=place, digest="", commit=commit, now=now)


def _put_agents(tx: Transaction, wanted: Declared, names: Iterable[AgentName], now: Millis) -> None:
    for name in names:
        standing = standing_of(wanted.fleet.agents[name], wanted.releases[name])
        store.put_in_force(
            tx,
            store.AGENT + name,
            dict(standing.facts),
            place=standing.place or Place(INTERLOCK_FILE),
            digest=wanted.releases[name].digest,
            commit=wanted.commit,
            now=now,
        )


def _put_in_force(
    tx: Transaction,
    wanted: Declared,
    names: Collection[AgentName],
    rows: Mapping[AgentName, InForce],
    now: Millis,
) -> None:
    """Agents that wait for nobody: what is said of them holds from now on."""

    def present(name: AgentName) -> bool:
        return name in wanted.releases or name in wanted.broken

    for name in sorted(names):
        former = wanted.fleet.agents[name].formerly if name in wanted.releases else None
        if former is not None and former in rows and not present(former) and name not in rows:
            rename(tx, former, name, now=now)
    _put_agents(tx, wanted, sorted(name for name in names if name in wanted.releases), now)
    for name in names:
        if name in rows and not present(name):
            store.take_out_of_force(tx, store.AGENT + name)


def _put_units(
    tx: Transaction,
    units: Mapping[str, Unit],
    live: Mapping[str, Unit],
    held: Collection[str],
    commit: str,
    now: Millis,
) -> None:
    """Shared settings that wait for nobody."""
    for scope in sorted({*units, *live} - {*held}):
        unit, before = units.get(scope), live.get(scope)
        if unit is None:
            store.take_out_of_force(tx, scope)
        elif before is None or before != unit:
            _put_unit(tx, scope, unit, commit, now)


def _let_through(tx: Transaction, subject: Subject, commit: str, now: Millis) -> None:
    used = store.consume(tx, subject.digest, commit=commit, now=now)
    if not used:
        return
    by = " and ".join(approval.actor for approval in used)
    audit.append(
        tx,
        now=now,
        actor="interlock",
        action="in_force.approved",
        agent=subject.agent,
        subject=store.waiting_id(subject),
        reason=f"{subject.scope} as of {commit[:12]}, approved by {by}",
    )


def _write_waiting(
    context: Context,
    tx: Transaction,
    wanted: Declared,
    before: str | None,
    waiting: Collection[Subject],
    usable: list[decide.Approval],
    teams: Mapping[TeamName, TeamConfig],
    now: Millis,
) -> None:
    lacking = [(s, decide.lacking(s, usable, teams=teams, now=now)) for s in waiting]
    fresh, _ = store.write_waiting(
        tx,
        lacking,
        authors=_authors(context, before, wanted.commit) if waiting else (),
        commit=wanted.commit,
        now=now,
    )
    for subject, needed in lacking:
        if subject.scope not in fresh:
            continue
        asked = " and ".join(
            " or ".join(owners) or "an operator (nobody owns it)" for owners in needed
        )
        audit.append(
            tx,
            now=now,
            actor="interlock",
            action="in_force.waits",
            agent=subject.agent,
            subject=store.waiting_id(subject),
            reason=f"{subject.scope} keeps what it was; needs {asked}: {subject.told}",
        )


def _authors(context: Context, before: str | None, commit: str) -> tuple[str, ...]:
    """Everybody who wrote something that came to the branch since something last came in force."""
    known = context.config.resolve(before) if before is not None else None
    head = CommitId(ObjectId(commit))
    commits = (
        commits_between(context.config, known, head)
        if known is not None
        else (context.config.commit_info(head),)
    )
    return authors_of(Login(""), commits)[1:]


def _with_kept(
    context: Context,
    tx: Transaction,
    found: Declared,
    kept_back: Collection[AgentName],
    rows: Mapping[AgentName, InForce],
) -> Declared:
    """The declaration with agents that wait as they were at the commit that is in force for them.

    One that was never in force is not there at all. An agent in error keeps its schedule and its
    rights from that commit too, because its stable release goes on.
    """
    if not kept_back and not found.broken:
        return found
    before = context.declared
    agents: dict[AgentName, AgentConfig] = dict(found.fleet.agents)
    releases = dict(found.releases)
    sentinels = dict(found.sentinels)
    kept: dict[AgentName, Kept] = {}
    tightened: dict[AgentName, AgentConfig] = {}
    for name in sorted({*kept_back, *found.broken}):
        if name in agents and name in releases:
            tightened[name] = agents[name]
        for mapping in (agents, releases, sentinels):
            mapping.pop(name, None)
        earlier = at(context, rows[name].commit) if name in rows else None
        if earlier is None or name not in earlier.fleet.agents:
            if name in found.broken and before is not None and name in before.fleet.agents:
                agents[name] = before.fleet.agents[name]
            continue
        agents[name] = earlier.fleet.agents[name]
        if name in found.broken:
            continue
        # The very release that was let through, not what its commit would compile to today.
        releases[name] = _stored(tx, rows[name].digest) or earlier.releases[name]
        kept[name] = Kept(earlier.commit, earlier.tree)
        if name in earlier.sentinels:
            sentinels[name] = earlier.sentinels[name]
    return replace(
        found,
        fleet=replace(found.fleet, agents=dict(sorted(agents.items()))),
        releases=dict(sorted(releases.items())),
        sentinels=sentinels,
        kept=kept,
        tightened=tightened,
    )
