"""Providers that speak Anthropic Messages. Always asked to stream, like every provider here."""

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

VERSION = "2023-06-01"
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
    base = (target.provider.base_url or DEFAULT_URLS["anthropic"]).rstrip("/")
    url = f"{base}/v1/messages"
    secret = upstream.keyring.find(
        target.provider.key, url=url, hosts=allowed_hosts(target.provider.hosts, base)
    )
    headers = {"anthropic-version": VERSION}
    if secret:
        headers["x-api-key"] = secret
    async with upstream.post(
        url,
        body(request, target),
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
        for event in reading.take(json.loads(data), answer.where):
            yield event
    if not reading.ended:
        raise Failure(f"{answer.where} broke off in the middle of its answer", done=True)


class _Reading:
    """Turns Anthropic's stream events into ours."""

    def __init__(self) -> None:
        self.ended = False
        self._usage: dict[str, int] = {}
        self._tools: dict[int, int] = {}
        self._stop = Stop.END

    def take(self, data: dict[str, Any], where: str) -> list[Event]:
        match data.get("type"):
            case "error":
                raise Failure(f"{where} failed while answering", done=True)
            case "message_start":
                self._count(data["message"].get("usage"))
            case "content_block_start":
                return self._block(data["index"], data["content_block"])
            case "content_block_delta":
                return self._delta(data["index"], data["delta"])
            case "message_delta":
                self._count(data.get("usage"))
                self._stop = STOPS.get(data["delta"].get("stop_reason") or "", self._stop)
            case "message_stop":
                self.ended = True
                return [Done(self._stop, self._total())]
        return []

    def _count(self, usage: dict[str, Any] | None) -> None:
        self._usage.update({k: v for k, v in (usage or {}).items() if isinstance(v, int)})

    def _total(self) -> Usage | None:
        if "output_tokens" not in self._usage:
            return None
        cached = self._usage.get("cache_read_input_tokens", 0)
        written = self._usage.get("cache_creation_input_tokens", 0)
        # Anthropic counts cached input beside `input_tokens`; the ledger counts it within.
        return Usage(
            input=self._usage.get("input_tokens", 0) + cached + written,
            output=self._usage["output_tokens"],
            cached=cached,
        )

    def _block(self, index: int, block: dict[str, Any]) -> list[Event]:
        if block.get("type") == "tool_use":
            self._tools[index] = len(self._tools)
            return [ToolStart(self._tools[index], block["id"], block["name"])]
        if block.get("type") == "text" and block.get("text"):
            return [TextDelta(block["text"])]
        return []

    def _delta(self, index: int, delta: dict[str, Any]) -> list[Event]:
        if delta.get("type") == "text_delta":
            return [TextDelta(delta["text"])]
        if delta.get("type") == "input_json_delta" and index in self._tools:
            return [ToolDelta(self._tools[index], delta["partial_json"])]
        return []


def body(request: ModelRequest, target: Target) -> dict[str, Any]:
    """The request in Anthropic's words: equal neighbours merged, results in the user's turn."""
    messages: list[dict[str, Any]] = []
    for message in request.messages:
        content = [_part(part) for part in message.parts]
        if not content:
            continue
        if messages and messages[-1]["role"] == message.role:
            messages[-1]["content"].extend(content)
        else:
            messages.append({"role": message.role, "content": content})
    out: dict[str, Any] = {
        "model": target.model.id,
        "messages": messages,
        "max_tokens": request.max_output_tokens or target.model.max_output_tokens,
        "stream": True,
    }
    if request.system:
        out["system"] = request.system
    if request.temperature is not None:
        out["temperature"] = min(1.0, request.temperature)
    if request.top_p is not None:
        out["top_p"] = request.top_p
    if request.stop:
        out["stop_sequences"] = list(request.stop)
    if request.tools:
        out["tools"] = [
            {"name": tool.name, "description": tool.description, "input_schema": tool.schema}
            for tool in request.tools
        ]
        out["tool_choice"] = _choice(request.tool_choice)
    if request.dialect == "anthropic":
        out.update(request.extra)
    return out


def _choice(choice: str) -> dict[str, str]:
    if choice.startswith("name:"):
        return {"type": "tool", "name": choice.removeprefix("name:")}
    return {"type": "any" if choice == "required" else choice}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Image():
            return {"type": "image", "source": _source(part.url)}
        case ToolUse():
            return {
                "type": "tool_use",
                "id": part.id,
                "name": part.name,
                "input": _arguments(part.arguments),
            }
        case ToolResult():
            return {
                "type": "tool_result",
                "tool_use_id": part.id,
                "content": part.text,
                "is_error": part.error,
            }


def _source(url: str) -> dict[str, str]:
    if url.startswith("data:"):
        kind, _, data = url.removeprefix("data:").partition(";base64,")
        return {"type": "base64", "media_type": kind, "data": data}
    return {"type": "url", "url": url}


def _arguments(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"invalid_json": text}
