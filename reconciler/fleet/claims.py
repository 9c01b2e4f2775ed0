"""Who owns which artifact: claims of two agents that meet, and claims that change hands.

An artifact has one owner. A hand-over needs both sides (`given_to` and `taken_from`), so that
nobody takes a thing away by writing it into a file of their own.

Claims are put in order of their literal beginnings. Two can only meet when one beginning is above
the other or equal, so each is compared with those above it, not with all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.values import AgentName
from reconciler.config import Claim, Fleet
from reconciler.findings import Place
from reconciler.fleet.globs import can_meet, literal_prefix

MOST_COMPARISONS = 2_000_000
"""Pairs of patterns compared at most. Only globs without a literal beginning get anywhere near."""
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

    `handed_over`: the owner gives it and the other takes it, both in writing.
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


@dataclass(frozen=True, slots=True)
class Move:
    """A claim that is another agent's now; `agreed` when both wrote so, or it was renamed."""

    realm: str
    pattern: str
    before: AgentName | None
    after: AgentName | None
    agreed: bool
    place: Place


def overlaps(fleet: Fleet) -> Overlaps:
    """Claims of different agents that can mean the same artifact, in the same realm."""
    by_realm: dict[str, list[Held]] = {}
    for name, agent in fleet.agents.items():
        for claim in agent.owns:
            by_realm.setdefault(claim.realm, []).append(Held(name, claim))
    found: list[Overlap] = []
    budget = [MOST_COMPARISONS]
    for realm in sorted(by_realm):
        for one, other in _meeting(by_realm[realm], budget):
            found.append(_overlap(one, other))
            if len(found) >= MOST_OVERLAPS:
                budget[0] = -1
        if budget[0] < 0:
            break
    return Overlaps(tuple(sorted(found, key=_by_place)), budget[0] >= 0)


def moves(before: Fleet, after: Fleet) -> tuple[Move, ...]:
    """What changed hands between two fleets, by realm and pattern; claims made anew are no moves.

    A claim that is only dropped has `after` None: nobody guards the artifact any more.
    """
    then, now = _holders(before), _holders(after)
    found = []
    for key in sorted(then):
        old = then[key]
        found += [
            _move(old[0], held, after)
            for held in now.get(key, ())
            if all(held.agent != other.agent for other in old)
        ]
        if key not in now:
            found.append(Move(*key, old[0].agent, None, False, old[0].claim.place))
    return tuple(found)


def _move(old: Held, new: Held, after: Fleet) -> Move:
    renamed = after.agents[new.agent].formerly == old.agent
    gone = old.agent not in after.agents
    given = gone or any(
        claim.given_to == new.agent and claim.pattern == new.claim.pattern
        for claim in after.agents[old.agent].owns
    )
    return Move(
        realm=new.claim.realm,
        pattern=new.claim.pattern,
        before=old.agent,
        after=new.agent,
        agreed=renamed or (given and new.claim.taken_from == old.agent),
        place=new.claim.place,
    )


def _holders(fleet: Fleet) -> dict[tuple[str, str], list[Held]]:
    """By (realm, pattern); a claim that is being given away still names who held it."""
    found: dict[tuple[str, str], list[Held]] = {}
    for name, agent in fleet.agents.items():
        for claim in agent.owns:
            if claim.given_to is None:
                found.setdefault((claim.realm, claim.pattern), []).append(Held(name, claim))
    return found


def _meeting(claims: list[Held], budget: list[int]) -> Iterator[tuple[Held, Held]]:
    """Pairs of different agents that meet; `budget` counts comparisons down, below 0 it ended."""
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
            budget[0] -= 1
            if budget[0] < 0:
                return
            if can_meet(other.claim.pattern, held.claim.pattern):
                yield other, held
        above.append((beginning, held))


def _beginning(claim: Claim) -> tuple[str, ...]:
    return tuple(part for part in literal_prefix(claim.pattern).split("/") if part)


def _overlap(one: Held, other: Held) -> Overlap:
    first, second = sorted((one, other), key=lambda held: (held.agent, held.claim.place.line))
    agreed = any(
        a.claim.given_to == b.agent and b.claim.taken_from == a.agent
        for a, b in ((first, second), (second, first))
    )
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
