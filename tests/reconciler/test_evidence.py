"""Which attempts a look needs, which of them are missing, and which may count."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.gates.evidence import (
    ANCHOR,
    CANDIDATE,
    SENTINEL,
    STABLE,
    Attempt,
    Evidence,
    Wanted,
    critical_counts,
    missing,
    wanted,
)
from reconciler.gates.statistics import CRITICAL_ATTEMPTS
from tests.support.gate_evidence import CASES, arm, sentinel, suite

BOTH = (CANDIDATE, STABLE)
NOTHING = Evidence.of([])
STATUSES = st.sampled_from(["passed", "failed", "error"])


def numbers(plan: list[Wanted], name: str, case: str) -> list[int]:
    return [w.number for w in plan if (w.arm, w.case) == (name, case)]


def attempts(name: str, case: str, word: str) -> list[Attempt]:
    """One attempt per letter: p passed, f failed, e error."""
    statuses = {"p": "passed", "f": "failed", "e": "error"}
    return [
        Attempt(name, case, n, statuses[letter], 1, 1)  # type: ignore[arg-type]
        for n, letter in enumerate(word, start=1)
    ]


def test_every_arm_attempts_every_case_as_often_as_the_look_says() -> None:
    plan = wanted(suite(), [CANDIDATE, STABLE, ANCHOR], NOTHING, look=3, max_errors=4)
    assert len(plan) == len(set(plan)) == 3 * 20 * 3
    assert missing(plan, NOTHING) == plan


def test_a_sentinel_attempts_every_case_once_at_every_look() -> None:
    shape = suite(sentinels=("lazy",))
    for look in (3, 12):
        plan = wanted(shape, BOTH, NOTHING, look=look, max_errors=4)
        assert numbers(plan, SENTINEL + "lazy", CASES[0]) == [1]


def test_an_error_is_made_again_until_too_many_are_lost() -> None:
    seen = Evidence.of(attempts(CANDIDATE, CASES[0], "pep"))
    plan = wanted(suite(), BOTH, seen, look=3, max_errors=1)
    assert numbers(plan, CANDIDATE, CASES[0]) == [1, 2, 3, 4]
    assert numbers(plan, STABLE, CASES[0]) == [1, 2, 3]
    plan = wanted(suite(), BOTH, seen, look=3, max_errors=0)
    assert numbers(plan, CANDIDATE, CASES[0]) == [1, 2, 3]


def test_a_lost_sentinel_attempt_is_made_again() -> None:
    seen = Evidence.of(attempts(SENTINEL + "lazy", CASES[0], "e"))
    plan = wanted(suite(sentinels=("lazy",)), BOTH, seen, look=3, max_errors=4)
    assert numbers(plan, SENTINEL + "lazy", CASES[0]) == [1, 2]


def test_a_critical_case_goes_on_only_while_its_test_is_undecided() -> None:
    shape = suite(critical=CASES[:1])

    def asked(candidate: str, stable: str = "ppp") -> tuple[int, int]:
        seen = Evidence.of(
            attempts(CANDIDATE, CASES[0], candidate) + attempts(STABLE, CASES[0], stable)
        )
        plan = wanted(shape, BOTH, seen, look=3, max_errors=4)
        return len(numbers(plan, CANDIDATE, CASES[0])), len(numbers(plan, STABLE, CASES[0]))

    assert asked("pp") == (3, 3)
    assert asked("ppp") == (6, 3)
    assert asked("pppppp") == (6, 3)  # ok
    assert asked("fff") == (3, 6)  # broken: now stable takes the test
    assert asked("fff", "fff") == (3, 3)  # broken before
    assert asked("pfppfp") == (8, 3)
    assert asked("pfp") == (6, 3)


def test_stable_is_not_asked_more_where_there_is_none() -> None:
    seen = Evidence.of(attempts(CANDIDATE, CASES[0], "fff"))
    plan = wanted(suite(critical=CASES[:1]), [CANDIDATE], seen, look=3, max_errors=4)
    assert {w.arm for w in plan} == {CANDIDATE}
    assert len(plan) == 60


@given(st.lists(STATUSES, max_size=40), st.sampled_from([3, 6, 12]))
def test_filling_what_is_missing_comes_to_an_end(statuses: list[str], look: int) -> None:
    shape, given_statuses = suite(cases=CASES[:1], critical=CASES[:1]), iter(statuses)
    seen: list[Attempt] = []
    for _ in range(80):
        plan = wanted(shape, BOTH, Evidence.of(seen), look=look, max_errors=4)
        left = missing(plan, Evidence.of(seen))
        if not left:
            break
        item = left[0]
        status = next(given_statuses, "failed")
        seen.append(Attempt(item.arm, item.case, item.number, status, 1, 1))  # type: ignore[arg-type]
    else:
        raise AssertionError("never satisfied")
    evidence = Evidence.of(seen)
    for name in BOTH:
        graded = len(evidence.graded(name, CASES[0]))
        assert graded <= max(look, CRITICAL_ATTEMPTS)
        if len(evidence.errors()) <= 4:
            assert graded >= look


@given(st.text("pfe", max_size=30))
def test_the_sequential_test_stops_at_its_first_answer(word: str) -> None:
    shape = suite(critical=CASES[:1])
    whole = critical_counts(
        shape, Evidence.of(attempts(CANDIDATE, CASES[0], word)), CANDIDATE, CASES[0]
    )
    if whole[2] != "more":
        more = Evidence.of(attempts(CANDIDATE, CASES[0], word + "ffffpppp"))
        assert critical_counts(shape, more, CANDIDATE, CASES[0]) == whole
    assert whole[0] + whole[1] <= CRITICAL_ATTEMPTS


def test_the_extra_attempts_of_a_critical_case_do_not_enter_the_comparison() -> None:
    evidence = Evidence.of(attempts(CANDIDATE, CASES[0], "epppfff"))
    (tally,) = evidence.tallies(CANDIDATE, CASES[:1], look=3)
    assert tally.scores == (1.0, 1.0, 1.0)


def test_attempts_stand_in_order_of_their_number_however_they_came() -> None:
    mixed = list(reversed(arm(CANDIDATE, 3) + sentinel("lazy", passes=1)))
    evidence = Evidence.of(mixed)
    assert [a.number for a in evidence.of_case(CANDIDATE, CASES[0])] == [1, 2, 3]
    assert evidence.of_case(STABLE, CASES[0]) == []
