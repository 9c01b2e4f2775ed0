"""What differs between the shared settings of two sides, and which of it is looser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway.values import Json, content_hash
from reconciler.findings import Place
from reconciler.fleet.owners import FLEET_FILE
from reconciler.plan import phrases
from reconciler.plan.changes import Kind, UnitChange
from reconciler.plan.directions import TABLE, Difference, compare
from reconciler.plan.model import Loosening, Side, Subject, Unit
from reconciler.plan.people import Asked
from reconciler.plan.phrases import record, texts, tick, ticks
from reconciler.plan.sides import HOMES

GRANTS = frozenset(
    {
        "provider",
        "model",
        "virtual-model",
        "server",
        "tool",
        "image",
        "team",
        "cache",
        "principal",
    }
)
"""Kinds whose appearance can be used to do something that nobody could do before; their removal
takes it away. All other kinds that are known restrict: it is the other way round."""
RESTRICTS = frozenset({"budget", "rate-limit", "guardrail", "fingerprint", "rollout"})
UNUSED_REMOVED = frozenset({"rollout"})
"""A rollout policy that goes away restricted nobody: agents that used it name another one now, and
that is compared for each of them."""


@dataclass(frozen=True, slots=True)
class Shared:
    """All changed units, and the subjects of those that are looser."""

    changes: tuple[UnitChange, ...]
    subjects: Mapping[str, Subject]

    @property
    def looser(self) -> dict[str, frozenset[str]]:
        """Changed unit → which of its fields became looser."""
        return {change.name: change.loose_paths for change in self.changes}

    @property
    def paths(self) -> dict[str, frozenset[str]]:
        """Changed unit → which of its fields differ."""
        return {change.name: change.paths for change in self.changes}


def compare_units(live: Side, desired: Side, asked: Asked) -> Shared:
    """Every unit that differs in value, or that moved into a file with other owners."""
    changes: list[UnitChange] = []
    subjects: dict[str, Subject] = {}
    for name in sorted({*live.units, *desired.units}):
        before, after = live.units.get(name), desired.units.get(name)
        if before is not None and after is not None and before.value == after.value:
            differences = tuple(_moved(before, after, asked))
        else:
            differences = tuple(_differences(name, before, after))
        if not differences:
            continue
        place = _place(name, after or before)
        changes.append(
            UnitChange(
                name=name,
                kind=_kind(before, after),
                texts=tuple(one.text for one in differences),
                looser=tuple(one.looser for one in differences),
                place=place,
                paths=frozenset(one.path for one in differences),
                loose_paths=frozenset(one.path for one in differences if one.looser),
            )
        )
        subject = _subject(name, before, after, differences, asked)
        if subject is not None:
            subjects[name] = subject
    return Shared(tuple(changes), subjects)


def _subject(
    name: str,
    before: Unit | None,
    after: Unit | None,
    differences: tuple[Difference, ...],
    asked: Asked,
) -> Subject | None:
    place, stricter = _place(name, after or before), before.place if before else None
    # Where the live one stands, never where a change puts it: that could be anybody's file.
    owners = asked.about(_place(name, before or after))
    loosenings = tuple(
        Loosening(name, _id(one.path, before, after), one.text, place, stricter, owners)
        for one in differences
        if one.looser
    )
    if not loosenings:
        return None
    return Subject(name, _hash(before), _hash(after), loosenings)


def _differences(name: str, before: Unit | None, after: Unit | None) -> Iterator[Difference]:
    kind = name.partition("/")[0]
    if before is None and after is not None:
        yield Difference("", f"new: {_told(kind, after.value)}", kind not in RESTRICTS)
    elif after is None and before is not None:
        free = kind in GRANTS or kind in UNUSED_REMOVED
        yield Difference("", f"removed (was {_told(kind, before.value)})", not free)
    elif before is not None and after is not None:
        if name == "owners/rules":
            yield from _owners(before.value, after.value)
        else:
            table = name if name in TABLE else kind
            yield from compare(table, before.value, after.value)


def _moved(before: Unit, after: Unit, asked: Asked) -> Iterator[Difference]:
    """Whoever owns the file decides next time: moving a setting can change who that is."""
    if before.place is None or after.place is None or before.place.file == after.place.file:
        return
    if asked.about(before.place) != asked.about(after.place):
        text = f"moved from {tick(before.place.file)} to {tick(after.place.file)}: other owners"
        yield Difference("place", text, looser=True)


def _owners(before: Json, after: Json) -> Iterator[Difference]:
    """Any change of who owns what: order counts, and less for one is more for another."""
    old, new = _rules(before), _rules(after)
    for pattern in [*old, *(pattern for pattern in new if pattern not in old)]:
        if old.get(pattern) != new.get(pattern):
            told = [ticks(old[pattern]) if old.get(pattern) else "nobody",
                    ticks(new[pattern]) if new.get(pattern) else "nobody"]  # fmt: skip
            yield Difference(pattern, f"{tick(pattern)}: {told[0]} → {told[1]}", looser=True)
    if old == new:
        text = "rules in another order, or in another file: the last one that matches decides"
        yield Difference("order", text, looser=True)


def _rules(value: Json) -> dict[str, tuple[str, ...]]:
    rules = [record(rule) for rule in value] if isinstance(value, list) else []
    return {str(rule.get("pattern")): texts(rule.get("owners")) for rule in rules}


def _told(kind: str, value: Json) -> str:
    """A whole unit in a few words: where it goes, what it may do, what it limits."""
    fields = record(value)
    if kind in ("provider", "server"):
        return _end(fields)
    if kind == "model":
        return f"{tick(fields.get('id'))} of {tick(fields.get('provider'))}"
    if kind == "virtual-model":
        return ticks(texts(fields.get("targets")))
    if kind == "tool":
        return tool_told(fields)
    if kind == "budget":
        each = " for each agent" if fields.get("each_agent") else ""
        return f"{_limits(fields)} per {tick(fields.get('window'))}{each}"
    if kind == "team":
        return f"members {ticks(texts(fields.get('members'))) or 'none'}"
    if kind == "rollout":
        gate = "a gate" if fields.get("gate") else "no gate"
        return f"{gate}, {'a canary' if fields.get('canary') else 'no canary'}"
    if kind in ("rate-limit", "guardrail"):
        return f"mode {tick(fields.get('mode'))}"
    if kind == "cache":
        kept = phrases.duration(fields.get("ttl_ms"))
        return f"answers are kept for {kept}, shared within one {tick(fields.get('namespace'))}"
    if kind == "principal":
        reach = [*texts(fields.get("models")), *texts(fields.get("tools"))]
        return f"of team {tick(fields.get('team'))}, {ticks(reach)}"
    return phrases.plain(value)


def _end(fields: Mapping[str, Json]) -> str:
    """A provider or server: where it is, and with which secret."""
    if texts(fields.get("command")):
        secrets = [phrases.secret(found) for found in record(fields.get("env")).values()]
        return f"the command {phrases.command(fields.get('command'))}, " + (
            phrases.listed(secrets) if secrets else "no secret"
        )
    where = fields.get("base_url") or fields.get("url")
    to = tick(where) if where else "no network"
    oauth = record(fields.get("oauth"))
    if oauth:
        return f"{to}, tokens from {tick(oauth.get('token_url'))}"
    return f"{to}, {phrases.secret(fields.get('key'))}"


def _limits(fields: Mapping[str, Json]) -> str:
    """What a budget limits: `$5.00 and 100 requests`."""
    parts = [phrases.money(fields["limit"])] if fields.get("limit") is not None else []
    counted = (what for what in ("tokens", "requests") if fields.get(what) is not None)
    parts += [f"{phrases.number(fields[what])} {what}" for what in counted]
    return phrases.listed(parts) or phrases.NOTHING


def tool_told(tool: Mapping[str, Json]) -> str:
    """What a tool does to the world, and who could have written and may read its results."""
    access = "+".join(texts(tool.get("access"))) or "nothing"
    trusted = "trusted" if tool.get("trusted") else "untrusted"
    return f"{access}; {trusted}, {tool.get('sensitivity')} results"


def _kind(before: Unit | None, after: Unit | None) -> Kind:
    return "new" if before is None else "removed" if after is None else "changed"


def _id(path: str, before: Unit | None, after: Unit | None) -> str:
    if before is None or after is None:
        return _kind(before, after)
    return f"changed {path}".strip()


def _place(name: str, unit: Unit | None) -> Place:
    """Where a unit stands; where its kind stands by convention when that was not kept."""
    if unit is not None and unit.place is not None:
        return unit.place
    return Place(HOMES.get(name.partition("/")[0], FLEET_FILE))


def _hash(unit: Unit | None) -> str:
    return content_hash(unit.value) if unit is not None else ""
