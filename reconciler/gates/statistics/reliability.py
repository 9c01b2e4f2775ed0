"""Smaller figures that stand in a receipt beside the verdict.

How reliable a case is when it must work several times in a row, how much the gate itself has
been shown to catch, and how many attempts a decision will probably take.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from reconciler.gates.statistics.tallies import (
    MARGIN,
    CaseTally,
    StatisticsError,
    checked_margin,
)


def pass_hat_k(passes: int, attempts: int, k: int) -> float:
    """pass^k: the unbiased estimate that `k` attempts all pass, C(passes, k) / C(attempts, k).

    From Yao et al. 2024 (tau-bench). StatisticsError unless 0 ≤ passes ≤ attempts and
    1 ≤ k ≤ attempts.
    """
    if not 0 <= passes <= attempts or not 1 <= k <= attempts:
        raise StatisticsError(f"pass^{k} of {passes} passes in {attempts} attempts")
    return math.comb(passes, k) / math.comb(attempts, k)


def sentinel_bound(caught: int, *, level: float = 0.95) -> float:
    """Upper bound of the gate's false-accept rate after `caught` sentinels, all of them rejected.

    1 − (1 − level)^(1/m), the exact (Clopper–Pearson) bound for no misses; 29 caught are needed
    to claim ≤ 10 % at 95 %. With none it is 1: nothing has been shown.
    """
    if caught < 0 or not 0.0 < level < 1.0:
        raise StatisticsError(f"{caught} sentinels caught at level {level!r}")
    return -math.expm1(math.log1p(-level) / caught) if caught else 1.0


def mean_variance(arm: Sequence[CaseTally]) -> float:
    """v̄: the mean over the cases of one attempt's variance (p(1 − p) for pass/fail).

    Each case needs two graded attempts, else StatisticsError.
    """
    if not arm:
        raise StatisticsError("no cases: an empty suite is an error")
    return math.fsum(tally.variance for tally in arm) / len(arm)


def planned_attempts(variance: float, *, cases: int, delta: float = MARGIN) -> float:
    """Attempts per case and arm that an unchanged release will need, about 19·v̄/(N·δ²).

    An estimate for the price shown before a gate runs, not a promise; more than the last look
    means that the gate will often hold. Then add cases, not attempts. StatisticsError for a
    variance outside [0, 0.5] (0.5: two attempts that differ by 1) or no cases.
    """
    checked_margin(delta)
    if not 0.0 <= variance <= 0.5 or cases < 1:
        raise StatisticsError(f"variance {variance!r} over {cases} cases")
    return 19 * variance / (cases * delta * delta)
