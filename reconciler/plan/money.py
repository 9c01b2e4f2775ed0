"""The most an agent can spend: per run by its own limits, per day by its schedule and budgets.

Bounds, not forecasts: what the gateway will refuse to go beyond. They come from git alone.

    per run = min(max_cost_per_run, every enforced budget with window `run` that covers the agent)
    per day = min(per run × most runs of the schedule in a day, every enforced calendar budget)

A budget that agents share caps each of them, and caps the sum once. A longer window caps a day
too. A budget for some models only, or for evals, caps nothing here: other calls go past it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import takewhile

from cronsim import CronSim, CronSimError

from gateway.values import AgentName, Json
from reconciler.plan.changes import Bill, Money, Worst
from reconciler.plan.model import Side, Standing
from reconciler.plan.phrases import record, whole

RUN = "run"
YEAR = datetime(2024, 1, 1, tzinfo=UTC)
"""Days that a schedule is due on are counted in this year, a leap year: any year would do."""


@dataclass(frozen=True, slots=True)
class Cap:
    """An enforced budget over all live calls of the agents it matches."""

    name: str
    limit: int
    window: str
    agent: str
    team: str
    each_agent: bool

    def covers(self, agent: str, team: str) -> bool:
        """Whether the agent spends from it."""
        return fnmatchcase(agent, self.agent) and fnmatchcase(team, self.team)


def caps_of(side: Side) -> tuple[Cap, ...]:
    """Budgets of money that no live call of a matching agent can go past."""
    found = []
    for name, unit in side.units.items():
        kind, _, title = name.partition("/")
        rule = record(unit.value)
        everything = rule.get("purpose") in ("*", "live") and all(
            rule.get(field, "*") == "*" for field in ("model", "user", "tag")
        )
        everything = everything and rule.get("limit") is not None
        if kind == "budget" and everything and rule.get("mode") == "enforce":
            found.append(
                Cap(
                    title,
                    whole(rule.get("limit")),
                    str(rule.get("window")),
                    str(rule.get("agent")),
                    str(rule.get("team")),
                    bool(rule.get("each_agent")),
                )
            )
    return tuple(found)


def worst(agent: AgentName, standing: Standing, caps: Sequence[Cap]) -> Worst:
    """The agent's bounds on one side."""
    team = str(standing.facts.get("team"))
    limits = record(standing.release.leaves.get("limits")) if standing.release else {}
    own = limits.get("max_cost")
    mine = [cap for cap in caps if cap.covers(agent, team)]
    per_run = _least([own, *(cap.limit for cap in mine if cap.window == RUN)])
    runs = runs_per_day(standing.facts)
    if runs is None:
        return Worst(per_run, None, None)
    per_day = None if per_run is None else per_run * runs
    capped_by = ""
    for cap in sorted(mine, key=lambda cap: (cap.limit, cap.name)):
        if cap.window != RUN and (per_day is None or cap.limit < per_day):
            per_day, capped_by = cap.limit, cap.name
    return Worst(per_run, per_day, runs, capped_by)


def compare_money(
    live: Side,
    desired: Side,
    pairs: Iterable[tuple[AgentName, AgentName | None]],
) -> Money:
    """Bills of `pairs` (desired name, name on the live side if it has another) that differ.

    The fleet's sums are only taken when some bill differs: they cost a look at every agent.
    """
    then, now = caps_of(live), caps_of(desired)
    bills = []
    for name, former in pairs:
        before, after = live.agents.get(former or name), desired.agents.get(name)
        old = worst(former or name, before, then) if before and before.release else None
        new = worst(name, after, now) if after and after.release else None
        if old != new:
            bills.append(Bill(name, old, new))
    if not bills:
        return Money()
    bills.sort(key=lambda bill: bill.agent)
    if live.size is not None or desired.size is not None:
        return Money(tuple(bills))
    # An agent in error keeps what is live, and goes on spending.
    kept = {n: s for n, s in live.agents.items() if n in desired.broken and n not in desired.agents}
    going_on = replace(desired, agents={**desired.agents, **kept})
    return Money(tuple(bills), total(live, then), total(going_on, now))


def total(side: Side, caps: Sequence[Cap]) -> int | None:
    """The most that all scheduled agents can spend in a day; None when nothing bounds one of them.

    Budgets that are shared hold for the sum of those that spend from them; a budget over the whole
    fleet therefore bounds it even when an agent of it is unbounded.
    """
    own = [cap for cap in caps if cap.each_agent]
    days: list[tuple[str, str, int | None]] = []
    for name, standing in side.agents.items():
        bill = worst(name, standing, own)
        if bill.runs is not None:
            days.append((name, str(standing.facts.get("team")), bill.per_day))
    amount = _sum(day for _, _, day in days)
    for cap in caps:
        if cap.window == RUN or cap.each_agent:
            continue
        outside = [day for name, team, day in days if not cap.covers(name, team)]
        rest = _sum(outside)
        if len(outside) < len(days) and rest is not None:
            amount = cap.limit + rest if amount is None else min(amount, cap.limit + rest)
    return amount


def _sum(days: Iterable[int | None]) -> int | None:
    amount = 0
    for day in days:
        if day is None:
            return None
        amount += day
    return amount


def runs_per_day(facts: Mapping[str, Json]) -> int | None:
    """Most runs that the schedule starts in a day; None without one."""
    trigger = record(facts.get("trigger"))
    schedule = trigger.get("schedule")
    if trigger.get("kind") != "schedule" or not isinstance(schedule, str):
        return None
    return daily(schedule)


@lru_cache(maxsize=16_384)
def daily(schedule: str) -> int:
    """Moments of a cron expression on a day that it is due on: its minutes times its hours.

    In the night when clocks are set back one more may come. A schedule that does not parse counts
    as every minute.
    """
    try:
        parsed = CronSim(schedule, YEAR)
    except CronSimError:
        return 24 * 60
    seconds: set[int] = getattr(parsed, "seconds", {0})
    return len(parsed.minutes) * len(parsed.hours) * len(seconds)


@lru_cache(maxsize=1024)
def yearly(schedule: str) -> int:
    """Moments of a cron expression in a leap year: which of two schedules is due more often."""
    parts = schedule.split()
    try:
        # From the last second before: a moment that it is asked from is not given.
        dates = CronSim(" ".join(["0", "0", *parts[-3:]]), YEAR - timedelta(seconds=1))
        days = sum(1 for _ in takewhile(lambda moment: moment.year == YEAR.year, dates))
    except (CronSimError, StopIteration):
        days = 366
    return days * daily(schedule)


def _least(values: Iterable[Json]) -> int | None:
    return min((whole(value) for value in values if value is not None), default=None)
