"""Can the suite tell a bad release from a good one?

A sentinel is a deliberately bad variant shipped with the suite. If a release like that could
reach the wanted pass rate, the suite proves nothing about the candidate either.
"""

from __future__ import annotations

import math

from reconciler.gates.statistics.tallies import StatisticsError

REJECT_AT = 0.05
"""A sentinel is rejected when so good a result would be this unlikely for an acceptable release."""


def sentinel_rejected(passes: int, attempts: int, *, threshold: float) -> bool:
    """Whether `passes` of `attempts` rule out a release that passes at `threshold` (a share).

    Exact lower binomial tail: P[X ≤ passes | attempts, threshold] ≤ 0.05, the dual of the
    Clopper–Pearson bound. StatisticsError for impossible counts or a threshold outside (0, 1].
    """
    if not 0 <= passes <= attempts or attempts == 0:
        raise StatisticsError(f"{passes} passes of {attempts} attempts of a sentinel")
    if not 0.0 < threshold <= 1.0:
        raise StatisticsError(f"threshold {threshold!r} is not above 0 and at most 1")
    tail = math.fsum(
        math.comb(attempts, k) * threshold**k * (1 - threshold) ** (attempts - k)
        for k in range(passes + 1)
    )
    return tail <= REJECT_AT
