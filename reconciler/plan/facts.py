"""What differs of an agent beside its release: owner, trigger, rollout policy, claims, evals."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.values import AgentName, Json, TeamName
from reconciler.config.globs import MOST_STEPS, Meter, can_meet
from reconciler.findings import Finding, Place, Severity, quoted
from reconciler.plan import weaker
from reconciler.plan.desk import Desk
from reconciler.plan.directions import compare
from reconciler.plan.model import Loosening
from reconciler.plan.money import daily, yearly
from reconciler.plan.phrases import plural, record, texts, tick, ticks

KNOWN_FACTS = frozenset(
    {
        "file", "team", "image", "workspace", "trigger", "rollout", "owns", "suite", "formerly",
        "approvals", "tags",
    }
)  # fmt: skip
"""`image` and `workspace` are told by the leaves of the release; `formerly` by the rename."""


def compare_facts(desk: Desk) -> None:
    """Settings that differ, and which of them are looser."""
    old, new = desk.before.facts, desk.after.facts
    if old == new:
        return
    _file(desk, old, new)
    if old.get("team") != new.get("team"):
        text = f"team {tick(old.get('team'))} → {tick(new.get('team'))}"
        desk.settings.append(text)
        desk.loosen("team", text, "team")
        _joins(desk, str(new.get("team")))
    _tags(desk, texts(old.get("tags")), texts(new.get("tags")))
    _trigger(desk, record(old.get("trigger")), record(new.get("trigger")))
    _rollout(desk, record(old.get("rollout")), record(new.get("rollout")))
    _claims(desk, old, new)
    _suite(desk, old.get("suite"), new.get("suite"))
    for key in sorted({*old, *new} - KNOWN_FACTS):
        if old.get(key) != new.get(key):
            text = f"{tick(key)} differs, and this version does not know it"
            desk.settings.append(text)
            desk.loosen("unknown", text)


def _tags(desk: Desk, old: tuple[str, ...], new: tuple[str, ...]) -> None:
    """Budgets match on tags: one that goes can be the way out of one."""
    plus, minus = sorted(set(new) - set(old)), sorted(set(old) - set(new))
    if plus or minus:
        parts = [f"+ {ticks(plus)}"] if plus else []
        parts += [f"− {ticks(minus)}"] if minus else []
        desk.settings.append(f"tags {', '.join(parts)}")
    if minus:
        desk.loosen("tags", f"tags − {ticks(minus)}", "tags")


def _joins(desk: Desk, team: str) -> None:
    """Whoever takes an agent in is asked too: it may use and spend what they may from then on. A
    team that is new is asked for as such."""
    known = desk.context.live.teams.get(TeamName(team))
    if known is not None and known.members:
        text = f"joins team {tick(team)}"
        desk.found.append(Loosening(f"agent/{desk.name}", "team", text, desk.place, None, (team,)))


def _file(desk: Desk, old: Mapping[str, Json], new: Mapping[str, Json]) -> None:
    if old.get("file") == new.get("file"):
        return
    desk.settings.append(f"moved from {tick(old.get('file'))} to {tick(new.get('file'))}")
    before, after = (Place(str(facts.get("file"))) for facts in (old, new))
    if desk.context.asked.about(before) != desk.context.asked.about(after):
        desk.loosen("owner", f"its file moves to {tick(after.file)}, which others own")


def _trigger(desk: Desk, old: Mapping[str, Json], new: Mapping[str, Json]) -> None:
    if old == new:
        return
    text = f"trigger {told_trigger(old)} → {told_trigger(new)}"
    desk.settings.append(text)
    if _starts_more(old, new):
        desk.loosen("trigger", text, "trigger")


def _starts_more(old: Mapping[str, Json], new: Mapping[str, Json]) -> bool:
    """A kind of start that it did not have, or a schedule that is due more often."""
    kind = new.get("kind")
    if kind == "manual":
        return False
    if kind != old.get("kind") or kind != "schedule":
        more = set(texts(new.get("after"))) - set(texts(old.get("after")))
        return kind != old.get("kind") or bool(more) or new.get("what") != old.get("what")
    before, after = str(old.get("schedule")), str(new.get("schedule"))
    return daily(after) > daily(before) or yearly(after) > yearly(before)


def told_trigger(trigger: Mapping[str, Json]) -> str:
    """A trigger in words: `0 6 * * 1-5` Europe/Berlin, by hand, after `other`."""
    kind = trigger.get("kind")
    if kind == "schedule":
        return f"{tick(trigger.get('schedule'))} {tick(trigger.get('timezone'))}"
    if kind == "manual":
        return "by hand"
    if kind == "after":
        return f"after {ticks(texts(trigger.get('after')))}"
    what = trigger.get("what")
    return f"{kind} {tick(what)}" if what else str(kind)


def _rollout(desk: Desk, old: Mapping[str, Json], new: Mapping[str, Json]) -> None:
    if old == new:
        return
    name = new.get("name")
    if name == old.get("name") and f"rollout/{name}" in desk.context.paths:
        desk.scopes.add(f"rollout/{name}")
        unit = desk.context.live.units.get(f"rollout/{name}")
        if unit is not None and unit.value == old:
            return  # asked for there, once for all that use it
    if name != old.get("name"):
        desk.settings.append(f"rollout policy {tick(old.get('name'))} → {tick(name)}")
        if desk.inherited("rollout", old.get("name"), name):
            return
    differences = compare("rollout", dict(old), dict(new))
    if name == old.get("name"):
        desk.settings += [f"rollout policy: {one.text}" for one in differences]
    for one in differences:
        if one.looser:
            desk.loosen(f"rollout {one.path}", f"rollout {one.text}", "rollout", old.get("name"))


def _claims(desk: Desk, before: Mapping[str, Json], after: Mapping[str, Json]) -> None:
    old, new = dict(claims_of(before)), dict(claims_of(after))
    for key in sorted(set(old) - set(new)):
        desk.settings.append(f"owns {tick(key[1])} no longer")
    for key in sorted(set(new)):
        claim = new[key]
        if old.get(key) == claim:
            continue
        giver, taker = claim.get("taken_from"), claim.get("given_to")
        if key not in old:
            desk.settings.append(f"owns {tick(key[1])}")
            if giver is None:
                _unasked(desk, key)
        if giver is not None:
            text = f"takes over {tick(key[1])} from {tick(giver)}"
            desk.settings.append(text)
            _taken(desk, text, AgentName(str(giver)))
        if taker is not None:
            desk.settings.append(f"hands {tick(key[1])} over to {tick(taker)}")


def _taken(desk: Desk, text: str, giver: AgentName) -> None:
    """Whoever owned the thing is asked: the owners of the giver's file."""
    standing = desk.context.live.agents.get(giver)
    file = standing.facts.get("file") if standing is not None else None
    place = standing.place if standing is not None else None
    place = place or (Place(file) if isinstance(file, str) else desk.live_place)
    owners = desk.context.asked.about(place)
    desk.found.append(Loosening(f"agent/{desk.name}", "claim", text, desk.place, place, owners))


def _unasked(desk: Desk, key: tuple[str, str]) -> None:
    """A claim that was another agent's, which dropped it in the same change and did not hand it
    over: whoever owned it is asked all the same."""
    realm, pattern = key
    meter = Meter(MOST_STEPS)
    for holder, of, theirs in desk.context.dropped:
        if of != realm or holder == desk.name:
            continue
        # What could not be compared any more counts as the same.
        if not meter.ended and not can_meet(pattern, theirs, meter=meter):
            continue
        text = f"claims {tick(pattern)}, which {tick(holder)} owns and did not hand over"
        _taken(desk, text, holder)
        place = desk.place
        desk.collisions.append(
            Finding(
                "claim-taken",
                Severity.WARNING,
                *(place.file, place.line, place.column),
                f"{quoted(desk.name)} claims {quoted(pattern)}, which is {quoted(holder)}'s "
                "as it is live",
                f"hand it over: {{claim: {quoted(theirs)}, to: {desk.name}}} there, "
                f"{{claim: {quoted(pattern)}, from: {holder}}} here",
            )
        )


def claims_of(facts: Mapping[str, Json]) -> list[tuple[tuple[str, str], dict[str, Json]]]:
    """((realm, pattern), claim) of everything an agent says it owns."""
    value = facts.get("owns")
    claims = [record(claim) for claim in value] if isinstance(value, list) else []
    return [((str(claim.get("realm")), str(claim.get("pattern"))), claim) for claim in claims]


def _suite(desk: Desk, old: Json, new: Json) -> None:
    if record(old).get("digest") == record(new).get("digest"):
        return
    if old is None:
        cases = len(record(record(new).get("cases")))
        desk.settings.append(f"evals: a suite of {plural(cases, 'case')}")
    desk.settings += [f"evals: {text}" for text in weaker.stronger(old, new)] if old else []
    found = weaker.weaker(old, new)
    if not found and old is not None and not weaker.stronger(old, new):
        desk.settings.append("evals: asks for more, or for the same in other words")
    desk.settings += [f"evals: {text}" for text in found]
    place = Place(str(record(old).get("path") or desk.before.facts.get("file")))
    owners = desk.context.asked.about(place)
    desk.found += [
        Loosening(f"agent/{desk.name}", weaker.TOLD, f"evals: {text}", desk.place, place, owners)
        for text in found
    ]


def introduce(desk: Desk) -> None:
    """A new agent: what it says of itself, and what is looser than it would inherit."""
    facts = desk.after.facts
    rollout = record(facts.get("rollout"))
    gate = "" if rollout.get("gate") else " (no gate: goes live on merge)"
    desk.settings += [
        f"team {tick(facts.get('team'))}",
        f"trigger {told_trigger(record(facts.get('trigger')))}",
        f"rollout policy {tick(rollout.get('name'))}{gate}",
    ]
    for key, claim in claims_of(facts):
        if claim.get("taken_from") is None:
            _unasked(desk, key)
        desk.settings.append(f"owns {tick(claim.get('pattern'))}")
        if claim.get("taken_from") is not None:
            giver = AgentName(str(claim["taken_from"]))
            _taken(desk, f"takes over {tick(claim.get('pattern'))} from {tick(giver)}", giver)
    for one in desk.after.loosened:
        text = f"{tick(one.path)} {tick(one.value)}, where {tick(one.inherited)} is inherited"
        desk.loosen(f"looser {one.path}", text, one.path)
