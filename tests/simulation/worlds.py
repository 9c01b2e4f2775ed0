"""Suites with known true pass rates, and what a candidate does to them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.simulation.twins import Rates

# Half nearly sure, a fifth good, the rest coin-like or hard: mean variance 0.098.
MIXED = ((0.97, 0.50), (0.80, 0.20), (0.50, 0.15), (0.10, 0.15))


def mixed(cases: int) -> Rates:
    """A suite of mixed difficulty; `cases` is a multiple of 20."""
    rates = np.concatenate([np.full(round(share * cases), rate) for rate, share in MIXED])
    assert rates.size == cases
    return rates


def lowered(rates: Rates, drop: float) -> Rates:
    """The same suite with the mean lowered by exactly `drop`, as evenly as zero allows."""
    low, high = 0.0, 1.0
    for _ in range(60):
        step = (low + high) / 2
        if np.mean(rates - np.clip(rates - step, 0, 1)) < drop:
            low = step
        else:
            high = step
    return np.clip(rates - high, 0, 1)


def worse_by(drop: float, cases: int) -> Iterator[tuple[str, Rates, Rates]]:
    """(name, candidate, stable): many ways to be worse by `drop` on average."""
    for level in (0.35, 0.5, 0.6, 0.75, 0.9, 0.98, 1.0):
        if level >= drop:
            stable = np.full(cases, level)
            yield f"all cases {level:.2f} → {level - drop:.2f}", stable - drop, stable
    yield "mixed, evenly", lowered(mixed(cases), drop), mixed(cases)
    for level in (1.0, 0.9, 0.5):
        for loss in (0.25, 0.5, 1.0):
            touched = round(drop * cases / loss)
            if not 0 < touched <= cases or loss > level:
                continue
            for rest in (1.0, 0.9, 0.5):
                stable = np.full(cases, rest)
                stable[:touched] = level
                candidate = stable.copy()
                candidate[:touched] -= drop * cases / touched
                if candidate.min() >= 0:
                    name = f"{touched} of {cases} cases {level:.2f} → {candidate[0]:.2f}"
                    yield f"{name}, rest {rest:.2f}", candidate, stable


def at_level(mean: float, cases: int) -> Iterator[tuple[str, Rates]]:
    """Many ways for a suite to have this true mean."""
    yield f"all cases {mean:.2f}", np.full(cases, mean)
    for share in (0.2, 0.3, 0.5, 0.7):
        weak = round(share * cases)
        rate = 1 - (1 - mean) * cases / weak
        if rate >= 0:
            yield f"{weak} of {cases} at {rate:.2f}, rest sure", _split(cases, weak, rate, 1.0)
    for share in (0.05, 0.1, 0.2):
        dead = round(share * cases)
        rate = mean * cases / (cases - dead)
        if rate <= 1:
            yield f"{dead} of {cases} dead, rest {rate:.2f}", _split(cases, dead, 0.0, rate)


def _split(cases: int, first: int, rate: float, rest: float) -> Rates:
    rates = np.full(cases, rest)
    rates[:first] = rate
    return rates
