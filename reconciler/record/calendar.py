"""Moments as the record writes them: UTC, ISO 8601, and the days and months of its files.

Pure. Milliseconds since the epoch go in; nothing here reads a clock.
"""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.values import Millis

DAY_MS = 86_400_000


def iso(at: int) -> str:
    """`2026-11-21T05:00:00Z`, seconds rounded down."""
    return f"{_moment(at):%Y-%m-%dT%H:%M:%SZ}"


def day(at: int) -> str:
    """`2026-11-21`."""
    return f"{_moment(at):%Y-%m-%d}"


def month(at: int) -> str:
    """`2026-11`."""
    return f"{_moment(at):%Y-%m}"


def start_of_day(at: int) -> Millis:
    """The day's first millisecond. UTC has no leap in Unix time, so a day is a division."""
    return Millis(at // DAY_MS * DAY_MS)


def day_start(text: str) -> Millis:
    """Inverse of `day`: its first millisecond. ValueError when it is no date."""
    return Millis(int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000)


def days_back(now: int, days: int) -> Millis:
    """Start of the window of `days` whole calendar days that ends with today.

    Whole days, because the ledger in git is kept by day: a figure made from it must be the same.
    """
    return Millis(start_of_day(now) - (days - 1) * DAY_MS)


def span(ms: int | None) -> str:
    """A duration for people: `820 ms`, `4.2 s`, `3 min 5 s`, `2 h 4 min`; empty when unknown."""
    if ms is None:
        return ""
    if ms < 1000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms // 1000}.{ms % 1000 // 100} s"
    minutes = ms // 60_000
    if minutes < 60:
        return f"{minutes} min {ms // 1000 % 60} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _moment(at: int) -> datetime:
    return datetime.fromtimestamp(at // 1000, tz=UTC)
