"""The gate's inequalities, against scipy as the oracle and against their promises."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.gates import statistics
from reconciler.gates.statistics import (
    CRITICAL_ATTEMPTS,
    LOOKS,
    CaseTally,
    CriticalTally,
    StatisticsError,
    absolute_decision,
    all_must_pass,
    critical_case,
    critical_verdict,
    paired_decision,
    population_interval,
)

VERDICTS = {"pass", "fail", "more", "hold"}
looks = st.sampled_from(LOOKS)


def arm(passes: list[int], attempts: int) -> list[CaseTally]:
    return [
        CaseTally.of_counts(f"case-{index:03}", passes=count, attempts=attempts)
        for index, count in enumerate(passes)
    ]


@st.composite
def two_arms(draw: st.DrawFn, least: int = 20) -> tuple[list[int], list[int], int]:
    look = draw(looks)
    cases = draw(st.integers(least, 40))
    counts = st.lists(st.integers(0, look), min_size=cases, max_size=cases)
    return draw(counts), draw(counts), look


# --- the paired rule ---------------------------------------------------------------------------


@given(two_arms(), st.integers(0, 2**32))
def test_difference_and_error_are_those_of_the_formula_for_any_scores(drawn, seed):
    new_counts, old_counts, look = drawn
    rng = np.random.default_rng(seed)
    arms = [rng.random((len(counts), look)).round(3) for counts in (new_counts, old_counts)]
    new, old = (
        [CaseTally(f"c{i}", tuple(row)) for i, row in enumerate(scores.tolist())] for scores in arms
    )
    decision = paired_decision(new, old, look=look, last_look=False)
    variance = sum((scores.var(axis=1, ddof=1) / look).sum() + 0.5 / look for scores in arms)
    assert decision.difference == pytest.approx(arms[0].mean() - arms[1].mean(), abs=1e-12)
    assert decision.standard_error == pytest.approx(math.sqrt(variance) / len(new), rel=1e-9)
    assert decision.lower == pytest.approx(decision.difference - 1.8 * decision.standard_error)
    assert decision.upper == pytest.approx(decision.difference + 2.5 * decision.standard_error)


@given(st.integers(0, 12), st.sampled_from(LOOKS))
def test_pass_fail_scores_have_the_binomial_variance(passes, attempts):
    passes = min(passes, attempts)
    tally = CaseTally.of_counts("c", passes=passes, attempts=attempts)
    assert tally.variance == pytest.approx(
        passes * (attempts - passes) / (attempts * (attempts - 1)), abs=1e-12
    )


@given(two_arms(least=1), st.booleans(), st.floats(0.01, 1))
def test_every_pair_of_arms_gets_a_verdict(drawn, last_look, delta):
    new, old, look = drawn
    decision = paired_decision(
        arm(new, look), arm(old, look), look=look, last_look=last_look, delta=delta
    )
    assert decision.decision in VERDICTS
    assert decision.reason
    assert not (last_look and decision.decision == "more")
    if len(new) < 20:
        assert decision.decision == "hold"


@given(two_arms(), st.data())
def test_one_more_pass_of_the_candidate_never_takes_a_pass_away(drawn, data):
    new, old, look = drawn
    before = paired_decision(arm(new, look), arm(old, look), look=look, last_look=True)
    index = data.draw(st.integers(0, len(new) - 1))
    new[index] = min(look, new[index] + 1)
    after = paired_decision(arm(new, look), arm(old, look), look=look, last_look=True)
    order = ("fail", "hold", "pass")
    assert order.index(after.decision) >= order.index(before.decision)
    assert after.lower >= before.lower - 1e-12


@given(st.sampled_from(LOOKS), st.integers(0, 2**32), st.floats(0, 1))
def test_raising_a_partial_score_never_lowers_the_bound_that_passes(look, seed, raised):
    rng = np.random.default_rng(seed)
    scores = rng.choice([0.0, 0.5, 1.0], (20, look)) * rng.random((20, 1))
    old = [CaseTally(f"c{i}", tuple(row)) for i, row in enumerate(scores.tolist())]
    higher = scores.copy()
    higher[0, 0] = max(raised, higher[0, 0])
    new = [CaseTally(f"c{i}", tuple(row)) for i, row in enumerate(higher.tolist())]
    before = paired_decision(old, old, look=look, last_look=False)
    after = paired_decision(new, old, look=look, last_look=False)
    assert after.lower >= before.lower - 1e-12


@given(two_arms(), st.randoms(use_true_random=False))
def test_the_order_in_which_cases_finish_changes_nothing(drawn, random):
    new, old, look = drawn
    shuffled = arm(new, look)
    random.shuffle(shuffled)
    straight = paired_decision(arm(new, look), arm(old, look), look=look, last_look=False)
    assert paired_decision(shuffled, arm(old, look), look=look, last_look=False) == straight


def test_identical_deterministic_arms_pass_at_the_first_look():
    suite = arm([3] * 16 + [0] * 4, 3)
    decision = paired_decision(suite, suite, look=3, last_look=False)
    assert decision.decision == "pass"
    assert decision.flipped == ()
    assert not decision.regressed_within_margin


def test_a_candidate_that_breaks_six_of_twenty_cases_fails_and_names_them():
    decision = paired_decision(
        arm([0] * 6 + [3] * 14, 3), arm([3] * 20, 3), look=3, last_look=False
    )
    assert decision.decision == "fail"
    assert decision.flipped == tuple(f"case-{i:03}" for i in range(6))
    assert decision.recovered == ()


def test_a_pass_that_is_surely_worse_says_so_and_lists_what_flipped():
    stable, candidate = arm([12] * 80, 12), arm([0] * 4 + [12] * 75 + [5], 12)
    decision = paired_decision(candidate, stable, look=12, last_look=True)
    assert decision.decision == "pass"
    assert decision.regressed_within_margin
    assert "regressed within margin" in decision.reason
    # The largest loss comes first: case 079 lost only seven attempts of twelve.
    assert decision.flipped[-1] == "case-079"
    assert len(decision.flipped) == 5


def test_recovered_cases_are_listed_apart_from_flipped_ones():
    decision = paired_decision(
        arm([3] + [0] + [3] * 18, 3), arm([0] + [3] + [3] * 18, 3), look=3, last_look=False
    )
    assert decision.flipped == ("case-001",)
    assert decision.recovered == ("case-000",)


def test_fewer_than_twenty_cases_are_held_even_when_all_pass():
    decision = paired_decision(arm([3] * 19, 3), arm([3] * 19, 3), look=3, last_look=False)
    assert decision.decision == "hold"
    assert "19 cases" in decision.reason


@pytest.mark.parametrize("graded", [0, 1, 2])
def test_a_case_without_all_its_graded_attempts_is_held_not_averaged(graded):
    short = [*arm([3] * 19, 3), CaseTally("case-019", (1.0,) * graded)]
    for new, old in ((short, arm([3] * 20, 3)), (arm([3] * 20, 3), short)):
        decision = paired_decision(new, old, look=3, last_look=False)
        assert decision.decision == "hold"
        assert "case-019" in decision.reason
    assert absolute_decision(short, threshold=0.5, look=3, last_look=False).decision == "hold"


@pytest.mark.parametrize(
    "new, old, look, delta, message",
    [
        ([], [], 3, 0.1, "no cases"),
        (arm([3] * 20, 3), arm([3] * 21, 3), 3, 0.1, "different cases"),
        (arm([3] * 20, 3) * 2, arm([3] * 20, 3), 3, 0.1, "twice"),
        (arm([3] * 20, 6), arm([3] * 20, 3), 3, 0.1, "6 attempts at look 3"),
        (arm([2] * 20, 2), arm([2] * 20, 2), 2, 0.1, "first looks"),
        (arm([3] * 20, 3), arm([3] * 20, 3), 3, 0.0, "delta"),
        (arm([3] * 20, 3), arm([3] * 20, 3), 3, math.nan, "delta"),
        ([CaseTally("a", ())], [CaseTally("a", (1.0,))], 3, 0.1, "no case has a graded"),
    ],
)
def test_evidence_that_cannot_be_judged_is_an_error(new, old, look, delta, message):
    with pytest.raises(StatisticsError, match=message):
        paired_decision(new, old, look=look, last_look=False, delta=delta)


@pytest.mark.parametrize("score", [-0.1, 1.1, math.nan, math.inf])
def test_a_score_outside_zero_to_one_is_refused(score):
    with pytest.raises(StatisticsError, match="case a"):
        CaseTally("a", (1.0, score))


def test_one_failed_comparison_fails_the_gate_and_a_hold_outranks_going_on():
    assert all_must_pass(["pass", "pass"]) == "pass"
    assert all_must_pass(["pass", "more"]) == "more"
    assert all_must_pass(["hold", "more"]) == "hold"
    assert all_must_pass(["pass", "more", "hold", "fail"]) == "fail"
    with pytest.raises(StatisticsError):
        all_must_pass([])


# --- first release, population -----------------------------------------------------------------


@given(two_arms(least=1), st.floats(0.01, 1), st.booleans())
def test_a_first_release_always_gets_a_verdict_and_a_lower_bar_never_hurts(drawn, bar, last):
    counts, _, look = drawn
    high = absolute_decision(arm(counts, look), threshold=bar, look=look, last_look=last)
    low = absolute_decision(arm(counts, look), threshold=bar / 2, look=look, last_look=last)
    assert high.decision in VERDICTS
    assert high.decision != "pass" or low.decision == "pass"
    assert high.pass_rate == pytest.approx(sum(counts) / (look * len(counts)))


def test_first_releases_clearly_above_and_below_their_threshold_are_decided_at_once():
    good = absolute_decision(arm([3] * 20, 3), threshold=1.0, look=3, last_look=False)
    bad = absolute_decision(arm([3] * 8 + [0] * 12, 3), threshold=0.8, look=3, last_look=False)
    assert (good.decision, bad.decision) == ("pass", "fail")
    assert bad.failing == tuple(f"case-{i:03}" for i in range(8, 20))
    with pytest.raises(StatisticsError, match="threshold"):
        absolute_decision(arm([3] * 20, 3), threshold=0.0, look=3, last_look=False)
    with pytest.raises(StatisticsError, match="no cases"):
        absolute_decision([], threshold=0.8, look=3, last_look=False)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=90))
def test_the_population_interval_contains_the_mean_and_mirrors(differences):
    interval = population_interval(differences)
    mirror = population_interval([-change for change in differences])
    assert interval.lower <= interval.mean + 1e-12
    assert interval.mean <= interval.upper + 1e-12
    assert mirror.lower == pytest.approx(-interval.upper)
    if len(differences) < 40:
        assert interval.verdict == "hold"


def test_the_population_interval_follows_its_formula_and_gates_from_forty_cases():
    changes = [-1.0, 0.5, *[0.0] * 48]
    mean = (sum(changes) - 1) / 51
    spread = math.sqrt(((1 + 0.25) + 1) / 51 - mean * mean)
    interval = population_interval(changes)
    assert interval.lower == pytest.approx(mean - 1.4 * spread / math.sqrt(50))
    assert interval.verdict == "pass"
    assert population_interval([-1.0] * 20 + [0.0] * 20).verdict == "fail"
    assert population_interval([0.0] * 39).verdict == "hold"
    for bad in ([], [1.5], [math.nan]):
        with pytest.raises(StatisticsError):
            population_interval(bad)


# --- critical cases ----------------------------------------------------------------------------


def test_a_critical_case_is_ok_after_6_10_13_16_20_passes_with_0_to_4_fails():
    for fails, needed in enumerate((6, 10, 13, 16, 20)):
        assert critical_case(needed - 1, fails, critical_cases=1) != "ok"
        assert critical_case(needed, fails, critical_cases=1) == "ok"


def test_more_critical_cases_ask_for_more_failures_before_one_is_broken():
    def least(cases: int) -> int:
        return next(n for n in range(99) if critical_case(0, n, critical_cases=cases) == "broken")

    # L ≤ −ln(10·max(4, n)): 40 → 3 failures, 1000 → 5.
    assert [least(cases) for cases in (1, 4, 100)] == [3, 3, 5]


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 50))
def test_every_critical_tally_has_a_state_and_a_pass_never_breaks_it(passes, fails, cases):
    order = ("broken", "hold", "more", "ok")
    state = critical_case(passes, fails, critical_cases=cases)
    assert state in order
    if passes + fails >= CRITICAL_ATTEMPTS:
        assert state != "more"
    if fails:
        better = critical_case(passes + 1, fails - 1, critical_cases=cases)
        assert order.index(better) >= order.index(state)


OK, BROKEN, HELD, OPEN = (
    CriticalTally(6, 0),
    CriticalTally(0, 3),
    CriticalTally(18, 6),
    CriticalTally(1, 0),
)


@pytest.mark.parametrize(
    "candidate, stable, verdict, needs",
    [
        (OK, OPEN, "ok", None),
        (OPEN, OK, "more", "candidate"),
        (BROKEN, OPEN, "more", "stable"),
        (BROKEN, OK, "block", None),
        (BROKEN, BROKEN, "pre_existing", None),
        (BROKEN, HELD, "hold", None),
        (HELD, OK, "block", None),
        (HELD, OPEN, "more", "stable"),
        (HELD, BROKEN, "pre_existing", None),
        (HELD, HELD, "hold", None),
    ],
)
def test_a_critical_case_blocks_only_what_stable_can_do(candidate, stable, verdict, needs):
    decision = critical_verdict(candidate, stable, critical_cases=4)
    assert (decision.verdict, decision.needs) == (verdict, needs)


def test_impossible_critical_counts_are_errors():
    with pytest.raises(StatisticsError):
        CriticalTally(-1, 0)
    with pytest.raises(StatisticsError):
        critical_case(1, 0, critical_cases=0)


# --- purity ------------------------------------------------------------------------------------


def test_the_statistics_import_only_pure_parts_of_the_standard_library():
    # "statistics" is this package's own rooms.
    allowed = {"__future__", "collections", "dataclasses", "math", "types", "typing", "statistics"}
    found = set()
    for path in Path(statistics.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").removeprefix("reconciler.gates.").split(".")[0])
    assert found <= allowed
