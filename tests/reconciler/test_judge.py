"""The offline gate's word in golden situations, and what may never change it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.values import canonical_json
from reconciler.gates.evidence import (
    ANCHOR,
    CANDIDATE,
    SENTINEL,
    STABLE,
    Attempt,
    Evidence,
    SuiteShape,
)
from reconciler.gates.judge import Reading, Terms, judge
from reconciler.gates.statistics import Resampler
from tests.support.gate_evidence import CASES, arm, sentinel, suite

TERMS = Terms(
    looks=(3, 6, 12), delta=0.1, threshold=0.8, cost_ratio=1.25, latency_ratio=1.25, max_errors=4
)
QUALITY = replace(TERMS, cost_ratio=None, latency_ratio=None)
COST = replace(TERMS, latency_ratio=None)
BOTH = (CANDIDATE, STABLE)


def seeded(name: str) -> Resampler:
    return random.Random(name)


def word(
    attempts: list[Attempt],
    *,
    shape: SuiteShape | None = None,
    look: int = 3,
    terms: Terms = QUALITY,
    arms: tuple[str, ...] = BOTH,
    source: Callable[[str], Resampler] = seeded,
) -> Reading:
    return judge(
        shape or suite(), Evidence.of(attempts), terms, look=look, arms=arms, random=source
    )


def worse(cases: int) -> dict[str, int]:
    return dict.fromkeys(CASES[:cases], 0)


def test_two_equal_arms_that_pass_everything_pass() -> None:
    reading = word(arm(CANDIDATE, 3) + arm(STABLE, 3), terms=TERMS)
    assert reading.decision == "pass"
    assert "+0 points against stable" in reading.summary
    assert {check.name for check in reading.checks} == {
        "not_worse_than_stable",
        "population",
        "cost",
        "latency",
    }


def test_an_arm_forty_points_worse_fails_and_names_what_broke() -> None:
    reading = word(arm(CANDIDATE, 3, passes=worse(8)) + arm(STABLE, 3))
    assert reading.decision == "fail"
    assert "-40 points against stable" in reading.summary
    for case in CASES[:6]:
        assert f"{case} (3/3 → 0/3)" in reading.summary
    assert "and 2 more" in reading.summary
    figures = next(c.figures for c in reading.checks if c.name == "not_worse_than_stable")
    assert figures["flipped"] == [f"{case} (3/3 → 0/3)" for case in CASES[:8]]
    assert CASES[8] not in reading.summary


def test_the_anchor_is_held_against_too() -> None:
    slid = arm(CANDIDATE, 3, passes=worse(8)) + arm(STABLE, 3, passes=worse(8))
    assert word(slid).decision == "pass"
    reading = word(slid + arm(ANCHOR, 3), arms=(CANDIDATE, STABLE, ANCHOR))
    assert reading.decision == "fail"
    assert "against anchor" in reading.summary


def test_a_sentinel_that_passes_holds_whatever_the_arms_say() -> None:
    shape = suite(sentinels=("lazy",))
    good = arm(CANDIDATE, 3) + arm(STABLE, 3)
    reading = word(good + sentinel("lazy", passes=20), shape=shape)
    assert reading.decision == "hold"
    assert "does not reject its sentinel lazy" in reading.summary
    assert word(good + sentinel("lazy", passes=12), shape=shape).decision == "pass"


def test_more_errors_than_allowed_hold_with_the_first_of_them() -> None:
    lost = [Attempt(CANDIDATE, CASES[0], 3 + n, "error", 0, 0, detail="no disk") for n in range(5)]
    reading = word(arm(CANDIDATE, 3) + arm(STABLE, 3) + lost)
    assert reading.decision == "hold"
    assert "5 attempts were lost to errors (at most 4)" in reading.summary
    assert "no disk" in reading.summary


def test_missing_attempts_wait_and_say_how_many() -> None:
    attempts = arm(CANDIDATE, 3) + arm(STABLE, 3)
    reading = word(attempts[:-7])
    assert (reading.decision, reading.summary) == ("waiting", "113 of 120 attempts graded")


def test_a_broken_critical_case_fails_although_the_average_would_pass() -> None:
    shape = suite(critical=(CASES[0],))
    broken = [a for a in arm(CANDIDATE, 6, passes=worse(1)) if a.number <= 3 or a.case == CASES[0]]
    solid = [a for a in arm(STABLE, 6) if a.number <= 3 or a.case == CASES[0]]
    reading = word(broken + solid, shape=shape)
    assert reading.decision == "fail"
    assert f"critical {CASES[0]} is broken (0 of" in reading.summary


def test_a_critical_case_that_stable_cannot_do_either_blocks_nobody() -> None:
    shape = suite(critical=(CASES[0],))
    both = [
        a
        for name in BOTH
        for a in arm(name, 6, passes=worse(1))
        if a.number <= 3 or a.case == CASES[0]
    ]
    reading = word(both, shape=shape)
    assert reading.decision == "pass"
    assert "was broken before" in reading.summary


def test_a_loss_within_the_margin_passes_and_says_so() -> None:
    # A suite that is large and decided: 5 points are surely lost, and surely less than 10.
    cases = tuple(f"case-{n:03}" for n in range(200))
    lost = dict.fromkeys(cases[:10], 0)
    reading = word(
        arm(CANDIDATE, 12, cases=cases, passes=lost) + arm(STABLE, 12, cases=cases),
        shape=suite(cases=cases),
        look=12,
    )
    assert reading.decision == "pass"
    assert "regressed within margin" in reading.summary
    assert f"{cases[0]} (12/12 → 0/12)" in reading.summary


@pytest.mark.parametrize("cost, look, decision", [(2000, 3, "fail"), (1000, 3, "pass")])
def test_what_got_dearer_beyond_the_ratio_fails(cost: int, look: int, decision: str) -> None:
    reading = word(arm(CANDIDATE, look, cost=cost) + arm(STABLE, look), look=look, terms=COST)
    assert reading.decision == decision
    assert "cost ×" in reading.summary


@pytest.mark.parametrize("look, decision", [(3, "more"), (12, "hold")])
def test_a_cost_that_may_be_either_side_of_the_ratio_is_looked_at_again_then_held(
    look: int, decision: str
) -> None:
    uneven = [
        replace(a, cost_nano=(900, 1600)[(CASES.index(a.case) + a.number) % 2])
        for a in arm(CANDIDATE, look)
    ]
    reading = word(uneven + arm(STABLE, look, cost=1000), look=look, terms=COST)
    assert reading.decision == decision


def test_a_first_release_is_held_against_the_threshold_alone() -> None:
    assert word(arm(CANDIDATE, 3), arms=(CANDIDATE,)).decision == "pass"
    reading = word(arm(CANDIDATE, 3, passes=worse(12)), arms=(CANDIDATE,))
    assert reading.decision == "fail"
    assert "passes 40% of 20 cases × 3" in reading.summary


@pytest.mark.parametrize("arms", [BOTH, (CANDIDATE,)])
def test_too_few_cases_are_held_with_what_to_do(arms: tuple[str, ...]) -> None:
    few = CASES[:5]
    attempts = [a for name in arms for a in arm(name, 3, cases=few)]
    reading = word(attempts, shape=suite(cases=few), arms=arms)
    assert reading.decision == "hold"
    assert "5 cases; below 20 a person decides: add cases" in reading.summary


def test_an_empty_suite_is_held() -> None:
    assert word([], shape=suite(cases=())).decision == "hold"


def test_the_same_evidence_gives_the_same_bytes_without_a_float() -> None:
    attempts = arm(CANDIDATE, 3, cost=1200) + arm(STABLE, 3)
    first, second = word(attempts, terms=COST).document(), word(attempts, terms=COST).document()
    assert canonical_json(first) == canonical_json(second)
    assert json.loads(canonical_json(first))["decision"] == "pass"


CRITICAL = suite(critical=CASES[:1], sentinels=("lazy",))


@st.composite
def evidences(draw: st.DrawFn) -> list[Attempt]:
    """Complete or not, good or bad, with some errors."""
    attempts: list[Attempt] = sentinel("lazy", passes=draw(st.sampled_from([0, 12, 20])))
    for name in BOTH:
        bad = draw(st.integers(0, 8))
        extra = [a for a in arm(name, 6, passes=worse(bad)) if a.number <= 3 or a.case == CASES[0]]
        attempts += extra
    keep = draw(st.sampled_from([0, 0, 1, 30]))
    for index in draw(st.lists(st.integers(0, len(attempts) - 1), max_size=3, unique=True)):
        attempts[index] = replace(attempts[index], status="error")
    return attempts[keep:]


def _number(attempts: list[Attempt], name: str, case: str) -> int:
    return 1 + max((a.number for a in attempts if (a.arm, a.case) == (name, case)), default=0)


@settings(max_examples=30)
@given(evidences(), st.randoms(use_true_random=False))
def test_the_order_in_which_attempts_finished_says_nothing(
    attempts: list[Attempt], shuffler: random.Random
) -> None:
    mixed = [*attempts]
    shuffler.shuffle(mixed)
    assert word(mixed, shape=CRITICAL) == word(attempts, shape=CRITICAL, terms=QUALITY)


@settings(max_examples=30)
@given(
    evidences(),
    st.sampled_from([*BOTH, SENTINEL + "lazy"]),
    st.sampled_from(CASES[:3]),
)
def test_an_error_never_turns_anything_into_a_pass_and_its_replacement_is_asked_for(
    attempts: list[Attempt], name: str, case: str
) -> None:
    before = word(attempts, shape=CRITICAL).decision
    lost = Attempt(name, case, _number(attempts, name, case), "error", 0, 0)
    after = word([*attempts, lost], shape=CRITICAL).decision
    if before != "pass":
        assert after != "pass"


@settings(max_examples=30)
@given(evidences(), st.data())
def test_an_attempt_that_turns_into_an_error_never_makes_a_pass(
    attempts: list[Attempt], data: st.DataObject
) -> None:
    before = word(attempts, shape=CRITICAL).decision
    index = data.draw(st.integers(0, len(attempts) - 1))
    attempts[index] = replace(attempts[index], status="error")
    after = word(attempts, shape=CRITICAL).decision
    if before != "pass":
        assert after != "pass"
