"""When do a canary's failures stop looking like stable's bad luck?

The answer is asked for after every graded run, so it must allow for being asked often: the
number of graded runs it will be asked about, the horizon, is declared beforehand and sets how
surprising a record must be. Stable's own record is finite, so the chance is a beta-binomial
tail (its rate is not known, only estimated), not a binomial one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from reconciler.gates.statistics.tallies import StatisticsError

CanaryVerdict = Literal["roll_back", "go_on"]

HORIZONS: Final[Mapping[int, float]] = MappingProxyType({30: 0.015, 50: 0.012, 100: 0.009})
"""Declared graded runs → γ. Found by simulation: false rollbacks over all looks stay below 5 %."""


def canary_tail(fails: int, graded: int, *, stable_fails: int, stable_passes: int) -> float:
    """P[X ≥ fails], X ~ BetaBinomial(graded, stable_fails + ½, stable_passes + ½).

    The chance that as many of `graded` runs fail when they are as good as stable's. The halves
    are Jeffreys' prior. Raises StatisticsError for negative counts or fails > graded.
    """
    if not 0 <= fails <= graded:
        raise StatisticsError(f"{fails} failures of {graded} graded runs")
    if stable_fails < 0 or stable_passes < 0:
        raise StatisticsError(f"stable has {stable_fails} fails, {stable_passes} passes")
    if fails == 0:
        return 1.0
    a, b = stable_fails + 0.5, stable_passes + 0.5
    constant = math.lgamma(graded + 1) - math.lgamma(graded + a + b) - _log_beta(a, b)
    tail = math.fsum(
        math.exp(
            constant
            - math.lgamma(x + 1)
            - math.lgamma(graded - x + 1)
            + math.lgamma(x + a)
            + math.lgamma(graded - x + b)
        )
        for x in range(fails, graded + 1)
    )
    return min(1.0, tail)


def canary_decision(
    fails: int, graded: int, stable_fails: int, stable_passes: int, *, horizon: int
) -> CanaryVerdict:
    """Roll back when the candidate's failures are too surprising given stable's record.

    Ask after every graded run, until `graded` reaches `horizon` (30, 50 or 100). Runs that
    finish after that are still judged, but the promise of at most 5 % false rollbacks was made
    for the horizon. `stable_*` is stable's record before the canary opened: it must not grow
    while the canary is judged. StatisticsError for another horizon or impossible counts.
    """
    surprise = canary_tail(fails, graded, stable_fails=stable_fails, stable_passes=stable_passes)
    return "roll_back" if surprise <= _gamma(horizon) else "go_on"


def canary_can_fire(count: int, stable_fails: int, stable_passes: int, *, horizon: int) -> bool:
    """Whether a canary of `count` runs would be rolled back if every one of them failed.

    One that could not is no protection and is refused by validation. With no record of stable
    none of a usable size can fire.
    """
    return (
        canary_decision(count, count, stable_fails, stable_passes, horizon=horizon) == "roll_back"
    )


def minimum_count(*, horizon: int, stable_rate: float = 0.8, past_runs: int = 50) -> int | None:
    """The least number of runs a canary by count needs to be able to fire; None: not even all.

    Validation has no record to look at, so it assumes one: `past_runs` runs of which the share
    `stable_rate` (0 to 1) passed. The worse stable is, the longer its failures look normal.
    """
    if not 0.0 <= stable_rate <= 1.0 or past_runs < 0:
        raise StatisticsError(f"{past_runs} past runs at a rate of {stable_rate!r}")
    passes = round(past_runs * stable_rate)
    for count in range(1, horizon + 1):
        if canary_can_fire(count, past_runs - passes, passes, horizon=horizon):
            return count
    return None


def _gamma(horizon: int) -> float:
    if horizon not in HORIZONS:
        known = ", ".join(str(length) for length in HORIZONS)
        raise StatisticsError(f"horizon {horizon}: its error rate is not known; use {known}")
    return HORIZONS[horizon]


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
