"""Agents that get in each other's way: two owners of one thing, circles of triggers, pile-ups.

The analyses are those of `reconciler.fleet`; here they become findings with both positions, so
that a plan can show those that a change brings.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from reconciler.config import Fleet
from reconciler.findings import Finding, Place, Severity, quoted, tidy
from reconciler.fleet.claims import overlaps
from reconciler.fleet.graph import graph_of
from reconciler.fleet.owners import FLEET_FILE
from reconciler.fleet.schedules import sample_week

WEEK = date(2024, 1, 1)
"""A Monday. Any week will do; a fixed one, so that the same commits give the same plan."""
PILE = 10
"""Agents that start in one minute from which on it is said: fewer are a coincidence."""


def collisions_of(fleet: Fleet) -> tuple[Finding, ...]:
    """Everything that collides in one fleet. Looks at every agent: for people, not for ticks."""
    return tidy([*_claims(fleet), *_cycles(fleet), *_piles(fleet)])


def _claims(fleet: Fleet) -> Iterator[Finding]:
    found = overlaps(fleet)
    if not found.complete:
        place = Place(FLEET_FILE)
        yield _finding(
            "claims-too-wide",
            Severity.ERROR,
            place,
            "the claims of this fleet cannot all be compared: too many begin with a wildcard, or "
            "mean the same",
            "begin claims with the folder they are about",
        )
    for pair in found.collisions:
        place, other = pair.other.claim.place, pair.one.claim.place
        yield _finding(
            "claimed-twice",
            Severity.ERROR,
            place,
            f"{quoted(pair.other.claim.pattern)} of {pair.other.agent} is claimed by"
            f" {pair.one.agent} too (at {other})",
            "let one of them own it, or hand it over in both files",
        )


def _cycles(fleet: Fleet) -> Iterator[Finding]:
    for names in graph_of(fleet).cycles:
        agent = fleet.agents[names[0]]
        circle = " → ".join([*names, names[0]])
        yield _finding(
            "trigger-cycle",
            Severity.ERROR,
            agent.trigger.place or agent.place,
            f"these agents start each other for ever: {circle}",
            "let one of them start in another way",
        )


def _piles(fleet: Fleet) -> Iterator[Finding]:
    minutes = [m for m in sample_week(fleet, WEEK).busiest if len(m.agents) >= PILE]
    if minutes:
        worst = minutes[0]
        first = fleet.agents[worst.agents[0]]
        yield _finding(
            "schedule-pile-up",
            Severity.WARNING,
            first.trigger.place or first.place,
            f"{len(worst.agents)} agents start in the same minute, {worst.at:%A %H:%M} UTC",
            "spread their schedules over the hour",
        )


def _finding(name: str, severity: Severity, place: Place, message: str, fix: str) -> Finding:
    return Finding(name, severity, place.file, place.line, place.column, message, fix)
