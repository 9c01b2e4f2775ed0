"""Rules of money: which rules a call falls under, what they still cover, what they allow.

A rule limits nano-dollars, tokens, requests, or several of them. Pure: no I/O, no clock. `calls`
keeps the running totals in the ledger's transactions and asks here. A total belongs to a *meter*: a
rule's matching part (not its limits), a scope and the start of a window. So a changed limit works
on what has been spent already, and a rule that starts to match other calls gets a new meter,
counted from the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, NamedTuple, Self

from gateway.policy import BudgetRule, Limits, Window
from gateway.values import content_hash, show_usd

RUN_RULE = "run"
"""Name of the implicit rule: the limits on cost and tokens of the run's own effective grants."""
MIN_OUTPUT_TOKENS = 16
"""A call whose output would have to be clamped below this is refused: it could say nothing."""


class Charge(NamedTuple):
    """What rules look at: one ledger row, or one that is about to be. `at` is reserved_at."""

    run: str
    agent: str
    team: str
    model: str
    purpose: str
    at: int
    user: str | None = None
    tags: tuple[str, ...] = ()


class Meter(NamedTuple):
    """Identity of a running total: primary key of `budget_windows`."""

    rule: str
    scope: str
    start: int


@dataclass(slots=True)
class Total:
    """Nano-dollars, tokens and requests of one meter: held by open reservations, and spent."""

    held_nano: int = 0
    spent_nano: int = 0
    held_tokens: int = 0
    spent_tokens: int = 0
    held_requests: int = 0
    spent_requests: int = 0

    def __iadd__(self, other: Total) -> Self:
        self.held_nano += other.held_nano
        self.spent_nano += other.spent_nano
        self.held_tokens += other.held_tokens
        self.spent_tokens += other.spent_tokens
        self.held_requests += other.held_requests
        self.spent_requests += other.spent_requests
        return self

    def __sub__(self, other: Total) -> Total:
        return Total(
            self.held_nano - other.held_nano,
            self.spent_nano - other.spent_nano,
            self.held_tokens - other.held_tokens,
            self.spent_tokens - other.spent_tokens,
            self.held_requests - other.held_requests,
            self.spent_requests - other.spent_requests,
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
    limit_requests: int | None = None


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
    left_requests: int | None = None


@lru_cache(maxsize=64)
def _window(window: Window, day: int) -> tuple[int, int]:
    """Start and end of the calendar window around a day (counted from 1970-01-01)."""
    moment = datetime.fromtimestamp(day * 86_400, tz=UTC)
    if window is Window.DAY:
        start, end = moment, moment + timedelta(days=1)
    elif window is Window.WEEK:
        start = moment - timedelta(days=moment.weekday())
        end = start + timedelta(days=7)
    else:
        months = 1 if window is Window.MONTH else 3
        first = (moment.month - 1) // months * months + 1
        start = moment.replace(month=first, day=1)
        following = first + months
        end = start.replace(
            year=start.year + (following > 12), month=following - 12 * (following > 12)
        )
    return int(start.timestamp()) * 1000, int(end.timestamp()) * 1000


def window_of(window: Window, at: int) -> tuple[int, int | None]:
    """Start and end (exclusive) of the calendar window around `at`, both milliseconds UTC.

    Weeks begin on Monday (ISO 8601). Window.RUN has no calendar: (0, None).
    """
    if window is Window.RUN:
        return 0, None
    return _window(window, at // 86_400_000)


@lru_cache(maxsize=1024)
def rule_id(rule: BudgetRule) -> str:
    """Identity of what a rule counts: name and a hash of its matching part, without its limits."""
    matching = [
        rule.window,
        rule.agent,
        rule.team,
        rule.model,
        rule.purpose,
        rule.each_agent,
    ]
    # Later parts only where they say something: what was counted before they existed stays.
    matching += [part for part in (("user", rule.user), ("tag", rule.tag)) if part[1] != "*"]
    return f"{rule.name}#{content_hash([str(part) for part in matching])[:8]}"


def matches(rule: BudgetRule, charge: Charge) -> bool:
    """Does the rule count this charge? Every pattern must match (globs, case-sensitive)."""
    return (
        fnmatchcase(charge.agent, rule.agent)
        and fnmatchcase(charge.team, rule.team)
        and fnmatchcase(charge.model, rule.model)
        and fnmatchcase(charge.purpose, rule.purpose)
        and (rule.user == "*" or fnmatchcase(charge.user or "", rule.user))
        and (rule.tag == "*" or any(fnmatchcase(tag, rule.tag) for tag in charge.tags))
    )


class Rules:
    """A policy's budget rules, with what has been found out about whom each is about."""

    def __init__(self, rules: Iterable[BudgetRule]) -> None:
        self.rules = tuple(rules)
        self.ids = frozenset(rule_id(rule) for rule in self.rules)
        self._matching: dict[tuple[Any, ...], tuple[tuple[BudgetRule, str], ...]] = {}

    def matching(self, charge: Charge) -> tuple[tuple[BudgetRule, str], ...]:
        """The rules that count this charge, each with its identity."""
        about = (
            charge.agent,
            charge.team,
            charge.model,
            charge.purpose,
            charge.user,
            charge.tags,
        )
        found = self._matching.get(about)
        if found is None:
            if len(self._matching) >= 4096:
                self._matching.clear()
            found = self._matching[about] = tuple(
                (rule, rule_id(rule)) for rule in self.rules if matches(rule, charge)
            )
        return found

    def meters(self, charge: Charge) -> list[Meter]:
        """Every meter that counts this charge; the run's own comes first."""
        found = [Meter(RUN_RULE, charge.run, 0)]
        found.extend(_meter(rule, name, charge) for rule, name in self.matching(charge))
        return found

    def ceilings(self, limits: Limits, charge: Charge) -> list[Ceiling]:
        """Every rule over this charge, the run's own limits first (when it has any)."""
        found: list[Ceiling] = []
        if limits.max_cost is not None or limits.max_tokens is not None:
            found.append(
                Ceiling(
                    Meter(RUN_RULE, charge.run, 0),
                    RUN_RULE,
                    limits.max_cost,
                    limits.max_tokens,
                    True,
                    (),
                    None,
                )
            )
        for rule, name in self.matching(charge):
            found.append(
                Ceiling(
                    _meter(rule, name, charge),
                    rule.name,
                    rule.limit,
                    rule.tokens,
                    rule.mode == "enforce",
                    rule.alert_at,
                    window_of(rule.window, charge.at)[1],
                    rule.requests,
                )
            )
        return found


def _meter(rule: BudgetRule, name: str, charge: Charge) -> Meter:
    """Where the rule counts this charge."""
    if rule.window is Window.RUN:
        return Meter(name, charge.run, 0)
    scope = charge.agent if rule.each_agent else "*"
    return Meter(name, scope, window_of(rule.window, charge.at)[0])


def left(ceiling: Ceiling, total: Total) -> tuple[int | None, int | None, int | None]:
    """Nano-dollars, tokens and requests that the ceiling still covers; None: it sets no limit."""
    nano = tokens = requests = None
    if ceiling.limit_nano is not None:
        nano = max(0, ceiling.limit_nano - total.held_nano - total.spent_nano)
    if ceiling.limit_tokens is not None:
        tokens = max(0, ceiling.limit_tokens - total.held_tokens - total.spent_tokens)
    if ceiling.limit_requests is not None:
        requests = max(0, ceiling.limit_requests - total.held_requests - total.spent_requests)
    return nano, tokens, requests


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
        nano, tokens, requests = left(ceiling, totals[ceiling.meter])
        if tokens is not None:
            output = min(output, tokens - input_tokens)
        if nano is not None and output >= floor and cost(input_tokens, output) > nano:
            output = _affordable(cost, input_tokens, nano, low=floor - 1, high=output)
        if output < floor or requests == 0:
            need = cost(input_tokens, floor)
            said = _explain(ceiling, nano, tokens, requests, need)
            return Shortfall(ceiling, nano, tokens, said, requests)
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


def _explain(
    ceiling: Ceiling, nano: int | None, tokens: int | None, requests: int | None, need_nano: int
) -> str:
    parts = [f"budget `{ceiling.name}` does not cover this call:"]
    if nano is not None:
        parts.append(
            f"{show_usd(nano)} of {show_usd(ceiling.limit_nano or 0)} is left, "
            f"the call needs at least {show_usd(need_nano)}."
        )
    if tokens is not None:
        parts.append(f"{tokens} of {ceiling.limit_tokens} tokens are left.")
    if requests is not None:
        parts.append(f"{requests} of {ceiling.limit_requests} requests are left.")
    if ceiling.end is None:
        parts.append("It belongs to the run and does not reset; raise the run's limit.")
    else:
        moment = datetime.fromtimestamp(ceiling.end // 1000, tz=UTC)
        parts.append(f"It resets at {moment:%Y-%m-%dT%H:%MZ}.")
    return " ".join(parts)


def crossed(ceiling: Ceiling, total: Total) -> tuple[int, ...]:
    """Percentages of a limit that spending has reached; an audit rule always alerts at 100."""
    used = (
        (total.spent_nano, ceiling.limit_nano),
        (total.spent_tokens, ceiling.limit_tokens),
        (total.spent_requests, ceiling.limit_requests),
    )
    reached = max((spent * 100 // limit for spent, limit in used if limit), default=0)
    marks = ceiling.alert_at if ceiling.enforce else (*ceiling.alert_at, 100)
    return tuple(sorted({mark for mark in marks if reached >= mark}))


def recount(rules: Iterable[BudgetRule], rows: Iterable[Mapping[str, Any]]) -> dict[Meter, Total]:
    """Totals of every meter, from ledger rows alone: the proof that running totals are true.

    Rows need run, agent, team, target, purpose, reserved_at, state, reserved_nano, cost_nano,
    reserved_tokens, input_tokens and output_tokens (columns of `calls`).
    """
    over = Rules(rules)
    totals: dict[Meter, Total] = {}
    for row in rows:
        share = share_of(row)
        for found in over.meters(charge_of(row)):
            total = totals.setdefault(found, Total())
            total += share
    return totals


def charge_of(row: Mapping[str, Any]) -> Charge:
    """A ledger row as rules see it."""
    return Charge(
        run=row["run"],
        agent=row["agent"],
        team=row["team"],
        model=row["target"],
        purpose=row["purpose"],
        at=row["reserved_at"],
        user=row.get("for_user"),
        tags=tuple((row.get("tags") or "").split()),
    )


def share_of(row: Mapping[str, Any]) -> Total:
    """What one ledger row adds to each of its meters; an unknown row counts at worst case."""
    state = row["state"]
    if state == "released":
        return Total()
    # Budgets count requests to models; what tools may be called how often are rate limits.
    requests = 1 if row.get("kind", "model") == "model" else 0
    if state == "reserved":
        return Total(row["reserved_nano"], 0, row["reserved_tokens"], 0, requests, 0)
    if state == "unknown":
        return Total(0, row["cost_nano"], 0, row["reserved_tokens"], 0, requests)
    tokens = (row["input_tokens"] or 0) + (row["output_tokens"] or 0)
    return Total(0, row["cost_nano"], 0, tokens, 0, requests)
