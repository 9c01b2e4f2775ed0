"""When an agent is due: cron schedules in their own time zone, to occurrences.

Pure: the moments come in as milliseconds. An occurrence is named by the moment in UTC, so that a
tick that runs twice, or on two machines, names the same one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from gateway.values import Millis, Occurrence

LOOK_BACK = timedelta(days=40)
"""How far back a missed moment is looked for: longer than a month, the rarest common schedule."""


@dataclass(frozen=True, slots=True)
class Due:
    """The moment that is due, and how many before it were missed and are not made up for."""

    occurrence: Occurrence
    at: Millis
    missed: int


def due(schedule: str, timezone: str, *, after: Millis, now: Millis) -> Due | None:
    """The latest scheduled moment in (after, now], or None.

    After an outage only the latest is run: five mornings' triage at once helps nobody. Raises
    cronsim.CronSimError for a schedule that validation should have refused.
    """
    end = datetime.fromtimestamp(now / 1000, UTC)
    start = max(datetime.fromtimestamp(after / 1000, UTC), end - LOOK_BACK)
    latest: datetime | None = None
    count = 0
    for moment in _moments(schedule, timezone, start):
        if moment > end:
            break
        latest, count = moment, count + 1
    if latest is None:
        return None
    return Due(
        occurrence=Occurrence(f"schedule:{latest:%Y-%m-%dT%H:%M:%SZ}"),
        at=Millis(int(latest.timestamp() * 1000)),
        missed=count - 1,
    )


def next_due(schedule: str, timezone: str, *, now: Millis) -> Millis:
    """The next scheduled moment after `now`. Raises StopIteration when there is none for decades
    (30 February)."""
    start = datetime.fromtimestamp(now / 1000, UTC)
    return Millis(int(next(_moments(schedule, timezone, start)).timestamp() * 1000))


def following(schedule: str, timezone: str, *, after: Millis) -> Millis | None:
    """The first scheduled moment after `after`; None when there is none for decades."""
    try:
        return next_due(schedule, timezone, now=after)
    except StopIteration:
        return None


def _moments(schedule: str, timezone: str, start: datetime) -> Iterator[datetime]:
    """The scheduled moments after `start`, in UTC.

    A wall clock repeats an hour in autumn, and Python compares two times of one zone by their
    wall clocks: only in UTC is "after" what it says. For the same reason CronSim may give a
    moment of the first of the two hours when it is asked from within the second.
    """
    for moment in CronSim(schedule, start.astimezone(ZoneInfo(timezone))):
        utc = moment.astimezone(UTC)
        if utc > start:
            yield utc
