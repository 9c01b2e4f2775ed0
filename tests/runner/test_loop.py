"""The loop's decisions, by examples and for whatever a model may say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.loop import (
    CallModel,
    Event,
    Judge,
    ModelTurn,
    RunTool,
    Stop,
    Tell,
    Told,
    ToolCall,
    ToolResult,
    decide,
    elide,
    messages,
    parse_turn,
    pending_call,
)
from runner.spec import StallKind, StopReason

SHELL = ToolCall("1", "shell", '{"command": "ls"}', {"command": "ls"})
READ = ToolCall("2", "read_file", '{"path": "a"}', {"path": "a"})
FINISH = ToolCall("3", "finish", '{"outcome": "x"}', {"outcome": "x"})
OVER = Stop(StopReason.MAX_STEPS, "too many")


def next_act(events: list[Event], **facts: Any) -> object:
    return decide(events, **{"stall": None, "nudge": "", "over": None, **facts})


def test_it_begins_by_asking_the_model() -> None:
    assert next_act([]) == CallModel()


def test_calls_of_a_turn_are_carried_out_in_order_even_with_equal_ids() -> None:
    twin = ToolCall("1", "shell", '{"command": "pwd"}', {"command": "pwd"})
    turn = ModelTurn("", (SHELL, twin))
    assert next_act([turn]) == RunTool(SHELL)
    assert next_act([turn, ToolResult(SHELL, "ok")]) == RunTool(twin)
    assert next_act([turn, ToolResult(SHELL, "ok"), ToolResult(twin, "ok")]) == CallModel()


def test_a_message_without_a_call_is_answered_with_a_reminder() -> None:
    decision = next_act([ModelTurn("I think")])
    assert isinstance(decision, Tell)
    assert not decision.told.nudge


def test_a_refusal_ends_the_loop() -> None:
    decision = next_act([ModelTurn("", refusal="I cannot help with that")])
    assert isinstance(decision, Stop)
    assert decision.reason is StopReason.REFUSED


def test_a_ceiling_stops_work_but_not_a_finish() -> None:
    assert next_act([ModelTurn("", (SHELL,))], over=OVER) == OVER
    assert next_act([], over=OVER) == OVER
    assert next_act([ModelTurn("", (FINISH,))], over=OVER) == Judge(FINISH)


def test_the_first_stall_nudges_and_the_second_stops() -> None:
    events: list[Event] = [ModelTurn("", (SHELL,)), ToolResult(SHELL, "same")]
    facts = {"stall": StallKind.SAME_RESULT, "nudge": "Again and again."}
    first = next_act(events, **facts)
    assert isinstance(first, Tell)
    assert first.told.nudge
    nudged = [*events, first.told]
    assert next_act(nudged, **facts) == CallModel()
    second = next_act([*nudged, *events], **facts)
    assert isinstance(second, Stop)
    assert (second.reason, second.stall) == (StopReason.STALLED, StallKind.SAME_RESULT)


def test_a_rejection_between_two_results_is_sent_behind_them() -> None:
    turn = ModelTurn("", (FINISH, SHELL))
    events: list[Event] = [turn, ToolResult(FINISH, "no"), Told("why"), ToolResult(SHELL, "ok")]
    roles = [message["role"] for message in messages([], events)]
    assert roles == ["assistant", "tool", "tool", "user"]


def test_the_oldest_results_are_elided_first_and_the_newest_kept() -> None:
    conversation = [
        {"role": "user", "content": "u" * 500},
        {"role": "tool", "content": "a" * 1000},
        {"role": "tool", "content": "b" * 1000},
    ]
    short = elide(conversation, 2000)
    assert short[0] == conversation[0]
    assert short[1]["content"].endswith("[900 characters elided]")
    assert short[2] == conversation[2]


@pytest.mark.parametrize("raw", ["{", "[]", "3", "null", '"x"'])
def test_arguments_that_are_no_object_do_not_break_the_turn(raw: str) -> None:
    message = {"tool_calls": [{"function": {"name": "shell", "arguments": raw}}]}
    (call,) = parse_turn(message, "stop", "7.1").calls
    assert call.arguments is None
    assert call.id == "call_7_1_0"


texts = st.text(max_size=5)
tool_calls = st.builds(
    lambda name, arguments: ToolCall("x", name, "{}", arguments),
    st.sampled_from(["shell", "finish", "nonsense"]),
    st.one_of(st.none(), st.just({})),
)
turns = st.builds(ModelTurn, texts, st.lists(tool_calls, max_size=3).map(tuple), st.just(""))


@given(st.lists(turns, max_size=8), st.booleans(), st.integers(0, 30))
def test_whatever_the_model_says_the_loop_ends_within_its_ceiling(
    said: list[ModelTurn], accepted: bool, ceiling: int
) -> None:
    """Plays the harness: every step counts, every decision is followed, nothing is left open."""
    events: list[Event] = []
    steps = asked = 0
    for _ in range(4 * (ceiling + 1) + 40):
        decision = next_act(events, over=OVER if steps >= ceiling else None)
        if isinstance(decision, Stop):
            break
        if isinstance(decision, CallModel):
            assert pending_call(events) is None
            events.append(said[asked % len(said)] if said else ModelTurn("hm"))
            steps, asked = steps + 1, asked + 1
        elif isinstance(decision, RunTool):
            events.append(ToolResult(decision.call, "result"))
            steps += 1
        elif isinstance(decision, Judge):
            if accepted:
                break
            events += [ToolResult(decision.call, "no"), Told("because")]
        elif isinstance(decision, Tell):
            events.append(decision.told)
    else:
        pytest.fail("the loop did not end")
    assert steps <= ceiling


@given(st.lists(turns, max_size=6))
def test_every_call_in_a_conversation_is_followed_by_its_result(said: list[ModelTurn]) -> None:
    """The rule of the dialect that providers refuse a request for."""
    events: list[Event] = []
    for turn in said:
        events.append(turn)
        for call in turn.calls:
            events += [ToolResult(call, "r"), Told("t")]
    open_calls = 0
    for message in messages([], events):
        if message["role"] == "tool":
            open_calls -= 1
        else:
            assert open_calls == 0
            open_calls = len(message.get("tool_calls", ()))
    assert open_calls == 0
