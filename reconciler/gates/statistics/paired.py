"""Is the candidate worse than what it would replace, on this suite?

Both arms attempt every case of a fixed suite, interleaved in time (a provider that drifts while
one arm waits doubles the false promotions). The same inequality holds a candidate against
stable and against the anchor. Without the anchor, ten releases of −4 points would each look
harmless and add up to −28.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.gates.statistics.tallies import (
    FAIL_Z,
    MARGIN,
    PASS_Z,
    ROUNDING,
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
class OfflineDecision:
    """One look of the offline gate. Every number is on the score scale of 0 to 1.

    `lower` = D − 1.80·SE decides a pass, `upper` = D + 2.50·SE a failure. `flipped` are the
    cases that stable mostly passed and the candidate mostly fails, the largest loss first;
    `recovered` the other way round, the largest gain first. They are for the reader: at three
    attempts a coin-like case flips by chance.
    """

    decision: Verdict
    difference: float
    standard_error: float
    lower: float
    upper: float
    regressed_within_margin: bool
    flipped: tuple[str, ...]
    recovered: tuple[str, ...]
    cases: int
    look: int
    delta: float
    reason: str


def paired_decision(
    candidate: Sequence[CaseTally],
    stable: Sequence[CaseTally],
    *,
    look: int,
    last_look: bool,
    delta: float = MARGIN,
) -> OfflineDecision:
    """Decide at `look` attempts per case and arm; `last_look` turns `more` into `hold`.

        D  = mean_i(c_i − s_i)                                 c_i, s_i: mean scores of case i
        V  = Σ_arms [ Σ_i s²_i/n_i + 0.5·mean_i(1/n_i) ]       s²_i: variance of one attempt
        SE = √V / N
        pass if D − 1.80·SE > −δ (looked at first) · fail if D + 2.50·SE < 0

    The 0.5 stands for two coin-like pseudo-cases per arm: without it, a suite whose cases all
    happened to agree at three attempts would claim to know everything. The constants were found
    by simulation for LOOKS (see docs/statistics.md). Raising a score of the candidate never
    takes a pass away.

    Held, whatever the numbers: fewer than 20 cases, or a case with fewer graded attempts than
    the look. Raises StatisticsError when an arm is empty, has a case twice or more attempts than
    the look, when the arms hold different cases, or no case has a graded attempt in both.
    """
    checked_margin(delta)
    new = checked_arm(candidate, name="candidate", look=look)
    old = checked_arm(stable, name="stable", look=look)
    if new.keys() != old.keys():
        odd = ", ".join(sorted(new.keys() ^ old.keys())[:5])
        raise StatisticsError(f"the arms ran different cases ({odd}): run one suite for both")

    graded = [case for case in new if new[case].scores and old[case].scores]
    if not graded:
        raise StatisticsError("no case has a graded attempt in both arms")
    change = {case: new[case].mean - old[case].mean for case in graded}
    difference = math.fsum(change.values()) / len(graded)
    error = math.sqrt(
        sum(_arm_variance([arm[case] for case in graded]) for arm in (new, old))
    ) / len(graded)
    lower, upper = difference - PASS_Z * error, difference + FAIL_Z * error

    missing = lacking((new, old), look=look)
    held = why_undecidable(len(new), missing, look=look)
    decision: Verdict = (
        "hold"
        if held
        else bounded_verdict(lower=lower, upper=upper, margin=delta, last_look=last_look)
    )
    regressed = decision == "pass" and upper < -ROUNDING
    by_loss = sorted(graded, key=lambda case: (change[case], case))
    by_gain = sorted(graded, key=lambda case: (-change[case], case))
    return OfflineDecision(
        decision=decision,
        difference=difference,
        standard_error=error,
        lower=lower,
        upper=upper,
        regressed_within_margin=regressed,
        flipped=tuple(c for c in by_loss if old[c].mean >= 0.5 > new[c].mean),
        recovered=tuple(c for c in by_gain if new[c].mean >= 0.5 > old[c].mean),
        cases=len(new),
        look=look,
        delta=delta,
        reason=held or _reason(decision, lower=lower, upper=upper, delta=delta, seen=regressed),
    )


def _arm_variance(arm: Sequence[CaseTally]) -> float:
    """Σ s²/n + 0.5·mean(1/n); a case with a single attempt counts as a coin (it is held anyway)."""
    sampled = math.fsum(
        (tally.variance if len(tally.scores) > 1 else 0.25) / len(tally.scores) for tally in arm
    )
    return sampled + 0.5 * math.fsum(1 / len(tally.scores) for tally in arm) / len(arm)


def _reason(decision: Verdict, *, lower: float, upper: float, delta: float, seen: bool) -> str:
    if decision == "pass":
        note = "; regressed within margin" if seen else ""
        return f"at worst {lower:+.3f}, above the margin of {-delta:+.3f}{note}"
    if decision == "fail":
        return f"worse: at best {upper:+.3f}"
    return f"between {lower:+.3f} and {upper:+.3f}: neither shown worse nor within {-delta:+.3f}"
