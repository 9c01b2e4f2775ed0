"""A suite proves something only when it rejects its own bad variants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from reconciler.gates.statistics import StatisticsError
from reconciler.gates.statistics.sentinel import REJECT_AT, sentinel_rejected

shares = st.integers(1, 1000).map(lambda permille: permille / 1000)


@given(st.integers(1, 60), st.data(), shares)
def test_it_is_the_exact_binomial_tail(attempts: int, data: st.DataObject, share: float) -> None:
    passes = data.draw(st.integers(0, attempts))
    tail = binom.cdf(passes, attempts, share)
    if abs(tail - REJECT_AT) > 1e-9:
        assert sentinel_rejected(passes, attempts, threshold=share) == (tail <= REJECT_AT)


@given(st.integers(1, 60), st.data(), shares)
def test_one_more_pass_never_helps_to_reject(
    attempts: int, data: st.DataObject, share: float
) -> None:
    passes = data.draw(st.integers(1, attempts))
    if sentinel_rejected(passes, attempts, threshold=share):
        assert sentinel_rejected(passes - 1, attempts, threshold=share)


def test_twenty_cases_reject_a_sentinel_that_passes_up_to_twelve() -> None:
    assert [sentinel_rejected(n, 20, threshold=0.8) for n in (0, 12, 13, 20)] == [
        True, True, False, False,
    ]  # fmt: skip


def test_two_cases_are_the_fewest_that_reject_anything_at_four_fifths() -> None:
    assert not sentinel_rejected(0, 1, threshold=0.8)
    assert sentinel_rejected(0, 2, threshold=0.8)


@pytest.mark.parametrize(
    "passes, attempts, threshold", [(0, 0, 0.8), (3, 2, 0.8), (-1, 2, 0.8), (0, 2, 0), (0, 2, 1.1)]
)
def test_impossible_figures_are_refused(passes: int, attempts: int, threshold: float) -> None:
    with pytest.raises(StatisticsError):
        sentinel_rejected(passes, attempts, threshold=threshold)
