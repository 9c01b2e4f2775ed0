"""The gate's promised error rates, at a size that fits every test run.

The full table is `python -m tests.simulation`. Bounds here are the promises of
docs/statistics.md plus sampling noise at these sizes (over three standard errors); seeds are
fixed, so a failure means that a rule changed.
"""

from __future__ import annotations

import numpy as np
import pytest

from reconciler.gates.statistics import (
    LOOKS,
    CaseTally,
    absolute_decision,
    all_must_pass,
    paired_decision,
)
from tests.simulation import twins
from tests.simulation.canaries import Records
from tests.simulation.sequential import critical_suite, population_passes, ratio_within_limit
from tests.simulation.slide import slide
from tests.simulation.twins import WORDS, run_gates
from tests.simulation.worlds import at_level, mixed, worse_by

GATES = 4_000


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def _arm(passes: np.ndarray, attempts: int) -> list[CaseTally]:
    return [
        CaseTally.of_counts(f"case-{i}", passes=int(count), attempts=attempts)
        for i, count in enumerate(passes)
    ]


@pytest.mark.parametrize("look", LOOKS)
def test_the_vectorised_rules_are_the_real_ones(look, rng):
    last = look == LOOKS[-1]
    level = rng.random((150, 1, 1)) * np.ones((1, 2, 24))
    level[:, 0] = np.clip(level[:, 0] - rng.choice([0, 0.05, 0.1, 0.2], (150, 1)), 0, 1)
    counts = rng.binomial(look, level)
    new, old = counts[:, 0], counts[:, 1]
    pairs = twins.paired(new, old, attempts=look, last=last)
    alone = twins.absolute(new, 0.6, attempts=look, last=last)
    for row in range(150):
        real = paired_decision(
            _arm(new[row], look), _arm(old[row], look), look=look, last_look=last
        )
        assert WORDS[pairs[row]] == real.decision
        first = absolute_decision(_arm(new[row], look), threshold=0.6, look=look, last_look=last)
        assert WORDS[alone[row]] == first.decision
    assert len(set(pairs.tolist())) == 3, "the samples must reach every verdict of this look"


def test_the_vectorised_combination_is_the_real_one():
    for first in range(4):
        for second in range(4):
            both = twins.worst([np.array([first]), np.array([second])])
            assert WORDS[both[0]] == all_must_pass([WORDS[first], WORDS[second]])


@pytest.mark.parametrize("cases, least", [(20, 0.91), (40, 0.98), (80, 0.98)])
def test_an_unchanged_release_of_mixed_difficulty_is_promoted(cases, least, rng):
    rates = mixed(cases)
    outcome = run_gates(rates, (rates,), gates=GATES, rng=rng)
    assert outcome.passed >= least
    assert outcome.failed <= 0.02


@pytest.mark.parametrize("cases, least", [(20, 0.62), (40, 0.87)])
def test_an_unchanged_release_of_coins_is_rarely_failed(cases, least, rng):
    rates = np.full(cases, 0.5)
    outcome = run_gates(rates, (rates,), gates=GATES, rng=rng)
    assert outcome.passed >= least
    assert outcome.failed <= 0.03


def test_an_unchanged_deterministic_release_passes_at_the_first_look(rng):
    rates = np.repeat([0.0, 1.0], [4, 16])
    outcome = run_gates(rates, (rates,), gates=50, rng=rng)
    assert (outcome.passed, outcome.looks) == (1.0, 3.0)


@pytest.mark.parametrize("cases", [20, 40, 80])
def test_a_release_at_the_margin_is_promoted_less_than_one_time_in_nine(cases, rng):
    for name, candidate, stable in worse_by(0.10, cases):
        outcome = run_gates(candidate, (stable,), gates=GATES, rng=rng)
        assert outcome.passed <= 0.10, name


@pytest.mark.parametrize("drop, promoted, failed", [(0.2, 0.01, 0.95), (0.3, 0.001, 0.995)])
def test_a_release_worse_by_20_or_30_points_is_failed(drop, promoted, failed, rng):
    for name, candidate, stable in worse_by(drop, 20):
        outcome = run_gates(candidate, (stable,), gates=GATES, rng=rng)
        assert outcome.passed <= promoted, name
        assert outcome.failed >= failed, name


@pytest.mark.parametrize("mean", [0.6, 0.7, 0.9])
def test_a_first_release_is_judged_by_its_threshold(mean, rng):
    for name, rates in at_level(mean, 20):
        assert run_gates(rates, mean + 0.1, gates=GATES, rng=rng).passed <= 0.10, name
        assert run_gates(rates, mean, gates=GATES, rng=rng).failed <= 0.04, name


def test_the_anchor_stops_a_slide_and_lets_unchanged_releases_through(rng):
    def ten(step: float, *, anchored: bool):
        return slide(mixed(40), step=step, releases=10, anchored=anchored, fleets=300, rng=rng)

    assert ten(0.04, anchored=False).drop > 0.24
    assert ten(0.04, anchored=True).drop < 0.095
    assert ten(0.0, anchored=True).promoted > 9.6


def test_the_population_interval_holds_when_tasks_are_sampled(rng):
    for cases in (40, 80):
        above, _ = population_passes(cases, 0.10, samples=2_000, rng=rng)
        assert above <= 0.105


def test_four_reliable_critical_cases_are_not_blocked_by_chance(rng):
    assert critical_suite(0.98, 0.98, cases=4, suites=1_000, rng=rng)["ok"] >= 0.995
    assert critical_suite(0.3, 0.98, cases=4, suites=200, rng=rng)["block"] == 1.0
    assert critical_suite(0.3, 0.3, cases=4, suites=200, rng=rng)["pre_existing"] >= 0.97


def test_a_dearer_release_is_caught_and_an_unchanged_one_let_through():
    def within(factor: float) -> float:
        return ratio_within_limit(factor, cases=20, attempts=12, trials=40, resamples=150, seed=3)

    assert within(1.0) >= 0.9
    assert within(1.25) <= 0.2
    assert within(1.5) == 0.0


def test_false_rollbacks_stay_below_five_percent_and_real_harm_is_found():
    records = Records()
    for horizon, rates in ((30, (0.3, 0.5, 0.7, 0.9, 0.98)), (50, (0.5, 0.7, 0.8, 0.95))):
        for rate in rates:
            assert records.rollback_rate(rate, past=50, horizon=horizon) <= 0.05, (horizon, rate)
    found = [records.rollback_rate(0.8, past=50, horizon=50, drop=drop) for drop in (0.2, 0.3, 0.5)]
    assert found[0] > 0.55
    assert found[1] > 0.85
    assert found[2] > 0.995
