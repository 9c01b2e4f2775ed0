"""Who owns which artifact: claims of two agents that meet, and claims that are handed over.

An artifact has one owner. A hand-over needs both sides (`given_to` and `taken_from`), so that
nobody takes a thing away by writing it into a file of their own.

Claims are put in order of their literal beginnings. Two can only meet when one beginning is above
the other or equal, so each is compared with those above it, not with all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.values import AgentName
from reconciler.config import AgentConfig, Claim, Fleet
from reconciler.config.globs import MOST_STEPS, Meter, can_meet, literal_prefix

MOST_OVERLAPS = 10_000
"""Pairs reported at most: every agent claiming everything would give as many as agents squared."""


@dataclass(frozen=True, slots=True)
class Held:
    """A claim and who makes it."""

    agent: AgentName
    claim: Claim


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two agents whose claims can mean the same artifact, the first by name and place.

    `handed_over`: the owner gives it and the other takes it, both in writing; or one of them has
    given it to somebody else in this way, so that its claim counts for nothing any more.
    """

    one: Held
    other: Held
    handed_over: bool


@dataclass(frozen=True, slots=True)
class Overlaps:
    """All pairs, in order. `complete` is false when there were too many to look at them all."""

    pairs: tuple[Overlap, ...]
    complete: bool

    @property
    def collisions(self) -> tuple[Overlap, ...]:
        """Pairs that nobody agreed upon."""
        return tuple(pair for pair in self.pairs if not pair.handed_over)


def overlaps(fleet: Fleet) -> Overlaps:
    """Claims of different agents that can mean the same artifact, in the same realm."""
    by_realm: dict[str, list[Held]] = {}
    for name, agent in fleet.agents.items():
        for claim in agent.owns:
            by_realm.setdefault(claim.realm, []).append(Held(name, claim))
    found: list[Overlap] = []
    meter = Meter(MOST_STEPS)
    for realm in sorted(by_realm):
        for one, other in _meeting(by_realm[realm], meter):
            found.append(_overlap(fleet, one, other))
            if len(found) >= MOST_OVERLAPS:
                meter.left = -1
        if meter.ended:
            break
    return Overlaps(tuple(sorted(found, key=_by_place)), not meter.ended)


def owned(fleet: Fleet, agent: AgentConfig) -> tuple[Claim, ...]:
    """Its claims, but for those that it has handed over with both sides agreeing."""
    return tuple(claim for claim in agent.owns if not _given_away(fleet, agent.name, claim))


def _given_away(fleet: Fleet, giver: AgentName, claim: Claim) -> bool:
    taker = fleet.agents.get(claim.given_to) if claim.given_to is not None else None
    return taker is not None and any(
        mine.taken_from == giver
        and mine.realm == claim.realm
        and can_meet(mine.pattern, claim.pattern)
        for mine in taker.owns
    )


def _meeting(claims: list[Held], meter: Meter) -> Iterator[tuple[Held, Held]]:
    """Pairs of different agents that meet, until the meter has ended."""
    ordered = sorted(
        ((_beginning(held.claim), held) for held in claims),
        key=lambda each: (each[0], each[1].agent, each[1].claim.pattern, each[1].claim.place.line),
    )
    above: list[tuple[tuple[str, ...], Held]] = []
    for beginning, held in ordered:
        while above and beginning[: len(above[-1][0])] != above[-1][0]:
            above.pop()
        for _, other in above:
            if other.agent == held.agent:
                continue
            if meter.ended:
                return
            if can_meet(other.claim.pattern, held.claim.pattern, meter=meter):
                yield other, held
        above.append((beginning, held))


def _beginning(claim: Claim) -> tuple[str, ...]:
    return tuple(part for part in literal_prefix(claim.pattern).split("/") if part)


def _overlap(fleet: Fleet, one: Held, other: Held) -> Overlap:
    first, second = sorted((one, other), key=lambda held: (held.agent, held.claim.place.line))
    agreed = any(_given_away(fleet, held.agent, held.claim) for held in (first, second))
    return Overlap(first, second, agreed)


def _by_place(pair: Overlap) -> tuple[str, str, str, str, int, int]:
    one, other = pair.one, pair.other
    return (
        one.agent,
        other.agent,
        one.claim.pattern,
        other.claim.pattern,
        one.claim.place.line,
        other.claim.place.line,
    )
