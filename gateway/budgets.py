"""Rules of money: which rules a call falls under, what they still cover, what they allow.

Pure: no I/O, no clock. `calls` keeps the running totals in the ledger's transactions and asks
here. A total belongs to a *meter*: a rule's matching part (not its limit), a scope and the start
of a window. So a changed limit works on what has been spent already, and a rule that starts to
match other calls gets a new meter, counted from the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from gateway.policy import BudgetRule, Limits, Window
from gateway.values import Millis, content_hash, show_usd

RUN_RULE = "run"
"""Name of the implicit rule: the limits on cost and tokens of the run's own effective grants."""
MIN_OUTPUT_TOKENS = 16
"""A call whose output would have to be clamped below this is refused: it could say nothing."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What rules look at: one ledger row, or one that is about to be. `at` is reserved_at."""

    run: str
    agent: str
    team: str
    model: str
    purpose: str
    at: int


@dataclass(frozen=True, slots=True)
class Meter:
    """Identity of a running total: primary key of `budget_windows`."""

    rule: str
    scope: str
    start: int


@dataclass(frozen=True, slots=True)
class Total:
    """Nano-dollars and tokens of one meter: held by open reservations, and spent for good."""

    held_nano: int = 0
    spent_nano: int = 0
    held_tokens: int = 0
    spent_tokens: int = 0

    def __add__(self, other: Total) -> Total:
        return Total(
            self.held_nano + other.held_nano,
            self.spent_nano + other.spent_nano,
            self.held_tokens + other.held_tokens,
            self.spent_tokens + other.spent_tokens,
        )


@dataclass(frozen=True, slots=True)
class Ceiling:
    """One rule as it stands over one charge. `end` is when the window resets (None: never)."""

    meter: Meter
    name: str
    limit_nano: int | None
    limit_tokens: int | None
    enforce: bool
    alert_at: tuple[int, ...]
    end: int | None


@dataclass(frozen=True, slots=True)
class Admission:
    """What a call may use at most, and what is reserved for it."""

    output_tokens: int
    reserved_nano: int
    reserved_tokens: int


@dataclass(frozen=True, slots=True)
class Shortfall:
    """The rule that does not cover a call; `left_*` may be 0, never negative."""

    ceiling: Ceiling
    left_nano: int | None
    left_tokens: int | None
    message: str


def window_of(window: Window, at: int) -> tuple[int, int | None]:
    """Start and end (exclusive) of the calendar window around `at`, both milliseconds UTC.

    Weeks begin on Monday (ISO 8601). Window.RUN has no calendar: (0, None).
    """
    if window is Window.RUN:
        return 0, None
    moment = datetime.fromtimestamp(at // 1000, tz=UTC)
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if window is Window.DAY:
        start, end = day, day + timedelta(days=1)
    elif window is Window.WEEK:
        start = day - timedelta(days=day.weekday())
        end = start + timedelta(days=7)
    else:
        months = 1 if window is Window.MONTH else 3
        first = (day.month - 1) // months * months + 1
        start = day.replace(month=first, day=1)
        following = first + months
        end = start.replace(
            year=start.year + (following > 12), month=following - 12 * (following > 12)
        )
    return int(start.timestamp()) * 1000, int(end.timestamp()) * 1000


@lru_cache(maxsize=1024)
def rule_id(rule: BudgetRule) -> str:
    """Identity of what a rule counts: name and a hash of its matching part, without its limit."""
    matching = [
        rule.window,
        rule.agent,
        rule.team,
        rule.model,
        rule.purpose,
        rule.each_agent,
    ]
    return f"{rule.name}#{content_hash([str(part) for part in matching])[:8]}"


def matches(rule: BudgetRule, charge: Charge) -> bool:
    """Does the rule count this charge? Every pattern must match (globs, case-sensitive)."""
    return (
        fnmatchcase(charge.agent, rule.agent)
        and fnmatchcase(charge.team, rule.team)
        and fnmatchcase(charge.model, rule.model)
        and fnmatchcase(charge.purpose, rule.purpose)
    )


def meter(rule: BudgetRule, charge: Charge) -> Meter:
    """Where the rule counts this charge."""
    if rule.window is Window.RUN:
        scope = charge.run
    else:
        scope = charge.agent if rule.each_agent else "*"
    return Meter(rule_id(rule), scope, window_of(rule.window, charge.at)[0])


def meters(rules: Iterable[BudgetRule], charge: Charge) -> tuple[Meter, ...]:
    """Every meter that counts this charge; the run's own comes first."""
    return (
        Meter(RUN_RULE, charge.run, 0),
        *(meter(rule, charge) for rule in rules if matches(rule, charge)),
    )


def ceilings(rules: Iterable[BudgetRule], limits: Limits, charge: Charge) -> tuple[Ceiling, ...]:
    """Every rule over this charge, the run's own limits first (when it has any)."""
    found: list[Ceiling] = []
    if limits.max_cost is not None or limits.max_tokens is not None:
        found.append(
            Ceiling(
                Meter(RUN_RULE, charge.run, 0),
                RUN_RULE,
                limits.max_cost,
                limits.max_tokens,
                enforce=True,
                alert_at=(),
                end=None,
            )
        )
    found.extend(
        Ceiling(
            meter(rule, charge),
            rule.name,
            rule.limit,
            None,
            enforce=rule.mode == "enforce",
            alert_at=rule.alert_at,
            end=window_of(rule.window, charge.at)[1],
        )
        for rule in rules
        if matches(rule, charge)
    )
    return tuple(found)


def left(ceiling: Ceiling, total: Total) -> tuple[int | None, int | None]:
    """Nano-dollars and tokens that the ceiling still covers; None where it sets no limit."""
    nano = tokens = None
    if ceiling.limit_nano is not None:
        nano = max(0, ceiling.limit_nano - total.held_nano - total.spent_nano)
    if ceiling.limit_tokens is not None:
        tokens = max(0, ceiling.limit_tokens - total.held_tokens - total.spent_tokens)
    return nano, tokens


def admit(
    over: Sequence[Ceiling],
    totals: Mapping[Meter, Total],
    *,
    cost: Callable[[int, int], int],
    input_tokens: int,
    wanted_output: int,
) -> Admission | Shortfall:
    """Clamp the output to what every enforced ceiling covers, or name the first that does not.

    `cost(input_tokens, output_tokens)` is the worst-case price in nano-dollars and must not fall
    when output grows. Invariant: an admission's reservation fits under each enforced ceiling
    together with all that is held and spent.
    """
    output = wanted_output
    floor = min(MIN_OUTPUT_TOKENS, wanted_output)
    for ceiling in over:
        if not ceiling.enforce:
            continue
        nano, tokens = left(ceiling, totals[ceiling.meter])
        if tokens is not None:
            output = min(output, tokens - input_tokens)
        if nano is not None and output >= floor and cost(input_tokens, output) > nano:
            output = _affordable(cost, input_tokens, nano, low=floor - 1, high=output)
        if output < floor:
            return Shortfall(
                ceiling, nano, tokens, _explain(ceiling, nano, tokens, cost(input_tokens, floor))
            )
    return Admission(output, cost(input_tokens, output), input_tokens + output)


def _affordable(
    cost: Callable[[int, int], int], input_tokens: int, nano: int, *, low: int, high: int
) -> int:
    """The most output in (low, high) that costs no more than `nano`; `low` when none does."""
    while high - low > 1:
        middle = (low + high) // 2
        if cost(input_tokens, middle) <= nano:
            low = middle
        else:
            high = middle
    return low


def _explain(ceiling: Ceiling, nano: int | None, tokens: int | None, need_nano: int) -> str:
    parts = [f"budget `{ceiling.name}` does not cover this call:"]
    if nano is not None:
        parts.append(
            f"{show_usd(nano)} of {show_usd(ceiling.limit_nano or 0)} is left, "
            f"the call needs at least {show_usd(need_nano)}."
        )
    if tokens is not None:
        parts.append(f"{tokens} of {ceiling.limit_tokens} tokens are left.")
    if ceiling.end is None:
        parts.append("It belongs to the run and does not reset; raise the run's limit.")
    else:
        moment = datetime.fromtimestamp(ceiling.end // 1000, tz=UTC)
        parts.append(f"It resets at {moment:%Y-%m-%dT%H:%MZ}.")
    return " ".join(parts)


def crossed(ceiling: Ceiling, total: Total) -> tuple[int, ...]:
    """Percentages of the limit that spending has reached; an audit rule always alerts at 100."""
    if not ceiling.limit_nano:
        return ()
    marks = {*ceiling.alert_at} | (set() if ceiling.enforce else {100})
    reached = total.spent_nano * 100
    return tuple(mark for mark in sorted(marks) if reached >= mark * ceiling.limit_nano)


def recount(rules: Iterable[BudgetRule], rows: Iterable[Mapping[str, Any]]) -> dict[Meter, Total]:
    """Totals of every meter, from ledger rows alone: the proof that running totals are true.

    Rows need run, agent, team, target, purpose, reserved_at, state, reserved_nano, cost_nano,
    reserved_tokens, input_tokens and output_tokens (columns of `calls`).
    """
    rules = tuple(rules)
    totals: dict[Meter, Total] = {}
    for row in rows:
        charge = charge_of(row)
        for found in meters(rules, charge):
            totals[found] = totals.get(found, Total()) + share_of(row)
    return totals


def charge_of(row: Mapping[str, Any]) -> Charge:
    """A ledger row as rules see it."""
    return Charge(
        run=row["run"],
        agent=row["agent"],
        team=row["team"],
        model=row["target"],
        purpose=row["purpose"],
        at=Millis(row["reserved_at"]),
    )


def share_of(row: Mapping[str, Any]) -> Total:
    """What one ledger row adds to each of its meters; an unknown row counts at worst case."""
    if row["state"] == "reserved":
        return Total(held_nano=row["reserved_nano"], held_tokens=row["reserved_tokens"])
    if row["state"] == "released":
        return Total()
    if row["state"] == "unknown":
        return Total(spent_nano=row["cost_nano"], spent_tokens=row["reserved_tokens"])
    return Total(
        spent_nano=row["cost_nano"],
        spent_tokens=(row["input_tokens"] or 0) + (row["output_tokens"] or 0),
    )
