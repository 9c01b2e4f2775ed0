"""Anthropic Messages as clients speak it.

https://docs.anthropic.com/en/api/messages, …/messages-streaming (`message_start`,
`content_block_*`, `message_delta`, `message_stop`) and …/messages-count-tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gateway.policy import Api
from gateway.pricing import Usage
from gateway.providers.conversation import (
    Document,
    Done,
    Event,
    Foreign,
    Image,
    Message,
    ModelRequest,
    Output,
    Part,
    Reply,
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
from gateway.providers.dialects import fields
from gateway.refusals import STATUS, Refusal

API: Api = "messages"
PATH = "/v1/messages"
COUNT_PATH = "/v1/messages/count_tokens"
EXTRA = ("thinking", "service_tier", "cache_control")
NATIVE_ONLY = ("container", "mcp_servers")
"""What would change the answer, and no other API has."""
MAKER = "anthropic:"
OURS = "interlock:"
"""Begins the signature of reasoning that another provider than Anthropic made."""
STOP = {
    Stop.END: "end_turn",
    Stop.TOOL: "tool_use",
    Stop.LENGTH: "max_tokens",
    Stop.REFUSAL: "refusal",
}
NO_PARAMETERS = {"type": "object", "properties": {}}


def read(body: dict[str, Any]) -> ModelRequest:
    """A client's request, of messages or of a token count. Raises Refusal (invalid_request)
    naming the field."""
    listed = fields.objects(body.get("messages"), "messages")
    if not listed:
        raise fields.invalid("`messages` must not be empty")
    system = [
        part
        for part in _parts(body.get("system"), "system.")
        # Claude Code's accounting, of no meaning to a model. It differs from call to call, and
        # would keep every other server from using its cache.
        if isinstance(part, Text) and not part.text.startswith("x-anthropic-billing-header:")
    ]
    messages: list[Message] = []
    for index, message in enumerate(listed):
        where = f"messages[{index}]."
        role = fields.text(message, "role", where)
        if role not in ("user", "assistant", "system"):
            raise fields.invalid(f"`{where}role` is {role!r}; expected user or assistant")
        parts = tuple(_parts(message.get("content"), where))
        if role == "system":
            system.extend(part for part in parts if isinstance(part, Text))
        else:
            messages.append(Message(role, parts))
    tools, hosted = _tools(body)
    choice = fields.mapping(body, "tool_choice") or {}
    serial = fields.flag(choice, "disable_parallel_tool_use", "tool_choice.")
    config = fields.mapping(body, "output_config") or {}
    about = fields.mapping(body, "metadata") or {}
    return ModelRequest(
        model=fields.text(body, "model"),
        messages=tuple(messages),
        system="\n\n".join(part.text for part in system),
        system_cache=next((part.cache for part in reversed(system) if part.cache), None),
        tools=tools,
        hosted_tools=hosted,
        tool_choice=_choice(choice),
        parallel_tools=None if serial is None else not serial,
        max_output_tokens=fields.count(body, "max_tokens"),
        temperature=fields.number(body, "temperature"),
        top_p=fields.number(body, "top_p"),
        top_k=fields.count(body, "top_k"),
        stop=fields.strings(body.get("stop_sequences"), "stop_sequences"),
        output=_output(config, body),
        user=fields.optional_text(about, "user_id", "metadata.") or None,
        effort=fields.optional_text(config, "effort", "output_config.") or _effort(body),
        dialect=API,
        extra={name: body[name] for name in EXTRA if body.get(name) is not None},
        native_only=tuple(f"`{name}`" for name in NATIVE_ONLY if body.get(name)),
    )


def _parts(content: Any, where: str) -> Iterator[Part]:
    for part in fields.parts(content, f"{where}content"):
        at = f"{where}content."
        match part.get("type"):
            case "text":
                yield Text(fields.text(part, "text", at), fields.mapping(part, "cache_control", at))
            case "image":
                yield _image(part, at)
            case "document":
                yield _document(part, at)
            case "tool_use":
                arguments = fields.mapping(part, "input", at) or {}
                yield ToolUse(
                    fields.text(part, "id", at),
                    fields.text(part, "name", at),
                    json.dumps(arguments, ensure_ascii=False),
                )
            case "tool_result":
                yield from _result(part, at)
            case "thinking":
                signature = fields.optional_text(part, "signature", at)
                yield Thinking(fields.text(part, "thinking", at), _signed(signature))
            case "redacted_thinking":
                yield Thinking("", _signed(fields.text(part, "data", at)), redacted=True)
            case str(kind):
                yield Foreign(kind, fields.size(part))
            case kind:
                raise fields.invalid(f"`{at}type` is {kind!r}; expected a string")


def _result(part: dict[str, Any], at: str) -> Iterator[Part]:
    said = list(_parts(part.get("content"), at))
    yield ToolResult(
        fields.text(part, "tool_use_id", at),
        "".join(p.text for p in said if isinstance(p, Text)),
        bool(part.get("is_error")),
        tuple(p for p in said if isinstance(p, Image)),
    )
    yield from (p for p in said if isinstance(p, Document | Foreign))


def _image(part: dict[str, Any], where: str) -> Part:
    source = fields.mapping(part, "source", where) or {}
    if source.get("type") == "url":
        return Image(fields.text(source, "url", f"{where}source."))
    if source.get("type") == "base64":
        kind = fields.text(source, "media_type", f"{where}source.")
        return Image(f"data:{kind};base64,{fields.text(source, 'data', f'{where}source.')}")
    return Foreign("image", fields.size(part))


def _document(part: dict[str, Any], where: str) -> Part:
    source = fields.mapping(part, "source", where) or {}
    name = fields.optional_text(part, "title", where) or "document.pdf"
    match source.get("type"), source.get("media_type"):
        case "url", _:
            return Document(fields.text(source, "url", f"{where}source."), name)
        case "base64", "application/pdf":
            data = fields.text(source, "data", f"{where}source.")
            return Document(f"data:application/pdf;base64,{data}", name)
        case "text", _:
            return Text(f"{name}:\n{fields.text(source, 'data', f'{where}source.')}")
    return Foreign("document", fields.size(part))


def _signed(signature: str) -> str:
    """Whose reasoning it is: Anthropic's, or another provider's that we handed on."""
    if signature.startswith(OURS):
        return signature.removeprefix(OURS)
    return f"{MAKER}{signature}" if signature else ""


def signature_for(thinking: Thinking | ThinkingDelta) -> str:
    """The signature as a client of this dialect keeps it; inverse of reading it."""
    if thinking.signature.startswith(MAKER):
        return thinking.signature.removeprefix(MAKER)
    return f"{OURS}{thinking.signature}"


def without_foreign(messages: Any) -> Any:
    """A request's messages for Anthropic itself, without the reasoning of other providers that
    this gateway handed on: Anthropic refuses signatures that are not its own."""
    if not isinstance(messages, list):
        return messages
    found: list[Any] = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            kept = [block for block in content if not _foreign(block)]
            if content and not kept:
                continue
            message = {**message, "content": kept}
        found.append(message)
    return found


def _foreign(block: Any) -> bool:
    if not isinstance(block, dict) or block.get("type") not in ("thinking", "redacted_thinking"):
        return False
    return any(str(block.get(name, "")).startswith(OURS) for name in ("signature", "data"))


def _tools(body: dict[str, Any]) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    tools: list[Tool] = []
    hosted: list[str] = []
    for index, tool in enumerate(fields.objects(body.get("tools"), "tools")):
        where = f"tools[{index}]."
        kind = fields.optional_text(tool, "type", where)
        if kind not in ("", "custom"):
            hosted.append(kind)
            continue
        tools.append(
            Tool(
                fields.text(tool, "name", where),
                fields.optional_text(tool, "description", where),
                fields.mapping(tool, "input_schema", where) or NO_PARAMETERS,
                fields.flag(tool, "strict", where),
                cache=fields.mapping(tool, "cache_control", where),
            )
        )
    return tuple(tools), tuple(hosted)


def _choice(choice: dict[str, Any]) -> str:
    match choice.get("type", "auto"):
        case "auto" | "none" as kind:
            return str(kind)
        case "any":
            return "required"
        case "tool":
            return f"name:{fields.text(choice, 'name', 'tool_choice.')}"
    raise fields.invalid("`tool_choice.type` must be auto, any, tool or none")


def _output(config: dict[str, Any], body: dict[str, Any]) -> Output | None:
    # `output_format` is the name that it had as a beta.
    wanted = fields.mapping(config, "format", "output_config.")
    wanted = wanted or fields.mapping(body, "output_format")
    if wanted is None:
        return None
    if wanted.get("type") != "json_schema":
        raise fields.invalid("`output_config.format.type` must be json_schema")
    return Output(fields.mapping(wanted, "schema", "output_config.format.") or {})


def _effort(body: dict[str, Any]) -> str | None:
    """What `thinking` asks for, in the one word that other APIs have for it."""
    thinking = fields.mapping(body, "thinking") or {}
    if thinking.get("type") != "enabled":
        return None
    budget = fields.whole(thinking, "budget_tokens") or 0
    return "low" if budget < 4096 else "medium" if budget < 16384 else "high"


def _usage(usage: Usage | None) -> dict[str, Any]:
    usage = usage or Usage(0, 0)
    # Anthropic counts cached input beside, not within, `input_tokens`.
    return {
        "input_tokens": usage.input - usage.cached - usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": usage.cache_write,
        "output_tokens": usage.output,
    }


def answer(
    reply: Reply, *, model: str, identity: str, seconds: int, request: ModelRequest | None = None
) -> dict[str, Any]:
    """A whole `message`; `model` is the name the client asked for. `seconds` is not used."""
    content: list[dict[str, Any]] = [_thought(thinking) for thinking in reply.thinking]
    if reply.text:
        content.append({"type": "text", "text": reply.text})
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


def _thought(thinking: Thinking) -> dict[str, Any]:
    signature = signature_for(thinking)
    if thinking.redacted:
        return {"type": "redacted_thinking", "data": signature}
    return {"type": "thinking", "thinking": thinking.text, "signature": signature}


def count_answer(tokens: int) -> dict[str, Any]:
    """The answer to a token count."""
    return {"input_tokens": tokens}


def _arguments(text: str) -> Any:
    """Arguments as an object; what a model garbled is handed on as text under one key."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"invalid_json": text}


class Writer:
    """Writes events as Anthropic's; one writer per stream."""

    def __init__(
        self,
        *,
        model: str,
        identity: str,
        seconds: int,
        with_usage: bool,
        request: ModelRequest | None = None,
    ) -> None:
        del seconds, with_usage, request  # the dialect has no field for them, always sends usage
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
            case ThinkingDelta():
                out += self._thinking(event)
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

    def _thinking(self, event: ThinkingDelta) -> bytes:
        if event.redacted:
            block = {"type": "redacted_thinking", "data": signature_for(event)}
            return self._begin(block, "redacted") + self._close()
        out = b""
        if self._open != "thinking":
            block = {"type": "thinking", "thinking": "", "signature": ""}
            out += self._begin(block, "thinking")
        if event.text:
            out += self._delta({"type": "thinking_delta", "thinking": event.text})
        if event.signature:
            out += self._delta({"type": "signature_delta", "signature": signature_for(event)})
            out += self._close()
        return out

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
