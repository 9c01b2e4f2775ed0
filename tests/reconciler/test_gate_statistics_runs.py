"""Canary, cost and the figures beside a verdict, against scipy as the oracle."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reconciler.gates.statistics import (
    HORIZONS,
    CaseTally,
    StatisticsError,
    canary_can_fire,
    canary_decision,
    canary_tail,
    mean_variance,
    minimum_count,
    pass_hat_k,
    planned_attempts,
    ratio_of_medians,
    ratio_of_medians_upper,
    sentinel_bound,
)


def arm(passes: list[int], attempts: int) -> list[CaseTally]:
    return [
        CaseTally.of_counts(f"case-{index:03}", passes=count, attempts=attempts)
        for index, count in enumerate(passes)
    ]


# --- canary ------------------------------------------------------------------------------------


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 600), st.integers(0, 600))
def test_the_tail_is_scipys_beta_binomial(fails, passes, stable_fails, stable_passes):
    graded = fails + passes
    # A sum of scipy's pmf: its sf is 1 − cdf, which loses the digits of a small tail.
    tail = np.arange(fails, graded + 1)
    expected = stats.betabinom.pmf(tail, graded, stable_fails + 0.5, stable_passes + 0.5).sum()
    found = canary_tail(fails, graded, stable_fails=stable_fails, stable_passes=stable_passes)
    assert found == pytest.approx(expected, rel=1e-8)


@given(
    st.integers(0, 99),
    st.integers(1, 100),
    st.integers(0, 300),
    st.integers(0, 300),
    st.sampled_from(sorted(HORIZONS)),
)
def test_one_more_failure_never_saves_a_canary(fails, graded, bad, good, horizon):
    fails = min(fails, graded - 1)
    if canary_decision(fails, graded, bad, good, horizon=horizon) == "roll_back":
        assert canary_decision(fails + 1, graded, bad, good, horizon=horizon) == "roll_back"
        assert canary_decision(fails, graded, bad, good + 1, horizon=horizon) == "roll_back"


def test_five_three_two_failures_in_a_row_fire_at_stable_rates_of_60_80_95_percent():
    assert [minimum_count(horizon=30, stable_rate=rate) for rate in (0.6, 0.8, 0.95)] == [5, 3, 2]
    assert canary_can_fire(3, 10, 40, horizon=30)
    assert not canary_can_fire(2, 10, 40, horizon=30)


def test_without_a_record_of_stable_no_canary_of_usable_size_can_fire():
    assert minimum_count(horizon=100, past_runs=0) is None
    assert not canary_can_fire(100, 0, 0, horizon=100)
    assert not canary_can_fire(0, 10, 40, horizon=30)


@pytest.mark.parametrize("call", [(6, 5, 10, 40), (-1, 5, 10, 40), (1, 5, -1, 40), (1, 5, 10, -1)])
def test_impossible_canary_counts_are_errors(call):
    with pytest.raises(StatisticsError):
        canary_decision(*call, horizon=30)


def test_a_horizon_whose_error_rate_is_unknown_is_refused():
    with pytest.raises(StatisticsError, match="30, 50, 100"):
        canary_decision(1, 5, 10, 40, horizon=40)


# --- cost and latency --------------------------------------------------------------------------


def test_the_bootstrap_bound_agrees_with_scipy_on_one_large_stratum():
    rng = np.random.default_rng(7)
    new, old = rng.lognormal(0.1, 0.4, 120), rng.lognormal(0, 0.4, 120)
    ours = ratio_of_medians_upper([new.tolist()], [old.tolist()], random=Random(1))
    theirs = stats.bootstrap(
        (new, old),
        lambda x, y, axis: np.median(x, axis=axis) / np.median(y, axis=axis),
        confidence_level=0.95,
        alternative="less",
        method="percentile",
        n_resamples=4000,
        rng=rng,
    ).confidence_interval.high
    assert ours == pytest.approx(theirs, rel=0.03)
    assert ratio_of_medians([new.tolist()], [old.tolist()]) == pytest.approx(
        np.median(new) / np.median(old)
    )


def test_the_spread_between_cases_is_not_mistaken_for_noise():
    costs = [[base * 1.0, base * 1.01, base * 0.99] for base in (1, 3, 10, 30, 100, 300, 1000)]
    apart = ratio_of_medians_upper(costs, costs, random=Random(1), resamples=300)
    pooled = [[cost for case in costs for cost in case]]
    together = ratio_of_medians_upper(pooled, pooled, random=Random(1), resamples=300)
    assert apart < 1.05
    assert together > 2


@given(
    st.lists(st.lists(st.floats(0, 1e15), min_size=2, max_size=4), min_size=1, max_size=6),
    st.lists(st.lists(st.floats(0, 1e15), min_size=2, max_size=4), min_size=1, max_size=6),
    st.integers(0, 9),
)
def test_every_pair_of_costs_has_a_reproducible_bound(new, old, seed):
    first = ratio_of_medians_upper(new, old, random=Random(seed), resamples=100)
    again = ratio_of_medians_upper(new, old, random=Random(seed), resamples=100)
    assert first == again
    assert first >= 0


def test_free_runs_have_a_ratio_of_one_and_the_first_cost_is_infinitely_more():
    free, paid = [[0, 0, 0]] * 3, [[5, 5, 5]] * 3
    assert ratio_of_medians_upper(free, free, random=Random(1), resamples=100) == 1.0
    assert ratio_of_medians_upper(paid, free, random=Random(1), resamples=100) == math.inf
    assert ratio_of_medians(paid, paid) == 1.0


@pytest.mark.parametrize("costs", [[], [[]], [[1.0]], [[1.0, -1.0]], [[1.0, math.nan]]])
def test_costs_that_cannot_be_compared_are_errors(costs):
    with pytest.raises(StatisticsError):
        ratio_of_medians_upper(costs, [[1.0, 1.0]], random=Random(1))
    with pytest.raises(StatisticsError):
        ratio_of_medians_upper([[1.0, 1.0]], [[1.0, 1.0]], random=Random(1), level=1.0)


# --- figures beside the verdict ----------------------------------------------------------------


@given(st.integers(1, 12), st.data())
def test_pass_hat_k_is_the_chance_that_k_drawn_attempts_all_passed(attempts, data):
    passes = data.draw(st.integers(0, attempts))
    k = data.draw(st.integers(1, attempts))
    oracle = stats.hypergeom.pmf(k, attempts, passes, k)
    assert pass_hat_k(passes, attempts, k) == pytest.approx(oracle, abs=1e-12)


@given(st.integers(1, 400), st.floats(0.5, 0.999))
def test_the_sentinel_bound_is_clopper_and_pearsons(caught, level):
    # A one-sided bound at `level` is the upper end of a two-sided one at 2·level − 1.
    oracle = stats.beta.ppf(level, 1, caught)
    assert sentinel_bound(caught, level=level) == pytest.approx(oracle, rel=1e-6)


def test_29_caught_sentinels_are_the_first_to_claim_ten_percent():
    assert sentinel_bound(28) > 0.10 >= sentinel_bound(29)
    assert sentinel_bound(0) == 1.0


def test_coin_like_cases_are_planned_with_more_attempts_than_sure_ones():
    coins, sure = arm([3] * 20, 6), arm([6] * 20, 6)
    assert mean_variance(sure) == 0
    assert planned_attempts(0.25, cases=20) == pytest.approx(23.75)
    assert planned_attempts(mean_variance(coins), cases=80) < 12
    for bad in (lambda: planned_attempts(0.6, cases=20), lambda: planned_attempts(0.1, cases=0)):
        with pytest.raises(StatisticsError):
            bad()
    for call in ((3, 2, 1), (1, 2, 0), (1, 2, 3)):
        with pytest.raises(StatisticsError):
            pass_hat_k(*call)
    with pytest.raises(StatisticsError):
        sentinel_bound(-1)
    with pytest.raises(StatisticsError):
        mean_variance([])


def test_horizons_get_stricter_as_they_get_longer():
    assert all(HORIZONS[a] > HORIZONS[b] for a, b in pairwise(sorted(HORIZONS)))
