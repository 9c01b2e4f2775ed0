"""When an agent is due, across outages, month ends and the two nights when clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSimError
from hypothesis import given
from hypothesis import strategies as st

from gateway.values import Millis
from reconciler.triggers import LOOK_BACK, due, next_due

BERLIN = "Europe/Berlin"
# Clocks go forward on 2026-03-29 at 01:00Z and back on 2026-10-25 at 01:00Z.
SCHEDULES = [
    "*/10 * * * *",
    "0 * * * *",
    "30 2 * * *",
    "15,45 1-3 * * *",
    "0 6 * * 1-5",
    "0 */2 * * *",
    "0 9 31 * *",
]
minutes = st.integers(-26 * 60, 26 * 60)
changes = st.sampled_from(["2026-03-29T01:00", "2026-10-25T01:00", "2026-07-01T00:00"])


def at(text: str) -> Millis:
    """UTC, or with an offset."""
    moment = datetime.fromisoformat(text)
    return Millis(int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000))


def found(schedule: str, after: str, now: str, zone: str = BERLIN) -> tuple[str, int] | None:
    result = due(schedule, zone, after=at(after), now=at(now))
    return (result.occurrence, result.missed) if result else None


def test_a_moment_is_due_once_it_has_come_and_only_once() -> None:
    weekdays = "0 6 * * 1-5"
    assert found(weekdays, "2026-11-22T12:00", "2026-11-23T04:59:59") is None
    first = ("schedule:2026-11-23T05:00:00Z", 0)
    assert found(weekdays, "2026-11-22T12:00", "2026-11-23T05:00") == first
    assert found(weekdays, "2026-11-22T12:00", "2026-11-23T09:00") == first
    assert found(weekdays, "2026-11-23T05:00", "2026-11-23T09:00") is None


def test_after_an_outage_only_the_latest_is_run_and_the_others_are_counted() -> None:
    assert found("0 6 * * 1-5", "2026-11-16T12:00", "2026-11-23T12:00") == (
        "schedule:2026-11-23T05:00:00Z",
        4,
    )


def test_a_time_in_the_skipped_hour_runs_right_after_it() -> None:
    assert found("30 2 * * *", "2026-03-28T12:00", "2026-03-29T00:59") is None
    assert found("30 2 * * *", "2026-03-28T12:00", "2026-03-29T12:00") == (
        "schedule:2026-03-29T01:00:00Z",
        0,
    )
    assert found("30 2 * * *", "2026-03-29T01:00", "2026-03-30T00:29") is None


def test_a_time_in_the_repeated_hour_runs_once() -> None:
    assert found("30 2 * * *", "2026-10-24T12:00", "2026-10-25T00:30") == (
        "schedule:2026-10-25T00:30:00Z",
        0,
    )
    assert found("30 2 * * *", "2026-10-25T00:30", "2026-10-25T12:00") is None
    assert found("30 2 * * *", "2026-10-25T01:10", "2026-10-25T12:00") is None


def test_every_ten_minutes_goes_on_through_the_repeated_hour() -> None:
    assert found("*/10 * * * *", "2026-10-25T00:50", "2026-10-25T01:05") == (
        "schedule:2026-10-25T01:00:00Z",
        0,
    )


def test_month_ends_are_days_that_exist() -> None:
    assert found("0 9 31 * *", "2026-01-31T12:00", "2026-02-28T12:00") is None
    assert found("0 9 31 * *", "2026-02-28T12:00", "2026-03-31T12:00") == (
        "schedule:2026-03-31T07:00:00Z",
        0,
    )
    assert found("0 9 L * *", "2026-02-01T12:00", "2026-03-01T12:00") == (
        "schedule:2026-02-28T08:00:00Z",
        0,
    )
    assert found("0 9 29 2 *", "2028-02-01T00:00", "2028-03-01T00:00") is not None


def test_a_far_past_is_looked_at_for_forty_days_only() -> None:
    assert found("0 6 * * *", "1970-01-01T00:00", "2026-11-23T12:00", "UTC") == (
        "schedule:2026-11-23T06:00:00Z",
        LOOK_BACK.days - 1,
    )
    assert found("0 0 1 1 *", "1970-01-01T00:00", "2026-11-23T12:00") is None


def test_a_clock_that_went_back_makes_nothing_due() -> None:
    assert found("* * * * *", "2026-11-23T12:00", "2026-11-23T11:00") is None


def test_a_wrong_schedule_is_refused() -> None:
    with pytest.raises(CronSimError):
        found("61 * * * *", "2026-11-23T12:00", "2026-11-23T13:00")


@given(st.sampled_from(SCHEDULES), changes, minutes, st.integers(0, 600))
def test_what_is_due_lies_where_it_was_looked_for(
    schedule: str, change: str, offset: int, length: int
) -> None:
    after = Millis(at(change) + offset * 60_000)
    now = Millis(after + length * 60_000)
    result = due(schedule, BERLIN, after=after, now=now)
    following = next_due(schedule, BERLIN, now=after)
    assert following > after
    assert (result is not None) == (following <= now)
    if result is not None:
        assert after < result.at <= now
        assert due(schedule, BERLIN, after=result.at, now=now) is None
        named = datetime.fromisoformat(result.occurrence.removeprefix("schedule:"))
        assert named.timestamp() * 1000 == result.at


@given(st.sampled_from(SCHEDULES[:5]), changes, st.lists(st.integers(1, 90), max_size=40))
def test_however_often_it_ticks_no_moment_runs_twice_and_none_is_lost(
    schedule: str, change: str, steps: list[int]
) -> None:
    start = now = after = Millis(at(change) - 6 * 3_600_000)
    ran = counted = 0
    seen = set()
    for step in steps:
        now = Millis(now + step * 60_000)
        result = due(schedule, BERLIN, after=after, now=now)
        if result is not None:
            assert result.occurrence not in seen
            seen.add(result.occurrence)
            ran, counted, after = ran + 1, counted + 1 + result.missed, result.at
    whole = due(schedule, BERLIN, after=start, now=now)
    assert counted == (whole.missed + 1 if whole else 0)


def test_ten_minutes_through_autumn_are_counted_in_real_time() -> None:
    night = due("*/10 * * * *", BERLIN, after=at("2026-10-24T22:00"), now=at("2026-10-25T04:00"))
    assert night is not None
    assert night.missed + 1 == timedelta(hours=6) / timedelta(minutes=10)
    local = datetime.fromtimestamp(night.at / 1000, ZoneInfo(BERLIN))
    assert local.hour == 5
