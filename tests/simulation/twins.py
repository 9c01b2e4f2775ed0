"""Vectorised twins of the deciding functions, for millions of simulated gates.

A twin is only evidence about the real function if both always agree: test_error_rates compares
them on random samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconciler.gates.statistics.tallies import FAIL_Z, LOOKS, MARGIN, PASS_Z, ROUNDING

Rates = NDArray[np.float64]
Counts = NDArray[np.int64]

MORE, PASS, FAIL, HOLD = 0, 1, 2, 3
WORDS = ("more", "pass", "fail", "hold")


@dataclass(frozen=True)
class Outcome:
    """Shares of simulated gates, and the mean attempts per case at which they ended."""

    passed: float
    failed: float
    held: float
    looks: float

    def __str__(self) -> str:
        shares = (self.passed, self.failed, self.held)
        return " / ".join(f"{share:5.1%}" for share in shares) + f"   k = {self.looks:.1f}"


def arm_variance(passes: Counts, attempts: int, pseudo: float = 0.5) -> Rates:
    """Σ s²/n + pseudo/n over the last axis (cases)."""
    n = attempts
    spread = (passes * (n - passes)).sum(axis=-1) / (n * n * (n - 1))
    result: Rates = spread + pseudo / n
    return result


def bounds_to_words(lower: Rates, upper: Rates, *, delta: float, last: bool) -> Counts:
    words = np.full(lower.shape, HOLD if last else MORE)
    words[upper < -ROUNDING] = FAIL
    words[lower > -delta + ROUNDING] = PASS  # looked at first, so written last
    return words


def paired(new: Counts, old: Counts, *, attempts: int, last: bool) -> Counts:
    """`paired_decision` for arrays of passes, shape (gates, cases)."""
    cases = new.shape[-1]
    difference = (new - old).sum(axis=-1) / (attempts * cases)
    error = np.sqrt(arm_variance(new, attempts) + arm_variance(old, attempts)) / cases
    return bounds_to_words(
        difference - PASS_Z * error, difference + FAIL_Z * error, delta=MARGIN, last=last
    )


def absolute(new: Counts, threshold: float, *, attempts: int, last: bool) -> Counts:
    """`absolute_decision` for arrays of passes, shape (gates, cases)."""
    cases = new.shape[-1]
    difference = new.sum(axis=-1) / (attempts * cases) - threshold
    error = np.sqrt(arm_variance(new, attempts, pseudo=1.0)) / cases
    return bounds_to_words(
        difference - PASS_Z * error, difference + FAIL_Z * error, delta=MARGIN, last=last
    )


def run_gates(
    candidate: Rates,
    against: tuple[Rates, ...] | float,
    *,
    gates: int,
    rng: np.random.Generator,
) -> Outcome:
    """Simulate whole gates over LOOKS: against stable (and anchor), or against a threshold.

    Rates are each case's true chance to pass; every arm makes attempts of its own.
    """
    shape = (gates, candidate.size)
    arms = against if isinstance(against, tuple) else ()
    new = np.zeros(shape, dtype=np.int64)
    olds = [np.zeros(shape, dtype=np.int64) for _ in arms]
    words = np.full(gates, MORE)
    ended = np.full(gates, LOOKS[-1])
    made = 0
    for look in LOOKS:
        more, made, last = look - made, look, look == LOOKS[-1]
        new += rng.binomial(more, candidate, shape)
        for old, rates in zip(olds, arms, strict=True):
            old += rng.binomial(more, rates, shape)
        if isinstance(against, tuple):
            seen = worst([paired(new, old, attempts=look, last=last) for old in olds])
        else:
            seen = absolute(new, against, attempts=look, last=last)
        now = (words == MORE) & (seen != MORE)
        words[now], ended[now] = seen[now], look
    passed, failed, held = (float(np.mean(words == word)) for word in (PASS, FAIL, HOLD))
    return Outcome(passed=passed, failed=failed, held=held, looks=float(ended.mean()))


def worst(answers: list[Counts]) -> Counts:
    """`all_must_pass`: fail, then hold, then more, then pass."""
    rank = np.array([1, 0, 3, 2])  # MORE, PASS, FAIL, HOLD
    back = np.array([PASS, MORE, HOLD, FAIL])
    result: Counts = back[np.max([rank[answer] for answer in answers], axis=0)]
    return result
