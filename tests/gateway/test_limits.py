"""Rate limits: examples a platform engineer would try, and GCRA against brute force."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from gateway.limits import Admitted, Limiter, Refused, Traits
from gateway.policy import RateLimit
from gateway.policy.rules import Match
from gateway.refusals import Code
from gateway.values import Millis

SECOND, MINUTE, DAY = Millis(1000), Millis(60_000), Millis(86_400_000)
START = Millis(1_763_000_000_000)
CI = Traits("ci-triage", "platform", ("smart", "fast"))
TOOL = Traits("ci-triage", "platform", tool="tracker.open_change")


def at(milliseconds: int) -> Millis:
    return Millis(START + milliseconds)


def limit(**fields: Any) -> tuple[RateLimit, ...]:
    return (RateLimit(**{"name": "calls", "window_ms": MINUTE} | fields),)


def admitted(
    limiter: Limiter, rules: tuple[RateLimit, ...], when: int, traits: Traits = CI, tokens: int = 0
) -> bool:
    return isinstance(limiter.admit(rules, traits, tokens=tokens, now=at(when)), Admitted)


def test_a_windows_amount_may_come_at_once_and_then_one_at_a_time() -> None:
    limiter, rules = Limiter(), limit(requests=60)
    assert [admitted(limiter, rules, 0) for _ in range(61)] == [True] * 60 + [False]
    assert [admitted(limiter, rules, 1000) for _ in range(2)] == [True, False]
    assert [admitted(limiter, rules, 61_000) for _ in range(61)] == [True] * 60 + [False]


def test_burst_bounds_what_comes_at_once() -> None:
    limiter, rules = Limiter(), limit(requests=60, burst=2)
    assert [admitted(limiter, rules, 0) for _ in range(3)] == [True, True, False]
    assert sum(admitted(limiter, rules, ms) for ms in range(1, 60_001)) == 60


def test_a_refusal_says_rule_rest_and_the_exact_wait() -> None:
    limiter, rules = Limiter(), limit(requests=7, burst=1)
    assert admitted(limiter, rules, 0)
    refused = limiter.admit(rules, CI, tokens=0, now=at(1))
    assert isinstance(refused, Refused)
    # A seventh of a minute is 8,571.43 ms.
    assert (refused.rule, refused.left, refused.wait_ms) == ("calls", 0, 8571)
    assert refused.retry_after == 9
    assert not admitted(limiter, rules, 8571)
    assert admitted(limiter, rules, 8572)
    refusal = refused.refusal()
    assert refusal.code is Code.RATE_LIMITED
    assert refusal.facts == {"rule": "calls", "left_requests": 0, "retry_after": 9}
    assert "`calls` (7 requests per minute)" in refusal.message
    assert "Try again in 9 s" in refusal.message


def test_a_call_larger_than_the_limit_is_told_that_waiting_does_not_help() -> None:
    limiter, rules = Limiter(), limit(tokens=1000)
    refused = limiter.admit(rules, CI, tokens=1001, now=START)
    assert isinstance(refused, Refused)
    assert refused.wait_ms is None
    assert refused.retry_after is None
    assert "would not fit later either" in refused.refusal().message
    assert admitted(limiter, rules, 0, tokens=1000)


@pytest.mark.parametrize("nothing", [{"requests": 0}, {"requests": 5, "burst": 0}, {"tokens": 0}])
def test_a_limit_of_nothing_admits_nothing_for_ever(nothing: dict[str, int]) -> None:
    refused = Limiter().admit(limit(**nothing), CI, tokens=1, now=START)
    assert isinstance(refused, Refused)
    assert refused.wait_ms is None


def test_all_matching_rules_or_none() -> None:
    limiter = Limiter()
    wide, narrow = limit(name="wide", requests=10) + limit(name="narrow", requests=1)
    assert admitted(limiter, (wide, narrow), 0)
    for _ in range(20):
        refused = limiter.admit((wide, narrow), CI, tokens=0, now=START)
        assert isinstance(refused, Refused)
        assert refused.rule == "narrow"
    # Of ten, one is used: the twenty refusals took nothing of `wide`.
    assert [admitted(limiter, (wide,), 0) for _ in range(10)] == [True] * 9 + [False]


def test_of_several_rules_the_one_that_has_room_last_is_named() -> None:
    limiter = Limiter()
    rules = (
        *limit(name="second", requests=1, window_ms=SECOND),
        *limit(name="day", requests=1, window_ms=DAY),
        *limit(name="minute", requests=1),
    )
    assert admitted(limiter, rules, 0)
    refused = limiter.admit(rules, CI, tokens=0, now=START)
    assert isinstance(refused, Refused)
    assert (refused.rule, refused.wait_ms) == ("day", DAY)


def test_an_audit_rule_reports_and_never_refuses() -> None:
    limiter, rules = Limiter(), limit(requests=1, mode="audit")
    first, second = (limiter.admit(rules, CI, tokens=0, now=START) for _ in range(2))
    assert isinstance(first, Admitted)
    assert isinstance(second, Admitted)
    assert first.over == ()
    assert [over.rule for over in second.over] == ["calls"]
    # It says what enforcing would have done: a call that it would refuse takes no room.
    assert limiter.admit(rules, CI, tokens=0, now=at(60_000)).over == ()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("match", "traits", "counts"),
    [
        ({}, CI, True),
        ({}, TOOL, True),
        ({"agent": "ci-*"}, CI, True),
        ({"agent": "docs-*"}, CI, False),
        ({"team": "payments"}, CI, False),
        ({"model": "smart"}, CI, True),
        ({"model": "fa*"}, CI, True),
        ({"model": "large"}, CI, False),
        ({"model": "*"}, TOOL, False),
        ({"tool": "tracker.*"}, TOOL, True),
        ({"tool": "tracker.*"}, CI, False),
        ({"tool": "shell.*"}, TOOL, False),
        ({"tool": "*", "model": "*"}, TOOL, False),
    ],
)
def test_what_a_rule_is_about(match: dict[str, str], traits: Traits, counts: bool) -> None:
    limiter, rules = Limiter(), limit(requests=1, match=Match(**match))
    assert admitted(limiter, rules, 0, traits)
    assert admitted(limiter, rules, 0, traits) is not counts


def test_tool_calls_have_no_tokens() -> None:
    limiter, rules = Limiter(), limit(tokens=10)
    assert all(admitted(limiter, rules, 0, TOOL, tokens=100) for _ in range(5))


def test_agents_share_a_limit_unless_each_has_it() -> None:
    other = CI._replace(agent="release-notes")
    for each, second in ((False, False), (True, True)):
        limiter, rules = Limiter(), limit(requests=1, each_agent=each)
        assert admitted(limiter, rules, 0)
        assert admitted(limiter, rules, 0, other) is second
        assert not admitted(limiter, rules, 0, other)


def test_fewer_tokens_than_estimated_are_given_back() -> None:
    limiter, rules = Limiter(), limit(tokens=100)
    first = limiter.admit(rules, CI, tokens=100, now=START)
    assert isinstance(first, Admitted)
    assert not admitted(limiter, rules, 0, tokens=70)
    limiter.correct(first, 30, START)
    assert admitted(limiter, rules, 0, tokens=70)
    assert not admitted(limiter, rules, 0, tokens=1)


def test_more_tokens_than_estimated_make_the_next_calls_wait() -> None:
    limiter, rules = Limiter(), limit(tokens=60)
    first = limiter.admit(rules, CI, tokens=60, now=START)
    assert isinstance(first, Admitted)
    limiter.correct(first, 90, START)
    refused = limiter.admit(rules, CI, tokens=10, now=START)
    assert isinstance(refused, Refused)
    assert (refused.left, refused.wait_ms) == (0, 40_000)


def test_what_has_flowed_off_is_not_given_back_a_second_time() -> None:
    limiter, rules = Limiter(), limit(tokens=100)
    slow = limiter.admit(rules, CI, tokens=100, now=START)
    assert isinstance(slow, Admitted)
    # A minute later its hundred have flowed off, and a hundred others were admitted.
    assert admitted(limiter, rules, 60_000, tokens=100)
    limiter.correct(slow, 0, at(60_000))
    assert not admitted(limiter, rules, 60_000, tokens=1)


def test_what_was_given_back_in_front_of_a_call_lets_it_flow_off_sooner() -> None:
    limiter, rules = Limiter(), limit(tokens=100)
    first, second = (limiter.admit(rules, CI, tokens=50, now=START) for _ in range(2))
    assert isinstance(first, Admitted)
    assert isinstance(second, Admitted)
    limiter.correct(first, 0, START)
    assert admitted(limiter, rules, 30_000, tokens=100)
    limiter.correct(second, 0, at(30_000))
    assert not admitted(limiter, rules, 30_000, tokens=1)


def test_a_released_call_has_taken_nothing() -> None:
    limiter, rules = Limiter(), limit(requests=1, tokens=100)
    first = limiter.admit(rules, CI, tokens=100, now=START)
    assert isinstance(first, Admitted)
    limiter.release(first, START)
    assert admitted(limiter, rules, 0, tokens=100)


def test_a_changed_limit_holds_at_once_for_what_has_been_admitted() -> None:
    limiter = Limiter()
    assert all(admitted(limiter, limit(requests=10), 0) for _ in range(4))
    assert not admitted(limiter, limit(requests=4), 0)
    tighter = limiter.admit(limit(requests=2), CI, tokens=0, now=START)
    assert isinstance(tighter, Refused)
    # Four are in, one may be: three must flow off, at two a minute.
    assert tighter.wait_ms == 90_000
    assert sum(admitted(limiter, limit(requests=10), 0) for _ in range(10)) == 6


def test_a_new_policy_with_the_same_rule_resets_nothing() -> None:
    limiter = Limiter()
    assert admitted(limiter, limit(requests=1), 0)
    assert not admitted(limiter, limit(requests=1), 0)
    assert admitted(limiter, (), 0)
    assert not admitted(limiter, limit(requests=1), 0)


def test_a_rule_that_matches_otherwise_begins_anew() -> None:
    limiter = Limiter()
    assert admitted(limiter, limit(requests=1), 0)
    assert admitted(limiter, limit(requests=1, match=Match(team="platform")), 0)


def test_a_restart_does_not_reset_a_days_window() -> None:
    rules = limit(requests=2, window_ms=DAY) + limit(name="t", tokens=100, window_ms=DAY)
    before = Limiter()
    assert all(admitted(before, rules, 0, tokens=50) for _ in range(2))
    rows = before.dump(at(1000))
    after = Limiter()
    after.load(rows)
    # Dumped again before anybody called: still there.
    assert after.dump(at(1000)) == rows
    refused = after.admit(rules, CI, tokens=50, now=at(2000))
    assert isinstance(refused, Refused)
    assert refused.wait_ms == DAY // 2 - 2000
    assert {row.tat for row in after.dump(at(2000))} == {START + DAY}


def test_an_empty_meter_is_not_dumped_and_an_old_row_is_not_loaded() -> None:
    limiter, rules = Limiter(), limit(requests=1)
    assert admitted(limiter, rules, 0)
    rows = limiter.dump(START)
    assert [row.scope for row in rows] == ["*"]
    assert limiter.dump(at(60_000)) == []
    after = Limiter()
    after.load(rows)
    assert admitted(after, rules, 60_000)


def test_a_clock_that_steps_back_neither_locks_out_nor_lets_in() -> None:
    limiter, rules = Limiter(), limit(requests=1)
    assert admitted(limiter, rules, 0)
    assert not admitted(limiter, rules, -3_600_000)
    refused = limiter.admit(rules, CI, tokens=0, now=at(-3_600_000 + 30_000))
    assert isinstance(refused, Refused)
    assert refused.wait_ms == 30_000


def test_meters_of_agents_that_come_and_go_do_not_pile_up() -> None:
    limiter, rules = Limiter(), limit(requests=1, window_ms=SECOND, each_agent=True)
    for number in range(50_000):
        assert admitted(limiter, rules, number, CI._replace(agent=f"agent-{number}"))
    assert len(limiter._meters) < 10_000
    assert len(limiter._matching) <= 4096


def test_a_debt_outlives_the_sweeping_of_empty_meters() -> None:
    limiter, rules = Limiter(), limit(tokens=10, window_ms=SECOND, each_agent=True)
    slow = limiter.admit(rules, CI, tokens=10, now=START)
    assert isinstance(slow, Admitted)
    for number in range(10_000):
        assert admitted(limiter, rules, 1000 + number, CI._replace(agent=f"a{number}"), tokens=1)
    limiter.correct(slow, 1000, at(12_000))
    assert not admitted(limiter, rules, 12_000, tokens=1)


# Against brute force. GCRA promises, for every pair of an admission and a later one, that what was
# admitted from the first to the second is no more than burst + limit · t / window. That is looked
# at here for all pairs, from the list of everything that ever happened.

RULES = (
    *limit(name="few", requests=3, burst=2, window_ms=SECOND),
    *limit(name="many", requests=7, window_ms=Millis(1300)),
    *limit(name="each", requests=2, window_ms=Millis(700), each_agent=True),
    *limit(name="tokens", tokens=53, window_ms=SECOND),
    *limit(name="look", requests=1, window_ms=SECOND, mode="audit"),
)


class Gcra(RuleBasedStateMachine):
    """Calls of two agents at any time: the decision is that of the brute force, exactly."""

    limits = RULES

    @initialize()
    def begin(self) -> None:
        self.limiter = Limiter()
        self.now = START
        self.seen: dict[tuple[str, str], list[list[int]]] = {}

    def meters(self, agent: str, tokens: int) -> list[tuple[RateLimit, tuple[str, str], int]]:
        return [
            (r, (r.name, agent if r.each_agent else "*"), 1 if r.tokens is None else tokens)
            for r in self.limits
        ]

    def fits(self, r: RateLimit, key: tuple[str, str], size: int, now: int) -> bool:
        amount = r.requests or r.tokens or 0
        burst = r.burst or amount
        total = size
        if total > burst:
            return False
        for when, used in reversed(self.seen.get(key, [])):
            total += used
            if total * r.window_ms > burst * r.window_ms + amount * (now - when):
                return False
        return True

    @rule(step=st.integers(0, 900))
    def wait(self, step: int) -> None:
        self.now = Millis(self.now + step)

    @rule(agent=st.sampled_from(["a", "b"]), tokens=st.integers(0, 60))
    def call(self, agent: str, tokens: int) -> None:
        meters = self.meters(agent, tokens)
        expected = all(
            self.fits(r, key, size, self.now) for r, key, size in meters if r.mode == "enforce"
        )
        traits = Traits(agent, "team", ("m",))
        twin = copy.deepcopy(self.limiter)
        answer = self.limiter.admit(self.limits, traits, tokens=tokens, now=self.now)
        assert isinstance(answer, Admitted) is expected
        if isinstance(answer, Refused):
            self.comes_true(twin, answer, traits, tokens)
            return
        over = [r.name for r, key, size in meters if not self.fits(r, key, size, self.now)]
        assert [each.rule for each in answer.over] == over
        for r, key, size in meters:
            if r.name not in over:
                self.seen.setdefault(key, []).append([self.now, size])
        self.note(answer, meters, over, tokens)

    def comes_true(self, twin: Limiter, refused: Refused, traits: Traits, tokens: int) -> None:
        if refused.wait_ms is None:
            assert tokens > 53
            return
        for early, kind in ((1, Refused), (0, Admitted)):
            when = Millis(self.now + refused.wait_ms - early)
            assert isinstance(twin.admit(self.limits, traits, tokens=tokens, now=when), kind)

    def note(self, answer: Admitted, meters: Any, over: list[str], tokens: int) -> None:
        """For the machine below."""

    @rule()
    def restart(self) -> None:
        rows = self.limiter.dump(self.now)
        after = Limiter()
        after.load(rows)
        # A row is exact to the millisecond and rounded up, so this only ever refuses more.
        twin = copy.deepcopy(self.limiter)
        for agent in ("a", "b"):
            traits = Traits(agent, "team", ("m",))
            if isinstance(after.admit(self.limits, traits, tokens=1, now=self.now), Admitted):
                assert isinstance(twin.admit(self.limits, traits, tokens=1, now=self.now), Admitted)


class Corrected(Gcra):
    """Tokens are corrected and calls released at any later time. What was really used obeys the
    promise whenever a call is admitted; a correction never makes room that is not there."""

    limits = limit(name="tokens", tokens=53, window_ms=SECOND)

    @initialize()
    def nothing_open(self) -> None:
        self.open: list[tuple[Admitted, list[list[int]], list[int] | None, int]] = []

    @rule(agent=st.sampled_from(["a", "b"]), tokens=st.integers(0, 60))
    def call(self, agent: str, tokens: int) -> None:
        meters = self.meters(agent, tokens)
        traits = Traits(agent, "team", ("m",))
        twin = copy.deepcopy(self.limiter)
        answer = self.limiter.admit(self.limits, traits, tokens=tokens, now=self.now)
        if isinstance(answer, Refused):
            self.comes_true(twin, answer, traits, tokens)
            return
        assert all(self.fits(r, key, s, self.now) for r, key, s in meters if r.mode == "enforce")
        over = {each.rule for each in answer.over}
        entries, used = [], None
        for r, key, size in meters:
            if r.name not in over:
                entry = [self.now, size]
                self.seen.setdefault(key, []).append(entry)
                entries.append(entry)
                if r.tokens is not None:
                    used = entry
        self.open.append((answer, entries, used, tokens))

    @precondition(lambda self: getattr(self, "open", None))
    @rule(data=st.data(), share=st.integers(0, 100))
    def correct(self, data: Any, share: int) -> None:
        answer, _, used, tokens = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        actual = tokens * share // 100
        self.limiter.correct(answer, actual, self.now)
        if used is not None:
            used[1] = actual

    @precondition(lambda self: getattr(self, "open", None))
    @rule(data=st.data(), more=st.integers(0, 80))
    def exceed(self, data: Any, more: int) -> None:
        answer, _, _, tokens = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.limiter.correct(answer, tokens + more, self.now)
        self.seen.setdefault(("tokens", "*"), []).append([self.now, more])

    @precondition(lambda self: getattr(self, "open", None))
    @rule(data=st.data())
    def release(self, data: Any) -> None:
        answer, entries, _, _ = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.limiter.release(answer, self.now)
        for entry in entries:
            entry[1] = 0


Gcra.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
Corrected.TestCase.settings = settings(max_examples=80, stateful_step_count=60, deadline=None)
TestGcra = Gcra.TestCase
TestCorrected = Corrected.TestCase
