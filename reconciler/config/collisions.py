"""What no agent can see alone: two of one name, claims that meet, hand-overs with one side.

Both agents are told, and both wait until it is settled: neither can be trusted to be the one that
is meant. Kept between commits by name and by realm, so that a commit that moves one claim
compares that realm and no other, and taking a twin away heals the one that stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from gateway.values import AgentName
from reconciler.config.fleet import Claim
from reconciler.config.globs import MOST_STEPS, SPECIAL, Meter, can_meet
from reconciler.config.grants import handed_over
from reconciler.config.renames import wrong_renames
from reconciler.findings import Finding, Place, Severity, quoted

K = TypeVar("K")

MOST_REPORTED = 20
"""Others named for one claim: a list that nobody reads to its end helps nobody."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What of an agent can collide with others: its name and its claims.

    `owns` is None while it is not known what it claims.
    """

    path: str
    name: AgentName
    place: Place
    owns: tuple[Claim, ...] | None
    formerly: AgentName | None = None


Found = Mapping[str, tuple[Finding, ...]]
"""Path of an agent's file → findings."""
Owned = tuple[Holder, Claim]


@dataclass(frozen=True, slots=True)
class Collisions:
    """What there is to collide, and what does. Made by `updated`, from empty."""

    names: Mapping[AgentName, tuple[Holder, ...]] = field(default_factory=dict)
    realms: Mapping[str, Mapping[str, Holder]] = field(default_factory=dict)
    """Realm → path → holder, of those that claim something in it."""
    twins: Mapping[AgentName, Found] = field(default_factory=dict)
    meetings: Mapping[str, Found] = field(default_factory=dict)
    singular: Mapping[str, Holder] = field(default_factory=dict)
    """Path → holder, of those that name another agent: hand-overs, former names."""

    def findings(self, *, names_only: bool = False) -> dict[str, list[Finding]]:
        """All of them, by path of the agent's file; those of names where claims mean nothing."""
        found: dict[str, list[Finding]] = {}
        groups = [*self.twins.values()]
        if not names_only:
            groups += [*self.meetings.values(), self._one_sided()]
        for group in groups:
            for path, some in group.items():
                found.setdefault(path, []).extend(some)
        return found

    def _one_sided(self) -> Found:
        found: dict[str, tuple[Finding, ...]] = {}
        for path, holder in self.singular.items():
            mine = tuple(self._unanswered(holder))
            if mine:
                found[path] = mine
        for _, finding in wrong_renames(
            [self.singular[path] for path in sorted(self.singular)], self.names
        ):
            found[finding.file] = (*found.get(finding.file, ()), finding)
        return found

    def _unanswered(self, holder: Holder) -> Iterator[Finding]:
        for claim in holder.owns or ():
            taker = claim.given_to
            if taker is None:
                continue
            others = self.names.get(taker, ())
            if not others:
                yield _error(
                    "undefined",
                    claim.place,
                    f"there is no agent {quoted(taker)} to hand {quoted(claim.pattern)} to",
                    "correct the name, or keep the claim",
                )
            elif all(o.owns is not None and not _takes(o, claim, holder.name) for o in others):
                yield Finding(
                    "handed-over-alone",
                    Severity.WARNING,
                    *(claim.place.file, claim.place.line, claim.place.column),
                    f"{quoted(claim.pattern)} is handed to agent {quoted(taker)}, which does not"
                    f" take it yet (at {others[0].place})",
                    f"let it say {{claim: {quoted(claim.pattern)}, from: {holder.name}}}",
                )


def updated(before: Collisions, gone: set[Holder], come: set[Holder]) -> Collisions:
    """After some holders went and others came; one that changed did both."""
    gone, come = gone - come, come - gone
    if not gone and not come:
        return before
    names, realms = dict(before.names), dict(before.realms)
    singular = dict(before.singular)
    told: set[AgentName] = set()
    moved: set[str] = set()
    for holder in gone:
        names[holder.name] = tuple(d for d in names[holder.name] if d.path != holder.path)
        told.add(holder.name)
        singular.pop(holder.path, None)
        for realm in _realms(holder):
            if realm not in moved:
                moved.add(realm)
                realms[realm] = dict(realms[realm])
            del realms[realm][holder.path]  # type: ignore[attr-defined]
    for holder in come:
        names[holder.name] = (*names.get(holder.name, ()), holder)
        told.add(holder.name)
        if _singular(holder):
            singular[holder.path] = holder
        for realm in _realms(holder):
            if realm not in moved:
                moved.add(realm)
                realms[realm] = dict(realms.get(realm, {}))
            realms[realm][holder.path] = holder  # type: ignore[index]
    twins, meetings = dict(before.twins), dict(before.meetings)
    for name in told:
        same = names[name] = tuple(sorted(names[name], key=lambda d: d.path))
        _set(twins, name, _twins(same))
        if not same:
            del names[name]
    for realm in moved:
        _set(meetings, realm, _meetings(realms[realm].values()))
        if not realms[realm]:
            del realms[realm]
    return Collisions(names, realms, twins, meetings, singular)


def _set(groups: dict[K, Found], key: K, found: Found) -> None:
    if found:
        groups[key] = found
    else:
        groups.pop(key, None)


def _realms(holder: Holder) -> set[str]:
    return {claim.realm for claim in holder.owns or ()}


def _singular(holder: Holder) -> bool:
    given = any(claim.given_to is not None for claim in holder.owns or ())
    return given or holder.formerly is not None


def _error(kind: str, place: Place, message: str, fix: str) -> Finding:
    return Finding(kind, Severity.ERROR, place.file, place.line, place.column, message, fix)


def _twins(holders: tuple[Holder, ...]) -> Found:
    """Two agents of one name: neither can be trusted to be the one that is live."""
    found: dict[str, list[Finding]] = {}
    for twin in holders[1:]:
        for one, other in ((holders[0], twin), (twin, holders[0])):
            found.setdefault(one.path, []).append(
                _error(
                    "duplicate-name",
                    one.place,
                    f"agent {quoted(one.name)} is defined twice (also at {other.place})",
                    "rename one of them",
                )
            )
    return {path: tuple(some) for path, some in found.items()}


def _meetings(holders: Iterable[Holder]) -> Found:
    """An artifact has one owner; claims of one realm that can mean the same thing collide.

    In order of their literal beginnings: two patterns can only meet when the beginning of one is
    a beginning of the other's, so each is compared with those above it and not with all.
    """
    holders = tuple(holders)
    by_name = {holder.name: holder for holder in holders}
    claims = sorted(
        ((_literal(claim.pattern), holder.path, n, holder, claim)
         for holder in holders for n, claim in enumerate(holder.owns or ())
         if not _given_away(holder, claim, by_name)),
        key=lambda row: row[:3],
    )  # fmt: skip
    found: dict[str, list[Finding]] = {}
    named: dict[tuple[str, Place], int] = {}
    above: list[tuple[str, Owned]] = []
    wide: set[tuple[str, Place]] = set()
    meter = Meter(MOST_STEPS)
    for literal, _path, _n, holder, claim in claims:
        while above and not literal.startswith(above[-1][0]):
            above.pop()
        for _, other in above:
            if other[0] is holder:
                continue
            if meter.ended:
                # Of two that nobody could compare, the one that means more is refused.
                if (other[0].path, other[1].place) not in wide:
                    wide.add((other[0].path, other[1].place))
                    found.setdefault(other[0].path, []).append(_too_many(other[1]))
                continue
            if not _collide((holder, claim), other, meter):
                continue
            for (one, mine), (two, theirs) in (((holder, claim), other), (other, (holder, claim))):
                key = (one.path, mine.place)
                named[key] = named.get(key, 0) + 1
                if named[key] <= MOST_REPORTED:
                    found.setdefault(one.path, []).append(_claimed_twice(mine, two, theirs))
        above.append((literal, (holder, claim)))
    return {path: tuple(some) for path, some in found.items()}


def _literal(pattern: str) -> str:
    """The text before the first wildcard: whatever matches begins with it."""
    bare = pattern.lstrip("/")
    for index, character in enumerate(bare):
        if character in SPECIAL:
            return bare[:index]
    return bare


def _collide(one: Owned, other: Owned, meter: Meter) -> bool:
    (mine, claim), (theirs, twin) = one, other
    if not can_meet(claim.pattern, twin.pattern, meter=meter):
        return False
    return handed_over(mine.name, claim, theirs.name, twin) is None


def _given_away(holder: Holder, claim: Claim, by_name: Mapping[AgentName, Holder]) -> bool:
    """Whether it is handed over, both sides agreeing: the taker's claim counts then, not this."""
    taker = by_name.get(claim.given_to) if claim.given_to is not None else None
    return taker is not None and taker is not holder and _takes(taker, claim, holder.name)


def _takes(holder: Holder, claim: Claim, giver: AgentName) -> bool:
    return any(
        mine.taken_from == giver
        and mine.realm == claim.realm
        and can_meet(mine.pattern, claim.pattern)
        for mine in holder.owns or ()
    )


def _claimed_twice(mine: Claim, two: Holder, theirs: Claim) -> Finding:
    fix = "let one of them own it; to hand it over, one side says to, the other from"
    if mine.given_to == two.name or mine.taken_from == two.name:
        side = "from" if mine.given_to else "to"
        fix = f"let {two.name} agree: {{claim: {quoted(theirs.pattern)}, {side}: …}}"
    return _error(
        "claimed-twice",
        mine.place,
        f"{quoted(mine.pattern)} is also claimed by agent {quoted(two.name)} (at {theirs.place})",
        fix,
    )


def _too_many(claim: Claim) -> Finding:
    return _error(
        "claims-too-wide",
        claim.place,
        f"{quoted(claim.pattern)} cannot be compared with all others: too many begin with a "
        "wildcard",
        "begin claims with the folder they are about",
    )
