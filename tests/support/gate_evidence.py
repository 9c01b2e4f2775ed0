"""Suites and attempts for the gate's tests: every arm as a table of passes per case."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.gates.evidence import SENTINEL, Attempt, SuiteShape

CASES = tuple(f"case-{n:02}" for n in range(20))


def suite(
    *,
    cases: tuple[str, ...] = CASES,
    critical: tuple[str, ...] = (),
    sentinels: tuple[str, ...] = (),
) -> SuiteShape:
    """A suite's shape."""
    return SuiteShape("sha256:0", cases, frozenset(critical), sentinels)


def arm(
    name: str,
    attempts: int,
    *,
    cases: tuple[str, ...] = CASES,
    passes: Mapping[str, int] | None = None,
    cost: int = 1000,
    ms: int = 2000,
) -> list[Attempt]:
    """`attempts` per case; all pass but where `passes` says how many (the first ones) do."""
    return [
        Attempt(
            name,
            case,
            number,
            "passed" if number <= (passes or {}).get(case, attempts) else "failed",
            # Not all alike: equal figures would leave the bootstrap nothing to do.
            cost + 10 * number,
            ms + 10 * number,
        )
        for case in cases
        for number in range(1, attempts + 1)
    ]


def sentinel(name: str, *, passes: int, cases: tuple[str, ...] = CASES) -> list[Attempt]:
    """One attempt per case, the first `passes` of which pass."""
    return [
        Attempt(SENTINEL + name, case, 1, "passed" if i < passes else "failed", 1, 1)
        for i, case in enumerate(cases)
    ]
