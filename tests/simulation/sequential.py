"""Critical cases, population samples and the cost ratio: the smaller experiments."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np

from reconciler.gates.statistics import (
    MARGIN,
    RATIO_LIMIT,
    CriticalTally,
    critical_verdict,
    population_interval,
    ratio_of_medians_upper,
)
from tests.simulation.twins import Rates


def critical_suite(
    candidate: float, stable: float, *, cases: int, suites: int, rng: np.random.Generator
) -> dict[str, float]:
    """Shares of suites by their worst critical verdict; true pass rates per case."""
    order = ("block", "hold", "pre_existing", "ok")
    found: Counter[str] = Counter()
    for _ in range(suites):
        verdicts = {_one_case(candidate, stable, cases=cases, rng=rng) for _ in range(cases)}
        found[next(word for word in order if word in verdicts)] += 1
    return {word: found[word] / suites for word in order}


def _one_case(candidate: float, stable: float, *, cases: int, rng: np.random.Generator) -> str:
    new, old = CriticalTally(0, 0), CriticalTally(0, 0)
    while True:
        decision = critical_verdict(new, old, critical_cases=cases)
        if decision.needs is None:
            return decision.verdict
        if decision.needs == "candidate":
            new = _attempt(new, candidate, rng)
        else:
            old = _attempt(old, stable, rng)


def _attempt(tally: CriticalTally, rate: float, rng: np.random.Generator) -> CriticalTally:
    passed = bool(rng.random() < rate)
    return CriticalTally(tally.passes + passed, tally.fails + (not passed))


def population_passes(
    cases: int, broken: float, *, samples: int, rng: np.random.Generator
) -> tuple[float, float]:
    """(interval above −δ, below 0) when a share of *tasks* breaks and the suite samples tasks."""
    above = below = 0
    for count in rng.binomial(cases, broken, samples):
        interval = population_interval([-1.0] * int(count) + [0.0] * (cases - int(count)))
        above += interval.lower > -MARGIN + 1e-9
        below += interval.upper < -1e-9
    return above / samples, below / samples


def ratio_within_limit(
    factor: float, *, cases: int, attempts: int, trials: int, resamples: int, seed: int
) -> float:
    """Share of trials whose bound is ≤ 1.25 when the candidate truly costs `factor` times more.

    Log-normal costs: cases spread by a factor of e (σ = 1), attempts of a case by σ = 0.3.
    """
    rng = np.random.default_rng(seed)
    within = 0
    for trial in range(trials):
        level: Rates = rng.lognormal(0.0, 1.0, (cases, 1))
        stable = level * rng.lognormal(0.0, 0.3, (cases, attempts))
        candidate = factor * level * rng.lognormal(0.0, 0.3, (cases, attempts))
        bound = ratio_of_medians_upper(
            candidate.tolist(), stable.tolist(), random=Random(trial), resamples=resamples
        )
        within += bound <= RATIO_LIMIT
    return within / trials
