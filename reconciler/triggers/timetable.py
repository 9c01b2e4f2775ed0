"""Which agents are due, asked at every tick: each agent's next moment is worked out once.

A cron expression costs tens of microseconds to step, and a fleet has many of them, while a tick
comes several times a second. So the next moment of each agent is kept in a heap, and a tick looks
at its top only. Pure: the moments come in as milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import heappop, heappush

from gateway.values import AgentName, Millis
from reconciler.triggers.cron import following


@lru_cache(maxsize=4096)
def _following(schedule: str, timezone: str, after: Millis) -> Millis | None:
    # Agents that share a schedule were mostly looked at up to the same moment.
    return following(schedule, timezone, after=after)


@dataclass(slots=True)
class Timetable:
    """The next moment of every scheduled agent. In memory only: rows say what was looked at."""

    _next: dict[AgentName, Millis | None] = field(default_factory=dict)
    _heap: list[tuple[Millis, AgentName]] = field(default_factory=list)
    """May hold moments that no longer count; `_next` says which does."""
    _due: set[AgentName] = field(default_factory=set)

    def put(self, agent: AgentName, schedule: str, timezone: str, *, after: Millis) -> None:
        """The agent is next due at the schedule's first moment after `after`."""
        at = _following(schedule, timezone, after)
        self._next[agent] = at
        self._due.discard(agent)
        if at is not None:
            heappush(self._heap, (at, agent))

    def drop(self, agents: Iterable[AgentName]) -> None:
        """These agents have no schedule any more."""
        for agent in agents:
            self._next.pop(agent, None)
            self._due.discard(agent)

    def due(self, now: Millis) -> list[AgentName]:
        """Agents whose moment has come, by name. They stay due until `put` or `drop`."""
        while self._heap and self._heap[0][0] <= now:
            at, agent = heappop(self._heap)
            if self._next.get(agent) == at:
                self._due.add(agent)
        return sorted(self._due)

    def agents(self) -> frozenset[AgentName]:
        """Everyone who has a schedule here."""
        return frozenset(self._next)
