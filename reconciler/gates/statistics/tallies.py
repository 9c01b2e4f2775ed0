"""What a gate is given: one tally per case and arm, and what it may answer.

Everything that would make a later inequality meaningless (no cases, a case graded twice, a
score outside [0, 1], arms that ran different cases) is refused here, once, so that the deciding
functions can be read as formulas.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Verdict = Literal["pass", "fail", "more", "hold"]
"""`more` asks for the next look; `hold` is "not enough evidence, or an error": never a pass."""

LOOKS: Final = (3, 6, 12)
"""Attempts per case at which the offline gate looks. The error rates hold for these looks only."""

MARGIN: Final = 0.10
"""δ: a candidate that is worse by less than this, on average over the cases, may be promoted."""

MINIMUM_CASES: Final = 20
"""Below this many cases a gate may not decide by itself: the answer is `hold`."""

PASS_Z: Final = 1.80
FAIL_Z: Final = 2.50
"""Half-widths in standard errors, found by simulation for three looks at LOOKS."""

ROUNDING: Final = 1e-9
"""Keeps a difference that is exactly at a bound from being decided by floating-point noise."""


class StatisticsError(ValueError):
    """The evidence cannot be judged: nothing to judge, or it contradicts itself."""


@dataclass(frozen=True)
class CaseTally:
    """The graded attempts of one arm at one case.

    `scores` holds one number in [0, 1] per attempt: 1.0 passed, 0.0 failed, between them a
    partial score. An attempt whose grader had an error is not a score: leave it out, and the
    gate will say that it is missing. Raises StatisticsError for a score outside [0, 1].
    """

    case: str
    scores: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.case:
            raise StatisticsError("a case needs an id")
        for score in self.scores:
            if not 0.0 <= score <= 1.0:  # also refuses NaN
                raise StatisticsError(f"case {self.case}: score {score!r} is not in [0, 1]")

    @classmethod
    def of_counts(cls, case: str, *, passes: int, attempts: int) -> CaseTally:
        """The tally of a case that only passes or fails."""
        if not 0 <= passes <= attempts:
            raise StatisticsError(f"case {case}: {passes} passes of {attempts} attempts")
        return cls(case, (1.0,) * passes + (0.0,) * (attempts - passes))

    @property
    def mean(self) -> float:
        """Mean score; StatisticsError when there was no graded attempt."""
        if not self.scores:
            raise StatisticsError(f"case {self.case}: no graded attempt")
        return math.fsum(self.scores) / len(self.scores)

    @property
    def variance(self) -> float:
        """Unbiased variance of one attempt's score; needs two attempts.

        For scores of 0 and 1 this is x(n − x) / (n(n − 1)) with x passes of n attempts.
        """
        if len(self.scores) < 2:
            raise StatisticsError(f"case {self.case}: a variance needs two graded attempts")
        mean = self.mean
        return math.fsum((score - mean) ** 2 for score in self.scores) / (len(self.scores) - 1)


def checked_arm(arm: Sequence[CaseTally], *, name: str, look: int) -> dict[str, CaseTally]:
    """The arm by case id, sorted, so that no result depends on the order cases finished in.

    Raises StatisticsError for an empty arm, a repeated case, a look below three attempts, or a
    case with more attempts than the look: extra attempts for chosen cases (a critical case's, or
    reruns of what failed) would promote a third to a half of the releases at the margin.
    """
    if look < LOOKS[0]:
        raise StatisticsError(f"look {look}: the gate first looks at {LOOKS[0]} attempts per case")
    if not arm:
        raise StatisticsError(f"{name} has no cases: an empty suite is an error, not a pass")
    by_case: dict[str, CaseTally] = {}
    for tally in sorted(arm, key=lambda tally: tally.case):
        if tally.case in by_case:
            raise StatisticsError(f"{name}: case {tally.case} is there twice")
        if len(tally.scores) > look:
            raise StatisticsError(
                f"{name}: case {tally.case} has {len(tally.scores)} attempts at look {look}; "
                "give the gate the first attempts only"
            )
        by_case[tally.case] = tally
    return by_case


def lacking(arms: Iterable[dict[str, CaseTally]], *, look: int) -> tuple[str, ...]:
    """The cases that have fewer graded attempts than the look in any of the arms."""
    return tuple(sorted({case for arm in arms for case, t in arm.items() if len(t.scores) < look}))


def why_undecidable(cases: int, missing: tuple[str, ...], *, look: int) -> str | None:
    """Why these results must be held whatever they say; None when they may be judged.

    A missing attempt is held rather than averaged away: a candidate that breaks its own grader
    must not be judged by the attempts that survived.
    """
    if missing:
        shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        return (
            f"{len(missing)} of {cases} cases have fewer than {look} graded attempts ({shown}); "
            "repair the grader or the sandbox and run those attempts again"
        )
    if cases < MINIMUM_CASES:
        return f"{cases} cases; below {MINIMUM_CASES} a person decides: add cases"
    return None


def bounded_verdict(*, lower: float, upper: float, margin: float, last_look: bool) -> Verdict:
    """The gate's inequality: pass is looked at first, then fail, then whether to go on.

    `lower` and `upper` bound the difference from what the candidate is held against.
    """
    if lower > -margin + ROUNDING:
        return "pass"
    if upper < -ROUNDING:
        return "fail"
    return "hold" if last_look else "more"


def checked_margin(delta: float) -> float:
    """δ, when it is a share above 0 and at most 1; else StatisticsError."""
    if not 0.0 < delta <= 1.0:
        raise StatisticsError(f"delta {delta!r} is not above 0 and at most 1")
    return delta


def all_must_pass(verdicts: Iterable[Verdict]) -> Verdict:
    """One word for several comparisons (stable, anchor, population): the least favourable.

    A failure cannot be mended by another look, nor can a hold; so `fail`, then `hold`, outrank
    `more`. No verdict at all is an error.
    """
    given = set(verdicts)
    order: tuple[Verdict, ...] = ("fail", "hold", "more", "pass")
    for verdict in order:
        if verdict in given:
            return verdict
    raise StatisticsError("no verdict to combine: a gate without a check is an error, not a pass")
