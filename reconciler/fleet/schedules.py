"""Schedules looked at together: how many runs can start in one minute, and how close they follow.

Everybody likes six in the morning. What a fleet really asks of its slots and of its providers'
rate limits shows only when all schedules, each in its own time zone, are laid over one week.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from gateway.values import AgentName
from reconciler.config import Fleet

DAYS = 7
MOST_MOMENTS = 1_000_000
"""Starting moments computed at most, over all different schedules; then fewer days are sampled."""


@dataclass(frozen=True, slots=True)
class Minute:
    """A minute (UTC) and who starts in it, by name."""

    at: datetime
    agents: tuple[AgentName, ...]


@dataclass(frozen=True, slots=True)
class Week:
    """What a sample week asks for.

    `days` were sampled: fewer than seven when there are very many moments, and then the figures
    are a lower bound. `starts` is the number of runs; `busiest` are the minutes with most of them,
    the worst first. `gaps` is the shortest time between two starts of an agent, in seconds; an
    agent that starts less than twice has none.
    """

    days: int
    starts: int
    busiest: tuple[Minute, ...]
    gaps: Mapping[AgentName, int]

    @property
    def mean_permille(self) -> int:
        """Thousandths of runs that start in an average minute."""
        return self.starts * 1000 // (self.days * 24 * 60)


def sample_week(fleet: Fleet, first: date, *, minutes: int = 20) -> Week:
    """Lay the fleet's schedules over the week that begins on `first` (UTC).

    `minutes` is how many of the busiest are returned. A schedule that does not parse is left out:
    loading refuses it.
    """
    groups: dict[tuple[str, str], list[AgentName]] = {}
    for name, agent in fleet.agents.items():
        if agent.trigger.kind == "schedule" and agent.trigger.schedule is not None:
            groups.setdefault((agent.trigger.schedule, agent.trigger.timezone), []).append(name)
    begun = datetime.combine(first, time(), tzinfo=UTC)
    running = {key: _Running(*key, begun) for key in sorted(groups)}
    at: dict[int, list[tuple[str, str]]] = {}
    left, days, starts = MOST_MOMENTS, 0, 0
    while days < DAYS and left > 0:
        days += 1
        until = begun + timedelta(days=days)
        for key, schedule in running.items():
            if left <= 0:
                break
            for minute, times in schedule.minutes_until(until):
                at.setdefault(minute, []).append(key)
                starts += len(groups[key]) * times
                left -= times
    sizes = {minute: sum(len(groups[key]) for key in keys) for minute, keys in at.items()}
    worst = sorted(sizes, key=lambda minute: (-sizes[minute], minute))[:minutes]
    return Week(
        days=days,
        starts=starts,
        busiest=tuple(
            Minute(
                datetime.fromtimestamp(minute * 60, UTC),
                tuple(sorted(name for key in at[minute] for name in groups[key])),
            )
            for minute in worst
        ),
        gaps={
            name: gap
            for key, names in groups.items()
            if (gap := running[key].gap) is not None
            for name in names
        },
    )


class _Running:
    """One schedule, walked through the week day by day. Minutes are counted from 1970 (UTC)."""

    def __init__(self, schedule: str, timezone: str, begun: datetime) -> None:
        self.gap: int | None = None
        self._last: datetime | None = None
        self._moments = _moments(schedule, timezone, begun)
        self._next = next(self._moments, None)

    def minutes_until(self, end: datetime) -> Iterator[tuple[int, int]]:
        """(minute, how many moments in it) before `end`, going on from where it stopped."""
        while self._next is not None and self._next < end:
            minute, times = int(self._next.timestamp()) // 60, 0
            while self._next is not None and int(self._next.timestamp()) // 60 == minute:
                if self._last is not None:
                    gap = int((self._next - self._last).total_seconds())
                    self.gap = gap if self.gap is None else min(self.gap, gap)
                self._last = self._next
                self._next = next(self._moments, None)
                times += 1
            yield minute, times


def _moments(schedule: str, timezone: str, begun: datetime) -> Iterator[datetime]:
    """Moments from `begun` on, in UTC (a wall clock repeats an hour in autumn)."""
    start = begun - timedelta(seconds=1)
    try:
        found = CronSim(schedule, start.astimezone(ZoneInfo(timezone)))
        for moment in found:
            utc = moment.astimezone(UTC)
            if utc > start:
                yield utc
    except (CronSimError, KeyError, ValueError, OSError):
        return
