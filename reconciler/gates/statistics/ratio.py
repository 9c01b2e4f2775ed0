"""Did the candidate get dearer or slower?

Cost and latency are skewed and differ more between cases than between attempts, so the gate
compares medians and bounds their ratio by a bootstrap that resamples attempts *within* each
case. Resampling over all attempts alike would mistake the spread of the cases for noise and
hold most unchanged releases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from reconciler.gates.statistics.tallies import StatisticsError

RATIO_LIMIT: Final = 1.25
"""The upper bound may not exceed this."""

_T = TypeVar("_T")


class Resampler(Protocol):
    """What is needed of a source of randomness; `random.Random` is one.

    The caller seeds it from the digests of what is compared, so that a receipt can be recomputed.
    """

    def choices(self, population: Sequence[_T], *, k: int) -> list[_T]: ...


def ratio_of_medians(
    candidate: Sequence[Sequence[float]], stable: Sequence[Sequence[float]]
) -> float:
    """Median of all the candidate's attempts ÷ stable's. Arguments as below."""
    return _ratio(_median(_pooled(candidate)), _median(_pooled(stable)))


def ratio_of_medians_upper(
    candidate: Sequence[Sequence[float]],
    stable: Sequence[Sequence[float]],
    *,
    random: Resampler,
    resamples: int = 2000,
    level: float = 0.95,
) -> float:
    """One-sided upper bound of the ratio of medians, candidate ÷ stable, by bootstrap.

    Each arm is one sequence per case holding its attempts' cost or duration (any unit, the same
    in both; at least two attempts per case). From a case's n attempts n − 1 are drawn with
    replacement: with the few attempts a gate has, drawing n would understate the variance by
    (n − 1)/n (Rao and Wu 1988, J. Am. Stat. Assoc. 83:231). The bound is the percentile `level`.

    A stable median of zero gives 1.0 when the candidate's is zero too, else infinity. Raises
    StatisticsError for no cases, a case with fewer than two attempts, a value that is negative or
    not finite, fewer than 100 resamples, or a level outside (0, 1).
    """
    if resamples < 100 or not 0.0 < level < 1.0:
        raise StatisticsError(f"{resamples} resamples at level {level!r}")
    arms = (candidate, stable)
    for arm in arms:
        _pooled(arm)
        if any(len(case) < 2 for case in arm):
            raise StatisticsError("a case with fewer than two attempts cannot be resampled")
    ratios = []
    for _ in range(resamples):
        new, old = (
            _median([x for case in arm for x in random.choices(case, k=len(case) - 1)])
            for arm in arms
        )
        ratios.append(_ratio(new, old))
    ratios.sort()
    return ratios[min(resamples - 1, math.ceil(level * (resamples + 1)) - 1)]


def _pooled(arm: Sequence[Sequence[float]]) -> list[float]:
    values = [value for case in arm for value in case]
    if not values:
        raise StatisticsError("no attempts to take a median of")
    for value in values:
        if not 0.0 <= value < math.inf:  # also refuses NaN
            raise StatisticsError(f"{value!r} is not a cost or a duration")
    return values


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def _ratio(new: float, old: float) -> float:
    if old > 0:
        return new / old
    return 1.0 if new == 0 else math.inf
