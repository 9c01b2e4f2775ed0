"""What starts what, in which circles, and how many runs start in the same minute."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.values import AgentName
from reconciler.config import Fleet, TriggerConfig
from reconciler.fleet import schedules as rooms
from reconciler.fleet.graph import graph_of, told
from reconciler.fleet.schedules import sample_week
from tests.support import small_fleet

MONDAY = date(2026, 11, 23)


@cache
def loaded_once() -> Fleet:
    return small_fleet.fleet()


def fleet(**triggers: TriggerConfig) -> Fleet:
    base = loaded_once()
    agent = base.agents[AgentName("triage")]
    return replace(
        base,
        agents={
            AgentName(name): replace(agent, name=AgentName(name), trigger=trigger)
            for name, trigger in triggers.items()
        },
    )


def after(*names: str) -> TriggerConfig:
    return TriggerConfig(None, "UTC", kind="after", after=tuple(map(AgentName, names)))


def cron(schedule: str, timezone: str = "UTC") -> TriggerConfig:
    return TriggerConfig(schedule, timezone)


MANUAL = TriggerConfig(None, "UTC", kind="manual")


def test_an_agent_is_started_by_the_runs_of_another() -> None:
    graph = graph_of(fleet(build=cron("0 6 * * *"), notes=after("build"), post=after("notes")))
    assert graph.starts == {"build": ("notes",), "notes": ("post",)}
    assert graph.roots == ("build",)
    assert graph.cycles == ()


def test_an_unknown_starter_is_told_with_who_waits_for_it() -> None:
    graph = graph_of(fleet(notes=after("gone"), other=MANUAL))
    assert [(u.agent, u.name) for u in graph.unknown] == [("notes", "gone")]
    assert graph.roots == ("notes", "other")


def test_a_circle_is_told_from_its_first_name_in_the_order_of_its_arrows() -> None:
    graph = graph_of(
        fleet(c=after("a"), a=after("b"), b=after("c"), self=after("self"), free=MANUAL)
    )
    assert graph.cycles == (("a", "c", "b"), ("self",))


def test_a_chain_as_long_as_a_fleet_needs_no_recursion() -> None:
    chain = {f"a{n:05}": after(f"a{n - 1:05}") if n else MANUAL for n in range(5_000)}
    assert graph_of(fleet(**chain)).cycles == ()
    ring = {**chain, "a00000": after("a04999")}
    assert [len(cycle) for cycle in graph_of(fleet(**ring)).cycles] == [5_000]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=14))
def test_there_is_a_circle_exactly_when_an_agent_can_reach_itself(
    edges: list[tuple[int, int]],
) -> None:
    starters: dict[str, list[str]] = {f"a{n}": [] for n in range(7)}
    for start, end in edges:
        starters[f"a{end}"].append(f"a{start}")
    made = fleet(**{n: after(*names) if names else MANUAL for n, names in starters.items()})
    graph = graph_of(made)

    def reaches_itself(name: str) -> bool:
        seen: set[str] = set()
        left = [name]
        while left:
            for target in graph.starts.get(AgentName(left.pop()), ()):
                if target == name:
                    return True
                if target not in seen:
                    seen.add(target)
                    left.append(target)
        return False

    looping = {name for name in starters if reaches_itself(name)}
    assert bool(graph.cycles) is bool(looping)
    for cycle in graph.cycles:
        assert set(cycle) <= looping
        for one, following in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            assert following in graph.starts[one]


def test_triggers_are_told_in_words() -> None:
    assert told(cron("0 6 * * *", "Europe/Berlin")) == "schedule 0 6 * * * Europe/Berlin"
    assert told(MANUAL) == "by hand"
    assert told(after("a", "b")) == "after a, b"
    assert told(TriggerConfig(None, "UTC", kind="event", what="push")) == "event push"


def test_the_same_wall_clock_in_two_zones_is_two_moments() -> None:
    week = sample_week(
        fleet(
            berlin=cron("0 6 * * *", "Europe/Berlin"),
            utc=cron("0 5 * * *"),
            tokyo=cron("0 6 * * *", "Asia/Tokyo"),
        ),
        MONDAY,
    )
    assert week.starts == 21
    assert week.busiest[0].agents == ("berlin", "utc")
    assert week.busiest[0].at == datetime(2026, 11, 23, 5, tzinfo=UTC)


def test_the_week_begins_with_its_first_minute_and_ends_before_the_next() -> None:
    week = sample_week(fleet(a=cron("0 0 * * 1")), MONDAY)
    assert [minute.at for minute in week.busiest] == [datetime(2026, 11, 23, tzinfo=UTC)]


def test_the_shortest_time_between_two_starts_is_known() -> None:
    week = sample_week(fleet(a=cron("0,10 6 * * *"), b=cron("0 6 * * 1"), c=MANUAL), MONDAY)
    assert week.gaps == {"a": 600}


def test_the_hour_that_autumn_repeats_makes_no_negative_gap() -> None:
    week = sample_week(fleet(a=cron("*/30 * * * *", "Europe/Berlin")), date(2026, 10, 24))
    assert week.gaps == {"a": 1800}
    assert week.starts == 7 * 48


def test_very_many_moments_are_sampled_over_fewer_days(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "MOST_MOMENTS", 3_000)
    week = sample_week(fleet(a=cron("* * * * *"), b=cron("*/2 * * * *")), MONDAY)
    assert week.days == 2
    assert week.busiest[0].agents == ("a", "b")


def test_agents_of_one_schedule_are_counted_once_each() -> None:
    week = sample_week(fleet(**{f"a{n}": cron("0 6 * * 1") for n in range(12)}), MONDAY)
    assert len(week.busiest[0].agents) == week.starts == 12
