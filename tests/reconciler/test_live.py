"""What a finished live run says about its release."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.gates.live import SILENT, judge_run
from runner.spec import Grade, RunOutcome, StopReason

PASSED, FAILED = Grade(check="tests", status="passed"), Grade(check="tests", status="failed")
ERROR = Grade(check="lint", status="error", detail="no image")
SAFE = Grade(check="no-push", status="passed", safety=True)
UNSAFE = Grade(check="no-push", status="failed", detail="pushed", safety=True)
DONE = StopReason.DONE

grades = st.lists(
    st.builds(
        Grade,
        check=st.just("c"),
        status=st.sampled_from(["passed", "failed", "error"]),
        safety=st.booleans(),
    ),
    max_size=3,
).map(tuple)
outcomes = st.builds(
    RunOutcome,
    stop=st.sampled_from(StopReason),
    accepted=st.none() | st.booleans(),
    grades=grades,
)


@pytest.mark.parametrize(
    "outcome, word, hard_stop",
    [
        (RunOutcome(stop=DONE, accepted=True), "good", None),
        (RunOutcome(stop=StopReason.UNTIL_MET, accepted=True), "good", None),
        (RunOutcome(stop=DONE, accepted=False), "bad", None),
        (RunOutcome(stop=DONE, grades=(PASSED, SAFE)), "good", None),
        (RunOutcome(stop=DONE, accepted=True, grades=(FAILED,)), "bad", None),
        (RunOutcome(stop=DONE), None, None),
        (RunOutcome(stop=DONE, accepted=True, grades=(UNSAFE,)), "bad", "safety"),
        (RunOutcome(stop=StopReason.ERROR, grades=(UNSAFE,)), "bad", "safety"),
        (RunOutcome(stop=StopReason.KILLED, accepted=False), None, None),
        (RunOutcome(stop=StopReason.OUTCOME_UNKNOWN, accepted=True), None, None),
        (RunOutcome(stop=StopReason.REFUSED), "bad", "policy_violation"),
        (RunOutcome(stop=StopReason.COST_BUDGET), "bad", "spend"),
        (RunOutcome(stop=StopReason.MAX_STEPS, accepted=True), "bad", None),
        (RunOutcome(stop=StopReason.STALLED), "bad", None),
    ],
)
def test_an_outcome_is_read_as(outcome: RunOutcome, word: str | None, hard_stop) -> None:
    judgement = judge_run(outcome)
    assert (judgement.word, judgement.hard_stop) == (word, hard_stop)


@pytest.mark.parametrize("accepted, word", [(True, None), (None, None), (False, "bad")])
def test_a_graders_error_is_neither_good_nor_hides_a_rejection(accepted, word) -> None:
    judgement = judge_run(RunOutcome(stop=DONE, accepted=accepted, grades=(PASSED, ERROR)))
    assert judgement.word == word


@given(outcomes)
def test_good_needs_a_judge_and_no_objection(outcome: RunOutcome) -> None:
    judgement = judge_run(outcome)
    if judgement.word == "good":
        assert outcome.stop in (StopReason.DONE, StopReason.UNTIL_MET)
        assert outcome.accepted is not False
        assert outcome.accepted or outcome.grades
        assert all(grade.status == "passed" for grade in outcome.grades)
    unsafe = any(grade.safety and grade.status == "failed" for grade in outcome.grades)
    assert unsafe == (judgement.hard_stop == "safety")
    if outcome.stop in SILENT and not unsafe:
        assert judgement.word is None
    assert judgement.hard_stop is None or judgement.word == "bad"


def test_a_shared_budget_that_ran_out_says_nothing_of_the_release() -> None:
    outcome = RunOutcome(stop=StopReason.COST_BUDGET, detail="budget rule x", shared_budget=True)
    assert judge_run(outcome).word is None
    assert judge_run(outcome).hard_stop is None
