"""A conversation that every provider accepts, made of one that some client thought of.

Providers answer 400 to conversations that others accept: two messages of one role in a row, an
empty message, a call without its result, a result without its call, an answer at the end or at
the beginning. Clients produce all of them, most often after something was cut out of the middle.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from gateway.providers.conversation import (
    Message,
    ModelRequest,
    Part,
    Text,
    ToolResult,
    ToolUse,
)

NO_RESULT = "(no result: the call was not carried out)"
BEGIN = "(the conversation begins with the assistant)"
GO_ON = "Continue."


def well_formed(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The same conversation with empty turns gone, neighbours of one role merged, and each call's
    results in the turn after it, first.

    A result that comes later is moved up, one that never comes is stated as missing, and one
    without a call becomes text.
    """
    merged = _merge(messages)
    results: dict[str, list[ToolResult]] = {}
    for message in merged:
        for part in message.parts:
            if isinstance(part, ToolResult):
                results.setdefault(part.id, []).append(part)
    out: list[Message] = []
    owed: list[ToolResult] = []
    taken: set[int] = set()
    for message in merged:
        if message.role == "assistant":
            if owed:
                out.append(Message("user", tuple(owed)))
            calls = [part for part in message.parts if isinstance(part, ToolUse)]
            owed = [_take(results, call.id) for call in calls]
            taken.update(map(id, owed))
            out.append(message)
            continue
        rest: list[Part] = []
        for part in message.parts:
            if not isinstance(part, ToolResult):
                rest.append(part)
            elif id(part) not in taken:
                results[part.id] = [r for r in results[part.id] if r is not part]
                rest.extend(_as_said(part))
        if owed or rest:
            out.append(Message("user", (*owed, *rest)))
        owed = []
    if owed:
        out.append(Message("user", tuple(owed)))
    return tuple(_merge(out))


def alternating(messages: Sequence[Message]) -> tuple[Message, ...]:
    """`well_formed`, and it begins and ends with the user. Anthropic wants the first; its newer
    models refuse to continue an answer that somebody else began."""
    found = list(well_formed(messages))
    if not found or found[0].role != "user":
        found.insert(0, Message("user", (Text(BEGIN if found else GO_ON),)))
    if found[-1].role != "user":
        found.append(Message("user", (Text(GO_ON),)))
    return tuple(found)


def plain_id(identity: str) -> str:
    """A call's id in the letters that every provider accepts (Anthropic: letters, digits, _ and
    -); the same id gives the same, so that calls and results stay together."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", identity)[:64] or "call"


_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def plain_names(request: ModelRequest) -> tuple[ModelRequest, dict[str, str]]:
    """The request with tool names that every provider accepts (64 letters, digits, _ and -), and
    what each new name stands for. Agent CLIs name tools after their servers, which gets long."""
    named = {part.name for part in request.parts() if isinstance(part, ToolUse)}
    named |= {tool.name for tool in request.tools}
    new = {name: _plain_name(name) for name in named if not _NAME.fullmatch(name)}
    if not new:
        return request, {}

    def renamed(part: Part) -> Part:
        if isinstance(part, ToolUse) and part.name in new:
            return replace(part, name=new[part.name])
        return part

    choice = request.tool_choice
    if choice.startswith("name:"):
        chosen = choice.removeprefix("name:")
        choice = f"name:{new.get(chosen, chosen)}"
    plain = replace(
        request,
        tools=tuple(replace(tool, name=new.get(tool.name, tool.name)) for tool in request.tools),
        messages=tuple(
            replace(message, parts=tuple(map(renamed, message.parts)))
            for message in request.messages
        ),
        tool_choice=choice,
    )
    return plain, {short: name for name, short in new.items()}


def _plain_name(name: str) -> str:
    """Beginning of the name, and a mark that keeps names with one beginning apart."""
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)[:55]}_{mark}"


def _merge(messages: Iterable[Message]) -> list[Message]:
    merged: list[Message] = []
    for message in messages:
        parts = tuple(part for part in message.parts if not _empty(part))
        if not parts:
            continue
        if merged and merged[-1].role == message.role:
            merged[-1] = replace(merged[-1], parts=merged[-1].parts + parts)
        else:
            merged.append(Message(message.role, parts))
    return merged


def _empty(part: Part) -> bool:
    return isinstance(part, Text) and not part.text.strip()


def _take(results: dict[str, list[ToolResult]], identity: str) -> ToolResult:
    waiting = results.get(identity)
    return waiting.pop(0) if waiting else ToolResult(identity, NO_RESULT, error=True)


def _as_said(result: ToolResult) -> tuple[Part, ...]:
    return (Text(f"Result of an earlier call: {result.text}"), *result.images)
