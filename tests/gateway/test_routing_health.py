"""Breakers, latency, and routes through targets that come and go."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway import routing
from gateway.policy import Retry, VirtualModel
from gateway.routing import Exhausted, Failure, Route, Router, State, Target, Try, Wait
from gateway.values import Millis
from tests.gateway.routes import START, A, B, C, fails, follow, plan, virtual

ONCE = Retry(attempts=1)


def at(milliseconds: int) -> Millis:
    return Millis(START + milliseconds)


def state(router: Router, target: Target, milliseconds: int = 0) -> State:
    return router.health(target).state(at(milliseconds))


def ask(router: Router, outcome: Failure | int, milliseconds: int = 0) -> None:
    """One call to `a` alone, without retries."""
    route = plan(virtual(retry=ONCE), given=(A,), router=router, now=at(milliseconds))
    follow(route, {"a": outcome}, at(milliseconds))


def opened(failures: int = 5) -> Router:
    router = Router()
    for _ in range(failures):
        ask(router, fails(503))
    return router


def test_five_failures_in_a_row_open_a_breaker() -> None:
    assert state(opened(4), A) is State.CLOSED
    assert state(opened(5), A) is State.OPEN
    router = opened(4)
    ask(router, 100)
    ask(router, fails(503))
    assert state(router, A) is State.CLOSED


def test_half_of_the_last_twenty_within_a_minute_open_a_breaker() -> None:
    for between, expected in ((3_000, State.OPEN), (3_500, State.CLOSED)):
        router = Router()
        for number in range(20):
            ask(router, fails(503) if number % 2 else 100, number * between)
        assert state(router, A, 19 * between) is expected


def test_what_is_the_callers_fault_opens_no_breaker() -> None:
    router = Router()
    for _ in range(50):
        ask(router, fails(400))
    assert state(router, A) is State.CLOSED


def test_an_open_breaker_lets_one_call_try_after_ten_seconds() -> None:
    router = opened()
    rules = virtual(retry=ONCE)
    assert plan(rules, router=router, now=at(9_999)).next(at(9_999)) == Try(B, None)
    assert state(router, A, 10_000) is State.HALF_OPEN
    probe = plan(rules, router=router, now=at(10_000))
    assert probe.next(at(10_000)) == Try(A, None, probe=True)
    # As long as it has not come back, the others go elsewhere.
    assert plan(rules, router=router, now=at(11_000)).next(at(11_000)) == Try(B, None)
    probe.answered(A, 100, 200, at(12_000))
    assert state(router, A, 12_000) is State.CLOSED
    assert plan(rules, router=router, now=at(12_000)).next(at(12_000)) == Try(A, None)


def test_a_failed_probe_doubles_the_wait_up_to_five_minutes() -> None:
    router, waits, now = opened(), [], 0
    for _ in range(7):
        begun = now
        while state(router, A, now) is State.OPEN:
            now += 1000
        waits.append((now - begun) // 1000)
        ask(router, fails(503), now)
    assert waits == [10, 20, 40, 80, 160, 300, 300]
    ask(router, 100, now + 300_000)
    assert state(router, A, now + 300_000) is State.CLOSED


def test_a_probe_is_one_try_without_retries() -> None:
    router = opened()
    steps = follow(plan(router=router, now=at(10_000)), {"a": fails(503)}, at(10_000))
    assert steps == ["a", "b", True]


def test_a_request_refused_as_such_shows_that_the_target_lives() -> None:
    router = opened()
    ask(router, fails(400), 10_000)
    assert state(router, A, 10_000) is State.CLOSED


def test_a_probe_that_is_cut_lets_another_call_try() -> None:
    router = opened()
    cut = plan(router=router, now=at(10_000))
    assert cut.next(at(10_000)) == Try(A, None, probe=True)
    cut.end()
    assert plan(router=router).next(at(10_001)) == Try(A, None, probe=True)


def test_a_probe_that_is_never_heard_of_again_is_given_up_after_the_providers_timeout() -> None:
    router = opened()
    plan(router=router).next(at(10_000))
    assert plan(router=router).next(at(10_000 + 119_999)) == Try(B, None)
    assert plan(router=router).next(at(10_000 + 120_000)) == Try(A, None, probe=True)


def test_when_all_breakers_are_open_one_call_tries_and_the_others_hear_why_not() -> None:
    router = opened()
    first = plan(given=(A,), router=router)
    assert first.next(START) == Try(A, None, probe=True)
    end = plan(given=(A,), router=router).next(START)
    assert isinstance(end, Exhausted)
    (failure,) = end.failures
    assert "a is not asked" in failure.message
    assert "HTTP 503" in failure.message
    assert (failure.done, failure.retry_after) == (False, 10)
    # Before its time a failed try does not make the wait longer.
    first.failed(A, fails(503), at(5_000))
    assert state(router, A, 10_000) is State.HALF_OPEN


def test_an_open_target_is_the_last_resort_of_a_call_whose_others_fail() -> None:
    router = opened()
    steps = follow(plan(router=router), {"b": fails(502), "c": fails(502)})
    assert steps == ["b", "c", "a", True]


def test_a_breaker_that_opens_meanwhile_ends_the_retries() -> None:
    router = opened(3)
    route = plan(virtual(retry=Retry(attempts=4)), router=router)
    steps = follow(route, {"a": fails(503)})
    assert steps == ["a", 125, "a", "b", True]


def test_answers_of_calls_that_began_before_do_not_close_a_breaker() -> None:
    router = Router()
    early = plan(given=(A,), router=router)
    early.next(START)
    for _ in range(5):
        ask(router, fails(503))
    early.answered(A, 100, 200, at(100))
    assert state(router, A, 100) is State.OPEN


def test_a_clock_that_is_set_back_does_not_keep_a_breaker_open() -> None:
    assert state(opened(), A, -3_600_000) is State.HALF_OPEN


def test_two_names_of_one_model_of_a_provider_share_its_health() -> None:
    router = opened()
    alias = Target("alias", A.model, A.provider_name, A.provider)
    assert state(router, alias) is State.OPEN


def test_what_is_known_of_targets_is_bounded() -> None:
    router = Router()
    for number in range(3000):
        router.health(Target(f"t{number}", A.model, f"p{number}", A.provider))
    assert len(router.standing(START)) == 1024


def test_a_dead_target_gets_no_more_than_probe_traffic() -> None:
    router, asked = Router(), 0
    # Ten calls a second for an hour.
    for milliseconds in range(0, 3_600_000, 100):
        steps = follow(plan(router=router), {"a": fails(503)}, at(milliseconds))
        asked += steps.count("a")
        assert steps[-1] is True
    # Five that opened it; probes after 10, 20, 40, 80, 160 and then every 300 seconds.
    assert asked <= 5 + 5 + 3_600 // 300


def latency(**fields: Any) -> VirtualModel:
    return virtual(routing="latency", **fields)


class World:
    """Calls one after the other, at so many a second, to targets of given speeds."""

    def __init__(self, per_second: int = 10, **fields: Any) -> None:
        self.router, self.random = Router(), random.Random(7)
        self.rules = latency(**fields)
        self.every = 1000 // per_second
        self.now = 0

    def serve(self, calls: int, **speeds: int) -> dict[str, float]:
        """Share of the calls that each target served."""
        served = dict.fromkeys("abc", 0)
        for number in range(calls):
            self.now += self.every
            route = plan(
                self.rules,
                router=self.router,
                run=f"run-{number // 20}",
                now=at(self.now),
                chance=self.random.random,
            )
            served[follow(route, dict(speeds), at(self.now))[0]] += 1
        return {name: count / calls for name, count in served.items()}


def test_latency_routing_finds_the_fast_target() -> None:
    world = World()
    first = [world.serve(1, a=900, b=100, c=500) for _ in range(3)]
    # Each one is measured once, then the fastest serves.
    assert {name for each in first for name, share in each.items() if share} == {"a", "b", "c"}
    assert world.serve(3000, a=900, b=100, c=500)["b"] > 0.99


def test_latency_routing_leaves_a_target_that_becomes_slow_and_comes_back() -> None:
    world = World()
    world.serve(100, a=100, b=300, c=900)
    assert world.serve(200, a=2000, b=300, c=900)["b"] > 0.9
    # `a` is well again: within two minutes it is measured, once, and believed.
    world.serve(1200, a=100, b=300, c=900)
    assert world.serve(500, a=100, b=300, c=900)["a"] > 0.99


def test_at_little_traffic_no_more_than_a_tenth_of_the_calls_explore() -> None:
    world = World()
    world.every = 120_000
    world.serve(10, a=100, b=300, c=900)
    assert world.serve(2000, a=100, b=300, c=900)["a"] > 0.88


def test_while_a_target_is_measured_for_the_first_time_other_calls_go_elsewhere() -> None:
    router = Router()
    routes = [plan(latency(), router=router) for _ in range(4)]
    names = [step.target.name for r in routes if isinstance(step := r.next(START), Try)]
    assert names == ["a", "b", "c", "a"]


def test_a_run_does_not_stay_with_a_target_that_was_only_measured() -> None:
    world = World(sticky="run")
    world.serve(60, a=100, b=300, c=900)
    shares = world.serve(10_000, a=100, b=300, c=900)
    assert shares["a"] > 0.99
    assert shares["b"] > 0


# Any number of calls through targets that fail in every way, at any time.

OUTCOMES: dict[str, Failure | int] = {
    "answer": 100,
    "slow answer": 4000,
    "busy": fails(429),
    "busy for long": fails(429, 60),
    "overloaded": fails(529),
    "broken": fails(500),
    "lost": fails(502),
    "no key": fails(401),
    "caller": fails(400),
    "unreachable": Failure("cannot be reached", done=False),
    "cut off": Failure("no first token", done=True),
    "half": Failure("broke off", done=True, begun=True),
}


class Routes(RuleBasedStateMachine):
    """Every route leads only to its targets, ends within attempts × targets tries, tries nothing
    after an answer, and no target is probed by two at a time."""

    @initialize(
        attempts=st.integers(1, 3),
        routing=st.sampled_from(["priority", "weight", "latency"]),
        sticky=st.sampled_from(["none", "run", "agent"]),
        fallback_on=st.sampled_from([(), (400,)]),
        seed=st.integers(0, 1000),
    )
    def begin(self, attempts: int, seed: int, **fields: Any) -> None:
        self.router = Router()
        self.now = START
        self.chance = random.Random(seed).random
        self.rules = virtual(retry=Retry(attempts=attempts), first_token_ms=Millis(500), **fields)
        self.open: list[tuple[Route, tuple[Target, ...], list[Try]]] = []
        self.probes: dict[str, int] = {}

    @rule(step=st.integers(0, 40_000))
    def wait(self, step: int) -> None:
        self.now = Millis(self.now + step)

    @rule(given=st.sampled_from([(A,), (A, B), (C, B), (A, B, C)]), run=st.sampled_from("xyz"))
    def plan(self, given: tuple[Target, ...], run: str) -> None:
        if len(self.open) < 6:
            route = plan(
                self.rules,
                given=given,
                router=self.router,
                run=run,
                now=self.now,
                chance=self.chance,
            )
            self.open.append((route, given, []))

    @precondition(lambda self: getattr(self, "open", None))
    @rule(data=st.data(), kind=st.sampled_from([*OUTCOMES, "skip", "silence", "cut"]))
    def step(self, data: Any, kind: str) -> None:
        index = data.draw(st.integers(0, len(self.open) - 1))
        route, given, tries = self.open[index]
        step = route.next(self.now)
        if isinstance(step, Wait):
            assert 0 < step.ms <= self.rules.retry.max_backoff_ms
            step = route.next(self.now)
            assert not isinstance(step, Wait)
        if isinstance(step, Exhausted):
            self.open.pop(index)
            assert isinstance(route.next(self.now), Exhausted)
            return
        tries.append(step)
        assert step.target in given
        of_target = [each for each in tries if each.target is step.target]
        assert len(of_target) <= self.rules.retry.attempts
        assert len(tries) <= self.rules.retry.attempts * len(given)
        if step.probe:
            assert len(of_target) == 1
        self.end_try(index, route, step, kind)

    def end_try(self, index: int, route: Route, step: Try, kind: str) -> None:
        if kind == "skip":
            route.skip(Failure("no place", done=False))
        elif kind == "silence":
            return
        elif kind == "cut":
            self.open.pop(index)
            route.end()
            assert isinstance(route.next(self.now), Exhausted)
        elif isinstance(outcome := OUTCOMES[kind], Failure):
            route.failed(step.target, outcome, self.now)
            if outcome.begun or (not outcome.fallback and not self.rules.fallback_on):
                assert isinstance(route.next(self.now), Exhausted)
        else:
            self.open.pop(index)
            route.answered(step.target, outcome, outcome, self.now)
            assert isinstance(route.next(self.now), Exhausted)

    @precondition(lambda self: hasattr(self, "router"))
    @invariant()
    def nobody_is_locked_out(self) -> None:
        """Whatever happened, five minutes later a target may be asked."""
        later = Millis(self.now + 300_000)
        assert all(self.router.health(t).state(later) is not State.OPEN for t in (A, B, C))

    @precondition(lambda self: hasattr(self, "router"))
    @invariant()
    def one_probe_at_a_time(self) -> None:
        """Two calls that ask at once are never both let through to a target that is not well."""
        for target in (A, B, C):
            if self.router.health(target).state(self.now) is State.CLOSED:
                continue
            routes = [plan(given=(target,), router=self.router, now=self.now) for _ in range(2)]
            steps = [route.next(self.now) for route in routes]
            assert sum(isinstance(step, Try) for step in steps) <= 1
            for route in routes:
                route.end()


Routes.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestRoutes = Routes.TestCase


@pytest.mark.parametrize("routing", ["priority", "weight", "latency"])
def test_with_everything_failing_a_route_ends_after_attempts_times_targets(routing: str) -> None:
    rules = virtual(routing=routing, retry=Retry(attempts=3, backoff_ms=Millis(0)))
    *tries, end = follow(plan(rules), {name: fails(503) for name in "abc"})
    assert sorted(tries) == sorted("abc" * 3)
    assert len(end.failures) == 9


def test_the_documented_constants_are_the_real_ones() -> None:
    page = (Path(__file__).parents[2] / "docs/policies/routing.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([A-Z_]+)` \| ([0-9.]+) \|", page, re.MULTILINE)
    real = {**vars(routing.router), **vars(routing.health)}
    assert len(documented) == 10
    assert {name: float(value) for name, value in documented} == {
        name: real[name] for name, _ in documented
    }
