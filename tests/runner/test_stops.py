"""Stop reasons: stalls at exactly the thresholds of the design, ceilings when they are reached."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy import Limits
from gateway.values import NanoUSD
from runner.spec import StallKind, StopReason
from runner.stops import Observation, Usage, exceeded, stall

A, B = Observation("a {}", "1"), Observation("b {}", "2")
TALK = Observation("", "hm")


def failing(text: str) -> Observation:
    return Observation("a {}", text, error=True)


@pytest.mark.parametrize(
    "seen, kind",
    [
        ([A] * 3, None),
        ([A] * 4, StallKind.SAME_RESULT),
        ([A, A, B, A, A], None),
        ([Observation("a {}", str(n)) for n in range(9)], None),
        ([failing("x")] * 2, None),
        ([failing("x"), failing("y"), failing("z")], StallKind.SAME_ERROR),
        ([A, failing("x"), failing("y")], None),
        ([TALK] * 2, None),
        ([TALK, Observation("", "other"), TALK], StallKind.MONOLOGUE),
        ([TALK, A, TALK, TALK], None),
        ([A, B] * 2 + [A], None),
        ([A, B] * 3, StallKind.ALTERNATING),
        ([A, TALK] * 3, None),
        ([A, B, A, Observation("b {}", "9"), A, B], None),
    ],
)
def test_stall_is_seen_at_its_threshold_and_not_before(
    seen: list[Observation], kind: StallKind | None
) -> None:
    assert stall(seen) is kind
    assert stall([Observation("before", "x"), *seen]) is kind


observations = st.builds(
    Observation, st.sampled_from(["", "a", "b", "c"]), st.sampled_from(["1", "2"]), st.booleans()
)


@given(st.lists(observations, max_size=12))
def test_only_the_tail_counts(seen: list[Observation]) -> None:
    assert stall(seen) is stall(seen[-6:])


@given(st.lists(observations, max_size=12))
def test_a_new_call_always_ends_a_stall(seen: list[Observation]) -> None:
    assert stall([*seen, Observation("something new", "1")]) is None


@pytest.mark.parametrize(
    "usage, reason",
    [
        (Usage(steps=5), StopReason.MAX_STEPS),
        (Usage(tokens=100), StopReason.TOKEN_BUDGET),
        (Usage(cost_nano=1000), StopReason.COST_BUDGET),
        (Usage(elapsed_ms=60_000), StopReason.TIME_BUDGET),
    ],
)
def test_a_ceiling_holds_from_the_moment_it_is_reached(usage: Usage, reason: StopReason) -> None:
    limits = Limits(max_steps=5, max_tokens=100, max_cost=NanoUSD(1000), max_wall_ms=60_000)
    reached = exceeded(usage, limits)
    assert reached is not None
    assert reached.reason is reason
    assert exceeded(Usage(4, 99, 999, 59_999), limits) is None
    assert exceeded(usage, Limits()) is None
