"""Providers that speak Anthropic Messages. Always asked to stream, like every provider here."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

from gateway.providers import schemas, usage, wire
from gateway.providers.conversation import (
    Document,
    Done,
    Event,
    Image,
    Message,
    ModelRequest,
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
from gateway.providers.turns import alternating, plain_id
from gateway.providers.upstream import Answer, Upstream, parsed
from gateway.routing import Failure, Target

MAKER = "anthropic:"
"""Begins the signature of reasoning that only Anthropic can read again."""
ANSWER = "answer"
"""The tool that an answer of a given form is asked for with, where the API has no better way."""
STOPS = {
    "end_turn": Stop.END,
    "stop_sequence": Stop.END,
    "pause_turn": Stop.END,
    "max_tokens": Stop.LENGTH,
    "model_context_window_exceeded": Stop.LENGTH,
    "tool_use": Stop.TOOL,
    "refusal": Stop.REFUSAL,
}


async def stream(upstream: Upstream, target: Target, request: ModelRequest) -> AsyncIterator[Event]:
    """The answer as events. Raises routing.Failure, Refusal (no key)."""
    asked = body(request, target)
    done: Done | None = None
    async with wire.ask(upstream, target, "messages", asked) as answer:
        async for event in events(answer, answer_tool=_forced(request, target)):
            if isinstance(event, Done):
                done = event
            else:
                yield event
    if done is not None:
        yield done


async def events(answer: Answer, *, answer_tool: bool = False) -> AsyncIterator[Event]:
    """The events of an answer that has begun, ended by `Done`. Raises routing.Failure."""
    reading = Reading(answer_tool=answer_tool)
    async for _, data in answer.events():
        if data.strip() == "[DONE]":
            break  # some servers that speak both dialects end this one as the other
        for event in reading.take(parsed(data, answer.where), answer.where):
            yield event
        if reading.ended:
            break
    yield reading.done(answer.where)


class Reading:
    """Turns Anthropic's stream events into ours. `answer_tool`: its arguments are the answer."""

    def __init__(self, *, answer_tool: bool = False) -> None:
        self.ended = False
        self._answer_tool = answer_tool
        self._usage: dict[str, Any] = {}
        self._tools: dict[int, int | None] = {}
        self._stop: Stop | None = None

    def take(self, data: dict[str, Any], where: str) -> list[Event]:
        """The events of one. Raises Failure when it is an error."""
        match data.get("type"):
            case "error":
                raise Failure(f"{where} failed while answering", done=True)
            case "message_start":
                self._count(_object(data.get("message")).get("usage"))
            case "message":
                return self._message(data)
            case "content_block_start":
                return self._block(_index(data), _object(data.get("content_block")))
            case "content_block_delta":
                return self._delta(_index(data), _object(data.get("delta")))
            case "message_delta":
                self._count(data.get("usage"))
                self._stopped(_object(data.get("delta")).get("stop_reason"))
            case "message_stop":
                self.ended = True
        return []

    def done(self, where: str) -> Done:
        """The end. Raises Failure when the answer has none."""
        if self._stop is None and not self.ended:
            raise Failure(f"{where} broke off in the middle of its answer", done=True)
        stop = self._stop or Stop.END
        if self._answer_tool and stop is Stop.TOOL:
            stop = Stop.END
        return Done(stop, usage.of_messages(self._usage))

    def _message(self, data: dict[str, Any]) -> list[Event]:
        """An answer that came whole, from a server that does not stream."""
        found: list[Event] = []
        content = data.get("content")
        for index, block in enumerate(content if isinstance(content, list) else []):
            block = _object(block)
            found += self._block(index, block)
            number = self._tools.get(index)
            arguments = json.dumps(_object(block.get("input")), ensure_ascii=False)
            if number is not None:
                found.append(ToolDelta(number, arguments))
            elif index in self._tools:
                found.append(TextDelta(arguments))
        self._count(data.get("usage"))
        self._stopped(data.get("stop_reason"))
        self.ended = True
        return found

    def _stopped(self, reason: Any) -> None:
        if isinstance(reason, str) and reason:
            self._stop = STOPS.get(reason, Stop.END)

    def _count(self, counted: Any) -> None:
        self._usage.update({k: v for k, v in _object(counted).items() if v is not None})

    def _block(self, index: int, block: dict[str, Any]) -> list[Event]:
        match block.get("type"):
            case "tool_use" if self._answer_tool:
                self._tools[index] = None
            case "tool_use":
                number = sum(n is not None for n in self._tools.values())
                self._tools[index] = number
                identity = _text(block, "id") or f"toolu_{number}"
                return [ToolStart(number, identity, _text(block, "name"))]
            case "text" if _text(block, "text"):
                return [TextDelta(_text(block, "text"))]
            case "thinking" if _text(block, "thinking") or _text(block, "signature"):
                secret = _text(block, "signature")
                said = _text(block, "thinking")
                return [ThinkingDelta(said, f"{MAKER}{secret}" if secret else "")]
            case "redacted_thinking":
                return [ThinkingDelta("", f"{MAKER}{_text(block, 'data')}", redacted=True)]
        return []

    def _delta(self, index: int, delta: dict[str, Any]) -> list[Event]:
        match delta.get("type"):
            case "text_delta":
                return _some(TextDelta(_text(delta, "text")))
            case "thinking_delta":
                return _some(ThinkingDelta(_text(delta, "thinking")))
            case "signature_delta":
                return [ThinkingDelta("", f"{MAKER}{_text(delta, 'signature')}")]
            case "input_json_delta" if index in self._tools:
                number, fragment = self._tools[index], _text(delta, "partial_json")
                if number is None:
                    return _some(TextDelta(fragment))
                return [ToolDelta(number, fragment)] if fragment else []
        return []


def _some(delta: TextDelta | ThinkingDelta) -> list[Event]:
    return [delta] if delta.text else []


def _index(data: dict[str, Any]) -> int:
    value = data.get("index")
    return value if isinstance(value, int) else -1


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(source: dict[str, Any], name: str) -> str:
    value = source.get(name)
    return value if isinstance(value, str) else ""


def body(request: ModelRequest, target: Target) -> dict[str, Any]:
    """The request in Anthropic's words: equal neighbours merged, results in the user's turn."""
    out: dict[str, Any] = {
        "model": target.model.id,
        "messages": [
            {"role": message.role, "content": [_part(part) for part in message.parts]}
            for message in alternating(_readable(request.messages))
        ],
        "max_tokens": request.max_output_tokens or target.model.max_output_tokens,
        "stream": True,
    }
    system = request.system
    if request.temperature is not None:
        out["temperature"] = min(1.0, max(0.0, request.temperature))
    elif request.top_p is not None:
        # Its newer models take one of both.
        out["top_p"] = min(1.0, max(0.0, request.top_p))
    if request.top_k is not None:
        out["top_k"] = request.top_k
    # It refuses stops of white space, which other clients do send.
    if stops := [text for text in request.stop if text.strip()]:
        out["stop_sequences"] = stops
    if request.user:
        out["metadata"] = {"user_id": request.user}
    if request.tools:
        out["tools"] = [_tool(tool) for tool in request.tools]
        out["tool_choice"] = _choice(request)
    if request.output is not None:
        if request.output.schema is not None and wire.official(target.provider):
            form = {"type": "json_schema", "schema": schemas.for_anthropic(request.output.schema)}
            out["output_config"] = {"format": form}
        elif _forced(request, target):
            schema = schemas.of_tool(request.output.schema or {})
            said = request.output.description or "Gives the answer. Call it exactly once."
            out["tools"] = [{"name": ANSWER, "description": said, "input_schema": schema}]
            out["tool_choice"] = {"type": "tool", "name": ANSWER}
        else:
            system = f"{system}\n\n{schemas.in_words(request.output)}".strip()
    if system:
        out["system"] = _cached({"type": "text", "text": system}, request.system_cache)
    if request.dialect == "messages":
        out.update(request.extra)
    return _consistent(wire.overridden(out, target.model.parameters))


def _forced(request: ModelRequest, target: Target) -> bool:
    """Is the answer asked for as the arguments of a tool? Only of a server that is not known to
    have structured outputs, and where no other tools are offered."""
    output = request.output
    return (
        output is not None
        and output.schema is not None
        and output.schema.get("type") == "object"
        and not request.tools
        and not wire.official(target.provider)
    )


def _cached(text: dict[str, Any], cache: Mapping[str, Any] | None) -> Any:
    return [{**text, "cache_control": cache}] if cache else text["text"]


def _consistent(out: dict[str, Any]) -> dict[str, Any]:
    """What thinking, switched on by the policy, does not go together with is taken away."""
    thinking = out.get("thinking")
    if not isinstance(thinking, dict) or thinking.get("type") == "disabled":
        return out
    if _unproven(out["messages"]) or _object(out.get("tool_choice")).get("type") in ("any", "tool"):
        # In the middle of a tool call, the reasoning that led to it must stand before it.
        return {name: value for name, value in out.items() if name != "thinking"}
    budget = thinking.get("budget_tokens")
    if isinstance(budget, int) and budget >= out["max_tokens"]:
        if out["max_tokens"] <= 1024:
            return {name: value for name, value in out.items() if name != "thinking"}
        out["thinking"] = {**thinking, "budget_tokens": max(1024, out["max_tokens"] - 1024)}
    return {name: value for name, value in out.items() if name not in ("temperature", "top_k")}


def _unproven(messages: list[dict[str, Any]]) -> bool:
    """Does the last turn answer calls whose reasoning is lost?"""
    if len(messages) < 2 or messages[-1]["content"][0]["type"] != "tool_result":
        return False
    return messages[-2]["content"][0]["type"] not in ("thinking", "redacted_thinking")


def _readable(messages: tuple[Message, ...]) -> list[Message]:
    """Without the reasoning of other makers; Anthropic wants its own first in a turn."""
    out: list[Message] = []
    for message in messages:
        own = [p for p in message.parts if isinstance(p, Thinking) and p.signature[:10] == MAKER]
        rest = [part for part in message.parts if not isinstance(part, Thinking)]
        out.append(replace(message, parts=(*own, *rest)))
    return out


def _choice(request: ModelRequest) -> dict[str, Any]:
    choice = request.tool_choice
    out: dict[str, Any] = {"type": "any" if choice == "required" else choice}
    if choice.startswith("name:"):
        out = {"type": "tool", "name": choice.removeprefix("name:")}
    if request.parallel_tools is False and choice != "none":
        out["disable_parallel_tool_use"] = True
    return out


def _tool(tool: Tool) -> dict[str, Any]:
    out: dict[str, Any] = {"name": tool.name, "input_schema": schemas.of_tool(tool.schema)}
    if tool.description:
        out["description"] = tool.description
    if tool.cache:
        out["cache_control"] = tool.cache
    return out


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Text():
            said = {"type": "text", "text": part.text}
            return {**said, "cache_control": part.cache} if part.cache else said
        case Image():
            return {"type": "image", "source": _source(part.url)}
        case Document():
            return {"type": "document", "source": _source(part.url), "title": part.name}
        case Thinking(redacted=True):
            return {"type": "redacted_thinking", "data": part.signature.removeprefix(MAKER)}
        case Thinking():
            signature = part.signature.removeprefix(MAKER)
            return {"type": "thinking", "thinking": part.text, "signature": signature}
        case ToolUse():
            return {
                "type": "tool_use",
                "id": plain_id(part.id),
                "name": part.name,
                "input": _arguments(part.arguments),
            }
        case ToolResult():
            return {
                "type": "tool_result",
                "tool_use_id": plain_id(part.id),
                "content": _result(part),
                "is_error": part.error,
            }
    return {"type": "text", "text": f"(a part of type {part.kind} was left out)"}


def _result(part: ToolResult) -> Any:
    if not part.images:
        return part.text
    images = [{"type": "image", "source": _source(image.url)} for image in part.images]
    return [{"type": "text", "text": part.text}, *images] if part.text else images


def _source(url: str) -> dict[str, str]:
    if url.startswith("data:"):
        kind, _, data = url.removeprefix("data:").partition(";base64,")
        return {"type": "base64", "media_type": kind, "data": data}
    return {"type": "url", "url": url}


def _arguments(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"invalid_json": text}
