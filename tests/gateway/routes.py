"""Targets, and a way through them that a test can follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.policy import Model, Provider, VirtualModel
from gateway.routing import Exhausted, Failure, Route, Router, Target, Wait, failure_of_status
from gateway.values import Millis

START = Millis(1_763_000_000_000)


def target(name: str) -> Target:
    """A model at a provider of its own."""
    where = f"at-{name}"
    return Target(name, Model(provider=where, id=f"{name}-1"), where, Provider(kind="openai"))


A, B, C = target("a"), target("b"), target("c")


def virtual(**fields: Any) -> VirtualModel:
    return VirtualModel(**{"targets": ("a", "b", "c")} | fields)


def half() -> float:
    return 0.5


def plan(
    rules: VirtualModel | None = None,
    *,
    given: tuple[Target, ...] = (A, B, C),
    router: Router | None = None,
    run: str = "run-1",
    agent: str = "ci",
    now: int = START,
    chance: Callable[[], float] = half,
) -> Route:
    return (router or Router()).plan(
        "smart", given, rules, run=run, agent=agent, now=Millis(now), chance=chance
    )


def fails(status: int, retry_after: int | None = None) -> Failure:
    return failure_of_status(status, "provider x", "text", retry_after)


def follow(route: Route, outcomes: dict[str, Failure | int], now: Millis = START) -> list[Any]:
    """Every step as `name` or the milliseconds waited, ended by what is left: True for answered."""
    steps: list[Any] = []
    while True:
        step = route.next(now)
        if isinstance(step, Wait):
            steps.append(step.ms)
            continue
        if isinstance(step, Exhausted):
            return [*steps, step]
        steps.append(step.target.name)
        outcome = outcomes.get(step.target.name, 100)
        if isinstance(outcome, int):
            route.answered(step.target, outcome, outcome, now)
            return [*steps, True]
        route.failed(step.target, outcome, now)
