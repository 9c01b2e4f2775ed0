"""Print every error rate that docs/statistics.md states: `python -m tests.simulation [--quick]`.

Seeds are fixed; the same sizes print the same figures.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy import stats

from reconciler.gates.statistics import HORIZONS, minimum_count
from tests.simulation.canaries import Records
from tests.simulation.sequential import critical_suite, population_passes, ratio_within_limit
from tests.simulation.slide import slide
from tests.simulation.twins import Outcome, run_gates
from tests.simulation.worlds import at_level, lowered, mixed, worse_by

SEED = 20_240_601


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes")
    scale = 10 if parser.parse_args().quick else 1
    started = time.perf_counter()
    offline(gates=10_000 // scale)
    first_release(gates=10_000 // scale)
    anchor(fleets=4_000 // scale)
    population(samples=20_000 // scale)
    critical(suites=10_000 // scale)
    ratio(trials=200 // scale)
    canary(
        rates=(0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98),
        pasts=(50, 200, 500) if scale == 1 else (50,),
    )
    print(f"\n{time.perf_counter() - started:.0f} s, seed {SEED}")


def offline(*, gates: int) -> None:
    rng = np.random.default_rng(SEED)
    print(f"\nOffline gate ({gates:,} gates each): pass / fail / hold, mean attempts per case")
    for cases in (20, 40, 80):
        print(f"  A/A mixed          N={cases}  {_same(mixed(cases), gates, rng)}")
    for cases in (20, 40, 80):
        print(f"  A/A coin           N={cases}  {_same(np.full(cases, 0.5), gates, rng)}")
    print(f"  A/A deterministic  N=20  {_same(np.repeat([0.0, 1.0], [4, 16]), gates, rng)}")
    print(f"  −5 points, mixed   N=40  {_against(lowered(mixed(40), 0.05), mixed(40), gates, rng)}")
    for drop in (0.10, 0.20, 0.30):
        for cases in (20, 40, 80):
            results = {
                name: _against(candidate, stable, gates, rng)
                for name, candidate, stable in worse_by(drop, cases)
            }
            most = max(results, key=lambda name: results[name].passed)
            least = min(results, key=lambda name: results[name].failed)
            print(
                f"  −{drop * 100:.0f} points          N={cases}  most promoted "
                f"{results[most].passed:5.2%} ({most}); least failed "
                f"{results[least].failed:5.1%} ({least}); of {len(results)} ways"
            )


def first_release(*, gates: int) -> None:
    rng = np.random.default_rng(SEED + 1)
    print(f"\nFirst release ({gates:,} gates each), over ways to have that mean")
    for cases in (20, 40, 80):
        promoted = {
            f"{name} against {mean + 0.1:.2f}": run_gates(rates, mean + 0.1, gates=gates, rng=rng)
            for mean in (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9)
            for name, rates in at_level(mean, cases)
        }
        fair = {
            f"{name} against {mean:.2f}": run_gates(rates, mean, gates=gates, rng=rng)
            for mean in (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
            for name, rates in at_level(mean, cases)
        }
        top = max(promoted, key=lambda name: promoted[name].passed)
        bad = max(fair, key=lambda name: fair[name].failed)
        low = min(fair, key=lambda name: fair[name].passed)
        print(f"  N={cases} at threshold − δ: most promoted {promoted[top].passed:.1%} ({top})")
        print(
            f"  N={cases} at threshold: most failed {fair[bad].failed:.1%} ({bad}), "
            f"least promoted {fair[low].passed:.1%} ({low})"
        )


def anchor(*, fleets: int) -> None:
    rng = np.random.default_rng(SEED + 2)
    print(f"\nTen releases, N=40 mixed ({fleets:,} fleets each): promoted, total drop in points")
    for step in (0.04, 0.0):
        for anchored in (False, True):
            result = slide(
                mixed(40), step=step, releases=10, anchored=anchored, fleets=fleets, rng=rng
            )
            print(
                f"  step −{step * 100:.0f}  {'with anchor   ' if anchored else 'without anchor'}"
                f"  {result.promoted:4.1f} of 10, −{result.drop * 100:.1f}"
            )


def population(*, samples: int) -> None:
    rng = np.random.default_rng(SEED + 3)
    print(f"\nPopulation interval ({samples:,} samples): 10 % of tasks break, the suite samples")
    for cases in (20, 40, 80, 160):
        above, below = population_passes(cases, 0.10, samples=samples, rng=rng)
        print(f"  N={cases}: above −δ {above:.1%}, below 0 {below:.1%}")
    for cases in (20, 40, 80):
        chances = stats.binom.pmf(np.arange(cases + 1), cases, 0.10)
        promoted = 0.0
        for broken in range(cases // 2):
            candidate = np.repeat([0.0, 1.0], [broken, cases - broken])
            # Rates of 0 and 1 leave nothing to chance: one gate is exact.
            gate = run_gates(candidate, (np.ones(cases),), gates=1, rng=rng)
            promoted += gate.passed * float(chances[broken])
        print(f"  N={cases}: the fixed-suite rule promotes {promoted:.0%} (exact)")


def critical(*, suites: int) -> None:
    rng = np.random.default_rng(SEED + 4)
    print(f"\nFour critical cases ({suites:,} suites each): the suite's worst verdict")
    for candidate, stable in ((0.98, 0.98), (0.9, 0.9), (0.6, 0.98), (0.3, 0.98), (0.3, 0.3)):
        found = critical_suite(candidate, stable, cases=4, suites=suites, rng=rng)
        words = ", ".join(f"{word} {found[word]:.2%}" for word in sorted(found))
        print(f"  candidate {candidate}, stable {stable}: {words}")


def ratio(*, trials: int) -> None:
    print(f"\nRatio of medians ≤ 1.25 ({trials} trials, 500 resamples): share within the limit")
    for cases, attempts in ((20, 3), (40, 3), (20, 12)):
        shares = [
            ratio_within_limit(
                factor, cases=cases, attempts=attempts, trials=trials, resamples=500, seed=SEED + 5
            )
            for factor in (1.0, 1.1, 1.25, 1.5)
        ]
        shown = " / ".join(f"{share:.0%}" for share in shares)
        print(f"  N={cases}, k={attempts}: {shown} at true ratios 1 / 1.1 / 1.25 / 1.5")


def canary(*, rates: tuple[float, ...], pasts: tuple[int, ...]) -> None:
    records = Records()
    print("\nCanary (exact): most false rollbacks over stable rates", *rates)
    for horizon in HORIZONS:
        for past in pasts:
            false = {
                rate: records.rollback_rate(rate, past=past, horizon=horizon) for rate in rates
            }
            worst = max(false, key=lambda rate: false[rate])
            print(f"  T={horizon}, {past} past runs: {false[worst]:.2%} (at {worst})")
    for drop in (0.2, 0.3, 0.5):
        found = [
            records.rollback_rate(0.8, past=past, horizon=50, drop=drop, within=50)
            for past in pasts
        ]
        shown = ", ".join(f"{past}: {share:.3f}" for past, share in zip(pasts, found, strict=True))
        print(f"  −{drop * 100:.0f} points at 0.8, T=50, found (by past runs): {shown}")
    for rate in (0.6, 0.8, 0.95):
        least = [minimum_count(horizon=horizon, stable_rate=rate) for horizon in HORIZONS]
        print(f"  failures in a row that fire at {rate}, 50 past runs, T=30/50/100: {least}")


def _same(rates: np.ndarray, gates: int, rng: np.random.Generator) -> Outcome:
    return run_gates(rates, (rates,), gates=gates, rng=rng)


def _against(
    candidate: np.ndarray, stable: np.ndarray, gates: int, rng: np.random.Generator
) -> Outcome:
    return run_gates(candidate, (stable,), gates=gates, rng=rng)


if __name__ == "__main__":
    main()
