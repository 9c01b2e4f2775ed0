"""Rules about when agents start, looked at together."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.findings import Severity, quoted
from reconciler.fleet.rules import Facts, Hit, fleet_rule, named

CROWD = 10
"""Runs that may start in one minute without anybody minding."""
TIMES_MEAN = 10
"""How far above its own average a fleet may be in one minute: a large fleet is busy anyway."""


@fleet_rule(
    "schedule-pile-up",
    Severity.WARNING,
    "they wait for the same slots and run into the same rate limits",
)
def pile_up(facts: Facts) -> Iterator[Hit]:
    """Many runs start in one minute, while others have none. One finding per group of agents."""
    week = facts.week
    seen: set[tuple[str, ...]] = set()
    for minute in week.busiest:
        many = len(minute.agents)
        crowd = minute.agents in seen
        if crowd or many < CROWD or many * 1000 < TIMES_MEAN * week.mean_permille:
            continue
        seen.add(minute.agents)
        first = facts.fleet.agents[minute.agents[0]]
        yield Hit(
            first.trigger.place or first.place,
            f"{many} agents start on {minute.at:%A at %H:%M} UTC: {named(minute.agents)}",
            "spread them: another minute each, such as 17 6 * * 1-5, costs nobody anything",
        )


@fleet_rule(
    "trigger-cycle", Severity.ERROR, "each run starts the next, for ever: only budgets would end it"
)
def trigger_cycle(facts: Facts) -> Iterator[Hit]:
    """Agents that start each other in a circle."""
    for cycle in facts.graph.cycles:
        first = facts.fleet.agents[cycle[0]]
        way = " → ".join(quoted(name) for name in [*cycle, cycle[0]][:12])
        yield Hit(
            first.trigger.place or first.place,
            f"agents start each other in a circle: {way}{' → …' if len(cycle) > 11 else ''}",
            "take one of the `after` away",
        )
