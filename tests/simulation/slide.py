"""Ten releases, each a little worse: what the anchor is for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reconciler.gates.statistics.tallies import LOOKS
from tests.simulation.twins import MORE, PASS, Counts, Rates, paired, worst


@dataclass(frozen=True)
class Slide:
    promoted: float
    """Mean number of the proposed releases that were promoted."""
    drop: float
    """Mean true loss from the first stable release to the last."""


def slide(
    start: Rates,
    *,
    step: float,
    releases: int,
    anchored: bool,
    fleets: int,
    rng: np.random.Generator,
) -> Slide:
    """Each release is worse than the stable of its time by `step` in every case (down to 0).

    One fleet per row. The anchor is the first release and never moves; it has attempts of its
    own, except while it is stable itself: then one arm serves both comparisons.
    """
    stable = np.tile(start, (fleets, 1))
    anchor = stable.copy()
    promoted = np.zeros(fleets)
    for _ in range(releases):
        candidate = np.clip(stable - step, 0, 1)
        same = promoted == 0
        passes = _gate(candidate, stable, anchor if anchored else None, same, rng)
        stable[passes] = candidate[passes]
        promoted += passes
    return Slide(float(promoted.mean()), float((start.mean() - stable.mean(axis=1)).mean()))


def _gate(
    candidate: Rates,
    stable: Rates,
    anchor: Rates | None,
    same: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    shape = candidate.shape
    new, old, old_anchor = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    words: Counts = np.full(shape[0], MORE)
    made = 0
    for look in LOOKS:
        more, made, last = look - made, look, look == LOOKS[-1]
        new += rng.binomial(more, candidate)
        old += rng.binomial(more, stable)
        seen = paired(new, old, attempts=look, last=last)
        if anchor is not None:
            old_anchor += rng.binomial(more, anchor)
            against = paired(new, old_anchor, attempts=look, last=last)
            seen = np.where(same, seen, worst([seen, against]))
        words = np.where(words == MORE, seen, words)
    passed: np.ndarray = words == PASS
    return passed
