"""Rules of money, as pure functions: windows, clamping, refusal, alerts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import budgets
from gateway.budgets import Admission, Charge, Meter, Rules, Shortfall, Total
from gateway.policy import BudgetRule, Limits, Window
from gateway.values import NanoUSD


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


CHARGE = Charge("run-1", "triage", "platform", "fast", "live", at("2026-11-21T13:37:00"))


def rule(**changes: object) -> BudgetRule:
    values = {"name": "daily", "limit": NanoUSD(1000), "window": Window.DAY}
    return BudgetRule(**{**values, **changes})  # type: ignore[arg-type]


def scope(one: BudgetRule) -> str:
    return Rules([one]).meters(CHARGE)[1].scope


@pytest.mark.parametrize(
    ("window", "start", "end"),
    [
        (Window.DAY, "2026-11-21", "2026-11-22"),
        (Window.WEEK, "2026-11-16", "2026-11-23"),
        (Window.MONTH, "2026-11-01", "2026-12-01"),
        (Window.QUARTER, "2026-10-01", "2027-01-01"),
    ],
)
def test_windows_are_calendar_windows_in_utc(window: Window, start: str, end: str) -> None:
    assert budgets.window_of(window, CHARGE.at) == (at(start), at(end))


@given(st.sampled_from([w for w in Window if w is not Window.RUN]), st.integers(0, 4_000_000_000))
def test_every_moment_lies_in_its_window_and_windows_touch(window: Window, second: int) -> None:
    moment = second * 1000
    start, end = budgets.window_of(window, moment)
    assert end is not None
    assert start <= moment < end
    assert budgets.window_of(window, end)[0] == end
    assert budgets.window_of(window, start) == (start, end)


def test_a_rule_counts_only_what_all_its_patterns_match() -> None:
    assert budgets.matches(rule(agent="tri*", model="fa*", purpose="live"), CHARGE)
    for field in ("agent", "team", "model", "purpose"):
        assert not budgets.matches(rule(**{field: "other"}), CHARGE)


def test_each_agent_has_a_meter_of_its_own_where_the_rule_says_so() -> None:
    assert scope(rule(each_agent=True)) == "triage"
    assert scope(rule()) == "*"
    assert scope(rule(window=Window.RUN)) == "run-1"


def test_a_changed_limit_keeps_the_meter_and_a_changed_pattern_gets_a_new_one() -> None:
    assert budgets.rule_id(rule()) == budgets.rule_id(rule(limit=NanoUSD(5)))
    assert budgets.rule_id(rule()) != budgets.rule_id(rule(agent="x*"))


def admit(
    limit: int, total: Total, *, wanted: int = 500, tokens: int | None = None
) -> Admission | Shortfall:
    limits = Limits(max_cost=NanoUSD(limit), max_tokens=tokens)
    over = Rules(()).ceilings(limits, CHARGE)
    return budgets.admit(
        over,
        {over[0].meter: total},
        cost=lambda i, o: i * 1 + o * 10,
        input_tokens=100,
        wanted_output=wanted,
    )


def test_output_is_clamped_to_what_the_budget_still_covers() -> None:
    admission = admit(1000, Total(held_nano=100, spent_nano=100))
    assert admission == Admission(output_tokens=70, reserved_nano=800, reserved_tokens=170)


def test_tokens_clamp_too() -> None:
    admission = admit(10**9, Total(spent_tokens=50), tokens=200)
    assert admission == Admission(output_tokens=50, reserved_nano=600, reserved_tokens=150)


def test_a_refusal_names_the_rule_and_what_is_left() -> None:
    short = admit(250, Total())
    assert isinstance(short, Shortfall)
    assert (short.ceiling.name, short.left_nano) == ("run", 250)
    assert "budget `run` does not cover" in short.message


def test_a_refusal_of_a_calendar_rule_says_when_it_resets() -> None:
    over = Rules([rule(limit=NanoUSD(10))]).ceilings(Limits(), CHARGE)
    short = budgets.admit(
        over,
        {over[0].meter: Total()},
        cost=lambda i, o: i + o,
        input_tokens=100,
        wanted_output=10,
    )
    assert isinstance(short, Shortfall)
    assert short.ceiling.end == at("2026-11-22")
    assert "resets at 2026-11-22T00:00Z" in short.message


def test_an_audit_rule_never_clamps_but_alerts_when_it_is_passed() -> None:
    (ceiling,) = Rules([rule(mode="audit")]).ceilings(Limits(), CHARGE)
    admission = budgets.admit(
        (ceiling,),
        {ceiling.meter: Total(spent_nano=10**6)},
        cost=lambda i, o: i + o,
        input_tokens=1,
        wanted_output=5,
    )
    assert isinstance(admission, Admission)
    assert budgets.crossed(ceiling, Total(spent_nano=800)) == (80,)
    assert budgets.crossed(ceiling, Total(spent_nano=1000)) == (80, 100)
    assert budgets.crossed(ceiling, Total(held_nano=1000)) == ()


@given(
    st.lists(st.integers(0, 5000), min_size=1, max_size=3),
    st.integers(0, 3000),
    st.integers(0, 300),
    st.integers(1, 400),
    st.integers(0, 7),
)
def test_an_admission_fits_under_every_enforced_ceiling(
    limits: list[int], spent: int, tokens: int, wanted: int, price: int
) -> None:
    rules = tuple(rule(name=f"r{i}", limit=NanoUSD(n)) for i, n in enumerate(limits))
    over = Rules(rules).ceilings(Limits(), CHARGE)
    totals = {ceiling.meter: Total(spent_nano=spent) for ceiling in over}

    def cost(i: int, o: int) -> int:
        return i + o * price

    found = budgets.admit(over, totals, cost=cost, input_tokens=tokens, wanted_output=wanted)
    floor = min(budgets.MIN_OUTPUT_TOKENS, wanted)
    if isinstance(found, Shortfall):
        assert any(spent + cost(tokens, floor) > limit for limit in limits)
    else:
        assert floor <= found.output_tokens <= wanted
        assert found.reserved_nano == cost(tokens, found.output_tokens)
        # What costs nothing takes no budget over its limit, whatever was spent before.
        free = found.reserved_nano == 0
        assert free or all(spent + found.reserved_nano <= limit for limit in limits)
        if found.output_tokens < wanted:
            more = cost(tokens, found.output_tokens + 1)
            assert any(spent + more > limit for limit in limits), "clamped more than needed"


def test_recount_adds_rows_by_their_state() -> None:
    base = {
        "run": "run-1",
        "agent": "triage",
        "team": "platform",
        "target": "fast",
        "purpose": "live",
        "reserved_at": CHARGE.at,
        "reserved_nano": 100,
        "reserved_tokens": 10,
        "input_tokens": 3,
        "output_tokens": 4,
    }
    rows = [
        {**base, "state": "reserved", "cost_nano": None},
        {**base, "state": "settled", "cost_nano": 40},
        {**base, "state": "unknown", "cost_nano": 100},
        {**base, "state": "released", "cost_nano": 0},
    ]
    counted = budgets.recount((), rows)
    assert counted == {Meter("run", "run-1", 0): Total(100, 140, 10, 17, 1, 2)}


def test_a_rule_may_be_about_a_person_or_a_tag() -> None:
    charge = CHARGE._replace(user="ann", tags=("billing", "nightly"))
    assert budgets.matches(rule(user="an*", tag="night*"), charge)
    assert not budgets.matches(rule(user="bob"), charge)
    assert not budgets.matches(rule(tag="weekly"), charge)
    assert not budgets.matches(rule(user="?*"), CHARGE), "nobody in particular"
    assert budgets.rule_id(rule()) != budgets.rule_id(rule(tag="x"))


@pytest.mark.parametrize(
    ("limits", "total", "left"),
    [
        ({"requests": 3}, Total(held_requests=1, spent_requests=2), ("left_requests", 0)),
        ({"tokens": 150}, Total(spent_tokens=60), ("left_tokens", 90)),
    ],
)
def test_requests_and_tokens_are_quotas_too(
    limits: dict[str, int], total: Total, left: tuple[str, int]
) -> None:
    over = Rules([rule(limit=None, **limits)]).ceilings(Limits(), CHARGE)
    free = {over[0].meter: Total()}
    ask = {"cost": lambda i, o: 0, "input_tokens": 100, "wanted_output": 10}
    assert isinstance(budgets.admit(over, free, **ask), Admission)  # type: ignore[arg-type]
    short = budgets.admit(over, {over[0].meter: total}, **ask)  # type: ignore[arg-type]
    assert isinstance(short, Shortfall)
    assert getattr(short, left[0]) == left[1]
    assert "left" in short.message


def test_a_call_that_writes_nothing_needs_no_room_for_output() -> None:
    over = Rules([rule(limit=NanoUSD(100))]).ceilings(Limits(), CHARGE)
    ask = {"cost": lambda i, o: i, "input_tokens": 100, "wanted_output": 0}
    found = budgets.admit(over, {over[0].meter: Total()}, **ask)  # type: ignore[arg-type]
    assert found == Admission(0, 100, 100)
    short = budgets.admit(over, {over[0].meter: Total(spent_nano=1)}, **ask)  # type: ignore[arg-type]
    assert isinstance(short, Shortfall)
