"""When a run must end although its agent would go on: ceilings and stalls, decided purely.

A stall is a pattern at the tail of what the loop observed. One nudge is given for the first one;
the next ends the run. The thresholds are those that OpenHands' stuck detector settled on and the
design fixes: four equal calls with equal results, three equal calls that each failed, three
messages without a call, six calls that alternate between two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.policy import Limits
from gateway.values import show_usd
from runner.spec import StallKind, StopReason

SAME_RESULT_TIMES = 4
SAME_ERROR_TIMES = 3
MONOLOGUE_TIMES = 3
ALTERNATING_TIMES = 6

NUDGES = {
    StallKind.SAME_RESULT: "You made the same call several times and got the same result.",
    StallKind.SAME_ERROR: "You made the same call several times and it failed each time.",
    StallKind.MONOLOGUE: "You wrote several messages without calling a tool.",
    StallKind.ALTERNATING: "You are alternating between the same two calls.",
}


@dataclass(frozen=True, slots=True)
class Observation:
    """One thing the loop saw: a call with its result, or (call "") a message without a call."""

    call: str
    """Tool name and arguments in one comparable text."""
    result: str
    error: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run, its sub-agents included, has used: steps, tokens, nano-dollars, milliseconds."""

    steps: int = 0
    tokens: int = 0
    cost_nano: int = 0
    elapsed_ms: int = 0


@dataclass(frozen=True, slots=True)
class Exceeded:
    """A ceiling that is reached: nothing more may be started."""

    reason: StopReason
    detail: str


def stall(observations: Sequence[Observation]) -> StallKind | None:
    """The pattern at the tail of the observations, or None."""
    tail = list(observations)
    talk = tail[-MONOLOGUE_TIMES:]
    if len(talk) == MONOLOGUE_TIMES and not any(o.call for o in talk):
        return StallKind.MONOLOGUE
    failed = tail[-SAME_ERROR_TIMES:]
    if _same_call(failed, SAME_ERROR_TIMES) and all(o.error for o in failed):
        return StallKind.SAME_ERROR
    same = tail[-SAME_RESULT_TIMES:]
    if _same_call(same, SAME_RESULT_TIMES) and len({o.result for o in same}) == 1:
        return StallKind.SAME_RESULT
    pair = tail[-ALTERNATING_TIMES:]
    if (
        len(pair) == ALTERNATING_TIMES
        and all(o.call for o in pair)
        and pair[0] != pair[1]
        and all(pair[i] == pair[i % 2] for i in range(ALTERNATING_TIMES))
    ):
        return StallKind.ALTERNATING
    return None


def _same_call(tail: Sequence[Observation], times: int) -> bool:
    return len(tail) == times and bool(tail[0].call) and len({o.call for o in tail}) == 1


def exceeded(usage: Usage, limits: Limits) -> Exceeded | None:
    """The first ceiling that is reached, or None; checked before anything is started."""
    if limits.max_steps is not None and usage.steps >= limits.max_steps:
        return Exceeded(
            StopReason.MAX_STEPS,
            f"{usage.steps} steps taken, max_steps is {limits.max_steps}",
        )
    if limits.max_tokens is not None and usage.tokens >= limits.max_tokens:
        return Exceeded(
            StopReason.TOKEN_BUDGET,
            f"{usage.tokens} tokens used, max_tokens_per_run is {limits.max_tokens}",
        )
    if limits.max_cost is not None and usage.cost_nano >= limits.max_cost:
        return Exceeded(
            StopReason.COST_BUDGET,
            f"{show_usd(usage.cost_nano)} spent, max_cost_per_run is {show_usd(limits.max_cost)}",
        )
    if limits.max_wall_ms is not None and usage.elapsed_ms >= limits.max_wall_ms:
        return Exceeded(
            StopReason.TIME_BUDGET,
            f"{usage.elapsed_ms} ms since the first step, max_wall_time is {limits.max_wall_ms} ms",
        )
    return None
