"""Anthropic Messages as clients speak it.

https://docs.anthropic.com/en/api/messages and …/messages-streaming (`message_start`,
`content_block_*`, `message_delta`, `message_stop`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gateway.pricing import Usage
from gateway.providers.conversation import (
    Done,
    Event,
    Image,
    Message,
    ModelRequest,
    Part,
    Reply,
    Stop,
    Text,
    TextDelta,
    Tool,
    ToolDelta,
    ToolResult,
    ToolStart,
    ToolUse,
)
from gateway.providers.dialects import fields
from gateway.refusals import STATUS, Refusal

PATH = "/v1/messages"
EXTRA = ("top_k", "metadata")
STOP = {
    Stop.END: "end_turn",
    Stop.TOOL: "tool_use",
    Stop.LENGTH: "max_tokens",
    Stop.REFUSAL: "refusal",
}


def read(body: dict[str, Any]) -> ModelRequest:
    """A client's request. Raises Refusal (invalid_request) naming the field."""
    listed = fields.objects(body.get("messages"), "messages")
    if not listed:
        raise fields.invalid("`messages` must not be empty")
    messages: list[Message] = []
    for index, message in enumerate(listed):
        where = f"messages[{index}]."
        role = fields.text(message, "role", where)
        if role not in ("user", "assistant"):
            raise fields.invalid(f"`{where}role` is {role!r}; expected user or assistant")
        messages.append(Message(role, tuple(_parts(message.get("content"), where))))
    return ModelRequest(
        model=fields.text(body, "model"),
        messages=tuple(messages),
        system="\n\n".join(
            part.text for part in _parts(body.get("system"), "system.") if isinstance(part, Text)
        ),
        tools=tuple(_tool(t, i) for i, t in enumerate(fields.objects(body.get("tools"), "tools"))),
        tool_choice=_choice(body.get("tool_choice")),
        max_output_tokens=fields.count(body, "max_tokens"),
        temperature=fields.number(body, "temperature"),
        top_p=fields.number(body, "top_p"),
        stop=fields.strings(body.get("stop_sequences"), "stop_sequences"),
        dialect="anthropic",
        extra={name: body[name] for name in EXTRA if body.get(name) is not None},
    )


def _parts(content: Any, where: str) -> Iterator[Part]:
    if content is None:
        return
    if isinstance(content, str):
        if content:
            yield Text(content)
        return
    for part in fields.objects(content, f"{where}content"):
        at = f"{where}content."
        match part.get("type"):
            case "text":
                yield Text(fields.text(part, "text", at))
            case "image":
                yield _image(part, at)
            case "tool_use":
                arguments = part.get("input") or {}
                yield ToolUse(
                    fields.text(part, "id", at),
                    fields.text(part, "name", at),
                    json.dumps(arguments, ensure_ascii=False),
                )
            case "tool_result":
                said = list(_parts(part.get("content"), at))
                text = "".join(p.text for p in said if isinstance(p, Text))
                error = bool(part.get("is_error"))
                yield ToolResult(fields.text(part, "tool_use_id", at), text, error)
                yield from (p for p in said if isinstance(p, Image))
            case "thinking" | "redacted_thinking":
                continue  # its signature binds it to one provider: never carried over
            case kind:
                raise fields.invalid(f"`{at}type` is {kind!r}, which is not supported")


def _image(part: dict[str, Any], where: str) -> Image:
    source = part.get("source")
    if isinstance(source, dict) and source.get("type") == "url":
        return Image(fields.text(source, "url", f"{where}source."))
    if isinstance(source, dict) and source.get("type") == "base64":
        kind = fields.text(source, "media_type", f"{where}source.")
        return Image(f"data:{kind};base64,{fields.text(source, 'data', f'{where}source.')}")
    raise fields.invalid(f"`{where}source` must be of type base64 or url")


def _tool(tool: dict[str, Any], index: int) -> Tool:
    if tool.get("type") not in (None, "custom"):
        raise fields.invalid(f"`tools[{index}]`: server tools ({tool['type']!r}) are not supported")
    return Tool(
        fields.text(tool, "name", f"tools[{index}]."),
        tool.get("description") or "",
        tool.get("input_schema") or {"type": "object", "properties": {}},
    )


def _choice(choice: Any) -> str:
    if choice is None:
        return "auto"
    if isinstance(choice, dict):
        kind = choice.get("type")
        if kind in ("auto", "none"):
            return str(kind)
        if kind == "any":
            return "required"
        if kind == "tool":
            return f"name:{fields.text(choice, 'name', 'tool_choice.')}"
    raise fields.invalid("`tool_choice` must be of type auto, any, tool or none")


def _usage(usage: Usage | None) -> dict[str, int]:
    usage = usage or Usage(0, 0)
    # Anthropic counts cached input beside, not within, `input_tokens`.
    return {
        "input_tokens": usage.input - usage.cached,
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.output,
    }


def answer(reply: Reply, *, model: str, identity: str, seconds: int) -> dict[str, Any]:
    """A whole `message`; `model` is the name the client asked for. `seconds` is not used."""
    content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    content.extend(
        {"type": "tool_use", "id": tool.id, "name": tool.name, "input": _arguments(tool.arguments)}
        for tool in reply.tools
    )
    return {
        "id": f"msg_{identity}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": STOP[reply.stop],
        "stop_sequence": None,
        "usage": _usage(reply.usage),
    }


def _arguments(text: str) -> Any:
    """Arguments as an object; what a model garbled is handed on as text under one key."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"invalid_json": text}


class Writer:
    """Writes events as Anthropic's; one writer per stream."""

    def __init__(self, *, model: str, identity: str, seconds: int, with_usage: bool) -> None:
        del seconds, with_usage  # the dialect has no field for them, and always sends usage
        self._model = model
        self._identity = identity
        self._begun = False
        self._block = -1
        self._open: int | str | None = None

    def write(self, event: Event) -> bytes:
        """The bytes of one event."""
        out = b"" if self._begun else self._start()
        match event:
            case TextDelta():
                if self._open != "text":
                    out += self._begin({"type": "text", "text": ""}, "text")
                out += self._delta({"type": "text_delta", "text": event.text})
            case ToolStart():
                block = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
                out += self._begin(block, event.index)
            case ToolDelta():
                out += self._delta({"type": "input_json_delta", "partial_json": event.fragment})
            case Done():
                out += self._close()
                delta = {"stop_reason": STOP[event.stop], "stop_sequence": None}
                out += _event(
                    {"type": "message_delta", "delta": delta, "usage": _usage(event.usage)}
                )
        return out

    def fail(self, refusal: Refusal) -> bytes:
        """An error in the middle of the stream."""
        return fields.sse(error(refusal), "error")

    def end(self) -> bytes:
        """The end of the stream."""
        return _event({"type": "message_stop"})

    def _start(self) -> bytes:
        self._begun = True
        message: dict[str, Any] = {
            "id": f"msg_{self._identity}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(None),
        }
        return _event({"type": "message_start", "message": message})

    def _begin(self, block: dict[str, Any], name: int | str) -> bytes:
        out = self._close()
        self._block += 1
        self._open = name
        start = {"type": "content_block_start", "index": self._block, "content_block": block}
        return out + _event(start)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event({"type": "content_block_delta", "index": self._block, "delta": delta})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return _event({"type": "content_block_stop", "index": self._block})


def _event(data: dict[str, Any]) -> bytes:
    return fields.sse(data, data["type"])


def error(refusal: Refusal) -> dict[str, Any]:
    """Anthropic's error object with the gateway's code and facts."""
    kinds = {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        409: "invalid_request_error",
        429: "rate_limit_error",
        503: "overloaded_error",
    }
    kind = kinds.get(STATUS[refusal.code], "api_error")
    return {"type": "error", "error": {**refusal.body(), "type": kind}}
