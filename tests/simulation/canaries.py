"""The canary's error rates, computed exactly from the real decision: no sampling noise.

For a given record of stable, `canary_decision` is a staircase: the least number of failures
that fires at each number of graded runs. The chance to cross it is a sum over paths.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from reconciler.gates.statistics import canary_decision


def staircase(stable_fails: int, stable_passes: int, *, horizon: int) -> list[int]:
    """Least failures that fire after 1, 2, … horizon graded runs; graded + 1 where none does."""
    steps: list[int] = []
    least = 1
    for graded in range(1, horizon + 1):
        while (
            least <= graded
            and canary_decision(least, graded, stable_fails, stable_passes, horizon=horizon)
            == "go_on"
        ):
            least += 1
        steps.append(least)
    return steps


def chance_to_fire(steps: list[int], fail_rate: float, *, within: int | None = None) -> float:
    """Chance that runs failing at `fail_rate` reach the staircase within so many runs."""
    alive = np.zeros(len(steps) + 2)
    alive[0] = 1.0
    fired = 0.0
    for least in steps[:within]:
        moved = alive * (1 - fail_rate)
        moved[1:] += alive[:-1] * fail_rate
        fired += float(moved[least:].sum())
        moved[least:] = 0.0
        alive = moved
    return fired


class Records:
    """Staircases by stable record, kept because every pass rate asks for the same ones."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], list[int]] = {}

    def rollback_rate(
        self, rate: float, *, past: int, horizon: int, drop: float = 0.0, within: int | None = None
    ) -> float:
        """Share of canaries rolled back: stable passes `rate`, the candidate `rate − drop`.

        Averaged over the records that `past` runs of stable give (all but 1e-7 of them).
        """
        chances = stats.binom.pmf(np.arange(past + 1), past, 1 - rate)
        total = 0.0
        for fails in np.flatnonzero(chances > 1e-7 / past):
            key = (int(fails), past, horizon)
            if key not in self._known:
                self._known[key] = staircase(int(fails), past - int(fails), horizon=horizon)
            fired = chance_to_fire(self._known[key], 1 - rate + drop, within=within)
            total += float(chances[fails]) * fired
        return total
