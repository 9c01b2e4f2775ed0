"""The plan: what is live against what a commit asks for.

Pure and deterministic: two equal pairs of sides give the same bytes, whatever the order in which
anything was read. Agents that are the same on both sides cost one comparison of two digests.
"""

from __future__ import annotations

from gateway.values import AgentName, content_hash
from reconciler.findings import Place, tidy
from reconciler.fleet.owners import FLEET_FILE
from reconciler.plan import money
from reconciler.plan.agents import Compared, compare_agent, told_all
from reconciler.plan.capabilities import capability, lost
from reconciler.plan.changes import AgentChange, Capability, Plan
from reconciler.plan.desk import Context
from reconciler.plan.facts import claims_of
from reconciler.plan.model import Loosening, Side, Standing, Subject
from reconciler.plan.people import Asked
from reconciler.plan.phrases import plural, ticks
from reconciler.plan.reach import reach_of
from reconciler.plan.units import Shared, compare_units

FLEET_AGENTS = "fleet/agents"
"""The scope of removing most of a fleet."""
FEWEST_REMOVED = 3
"""Fewer agents than this can be removed without asking, whatever share of the fleet they are."""


def diff(live: Side, desired: Side) -> Plan:
    """Everything that differs, and what of it needs whose approval.

    A live side with nothing in it is a first commit: it is the baseline, and nobody is asked.
    Agents that are broken on the desired side keep what is live; they are neither changed nor
    removed.

    A side may hold only the agents that can differ, and then says its `size`; the plan is the same
    but for the fleet's sums of money, which are left at 0.
    """
    asked = Asked(live)
    shared = compare_units(live, desired, asked)
    context = Context(live, desired, asked, shared.paths, shared.looser, _dropped(live, desired))
    compared, formers = _agents(context)
    gone = _removed(live, desired, formers)
    subjects = {
        **shared.subjects,
        **{c.subject.scope: c.subject for c in compared if c.subject is not None},
    }
    wiped = _wiped(live, gone, asked)
    if wiped is not None:
        subjects[wiped.scope] = wiped
    if not live.agents and not live.units:
        subjects = {}
    return Plan(
        live=live.commit,
        desired=desired.commit,
        agents=told_all([*(c.change for c in compared if c.change), *map(_removal, gone.items())]),
        units=shared.changes,
        gained=tuple(sorted(power for c in compared for power in c.gained)),
        lost=tuple(sorted([*(power for c in compared for power in c.lost), *_all_of(gone, live)])),
        money=money.compare_money(live, desired, _pairs(live, desired, shared, compared, gone)),
        collisions=tidy(
            [
                *(set(desired.collisions) - set(live.collisions)),
                *(finding for c in compared for finding in c.collisions),
            ]
        ),
        leaks=tidy(finding for c in compared for finding in c.leaks),
        broken={name: tidy(desired.broken[name]) for name in sorted(desired.broken)},
        subjects=tuple(subjects[scope] for scope in sorted(subjects)),
        depends=_depends(compared, gone, subjects),
    )


def _agents(context: Context) -> tuple[list[Compared], dict[AgentName, AgentName]]:
    """Every agent that differs, and the former names of those that were renamed."""
    live, desired = context.live, context.desired
    found: list[Compared] = []
    formers: dict[AgentName, AgentName] = {}
    for name in sorted(desired.agents):
        after = desired.agents[name]
        before = live.agents.get(name)
        if before is not None and same(before, after):
            continue
        former = _former(live, desired, after) if before is None else None
        if former is not None:
            before = live.agents[former]
            formers[name] = former
        found.append(compare_agent(context, name, before, after, former=former))
    return found, formers


def same(before: Standing, after: Standing) -> bool:
    """Whether nothing of an agent differs. The cheapest question first: it is asked of them all."""
    if before is after:
        return True
    one, other = before.release, after.release
    if one is not other and (one is None or other is None or one.digest != other.digest):
        return False
    return before.facts is after.facts or before.facts == after.facts


def _former(live: Side, desired: Side, after: Standing) -> AgentName | None:
    """The live agent that this one was; an agent that is still there is somebody else."""
    named = after.facts.get("formerly")
    former = AgentName(named) if isinstance(named, str) else None
    there = former in desired.agents or former in desired.broken
    return former if former in live.agents and not there else None


def _dropped(live: Side, desired: Side) -> tuple[tuple[AgentName, str, str], ...]:
    """Claims whose owners do not make them any more; those of a renamed agent go with it."""
    formers = {
        _former(live, desired, after)
        for name, after in desired.agents.items()
        if name not in live.agents
    }
    found = []
    for name in sorted(live.agents):
        before, after = live.agents[name], desired.agents.get(name)
        if name in desired.broken or name in formers or (after and same(before, after)):
            continue
        kept = {key for key, _ in claims_of(after.facts)} if after is not None else set()
        found += [(name, *key) for key, _ in claims_of(before.facts) if key not in kept]
    return tuple(found)


def _removed(
    live: Side, desired: Side, formers: dict[AgentName, AgentName]
) -> dict[AgentName, Standing]:
    kept = {*desired.agents, *desired.broken, *formers.values()}
    return {name: live.agents[name] for name in sorted(live.agents) if name not in kept}


def _removal(item: tuple[AgentName, Standing]) -> AgentChange:
    name, before = item
    return AgentChange(
        name=name,
        kind="removed",
        team=str(before.facts.get("team")),
        place=before.place or Place(str(before.facts.get("file"))),
        before=str(before.release.digest) if before.release else "",
        after="",
    )


def _all_of(gone: dict[AgentName, Standing], live: Side) -> list[Capability]:
    return [
        capability(name, power)
        for name, standing in gone.items()
        for power in lost(reach_of(standing, live.units), {})
        if power.kind == "tool"
    ]


def _wiped(live: Side, gone: dict[AgentName, Standing], asked: Asked) -> Subject | None:
    """More than half of the fleet, and at least three: more likely a mistake than a wish.

    Bound to who is removed, not to who stays: a fleet that grows meanwhile needs no second yes.
    """
    size = len(live.agents) if live.size is None else live.size
    if len(gone) < FEWEST_REMOVED or 2 * len(gone) <= size:
        return None
    place = Place(FLEET_FILE)
    text = f"removes most of the fleet, {plural(len(gone), 'agent')}: {ticks(gone)}"
    loosening = Loosening(FLEET_AGENTS, "removed", text, place, place, asked.about(place))
    return Subject(FLEET_AGENTS, content_hash([*sorted(gone)]), "", (loosening,))


def _pairs(
    live: Side,
    desired: Side,
    shared: Shared,
    compared: list[Compared],
    gone: dict[AgentName, Standing],
) -> list[tuple[AgentName, AgentName | None]]:
    """Agents whose bill can differ: the changed ones; all of them when a budget changes."""
    pairs = {c.name: c.former for c in compared} | dict.fromkeys(gone)
    if any(change.name.startswith("budget/") for change in shared.changes):
        pairs = {**dict.fromkeys([*live.agents, *desired.agents]), **pairs}
        for former in {former for former in pairs.values() if former is not None}:
            pairs.pop(former, None)
    return [(name, pairs[name]) for name in sorted(pairs) if name not in desired.broken]


def _depends(
    compared: list[Compared], gone: dict[AgentName, Standing], subjects: dict[str, Subject]
) -> dict[AgentName, frozenset[str]]:
    found: dict[AgentName, frozenset[str]] = {}
    for one in compared:
        wanted = {f"agent/{one.name}", *one.scopes} & subjects.keys()
        if wanted:
            found[one.name] = frozenset(wanted)
    if FLEET_AGENTS in subjects:
        found |= {name: frozenset({FLEET_AGENTS}) for name in gone}
    return found
