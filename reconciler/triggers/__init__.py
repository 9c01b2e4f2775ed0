"""When an agent is due: cron schedules in their own time zone, to occurrences.

Pure: the moments come in as milliseconds. An occurrence is named by the moment in UTC, so that a
tick that runs twice, or on two machines, names the same one.
"""

from __future__ import annotations

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
    zone = ZoneInfo(timezone)
    end = datetime.fromtimestamp(now / 1000, UTC).astimezone(zone)
    start = max(datetime.fromtimestamp(after / 1000, UTC).astimezone(zone), end - LOOK_BACK)
    latest: datetime | None = None
    count = 0
    for moment in CronSim(schedule, start):
        if moment > end:
            break
        if moment > start:
            latest, count = moment, count + 1
    if latest is None:
        return None
    utc = latest.astimezone(UTC)
    return Due(
        occurrence=Occurrence(f"schedule:{utc:%Y-%m-%dT%H:%M:%SZ}"),
        at=Millis(int(utc.timestamp() * 1000)),
        missed=count - 1,
    )


def next_due(schedule: str, timezone: str, *, now: Millis) -> Millis:
    """The next scheduled moment after `now`."""
    here = datetime.fromtimestamp(now / 1000, UTC).astimezone(ZoneInfo(timezone))
    return Millis(int(next(CronSim(schedule, here)).timestamp() * 1000))
