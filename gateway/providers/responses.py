"""Providers that are asked in OpenAI Responses by clients of another dialect.

Only those whose `apis` name nothing else: some of OpenAI's models have no Chat Completions. Nothing
is stored there (`store: false`), so the model's reasoning travels with the conversation, encrypted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
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
    ToolDelta,
    ToolResult,
    ToolStart,
    ToolUse,
)
from gateway.providers.turns import plain_id, well_formed
from gateway.providers.upstream import Answer, Upstream, parsed
from gateway.routing import Failure, Target

MAKER = "openai:"
"""Begins the signature of reasoning that only OpenAI can read again: `openai:<id>:<encrypted>`."""
LEAST_OUTPUT = 16
"""Responses refuses a lower limit."""


async def stream(upstream: Upstream, target: Target, request: ModelRequest) -> AsyncIterator[Event]:
    """The answer as events. Raises routing.Failure, Refusal (no key)."""
    done: Done | None = None
    async with wire.ask(upstream, target, "responses", body(request, target)) as answer:
        async for event in events(answer):
            if isinstance(event, Done):
                done = event
            else:
                yield event
    if done is not None:
        yield done


async def events(answer: Answer) -> AsyncIterator[Event]:
    """The events of an answer that has begun, ended by `Done`. Raises routing.Failure."""
    reading = Reading()
    async for _, data in answer.events():
        if data.strip() == "[DONE]":
            break
        for event in reading.take(parsed(data, answer.where), answer.where):
            yield event
        if reading.ended:
            break
    yield reading.done(answer.where)


class Reading:
    """Turns the stream's events into ours."""

    def __init__(self) -> None:
        self.ended = False
        self._stop = Stop.END
        self._usage: Usage | None = None
        self._calls: dict[int, int] = {}
        self._argued: set[int] = set()

    def take(self, data: dict[str, Any], where: str) -> list[Event]:
        """The events of one. Raises Failure when it is an error."""
        kind, at = data.get("type"), _number(data, "output_index")
        match kind:
            case "error" | "response.failed":
                raise Failure(f"{where} failed while answering", done=True)
            case "response.output_text.delta" | "response.refusal.delta":
                return [TextDelta(text)] if (text := _text(data, "delta")) else []
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                return [ThinkingDelta(text)] if (text := _text(data, "delta")) else []
            case "response.output_item.added":
                return self._opened(at, _object(data.get("item")))
            case "response.function_call_arguments.delta" if at in self._calls:
                self._argued.add(at)
                return [ToolDelta(self._calls[at], _text(data, "delta"))]
            case "response.output_item.done":
                return self._closed(at, _object(data.get("item")))
            case "response.completed" | "response.incomplete":
                self._whole(_object(data.get("response")))
        if data.get("object") == "response" and kind is None:
            return self._unstreamed(data)
        return []

    def done(self, where: str) -> Done:
        """The end. Raises Failure when the answer has none."""
        if not self.ended:
            raise Failure(f"{where} broke off in the middle of its answer", done=True)
        stop = Stop.TOOL if self._calls and self._stop is Stop.END else self._stop
        return Done(stop, self._usage)

    def _opened(self, at: int, item: dict[str, Any]) -> list[Event]:
        if item.get("type") != "function_call" or at in self._calls:
            return []
        number = self._calls[at] = len(self._calls)
        return [ToolStart(number, _text(item, "call_id") or f"call_{at}", _text(item, "name"))]

    def _closed(self, at: int, item: dict[str, Any]) -> list[Event]:
        secret = _text(item, "encrypted_content")
        if item.get("type") == "reasoning" and secret:
            return [ThinkingDelta("", f"{MAKER}{_text(item, 'id')}:{secret}")]
        found = self._opened(at, item)
        if at in self._calls and at not in self._argued:
            self._argued.add(at)
            found.append(ToolDelta(self._calls[at], _text(item, "arguments")))
        return found

    def _whole(self, response: dict[str, Any]) -> None:
        self.ended = True
        self._usage = usage.of_responses(response.get("usage"))
        reason = _text(_object(response.get("incomplete_details")), "reason")
        if response.get("status") == "incomplete" or reason:
            self._stop = Stop.REFUSAL if reason == "content_filter" else Stop.LENGTH

    def _unstreamed(self, response: dict[str, Any]) -> list[Event]:
        """An answer that came whole, from a server that does not stream."""
        found: list[Event] = []
        output = response.get("output")
        for at, item in enumerate(output if isinstance(output, list) else []):
            item = _object(item)
            content = item.get("content")
            parts = [_object(part) for part in content] if isinstance(content, list) else []
            texts = [_text(part, "text") or _text(part, "refusal") for part in parts]
            found += [TextDelta(text) for text in texts if text]
            found += self._closed(at, item)
        self._whole(response)
        return found


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(source: dict[str, Any], name: str) -> str:
    value = source.get(name)
    return value if isinstance(value, str) else ""


def _number(source: dict[str, Any], name: str) -> int:
    value = source.get(name)
    return value if isinstance(value, int) else -1


def body(request: ModelRequest, target: Target) -> dict[str, Any]:
    """The request as Responses wants it: one item for each message, call and result."""
    items: list[dict[str, Any]] = []
    for message in well_formed(request.messages):
        items.extend(_items(message))
    out: dict[str, Any] = {
        "model": target.model.id,
        "input": items or [{"role": "user", "content": ""}],
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    if request.system:
        out["instructions"] = request.system
    if request.max_output_tokens is not None:
        out["max_output_tokens"] = max(LEAST_OUTPUT, request.max_output_tokens)
    given = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "user": request.user if len(request.user or "") <= 64 else None,
        "parallel_tool_calls": request.parallel_tools if request.tools else None,
    }
    out.update({name: value for name, value in given.items() if value is not None})
    if request.effort:
        out["reasoning"] = {"effort": "high" if request.effort == "max" else request.effort}
    if request.output is not None:
        out["text"] = {"format": _format(request.output)}
    if request.tools:
        out["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": schemas.of_tool(tool.schema),
                "strict": bool(tool.strict) and schemas.strictly(tool.schema),
            }
            for tool in request.tools
        ]
        choice = request.tool_choice
        if choice.startswith("name:"):
            out["tool_choice"] = {"type": "function", "name": choice.removeprefix("name:")}
        elif choice != "auto":
            out["tool_choice"] = choice
    return wire.overridden(out, target.model.parameters)


def _format(output: Output) -> dict[str, Any]:
    if output.schema is None:
        return {"type": "json_object"}
    strict = schemas.strictly(output.schema) if output.strict is None else output.strict
    return {
        "type": "json_schema",
        "name": plain_id(output.name),
        "schema": output.schema,
        "strict": strict,
    }


def _items(message: Message) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []

    def close() -> None:
        if said:
            out.append({"type": "message", "role": message.role, "content": list(said)})
            said.clear()

    for part in message.parts:
        match part:
            case Thinking() if part.signature.startswith(MAKER):
                close()
                out.append(_reasoning(part))
            case ToolUse():
                close()
                call = {"call_id": plain_id(part.id), "name": part.name}
                out.append({"type": "function_call", **call, "arguments": part.arguments})
            case ToolResult():
                close()
                identity = plain_id(part.id)
                output = {"type": "function_call_output", "call_id": identity}
                out.append({**output, "output": _result(part)})
            case Text() | Image() | Document():
                said.append(_content(part, message.role))
    close()
    return out


def _reasoning(thought: Thinking) -> dict[str, Any]:
    identity, _, secret = thought.signature.removeprefix(MAKER).partition(":")
    summary = [{"type": "summary_text", "text": thought.text}] if thought.text else []
    return {
        "type": "reasoning",
        "id": identity,
        "summary": summary,
        "encrypted_content": secret,
    }


def _result(result: ToolResult) -> Any:
    text = f"Error: {result.text}" if result.error else result.text
    if not result.images:
        return text
    images = [_content(image, "user") for image in result.images]
    return [{"type": "input_text", "text": text}, *images]


def _content(part: Part, role: str) -> dict[str, Any]:
    match part:
        case Image():
            return {"type": "input_image", "image_url": part.url, "detail": "auto"}
        case Document() if part.url.startswith("data:"):
            return {"type": "input_file", "filename": part.name, "file_data": part.url}
        case Document():
            return {"type": "input_file", "file_url": part.url}
        case Text():
            kind = "output_text" if role == "assistant" else "input_text"
            return {"type": kind, "text": part.text}
    return {"type": "input_text", "text": ""}
