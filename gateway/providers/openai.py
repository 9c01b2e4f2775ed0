"""Providers that speak OpenAI Chat Completions: OpenAI itself, and most local model servers.

Always asked to stream: one path, and the usage comes in the last chunk (`include_usage`).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from gateway.keys import allowed_hosts
from gateway.pricing import DEFAULT_URLS, Usage
from gateway.providers.conversation import (
    Done,
    Event,
    Image,
    Message,
    ModelRequest,
    Part,
    Stop,
    Text,
    TextDelta,
    ToolDelta,
    ToolResult,
    ToolStart,
    ToolUse,
)
from gateway.providers.upstream import Answer, Upstream
from gateway.routing import Failure, Target, failure_of_status

STOPS = {
    "stop": Stop.END,
    "length": Stop.LENGTH,
    "tool_calls": Stop.TOOL,
    "function_call": Stop.TOOL,
    "content_filter": Stop.REFUSAL,
}


async def stream(upstream: Upstream, target: Target, request: ModelRequest) -> AsyncIterator[Event]:
    """The answer as events. Raises routing.Failure, Refusal (no key)."""
    base = (target.provider.base_url or DEFAULT_URLS["openai"]).rstrip("/")
    url = f"{base}/chat/completions"
    secret = upstream.keyring.find(
        target.provider.key, url=url, hosts=allowed_hosts(target.provider.hosts, base)
    )
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    async with upstream.post(
        url,
        body(request, target, official=base == DEFAULT_URLS["openai"]),
        headers=headers,
        where=f"provider {target.provider_name}",
        seconds=target.provider.timeout_seconds,
        secret=secret,
    ) as answer:
        if answer.status != 200:
            raise failure_of_status(
                answer.status, answer.where, await answer.brief(), answer.retry_after
            )
        async for event in events(answer):
            yield event


async def events(answer: Answer) -> AsyncIterator[Event]:
    """The events of an answer that has begun. Raises routing.Failure."""
    reading = _Reading()
    async for _, data in answer.events():
        if data == "[DONE]":
            break
        for event in reading.take(json.loads(data), answer.where):
            yield event
    yield reading.done(answer.where)


class _Reading:
    """Turns chunks into events; remembers what the last chunk will need."""

    def __init__(self) -> None:
        self._stop: Stop | None = None
        self._usage: Usage | None = None
        self._tools: dict[int, int] = {}

    def take(self, chunk: dict[str, Any], where: str) -> list[Event]:
        if "error" in chunk:
            raise Failure(f"{where} failed while answering", done=True)
        found: list[Event] = []
        if chunk.get("usage"):
            self._usage = _usage(chunk["usage"])
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if delta.get("content"):
                found.append(TextDelta(delta["content"]))
            for call in delta.get("tool_calls") or ():
                found.extend(self._tool(call))
            if choice.get("finish_reason"):
                self._stop = STOPS.get(choice["finish_reason"], Stop.END)
        return found

    def _tool(self, call: dict[str, Any]) -> list[Event]:
        found: list[Event] = []
        function = call.get("function") or {}
        index = call.get("index", 0)
        if index not in self._tools:
            self._tools[index] = len(self._tools)
            identity = call.get("id") or f"call_{index}"
            found.append(ToolStart(self._tools[index], identity, function.get("name") or ""))
        if function.get("arguments"):
            found.append(ToolDelta(self._tools[index], function["arguments"]))
        return found

    def done(self, where: str) -> Done:
        if self._stop is None:
            raise Failure(f"{where} broke off in the middle of its answer", done=True)
        # Some servers say "stop" although they called tools.
        stop = Stop.TOOL if self._tools and self._stop is Stop.END else self._stop
        return Done(stop, self._usage)


def _usage(usage: dict[str, Any]) -> Usage:
    prompt = usage.get("prompt_tokens_details") or {}
    completion = usage.get("completion_tokens_details") or {}
    return Usage(
        input=usage.get("prompt_tokens") or 0,
        output=usage.get("completion_tokens") or 0,
        cached=prompt.get("cached_tokens") or 0,
        reasoning=completion.get("reasoning_tokens") or 0,
    )


def body(request: ModelRequest, target: Target, *, official: bool) -> dict[str, Any]:
    """The request in OpenAI's words. `official`: OpenAI itself, whose newer models refuse
    `max_tokens`; other servers often know no other name."""
    messages: list[dict[str, Any]] = []
    if request.system:
        messages.append({"role": "system", "content": request.system})
    for message in request.messages:
        messages.extend(_messages(message))
    out: dict[str, Any] = {
        "model": target.model.id,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.max_output_tokens is not None:
        out["max_completion_tokens" if official else "max_tokens"] = request.max_output_tokens
    if request.temperature is not None:
        out["temperature"] = request.temperature
    if request.top_p is not None:
        out["top_p"] = request.top_p
    if request.stop:
        out["stop"] = list(request.stop)
    if request.tools:
        out["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.schema,
                },
            }
            for tool in request.tools
        ]
        if request.tool_choice.startswith("name:"):
            function = {"name": request.tool_choice.removeprefix("name:")}
            out["tool_choice"] = {"type": "function", "function": function}
        elif request.tool_choice != "auto":
            out["tool_choice"] = request.tool_choice
    if request.dialect == "openai":
        out.update(request.extra)
    return out


def _messages(message: Message) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = [
        {"role": "tool", "tool_call_id": part.id, "content": part.text}
        for part in message.parts
        if isinstance(part, ToolResult)
    ]
    said = [part for part in message.parts if isinstance(part, Text | Image)]
    calls = [
        {
            "id": part.id,
            "type": "function",
            "function": {"name": part.name, "arguments": part.arguments},
        }
        for part in message.parts
        if isinstance(part, ToolUse)
    ]
    if calls:
        text = "".join(part.text for part in said if isinstance(part, Text))
        out.append({"role": "assistant", "content": text or None, "tool_calls": calls})
    elif said or not out:
        out.append({"role": message.role, "content": _content(said)})
    return out


def _content(said: list[Text | Image]) -> str | list[dict[str, Any]]:
    if all(isinstance(part, Text) for part in said):
        return "".join(part.text for part in said if isinstance(part, Text))
    return [_part(part) for part in said]


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Image):
        return {"type": "image_url", "image_url": {"url": part.url}}
    return {"type": "text", "text": getattr(part, "text", "")}
