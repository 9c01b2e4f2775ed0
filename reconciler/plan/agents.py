"""What differs between one agent that is live and the same agent as a commit asks for it.

Two questions are answered together, because they look at the same values: what a reviewer should
see, and what somebody must approve. A value that an agent only inherits belongs to the level that
it comes from: there it is asked for once, and the agent waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.values import AgentName, Json, content_hash
from reconciler.findings import Finding, Place
from reconciler.plan import capabilities, facts, leaves
from reconciler.plan.capabilities import Power, capability
from reconciler.plan.changes import AgentChange, Capability
from reconciler.plan.coverage import uncovered
from reconciler.plan.desk import Context, Desk
from reconciler.plan.directions import compare
from reconciler.plan.model import Loosening, Standing, Subject
from reconciler.plan.phrases import plural, record, texts, tick
from reconciler.plan.reach import Reach, reach_of
from reconciler.plan.sides import HOMES
from reconciler.plan.trifecta import compare_leaks

WAITS = "pause_for_human"
"""What an approval says in defaults."""
NONE = Standing(release=None, facts={})


@dataclass(frozen=True, slots=True)
class Compared:
    """The outcome for one agent. `scopes` are units that its changed values come from.

    `change` is None when there is nothing to tell: all that differs is told of one of the units.
    """

    name: AgentName
    former: AgentName | None
    change: AgentChange | None
    gained: tuple[Capability, ...]
    lost: tuple[Capability, ...]
    subject: Subject | None
    scopes: frozenset[str]
    leaks: tuple[Finding, ...] = ()
    collisions: tuple[Finding, ...] = ()


def compare_agent(
    context: Context,
    name: AgentName,
    before: Standing | None,
    after: Standing,
    *,
    former: AgentName | None = None,
) -> Compared:
    """The difference of one agent. `before` None: a new agent; `former`: the name it had live."""
    old = before or NONE
    desk = Desk(context, name, old, after, new=before is None)
    then, now = reach_of(old, context.live.units), reach_of(after, context.desired.units)
    powers = capabilities.gained(then, now, new=desk.new)
    _powers(desk, powers, then, now)
    _destructive(desk, then, now)
    leaks = compare_leaks(desk, then, now)
    changed = leaves.changed_between(old.release, after.release) if after.release else {}
    if not desk.new:
        _leaves(desk, changed)
        facts.compare_facts(desk)
    else:
        facts.introduce(desk)
    _uses(desk, changed)
    subject = None
    if desk.found:
        digest = after.release.digest if after.release else ""
        subject = Subject(
            scope=f"agent/{name}",
            before=str(old.release.digest) if old.release else "",
            after=f"{digest}+{content_hash(dict(after.facts))[:12]}",
            loosenings=tuple(sorted(set(desk.found), key=_order)),
        )
    change = None
    if changed or desk.settings or subject or desk.new or former is not None:
        change = AgentChange(
            name=name,
            kind="new" if desk.new else "changed" if former is None else "renamed",
            team=str(after.facts.get("team")),
            place=desk.place,
            before=str(old.release.digest) if old.release else "",
            after=str(after.release.digest) if after.release else "",
            leaves=leaves.told(changed, new=desk.new),
            settings=tuple(desk.settings),
            former=former,
        )
    return Compared(
        name=name,
        former=former,
        change=change,
        gained=tuple(sorted(capability(name, power) for power in powers)),
        lost=tuple(sorted(capability(name, power) for power in capabilities.lost(then, now))),
        subject=subject,
        scopes=frozenset(desk.scopes),
        leaks=leaks if change is not None else (),
        collisions=tuple(desk.collisions),
    )


def _order(one: Loosening) -> tuple[str, str, str, int, int, tuple[str, ...]]:
    place = one.stricter or one.place
    return one.kind, one.text, place.file, place.line, place.column, one.owners


def _powers(
    desk: Desk, powers: tuple[Power, ...], then: Mapping[str, Reach], now: Mapping[str, Reach]
) -> None:
    for power in powers:
        if not power.asked:
            continue
        if power.kind == "approval" and _level_approval(desk, power.tool):
            continue
        if power.kind == "model" and power.role in then and power.role in now:
            old, new = then[power.role].model, now[power.role].model
            if desk.inherited("model", old, new):
                continue
        role = "" if power.role == "main" else f"{tick(power.role)}: "
        desk.loosen(power.kind, f"{role}{power.text}", f"{power.kind}s.{power.tool}")


def _level_approval(desk: Desk, tool: str) -> bool:
    """Whether the approval that is dropped was a level's, and the agent had none of its own.
    Approvals are written by `server.tool` or by the tool's name alone."""
    paths = [f"approvals.{tool}", f"approvals.{tool.partition('.')[2]}"]
    if set(paths) & set(texts(desk.before.facts.get("approvals"))):
        return False
    return any(desk.inherited(path, WAITS, None) for path in paths)


def _destructive(desk: Desk, then: Mapping[str, Reach], now: Mapping[str, Reach]) -> None:
    """What cannot be undone is not the loop's owners' business alone: whoever wrote the org-wide
    list of destructive tools is asked too."""
    unit = desk.context.live.units.get("destructive/list")
    place = (unit.place if unit is not None else None) or Place(HOMES["destructive"])
    for role, reach in now.items():
        had = then[role].tools if role in then else {}
        for name, tool in reach.tools.items():
            if "destructive" in tool.dangers and name not in had:
                who = "" if role == "main" else f"{tick(role)}: "
                text = f"{who}{tick(name)} is destructive"
                owners = desk.context.asked.about(place)
                desk.found.append(
                    Loosening(f"agent/{desk.name}", "destructive", text, desk.place, place, owners)
                )


def _leaves(desk: Desk, changed: Mapping[str, tuple[Json, Json]]) -> None:
    """Leaves that hold settings, field by field. Texts and powers are not settings."""
    for path, (old, new) in changed.items():
        last = path.rpartition("/")[2]
        if path == "safety":
            gone = _gone(old, new)
            if gone:
                desk.loosen("safety", f"{plural(gone, 'safety check')} removed or changed")
        elif last == "limits" and path != "limits":
            _sub_limits(desk, path, old, new)
        elif last in leaves.SETTINGS:
            _settings(desk, path, last, old, new)
        elif not leaves.known(path):
            desk.loosen("unknown", f"{tick(path)} differs, and this version does not know it")


def _settings(desk: Desk, path: str, table: str, old: Json, new: Json) -> None:
    for one in compare(table, old, new):
        origin = leaves.origin_path(table, one.path)
        if table == "sandbox" and one.path == "image":
            image = desk.after.facts.get("image")
            if image == desk.before.facts.get("image"):
                desk.scopes.add(f"image/{image}")
                continue
        before, after = record(old).get(one.path), record(new).get(one.path)
        if one.path == "image":
            before, after = (desk.before.facts.get("image"), desk.after.facts.get("image"))
        if one.looser and not desk.inherited(origin, before, after):
            prefix = path if table in ("workspace", "until") else ""
            kind = f"{table} {one.path}".strip()
            desk.loosen(kind, f"{prefix} {one.text}".strip(), origin, before)


def _sub_limits(desk: Desk, path: str, old: Json, new: Json) -> None:
    """A sub-agent without limits of its own has the run's: those are compared once, for the run."""
    run_old = record(desk.before.release.leaves.get("limits")) if desk.before.release else {}
    run_new = record(desk.after.release.leaves.get("limits")) if desk.after.release else {}
    if old is None or new is None:
        return
    for one in compare("limits", old, new):
        shared = record(old).get(one.path) == run_old.get(one.path)
        if shared and record(new).get(one.path) == run_new.get(one.path):
            continue
        if one.looser:
            role = tick(path.split("/")[1])
            desk.loosen(f"limits {one.path}", f"{role}: {one.text}")


def _uses(desk: Desk, changed: Mapping[str, tuple[Json, Json]]) -> None:
    """Units that what changed depends on: unapproved, they hold the agent back with them."""
    units = desk.context.desired.units
    for path, (_, new) in changed.items():
        parts = path.split("/")
        if new is None:
            continue
        if parts[-2:-1] == ["tools"]:
            tool = parts[-1]
            server = tool.partition(".")[0]
            desk.scopes |= {f"server/{server}", f"tool/{tool}", f"fingerprint/{tool}"}
            desk.scopes.add("destructive/list")
        elif parts[-1] == "model" and len(parts) > 1:
            model = record(new)
            desk.scopes.add(f"virtual-model/{model.get('name')}")
            listed = model.get("targets")
            for target in listed if isinstance(listed, list) else []:
                name = f"model/{record(target).get('name')}"
                desk.scopes.add(name)
                unit = units.get(name)
                if unit is not None:
                    desk.scopes.add(f"provider/{record(unit.value).get('provider')}")
    if desk.new or desk.before.facts.get("image") != desk.after.facts.get("image"):
        desk.scopes.add(f"image/{desk.after.facts.get('image')}")
    team = f"team/{desk.after.facts.get('team')}"
    restricted = any(path.startswith("uses") for path in desk.context.looser.get(team, ()))
    # What a team may use was checked by what the change says of the team, approved or not.
    if desk.new or desk.before.facts.get("team") != desk.after.facts.get("team") or restricted:
        desk.scopes.add(team)
    if desk.new:
        desk.scopes.add("fleet/defaults")
    before = record(desk.before.facts.get("rollout")).get("name")
    after = record(desk.after.facts.get("rollout")).get("name")
    if before != after:
        desk.scopes.add(f"rollout/{after}")
    for rule in uncovered(desk.context.live, desk.name, desk.before, desk.after):
        desk.loosen("uncovered", rule)


def _gone(old: Json, new: Json) -> int:
    before = old if isinstance(old, list) else []
    after = new if isinstance(new, list) else []
    return sum(1 for check in before if check not in after)


def told_all(changes: Iterable[AgentChange]) -> tuple[AgentChange, ...]:
    """In the order they are read: new, renamed, changed, removed; each by name."""
    order = ("new", "renamed", "changed", "removed")
    return tuple(sorted(changes, key=lambda c: (order.index(c.kind), c.name)))
