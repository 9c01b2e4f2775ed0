"""Is an agent's first release good enough, when there is nothing to compare it with?

The team names the pass rate it wants. The rule is the paired one, held against that constant,
so that one sentence explains both: an agent at the wanted rate practically never fails, one that
is δ below it is let through at most one time in twelve. A person approves a first release in any
case; this decides whether it is worth a person's time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.gates.statistics.tallies import (
    FAIL_Z,
    MARGIN,
    PASS_Z,
    CaseTally,
    StatisticsError,
    Verdict,
    bounded_verdict,
    checked_arm,
    checked_margin,
    lacking,
    why_undecidable,
)


@dataclass(frozen=True)
class AbsoluteDecision:
    """One look at a release without a predecessor. Rates are shares of 1.

    `lower` and `upper` bound the mean score: a pass needs `lower` > threshold − delta, a failure
    `upper` < threshold. `failing` lists the cases that mostly fail, the worst first.
    """

    decision: Verdict
    pass_rate: float
    threshold: float
    standard_error: float
    lower: float
    upper: float
    failing: tuple[str, ...]
    cases: int
    look: int
    delta: float
    reason: str


def absolute_decision(
    candidate: Sequence[CaseTally],
    *,
    threshold: float,
    look: int,
    last_look: bool,
    delta: float = MARGIN,
) -> AbsoluteDecision:
    """Decide whether the mean score reaches `threshold` (a share in (0, 1]), within `delta`.

        M  = mean_i(mean score of case i)
        V  = Σ_i s²_i/n_i + 1.0·mean_i(1/n_i)
        SE = √V / N
        pass if M − 1.80·SE > threshold − δ (looked at first) · fail if M + 2.50·SE < threshold

    The pseudo-term is 1.0 where the paired rule has 0.5 per arm: a single proportion near one is
    skewed, and 0.5 alone let 9.0 % through at the margin in the simulation; 1.0 keeps it to about
    7 %. Held and refused as in `paired_decision`; also StatisticsError for a threshold outside
    (0, 1].
    """
    checked_margin(delta)
    if not 0.0 < threshold <= 1.0:
        raise StatisticsError(f"threshold {threshold!r} is not above 0 and at most 1")
    arm = checked_arm(candidate, name="candidate", look=look)
    graded = [tally for tally in arm.values() if tally.scores]
    if not graded:
        raise StatisticsError("no case has a graded attempt")
    rate = math.fsum(tally.mean for tally in graded) / len(graded)
    sampled = math.fsum(
        # A case with one attempt counts as a coin; such a suite is held below.
        (tally.variance if len(tally.scores) > 1 else 0.25) / len(tally.scores)
        for tally in graded
    )
    pseudo = math.fsum(1 / len(tally.scores) for tally in graded) / len(graded)
    error = math.sqrt(sampled + pseudo) / len(graded)
    lower, upper = rate - PASS_Z * error, rate + FAIL_Z * error

    held = why_undecidable(len(arm), lacking((arm,), look=look), look=look)
    decision: Verdict = (
        "hold"
        if held
        else bounded_verdict(
            lower=lower - threshold, upper=upper - threshold, margin=delta, last_look=last_look
        )
    )
    return AbsoluteDecision(
        decision=decision,
        pass_rate=rate,
        threshold=threshold,
        standard_error=error,
        lower=lower,
        upper=upper,
        failing=tuple(
            tally.case
            for tally in sorted(graded, key=lambda tally: (tally.mean, tally.case))
            if tally.mean < 0.5
        ),
        cases=len(arm),
        look=look,
        delta=delta,
        reason=held or f"between {lower:.3f} and {upper:.3f}; wanted {threshold:.3f} − {delta:.3f}",
    )
