"""The way of one call: order, retries, fallback, and what is put over its parameters."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from scipy.stats import chisquare

from gateway.policy import Grants, Model, Policy, Provider, Retry, VirtualModel
from gateway.refusals import Code, Refusal
from gateway.routing import Exhausted, Failure, Router, Try, merged_parameters, targets
from gateway.values import Millis
from tests.gateway.routes import START, A, B, fails, follow, plan, virtual


def test_priority_asks_in_the_order_of_the_targets() -> None:
    assert follow(plan(), {}) == ["a", True]
    assert follow(plan(), {"a": fails(502)}) == ["a", "b", True]


def test_a_busy_target_is_asked_again_after_a_random_part_of_the_backoff() -> None:
    rules = virtual(retry=Retry(attempts=4, backoff_ms=Millis(100), max_backoff_ms=Millis(300)))
    steps = follow(plan(rules), {"a": fails(503)})
    # Half of 100, of 200, and of 400 cut to 300.
    assert steps == ["a", 50, "a", 100, "a", 150, "a", "b", True]


def test_retry_after_is_obeyed_when_it_is_bearable_and_else_the_next_target_is_asked() -> None:
    assert follow(plan(virtual()), {"a": fails(429, 8)})[:3] == ["a", 8000, "a"]
    assert follow(plan(virtual()), {"a": fails(429, 9)}) == ["a", "b", True]


def test_only_the_statuses_of_the_policy_are_tried_again() -> None:
    rules = virtual(retry=Retry(on=(504,), backoff_ms=Millis(0)))
    assert follow(plan(rules), {"a": fails(503), "b": fails(504)}) == ["a", "b", "b", "c", True]


@pytest.mark.parametrize(
    ("done", "expected"), [(False, ["a", 125, "a", "b", True]), (True, ["a", "b", True])]
)
def test_a_connection_that_was_not_made_counts_as_503_and_a_lost_answer_does_not(
    done: bool, expected: list[Any]
) -> None:
    assert follow(plan(), {"a": Failure("cannot be reached", done=done)}) == expected


@pytest.mark.parametrize("status", [401, 403, 404])
def test_an_unusable_target_is_left_at_once_and_not_asked_by_the_next_call(status: int) -> None:
    router = Router()
    rules = virtual(retry=Retry(attempts=5, on=(401, 403, 404)))
    assert follow(plan(rules, router=router), {"a": fails(status)}) == ["a", "b", True]
    assert follow(plan(rules, router=router), {}) == ["b", True]


def test_a_request_that_is_refused_as_such_is_not_asked_elsewhere() -> None:
    (first, end) = follow(plan(), {"a": fails(400)})
    assert first == "a"
    assert [failure.status for failure in end.failures] == [400]


def test_unless_the_policy_says_that_another_may_take_it() -> None:
    rules = virtual(fallback_on=(400,))
    assert follow(plan(rules), {"a": fails(400)}) == ["a", "b", True]


def test_nothing_follows_an_answer_that_has_begun() -> None:
    failure = Failure("broke off", done=True, status=503, begun=True)
    (first, end) = follow(plan(), {"a": failure})
    assert first == "a"
    assert end.failures == (failure,)


def test_an_exhausted_route_has_every_failure_in_order() -> None:
    rules = virtual(retry=Retry(backoff_ms=Millis(0)))
    *steps, end = follow(plan(rules), {"a": fails(500), "b": fails(404), "c": fails(502)})
    assert steps == ["a", "a", "b", "c"]
    assert [failure.status for failure in end.failures] == [500, 500, 404, 502]


def test_a_model_that_is_not_behind_a_virtual_one_is_tried_twice() -> None:
    steps = follow(plan(None, given=(A,)), {"a": fails(503)})
    assert steps[:-1] == ["a", 125, "a"]


def test_a_route_without_targets_is_exhausted() -> None:
    assert plan(given=()).next(START) == Exhausted(())


def test_a_try_that_nobody_says_anything_about_does_not_repeat() -> None:
    route = plan()
    seen = [route.next(START) for _ in range(4)]
    assert [step.target.name for step in seen[:3] if isinstance(step, Try)] == ["a", "b", "c"]
    assert seen[3] == Exhausted(())


def test_a_target_that_is_skipped_for_a_reason_of_ours_is_not_to_blame() -> None:
    router = Router()
    for _ in range(10):
        route = plan(router=router)
        assert route.next(START) == Try(A, None)
        route.skip(Failure("no place", done=False, code=Code.QUEUE_FULL))
        assert route.next(START) == Try(B, None)
        route.end()
    assert follow(plan(router=router), {}) == ["a", True]


def test_the_wait_for_the_first_token_is_endless_when_nobody_else_is_left() -> None:
    route = plan(virtual(first_token_ms=Millis(700)))
    patience = []
    while isinstance(step := route.next(START), Try):
        patience.append(step.first_token_ms)
        route.failed(step.target, Failure("too slow", done=True), START)
    assert patience == [700, 700, None]


def test_weights_decide_how_often_a_target_comes_first_and_second() -> None:
    rules = virtual(routing="weight", weights={"a": 5, "b": 3, "c": 2})
    chance = random.Random(20).random
    orders = Counter(
        tuple(follow(plan(rules, chance=chance), {"a": fails(502), "b": fails(502)})[:-1])
        for _ in range(20_000)
    )
    first = Counter[str]()
    for order, count in orders.items():
        first[order[0]] += count
    assert chisquare([first["a"], first["b"], first["c"]], [10_000, 6_000, 4_000]).pvalue > 0.01
    # Without replacement: after `a`, `b` comes before `c` in the proportion of three to two.
    second = [orders["a", "b", "c"], orders["a", "c"]]
    assert chisquare(second, [first["a"] * 0.6, first["a"] * 0.4]).pvalue > 0.01


def test_a_weight_of_nothing_is_never_chosen_first_but_is_there_when_the_others_fail() -> None:
    rules = virtual(routing="weight", weights={"a": 0})
    chance = random.Random(1).random
    for _ in range(200):
        steps = follow(plan(rules, chance=chance), {"b": fails(502), "c": fails(502)})
        assert steps[-2:] == ["a", True]


@pytest.mark.parametrize(("sticky", "other_run"), [("run", {"a", "b", "c"}), ("agent", {"a"})])
def test_who_is_sticky_stays_with_the_target_that_served(sticky: str, other_run: set[str]) -> None:
    rules = virtual(routing="weight", sticky=sticky)
    router, chance = Router(), random.Random(3).random
    first = follow(plan(rules, router=router, chance=lambda: 0.0), {})
    assert first == ["a", True]
    mine = {follow(plan(rules, router=router, chance=chance), {})[0] for _ in range(50)}
    assert mine == {"a"}
    others = {
        follow(plan(rules, router=router, run=f"run-{n}", chance=chance), {})[0]
        for n in range(2, 80)
    }
    assert others == other_run


def test_calls_of_a_run_that_begin_together_go_to_one_target() -> None:
    rules = virtual(routing="weight", sticky="run")
    router, chance = Router(), random.Random(3).random
    routes = [plan(rules, router=router, chance=chance) for _ in range(20)]
    assert len({route.next(START).target.name for route in routes}) == 1  # type: ignore[union-attr]


def test_a_run_leaves_its_target_when_that_is_not_well_and_stays_with_the_new_one() -> None:
    rules, router = virtual(sticky="run"), Router()
    assert follow(plan(rules, router=router), {"a": fails(404)}) == ["a", "b", True]
    later = Millis(START + 10_000)
    # `a` may be tried again by now; another run does, this one stays.
    assert follow(plan(rules, router=router, now=later), {}, later) == ["b", True]
    assert follow(plan(rules, router=router, now=later, run="run-2"), {}, later) == ["a", True]


def test_who_stays_where_is_forgotten_after_many_others() -> None:
    rules, router = virtual(sticky="run"), Router()
    for number in range(11_000):
        follow(plan(rules, router=router, run=f"run-{number}"), {})
    assert len(router._sticky) == 10_000


def test_a_target_of_the_policy_that_the_release_was_not_gated_on_is_not_one() -> None:
    policy = Policy(
        providers={"p": Provider(kind="openai")},
        models={name: Model(provider="p", id=name) for name in ("a", "b")},
        virtual_models={"smart": VirtualModel(targets=("a", "b"))},
    )
    admitted = targets("smart", Grants(models=("smart", "b")), policy)
    assert [found.name for found in admitted] == ["b"]
    with pytest.raises(Refusal, match="none of which this release was gated on"):
        targets("smart", Grants(models=("smart",)), policy)


def test_parameters_of_the_virtual_model_win_and_decimals_become_numbers() -> None:
    model = Model(
        provider="p",
        id="m",
        parameters={"temperature": "0.2", "seed": 7, "options": {"top_p": "0.9", "stop": "1.5"}},
    )
    over = VirtualModel(targets=("a",), parameters={"a": {"temperature": "1", "user": "0.5"}})
    assert merged_parameters(model, over, "a") == {
        "temperature": 1.0,
        "seed": 7,
        "options": {"top_p": 0.9, "stop": "1.5"},
        "user": "0.5",
    }
    assert merged_parameters(model, over, "b")["temperature"] == 0.2
    assert merged_parameters(model, None, "a")["temperature"] == 0.2
    odd = Model(provider="p", id="m", parameters={"temperature": "warm", "top_p": "nan"})
    assert merged_parameters(odd, None, "a") == {"temperature": "warm", "top_p": "nan"}


@pytest.mark.parametrize(
    ("status", "done", "fallback"),
    [
        (400, False, False),
        (401, False, True),
        (403, False, True),
        (404, False, True),
        (408, False, True),
        (422, False, False),
        (429, False, True),
        (500, False, True),
        (502, True, True),
        (503, False, True),
        (504, True, True),
        (529, False, True),
    ],
)
def test_what_a_status_means_for_the_money_and_for_the_next_target(
    status: int, done: bool, fallback: bool
) -> None:
    failure = fails(status, 3)
    assert (failure.done, failure.fallback, failure.status) == (done, fallback, status)
