"""What a gate looks at: graded attempts by arm and case, and which of them it still needs.

Pure. Attempts are planned here and judged in `judge`; between the two they are ordinary runs
with the purpose `eval`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from reconciler.gates.statistics import CRITICAL_ATTEMPTS, CaseTally, critical_case

Arm = str
CANDIDATE: Arm = "candidate"
STABLE: Arm = "stable"
ANCHOR: Arm = "anchor"
SENTINEL = "sentinel:"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One graded eval run. `error`: the grader or the environment failed; it is not a score."""

    arm: Arm
    case: str
    number: int
    status: Literal["passed", "failed", "error"]
    cost_nano: int
    working_ms: int
    run: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SuiteShape:
    """What of a suite the gate must know. `digest` binds the receipt to its content."""

    digest: str
    cases: tuple[str, ...]
    critical: frozenset[str]
    sentinels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One attempt that must exist before the look can be judged."""

    arm: Arm
    case: str
    number: int


@dataclass(frozen=True)
class Evidence:
    """The attempts of one rollout's gate, grouped; all lists in order of attempt number."""

    attempts: Mapping[tuple[Arm, str], list[Attempt]] = field(default_factory=dict)

    @classmethod
    def of(cls, attempts: Iterable[Attempt]) -> Evidence:
        """Group and order attempts; in which order they come leaves no trace."""
        grouped: dict[tuple[Arm, str], list[Attempt]] = defaultdict(list)
        for attempt in sorted(attempts, key=lambda a: (a.number, a.case, a.arm)):
            grouped[attempt.arm, attempt.case].append(attempt)
        return cls(dict(grouped))

    def of_case(self, arm: Arm, case: str) -> list[Attempt]:
        """All attempts of an arm at a case."""
        return self.attempts.get((arm, case), [])

    def graded(self, arm: Arm, case: str) -> list[Attempt]:
        """Those that have a score."""
        return [a for a in self.of_case(arm, case) if a.status != "error"]

    def errors(self) -> list[Attempt]:
        """Attempts lost to a grader or to the environment, in all arms."""
        return [a for group in self.attempts.values() for a in group if a.status == "error"]

    def tallies(self, arm: Arm, cases: Iterable[str], look: int) -> list[CaseTally]:
        """The first `look` scores of every case: never the extra ones of a critical case."""
        return [
            CaseTally(
                case,
                tuple(float(a.status == "passed") for a in self.graded(arm, case)[:look]),
            )
            for case in cases
        ]


def wanted(
    suite: SuiteShape, arms: Iterable[Arm], evidence: Evidence, *, look: int, max_errors: int
) -> list[Wanted]:
    """Every attempt the look needs, present or not.

    Each arm attempts each case `look` times; a critical case goes on while its sequential test
    is undecided; an attempt lost to an error is made again until `max_errors` are lost in all.
    """
    replaced = len(evidence.errors()) <= max_errors
    plan: list[Wanted] = []
    arms = list(arms)
    for case in suite.cases:
        for arm in arms:
            number = look
            if case in suite.critical and arm in (CANDIDATE, STABLE):
                number = max(number, _critical_attempts(suite, evidence, arm, case, look))
            if replaced:
                number += sum(a.status == "error" for a in evidence.of_case(arm, case))
            plan += [Wanted(arm, case, n) for n in range(1, number + 1)]
        for sentinel in suite.sentinels:
            arm = SENTINEL + sentinel
            number = 1
            if replaced:
                number += sum(a.status == "error" for a in evidence.of_case(arm, case))
            plan += [Wanted(arm, case, n) for n in range(1, number + 1)]
    return plan


def missing(plan: Iterable[Wanted], evidence: Evidence) -> list[Wanted]:
    """Those of the plan that have not been graded yet."""
    return [w for w in plan if all(a.number != w.number for a in evidence.of_case(w.arm, w.case))]


def critical_counts(
    suite: SuiteShape, evidence: Evidence, arm: Arm, case: str
) -> tuple[int, int, str]:
    """Passes, fails and state of the sequential test, stopped at its first answer."""
    passes = fails = 0
    state = "more"
    for attempt in evidence.graded(arm, case)[:CRITICAL_ATTEMPTS]:
        passes += attempt.status == "passed"
        fails += attempt.status == "failed"
        state = critical_case(passes, fails, critical_cases=len(suite.critical))
        if state != "more":
            break
    return passes, fails, state


def _critical_attempts(
    suite: SuiteShape, evidence: Evidence, arm: Arm, case: str, look: int
) -> int:
    """How many attempts the sequential test of this arm has reason to ask for by now."""
    if arm == STABLE:
        # Stable is only asked when the candidate is not ok; then it takes the same test.
        *_, candidate = critical_counts(suite, evidence, CANDIDATE, case)
        if candidate in ("more", "ok"):
            return look
    *_, state = critical_counts(suite, evidence, arm, case)
    done = len(evidence.graded(arm, case))
    if state != "more":
        return done
    # Six passes in a row are the shortest way to an answer; after that, two at a time.
    return min(CRITICAL_ATTEMPTS, max(6, done + 2) if done >= look else look)
