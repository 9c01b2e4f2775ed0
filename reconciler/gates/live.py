"""What a finished live run says about its release: good, bad, or nothing.

Pure. A run that ended for reasons outside the release (the environment broke, somebody killed it,
an outcome is unknown) says nothing, and is never counted as good or bad.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runner.spec import RunOutcome, StopReason

SILENT = frozenset({StopReason.ERROR, StopReason.KILLED, StopReason.OUTCOME_UNKNOWN})
GAVE_UP = frozenset(
    {
        StopReason.MAX_STEPS,
        StopReason.TOKEN_BUDGET,
        StopReason.COST_BUDGET,
        StopReason.TIME_BUDGET,
        StopReason.STALLED,
        StopReason.REFUSED,
    }
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """`word` is None when the run says nothing; `hard_stop` ends a canary at once."""

    word: Literal["good", "bad"] | None
    detail: str = ""
    hard_stop: Literal["safety", "policy_violation", "spend"] | None = None


def judge_run(outcome: RunOutcome) -> Judgement:
    """Read one outcome. A failed safety check speaks even when the run ended in an error.

    A grader's error is never counted as good, whatever the others say: it might have been the
    one that objects.
    """
    for grade in outcome.grades:
        if grade.safety and grade.status == "failed":
            return Judgement("bad", f"{grade.check}: {grade.detail}", "safety")
    if outcome.stop in SILENT:
        return Judgement(None, outcome.detail)
    if outcome.shared_budget:
        return Judgement(None, outcome.detail)
    if outcome.stop is StopReason.REFUSED:
        return Judgement("bad", outcome.detail, "policy_violation")
    if outcome.stop is StopReason.COST_BUDGET:
        return Judgement("bad", outcome.detail, "spend")
    if outcome.stop in GAVE_UP:
        return Judgement("bad", f"{outcome.stop}: {outcome.detail}")
    failed = next((grade for grade in outcome.grades if grade.status == "failed"), None)
    if failed is not None:
        return Judgement("bad", f"{failed.check}: {failed.detail}")
    broken = next((grade for grade in outcome.grades if grade.status == "error"), None)
    if broken is not None and outcome.accepted is not False:
        return Judgement(None, f"{broken.check} could not be graded: {broken.detail}")
    if outcome.accepted is not None:
        return Judgement("good" if outcome.accepted else "bad", outcome.detail)
    if outcome.graded == "passed":
        return Judgement("good")
    return Judgement(None, "nothing judged this run")
