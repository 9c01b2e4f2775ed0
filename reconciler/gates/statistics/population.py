"""What the suite says about tasks that are not in it.

The paired rule is about this suite. When one *task* in ten breaks and the suite is a sample of
tasks, it promotes 22–39 % of the time, because a suite of 20 may simply not hold a broken one.
This interval treats the cases as the sample. It is always reported; it may be the gate once
there are enough cases for it to decide anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from reconciler.gates.statistics.tallies import (
    MARGIN,
    StatisticsError,
    Verdict,
    bounded_verdict,
    checked_margin,
)

POPULATION_CASES: Final = 40
"""From this many cases on, the interval may be used as a gate."""

POPULATION_Z: Final = 1.40


@dataclass(frozen=True)
class PopulationInterval:
    """Bounds of the mean change over all tasks; `verdict` is `hold` below 40 cases."""

    mean: float
    lower: float
    upper: float
    cases: int
    verdict: Verdict


def population_interval(
    differences: Sequence[float], *, delta: float = MARGIN
) -> PopulationInterval:
    """The interval from each case's change d_i = candidate mean − stable mean, in [−1, 1].

        m = (Σd − 1)/(N + 1)    s² = (Σd² + 1)/(N + 1) − m²    lower = m − 1.40·√(s²/N)

    One imagined case that broke completely is added before the lower bound is taken, so that a
    suite without any change does not promise that no task changed. The upper bound is the mirror
    image. More attempts do not narrow it past the spread of the cases: add cases.
    Raises StatisticsError without cases or for a change outside [−1, 1].
    """
    checked_margin(delta)
    if not differences:
        raise StatisticsError("no cases: there is nothing to say about other tasks")
    for change in differences:
        if not -1.0 <= change <= 1.0:  # also refuses NaN
            raise StatisticsError(f"a case's change of {change!r} is not in [−1, 1]")
    count = len(differences)
    lower = _lower_bound(differences)
    upper = -_lower_bound([-change for change in differences])
    enough = count >= POPULATION_CASES
    return PopulationInterval(
        mean=math.fsum(differences) / count,
        lower=lower,
        upper=upper,
        cases=count,
        verdict=bounded_verdict(lower=lower, upper=upper, margin=delta, last_look=True)
        if enough
        else "hold",
    )


def _lower_bound(differences: Sequence[float]) -> float:
    count = len(differences)
    mean = (math.fsum(differences) - 1.0) / (count + 1)
    square = (math.fsum(change * change for change in differences) + 1.0) / (count + 1)
    return mean - POPULATION_Z * math.sqrt(max(0.0, square - mean * mean) / count)
