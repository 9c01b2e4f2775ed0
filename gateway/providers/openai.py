"""Providers that speak OpenAI Chat Completions: OpenAI, Azure, and most local model servers.

Always asked to stream: one path, and the usage comes in the last chunk (`include_usage`). Ollama,
vLLM, llama.cpp and others differ in small ways, which are put up with here: no `[DONE]`, no usage,
calls without index or id, arguments as an object, reasoning as `reasoning_content`, "stop" after a
tool call.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from gateway.pricing import Usage
from gateway.providers import schemas, usage, wire
from gateway.providers.conversation import (
    Document,
    Done,
    Event,
    Image,
    Message,
    ModelRequest,
    Output,
    Part,
    Stop,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    Tool,
    ToolDelta,
    ToolResult,
    ToolStart,
    ToolUse,
)
from gateway.providers.turns import plain_id, well_formed
from gateway.providers.upstream import Answer, Upstream, parsed
from gateway.routing import Failure, Target

MAKER = "chat:"
"""Marks reasoning that came as `reasoning_content`: it may be shown to such servers again."""
STOPS = {
    "stop": Stop.END,
    "length": Stop.LENGTH,
    "tool_calls": Stop.TOOL,
    "function_call": Stop.TOOL,
    "content_filter": Stop.REFUSAL,
}
EFFORTS = {"max": "high", "xhigh": "high"}
"""Words for effort that only some models know."""


async def stream(upstream: Upstream, target: Target, request: ModelRequest) -> AsyncIterator[Event]:
    """The answer as events. Raises routing.Failure, Refusal (no key)."""
    asked = body(request, target, official=wire.official(target.provider))
    done: Done | None = None
    async with wire.ask(upstream, target, "chat", asked) as answer:
        async for event in events(answer, turn=len(request.messages)):
            if isinstance(event, Done):
                done = event
            else:
                yield event
    if done is not None:
        yield done


async def events(answer: Answer, *, turn: int = 0) -> AsyncIterator[Event]:
    """The events of an answer that has begun, ended by `Done`. Raises routing.Failure."""
    reading = Reading(turn=turn)
    async for _, data in answer.events():
        if data.strip() == "[DONE]":
            reading.ended = True
            break
        for event in reading.take(parsed(data, answer.where), answer.where):
            yield event
    for event in reading.done(answer.where):
        yield event


class Reading:
    """Turns chunks into events; remembers what the last chunk will need. `turn` makes the ids of
    calls that come without one unlike those of earlier turns."""

    def __init__(self, *, turn: int) -> None:
        self.ended = False
        self._turn = turn
        self._stop: Stop | None = None
        self._usage: Usage | None = None
        self._calls: dict[Any, int] = {}
        self._ids: list[str] = []
        self._last = -1
        self._thinking = False

    def take(self, chunk: dict[str, Any], where: str) -> list[Event]:
        """The events of one chunk. Raises Failure when it is an error."""
        if chunk.get("error"):
            raise Failure(f"{where} failed while answering", done=True)
        found: list[Event] = []
        self._usage = usage.of_chat(chunk.get("usage")) or self._usage
        for choice in _objects(chunk.get("choices"))[:1]:
            # A server that does not stream says `message` where others say `delta`.
            delta = choice.get("delta") or choice.get("message")
            if isinstance(delta, dict):
                found.extend(self._delta(delta))
            if isinstance(finish := choice.get("finish_reason"), str) and finish:
                self._stop = STOPS.get(finish, Stop.END)
        return found

    def _delta(self, delta: dict[str, Any]) -> list[Event]:
        found: list[Event] = []
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str) and thought:
            self._thinking = True
            found.append(ThinkingDelta(thought))
        said = [delta.get("content"), delta.get("refusal")]
        for text in said:
            if isinstance(text, str) and text:
                found += [*self._thought(), TextDelta(text)]
        for call in _objects(delta.get("tool_calls")):
            found += [*self._thought(), *self._tool(call)]
        return found

    def _thought(self) -> list[Event]:
        """The end of reasoning, once."""
        was, self._thinking = self._thinking, False
        return [ThinkingDelta("", MAKER)] if was else []

    def _tool(self, call: dict[str, Any]) -> list[Event]:
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        name, identity = function.get("name"), call.get("id")
        name = name if isinstance(name, str) else ""
        identity = identity if isinstance(identity, str) else ""
        number = self._which(call.get("index"), identity, name)
        found: list[Event] = []
        if number == len(self._ids):
            self._ids.append(identity)
            made = identity or f"call_{self._turn}_{number}"
            found.append(ToolStart(number, made, name))
        self._last = number
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments, ensure_ascii=False)
        if isinstance(arguments, str) and arguments:
            found.append(ToolDelta(number, arguments))
        return found

    def _which(self, index: Any, identity: str, name: str) -> int:
        """The number of the call that a piece belongs to. Servers leave out the index, or give
        every call the same; a new id together with a name begins a new call."""
        known = self._calls.get(index) if isinstance(index, int) else self._last
        if known is not None and 0 <= known < len(self._ids):
            same = not identity or identity == self._ids[known]
            if same and (isinstance(index, int) or identity or not name):
                return known
            if identity and identity in self._ids:
                return self._ids.index(identity)
            if not name:
                return known
        number = len(self._ids)
        if isinstance(index, int):
            self._calls[index] = number
        return number

    def done(self, where: str) -> list[Event]:
        """The last events. Raises Failure when the answer has no end."""
        if self._stop is None and not self.ended:
            raise Failure(f"{where} broke off in the middle of its answer", done=True)
        stop = self._stop or Stop.END
        # Some servers say "stop" although they called tools.
        stop = Stop.TOOL if self._ids and stop is Stop.END else stop
        return [*self._thought(), Done(stop, self._usage)]


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def body(request: ModelRequest, target: Target, *, official: bool) -> dict[str, Any]:
    """The request in OpenAI's words. `official`: OpenAI itself, whose newer models refuse
    `max_tokens` and unknown fields; other servers often know no other name."""
    messages: list[dict[str, Any]] = []
    if request.system:
        messages.append({"role": "system", "content": request.system})
    for message in well_formed(_readable(request.messages, official=official)):
        messages.extend(_messages(message))
    out: dict[str, Any] = {
        "model": target.model.id,
        "messages": messages or [{"role": "user", "content": ""}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.max_output_tokens is not None:
        out["max_completion_tokens" if official else "max_tokens"] = request.max_output_tokens
    given = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        # OpenAI takes 64 characters; Claude Code sends several identities at once.
        "user": None if official and len(request.user or "") > 64 else request.user,
        "top_k": None if official else request.top_k,
    }
    out.update({name: value for name, value in given.items() if value is not None})
    if request.effort and (request.dialect != "messages" or official):
        out["reasoning_effort"] = EFFORTS.get(request.effort, request.effort)
    if request.stop:
        # OpenAI takes four.
        out["stop"] = list(request.stop[:4] if official else request.stop)
    if request.output is not None:
        out["response_format"] = _format(request.output)
    if request.tools:
        out["tools"] = [_tool(tool) for tool in request.tools]
        if request.tool_choice.startswith("name:"):
            function = {"name": request.tool_choice.removeprefix("name:")}
            out["tool_choice"] = {"type": "function", "function": function}
        elif request.tool_choice != "auto":
            out["tool_choice"] = request.tool_choice
        if request.parallel_tools is not None:
            out["parallel_tool_calls"] = request.parallel_tools
    if request.dialect == "chat":
        out.update(request.extra)
    return wire.overridden(out, target.model.parameters)


def _readable(messages: tuple[Message, ...], *, official: bool) -> list[Message]:
    """Without reasoning that this server cannot take back."""

    def kept(part: Part) -> bool:
        if not isinstance(part, Thinking):
            return True
        return not official and part.signature == MAKER

    return [replace(m, parts=tuple(part for part in m.parts if kept(part))) for m in messages]


def _format(output: Output) -> dict[str, Any]:
    if output.schema is None:
        return {"type": "json_object"}
    about: dict[str, Any] = {"name": plain_id(output.name), "schema": output.schema}
    if output.description:
        about["description"] = output.description
    strict = schemas.strictly(output.schema) if output.strict is None else output.strict
    if strict:
        about["strict"] = True
    return {"type": "json_schema", "json_schema": about}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": schemas.of_tool(tool.schema),
    }
    if tool.strict is not None and (not tool.strict or schemas.strictly(tool.schema)):
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _messages(message: Message) -> list[dict[str, Any]]:
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    out: list[dict[str, Any]] = [
        {"role": "tool", "tool_call_id": plain_id(part.id), "content": _result(part)}
        for part in results
    ]
    # A tool's message holds text only: its pictures follow in the user's.
    said: list[Part] = [image for result in results for image in result.images]
    said += [part for part in message.parts if isinstance(part, Text | Image | Document)]
    calls = [
        {
            "id": plain_id(part.id),
            "type": "function",
            "function": {"name": part.name, "arguments": part.arguments},
        }
        for part in message.parts
        if isinstance(part, ToolUse)
    ]
    if message.role == "assistant":
        text = "".join(part.text for part in said if isinstance(part, Text))
        turn: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else "")}
        if thought := "".join(p.text for p in message.parts if isinstance(p, Thinking)):
            turn["reasoning_content"] = thought
        if calls:
            turn["tool_calls"] = calls
        return [turn]
    if said:
        out.append({"role": message.role, "content": _content(said)})
    return out


def _result(part: ToolResult) -> str:
    if part.error and not part.text.lower().startswith("error"):
        return f"Error: {part.text}"
    return part.text


def _content(said: list[Part]) -> str | list[dict[str, Any]]:
    if all(isinstance(part, Text) for part in said):
        return "\n\n".join(part.text for part in said if isinstance(part, Text))
    return [_part(part) for part in said]


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Image():
            return {"type": "image_url", "image_url": {"url": part.url}}
        case Document() if part.url.startswith("data:"):
            return {"type": "file", "file": {"filename": part.name, "file_data": part.url}}
        case Document():
            return {"type": "text", "text": f"{part.name}: {part.url}"}
        case Text():
            return {"type": "text", "text": part.text}
    return {"type": "text", "text": ""}
