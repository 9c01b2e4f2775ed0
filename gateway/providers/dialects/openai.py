"""OpenAI Chat Completions as clients speak it.

https://platform.openai.com/docs/api-reference/chat (request, `chat.completion`,
`chat.completion.chunk`). Only what changes the meaning is read; parameters a provider of another
dialect cannot know travel in `extra`.
"""

from __future__ import annotations

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

PATH = "/v1/chat/completions"
EXTRA = (
    "response_format",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "parallel_tool_calls",
    "reasoning_effort",
)
UNSUPPORTED = ("functions", "function_call", "audio", "logprobs")
FINISH = {
    Stop.END: "stop",
    Stop.TOOL: "tool_calls",
    Stop.LENGTH: "length",
    Stop.REFUSAL: "content_filter",
}


def read(body: dict[str, Any]) -> ModelRequest:
    """A client's request. Raises Refusal (invalid_request) naming the field."""
    for name in UNSUPPORTED:
        if body.get(name):
            raise fields.invalid(f"`{name}` is not supported by this gateway")
    if body.get("n") not in (None, 1):
        raise fields.invalid("`n` other than 1 is not supported by this gateway")
    system: list[str] = []
    messages: list[Message] = []
    listed = fields.objects(body.get("messages"), "messages")
    if not listed:
        raise fields.invalid("`messages` must not be empty")
    for index, message in enumerate(listed):
        where = f"messages[{index}]."
        role = fields.text(message, "role", where)
        if role in ("system", "developer"):
            system.extend(
                part.text
                for part in _parts(message.get("content"), where)
                if isinstance(part, Text)
            )
        elif role == "user":
            messages.append(Message("user", tuple(_parts(message.get("content"), where))))
        elif role == "assistant":
            parts: list[Part] = list(_parts(message.get("content"), where))
            parts.extend(_tool_uses(message, where))
            messages.append(Message("assistant", tuple(parts)))
        elif role == "tool":
            said = "".join(
                part.text
                for part in _parts(message.get("content"), where)
                if isinstance(part, Text)
            )
            result = ToolResult(fields.text(message, "tool_call_id", where), said)
            messages.append(Message("user", (result,)))
        else:
            raise fields.invalid(
                f"`{where}role` is {role!r}; expected system, user, assistant, tool"
            )
    return ModelRequest(
        model=fields.text(body, "model"),
        messages=tuple(messages),
        system="\n\n".join(system),
        tools=tuple(_tool(t, i) for i, t in enumerate(fields.objects(body.get("tools"), "tools"))),
        tool_choice=_choice(body.get("tool_choice")),
        max_output_tokens=fields.count(body, "max_completion_tokens")
        or fields.count(body, "max_tokens"),
        temperature=fields.number(body, "temperature"),
        top_p=fields.number(body, "top_p"),
        stop=fields.strings(body.get("stop"), "stop"),
        dialect="openai",
        extra={name: body[name] for name in EXTRA if body.get(name) is not None},
    )


def _parts(content: Any, where: str) -> Iterator[Text | Image]:
    if content is None:
        return
    if isinstance(content, str):
        if content:
            yield Text(content)
        return
    for part in fields.objects(content, f"{where}content"):
        kind = part.get("type")
        if kind in ("text", "refusal"):
            yield Text(fields.text(part, str(kind), f"{where}content."))
        elif kind == "image_url" and isinstance(part.get("image_url"), dict):
            yield Image(fields.text(part["image_url"], "url", f"{where}content.image_url."))
        else:
            raise fields.invalid(
                f"`{where}content` has a part of type {kind!r}, which is not supported"
            )


def _tool_uses(message: dict[str, Any], where: str) -> Iterator[ToolUse]:
    for call in fields.objects(message.get("tool_calls"), f"{where}tool_calls"):
        function = call.get("function")
        if not isinstance(function, dict):
            raise fields.invalid(f"`{where}tool_calls` may only hold functions")
        yield ToolUse(
            fields.text(call, "id", f"{where}tool_calls."),
            fields.text(function, "name", f"{where}tool_calls.function."),
            fields.text(function, "arguments", f"{where}tool_calls.function."),
        )


def _tool(tool: dict[str, Any], index: int) -> Tool:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        raise fields.invalid(f"`tools[{index}]` must be of type function")
    return Tool(
        fields.text(function, "name", f"tools[{index}].function."),
        function.get("description") or "",
        function.get("parameters") or {"type": "object", "properties": {}},
    )


def _choice(choice: Any) -> str:
    if choice is None:
        return "auto"
    if choice in ("auto", "none", "required"):
        return str(choice)
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        return f"name:{fields.text(choice['function'], 'name', 'tool_choice.function.')}"
    raise fields.invalid("`tool_choice` must be auto, none, required or one function")


def _usage(usage: Usage | None) -> dict[str, Any]:
    usage = usage or Usage(0, 0)
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def answer(reply: Reply, *, model: str, identity: str, seconds: int) -> dict[str, Any]:
    """A whole `chat.completion`; `model` is the name the client asked for."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": reply.text or (None if reply.tools else ""),
        "refusal": None,
    }
    if reply.tools:
        message["tool_calls"] = [
            {
                "id": tool.id,
                "type": "function",
                "function": {"name": tool.name, "arguments": tool.arguments},
            }
            for tool in reply.tools
        ]
    return {
        "id": f"chatcmpl-{identity}",
        "object": "chat.completion",
        "created": seconds,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": FINISH[reply.stop],
                "logprobs": None,
            }
        ],
        "usage": _usage(reply.usage),
    }


class Writer:
    """Writes events as `chat.completion.chunk`s; one writer per stream."""

    def __init__(self, *, model: str, identity: str, seconds: int, with_usage: bool) -> None:
        self._frame = {
            "id": f"chatcmpl-{identity}",
            "object": "chat.completion.chunk",
            "created": seconds,
            "model": model,
        }
        self._with_usage = with_usage
        self._begun = False

    def write(self, event: Event) -> bytes:
        """The bytes of one event."""
        out = b""
        if not self._begun:
            self._begun = True
            out += self._chunk({"role": "assistant", "content": ""})
        match event:
            case TextDelta():
                out += self._chunk({"content": event.text})
            case ToolStart():
                function = {"name": event.name, "arguments": ""}
                call = {"index": event.index, "id": event.id, "type": "function"}
                out += self._chunk({"tool_calls": [{**call, "function": function}]})
            case ToolDelta():
                part = {"index": event.index, "function": {"arguments": event.fragment}}
                out += self._chunk({"tool_calls": [part]})
            case Done():
                out += self._chunk({}, FINISH[event.stop])
                if self._with_usage:
                    last = {**self._frame, "choices": [], "usage": _usage(event.usage)}
                    out += fields.sse(last)
        return out

    def fail(self, refusal: Refusal) -> bytes:
        """An error in the middle of the stream."""
        return fields.sse(error(refusal))

    def end(self) -> bytes:
        """The end of the stream."""
        return b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return fields.sse({**self._frame, "choices": [choice]})


def error(refusal: Refusal) -> dict[str, Any]:
    """OpenAI's error object with the gateway's code and facts."""
    kinds = {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        409: "conflict_error",
        429: "rate_limit_error",
    }
    kind = kinds.get(STATUS[refusal.code], "api_error")
    return {"error": {**refusal.body(), "type": kind, "param": None}}
