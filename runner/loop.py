"""The agent loop as a decision: from what has happened to what is done next. Pure.

The harness keeps a list of events (what the model said, what tools answered, what the harness
told the model) and asks `decide` after each one. Everything the decision needs is in its
arguments, all of it journaled, so a restarted runner that replays the journal decides the same.

Messages are in the OpenAI Chat Completions dialect, because that is what the gateway is asked in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.spec import StallKind, StopReason

Message = dict[str, Any]

FINISH = "finish"
GO_ON = "Go on: call a tool, or call finish when the task is done."
MAX_CONTEXT_CHARS = 400_000
"""Beyond this the oldest tool results are elided from the context (the journal keeps them)."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model asked for. `arguments` is None when they are not a JSON object."""

    id: str
    name: str
    raw: str
    arguments: Mapping[str, Any] | None

    @property
    def signature(self) -> str:
        """One comparable text: the same call asked for twice has the same signature."""
        if self.arguments is None:
            return f"{self.name} {self.raw}"
        return f"{self.name} {json.dumps(self.arguments, sort_keys=True)}"


@dataclass(frozen=True, slots=True)
class ModelTurn:
    """One answer of the model: text, calls, or a refusal."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gave, as the model will read it."""

    call: ToolCall
    content: str
    error: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """Something the harness said to the model: a nudge, a reminder, a checker's reasons."""

    text: str
    nudge: bool = False


Event = ModelTurn | ToolResult | Told


@dataclass(frozen=True, slots=True)
class CallModel:
    """Ask the model for its next turn."""


@dataclass(frozen=True, slots=True)
class RunTool:
    """Carry out this call of the last turn."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class Judge:
    """The agent says that it is done: see whether it is."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class Tell:
    """Add a message of the harness, then decide again."""

    told: Told


@dataclass(frozen=True, slots=True)
class Stop:
    """End this loop."""

    reason: StopReason
    detail: str = ""
    stall: StallKind | None = None
    shared_budget: bool = False


Decision = CallModel | RunTool | Judge | Tell | Stop


def decide(
    events: Sequence[Event],
    *,
    stall: StallKind | None,
    nudge: str,
    over: Stop | None,
) -> Decision:
    """What to do next. Total: every list of events has exactly one answer.

    `stall` is the pattern at the tail of the observations, `nudge` what to say about it, `over`
    the ceiling that is reached. `finish` is let through over a ceiling, since it starts no work.
    """
    pending = pending_call(events)
    if pending is not None:
        if pending.name == FINISH and pending.arguments is not None:
            return Judge(pending)
        return over if over is not None else RunTool(pending)
    last = events[-1] if events else None
    if isinstance(last, ModelTurn) and last.refusal:
        return Stop(StopReason.REFUSED, f"the model refused: {last.refusal}")
    nudged_just_now = isinstance(last, Told) and last.nudge
    if stall is not None and not nudged_just_now:
        if any(isinstance(event, Told) and event.nudge for event in events):
            return Stop(StopReason.STALLED, f"{nudge} It went on after a nudge.", stall)
        if over is None:
            return Tell(Told(f"{nudge} Try something else, or call finish.", nudge=True))
    if over is not None:
        return over
    if isinstance(last, ModelTurn):
        # A message without a call (one with calls would have a pending call or a later result).
        return Tell(Told(GO_ON))
    return CallModel()


def pending_call(events: Sequence[Event]) -> ToolCall | None:
    """The first call of the last turn that has no result yet.

    Counted by position, not by id: some providers repeat ids or leave them out.
    """
    answered = 0
    for event in reversed(events):
        if isinstance(event, ToolResult):
            answered += 1
        elif isinstance(event, ModelTurn):
            return event.calls[answered] if answered < len(event.calls) else None
    return None


def messages(opening: Sequence[Message], events: Sequence[Event]) -> list[Message]:
    """The conversation to send. A Told between two results of a turn is moved behind them,
    because the dialect wants all results of a turn to follow it directly."""
    conversation: list[Message] = [dict(message) for message in opening]
    held: list[Message] = []
    open_calls = 0
    for event in events:
        if isinstance(event, ModelTurn):
            conversation.append(_assistant(event))
            open_calls = len(event.calls)
        elif isinstance(event, ToolResult):
            conversation.append(
                {"role": "tool", "tool_call_id": event.call.id, "content": event.content}
            )
            open_calls -= 1
        else:
            held.append({"role": "user", "content": event.text})
        if open_calls <= 0:
            conversation.extend(held)
            held = []
    return elide(conversation, MAX_CONTEXT_CHARS)


def elide(conversation: list[Message], limit: int) -> list[Message]:
    """Shorten the oldest tool results until the texts have at most `limit` characters in all."""
    excess = sum(len(m.get("content") or "") for m in conversation) - limit
    shortened: list[Message] = []
    for message in conversation:
        content = message.get("content") or ""
        if excess > 0 and message["role"] == "tool" and len(content) > 200:
            kept = f"{content[:100]}\n[{len(content) - 100} characters elided]"
            excess -= len(content) - len(kept)
            message = {**message, "content": kept}
        shortened.append(message)
    return shortened


def _assistant(turn: ModelTurn) -> Message:
    message: Message = {"role": "assistant", "content": turn.text}
    if turn.calls:
        message["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.raw}}
            for c in turn.calls
        ]
    return message


def parse_turn(message: Mapping[str, Any], finish_reason: str, step: str) -> ModelTurn:
    """The model's turn from a Chat Completions message.

    Never raises: what is malformed becomes a call that fails with a clear result, so that the
    model can correct itself. `step` names calls that came without an id.
    """
    calls = []
    for index, item in enumerate(message.get("tool_calls") or ()):
        function = item.get("function") or {}
        raw = str(function.get("arguments") or "{}")
        calls.append(
            ToolCall(
                id=str(item.get("id") or f"call_{step.replace('.', '_')}_{index}"),
                name=str(function.get("name") or ""),
                raw=raw,
                arguments=_arguments(raw),
            )
        )
    refusal = str(message.get("refusal") or "")
    if finish_reason == "content_filter" and not calls:
        refusal = refusal or "the provider's content filter ended the answer"
    return ModelTurn(text=str(message.get("content") or ""), calls=tuple(calls), refusal=refusal)


def _arguments(raw: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
