"""OpenAI Chat Completions as clients speak it.

https://platform.openai.com/docs/api-reference/chat (request, `chat.completion`,
`chat.completion.chunk`). Only what changes the meaning is read; parameters a provider of another
dialect cannot know travel in `extra`. Reasoning is written as `reasoning_content`, as DeepSeek,
vLLM and others do: OpenAI itself has no field for it.
"""

from __future__ import annotations

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

API: Api = "chat"
PATH = "/v1/chat/completions"
EXTRA = ("presence_penalty", "frequency_penalty", "logit_bias", "verbosity", "service_tier")
UNSUPPORTED = ("functions", "function_call")
NATIVE_ONLY = ("audio", "logprobs", "top_logprobs", "prediction", "web_search_options")
"""What would change the answer, and no other API has."""
FINISH = {
    Stop.END: "stop",
    Stop.TOOL: "tool_calls",
    Stop.LENGTH: "length",
    Stop.REFUSAL: "content_filter",
}
NO_PARAMETERS = {"type": "object", "properties": {}}


def read(body: dict[str, Any]) -> ModelRequest:
    """A client's request. Raises Refusal (invalid_request) naming the field."""
    for name in UNSUPPORTED:
        if body.get(name):
            raise fields.invalid(f"`{name}` is not supported by this gateway; use `tools`")
    listed = fields.objects(body.get("messages"), "messages")
    if not listed:
        raise fields.invalid("`messages` must not be empty")
    system: list[Text] = []
    messages: list[Message] = []
    for index, message in enumerate(listed):
        where = f"messages[{index}]."
        role = fields.text(message, "role", where)
        if role in ("system", "developer"):
            system.extend(_texts(message.get("content"), where))
        elif role in ("user", "assistant", "tool"):
            messages.append(_message(role, message, where))
        else:
            raise fields.invalid(
                f"`{where}role` is {role!r}; expected system, user, assistant, tool"
            )
    tools, hosted = _tools(body)
    return ModelRequest(
        model=fields.text(body, "model"),
        messages=tuple(messages),
        system="\n\n".join(part.text for part in system),
        system_cache=next((part.cache for part in reversed(system) if part.cache), None),
        tools=tools,
        hosted_tools=hosted,
        tool_choice=_choice(body.get("tool_choice")),
        parallel_tools=fields.flag(body, "parallel_tool_calls"),
        max_output_tokens=fields.count(body, "max_completion_tokens")
        or fields.count(body, "max_tokens"),
        temperature=fields.number(body, "temperature"),
        top_p=fields.number(body, "top_p"),
        top_k=fields.count(body, "top_k"),
        seed=fields.whole(body, "seed"),
        stop=fields.strings(body.get("stop"), "stop"),
        output=_output(body),
        user=fields.optional_text(body, "user") or None,
        effort=fields.optional_text(body, "reasoning_effort") or None,
        dialect=API,
        extra={name: body[name] for name in EXTRA if body.get(name) is not None},
        native_only=(
            *(f"`{name}`" for name in NATIVE_ONLY if body.get(name)),
            *(["`n` other than 1"] if body.get("n") not in (None, 1) else []),
        ),
    )


def _message(role: str, message: dict[str, Any], where: str) -> Message:
    parts = list(_parts(message.get("content"), where))
    if role == "tool":
        said = "".join(part.text for part in parts if isinstance(part, Text))
        images = tuple(part for part in parts if isinstance(part, Image))
        call = fields.text(message, "tool_call_id", where)
        return Message("user", (ToolResult(call, said, images=images),))
    if role == "assistant":
        thought = message.get("reasoning_content")
        if isinstance(thought, str) and thought:
            parts.insert(0, Thinking(thought, "chat:"))
        refusal = message.get("refusal")
        if isinstance(refusal, str) and refusal:
            parts.append(Text(refusal))
        parts.extend(_tool_uses(message, where))
    return Message(role, tuple(parts))


def _texts(content: Any, where: str) -> Iterator[Text]:
    return (part for part in _parts(content, where) if isinstance(part, Text))


def _parts(content: Any, where: str) -> Iterator[Part]:
    for part in fields.parts(content, f"{where}content"):
        at = f"{where}content."
        match part.get("type"):
            case "text" | "refusal" as kind:
                cache = fields.mapping(part, "cache_control", at)
                yield Text(fields.text(part, kind, at), cache)
            case "image_url":
                image = fields.mapping(part, "image_url", at) or {}
                yield Image(fields.text(image, "url", f"{at}image_url."))
            case "file":
                yield _file(fields.mapping(part, "file", at) or {}, part)
            case str(kind):
                yield Foreign(kind, fields.size(part))
            case kind:
                raise fields.invalid(f"`{at}type` is {kind!r}; expected a string")


def _file(file: dict[str, Any], part: dict[str, Any]) -> Part:
    data, name = file.get("file_data"), file.get("filename")
    if isinstance(data, str) and data.startswith("data:application/pdf;base64,"):
        return Document(data, name if isinstance(name, str) and name else "document.pdf")
    return Foreign("file", fields.size(part))


def _tool_uses(message: dict[str, Any], where: str) -> Iterator[ToolUse]:
    for call in fields.objects(message.get("tool_calls"), f"{where}tool_calls"):
        custom = call.get("custom") if call.get("type") == "custom" else None
        if isinstance(custom, dict):
            at = f"{where}tool_calls.custom."
            said = fields.freeform(fields.text(custom, "input", at))
            name = fields.text(custom, "name", at)
            yield ToolUse(fields.text(call, "id", f"{where}tool_calls."), name, said)
            continue
        function = call.get("function")
        if not isinstance(function, dict):
            raise fields.invalid(f"`{where}tool_calls` may only hold functions and custom tools")
        yield ToolUse(
            fields.text(call, "id", f"{where}tool_calls."),
            fields.text(function, "name", f"{where}tool_calls.function."),
            fields.text(function, "arguments", f"{where}tool_calls.function."),
        )


def _tools(body: dict[str, Any]) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    tools: list[Tool] = []
    hosted: list[str] = []
    for index, tool in enumerate(fields.objects(body.get("tools"), "tools")):
        where = f"tools[{index}]."
        kind = fields.text(tool, "type", where)
        if kind not in ("function", "custom"):
            hosted.append(kind)
            continue
        about = fields.mapping(tool, kind, where)
        if about is None:
            raise fields.invalid(f"`{where}{kind}` must be an object")
        name = fields.text(about, "name", f"{where}{kind}.")
        said = fields.optional_text(about, "description", f"{where}{kind}.")
        if kind == "custom":
            tools.append(fields.custom_tool(name, said, about.get("format")))
            continue
        schema = fields.mapping(about, "parameters", f"{where}function.")
        strict = fields.flag(about, "strict", f"{where}function.")
        cache = fields.mapping(tool, "cache_control", where)
        tools.append(Tool(name, said, schema or NO_PARAMETERS, strict, cache=cache))
    return tuple(tools), tuple(hosted)


def _choice(choice: Any) -> str:
    if choice is None:
        return "auto"
    if choice in ("auto", "none", "required"):
        return str(choice)
    if isinstance(choice, dict):
        for kind in ("function", "custom"):
            if isinstance(choice.get(kind), dict):
                return f"name:{fields.text(choice[kind], 'name', f'tool_choice.{kind}.')}"
    raise fields.invalid("`tool_choice` must be auto, none, required or one function")


def _output(body: dict[str, Any]) -> Output | None:
    wanted = fields.mapping(body, "response_format")
    if wanted is None:
        return None
    match wanted.get("type"):
        case "text":
            return None
        case "json_object":
            return Output(None)
        case "json_schema":
            about = fields.mapping(wanted, "json_schema", "response_format.") or {}
            return fields.output(about, "response_format.json_schema.")
    raise fields.invalid("`response_format.type` must be text, json_object or json_schema")


def _usage(usage: Usage | None) -> dict[str, Any]:
    usage = usage or Usage(0, 0)
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
            "audio_tokens": usage.audio_input,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": usage.audio_output,
        },
    }


def answer(
    reply: Reply, *, model: str, identity: str, seconds: int, request: ModelRequest | None = None
) -> dict[str, Any]:
    """A whole `chat.completion`; `model` is the name the client asked for."""
    freeform = fields.freeform_names(request)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": reply.text or (None if reply.tools else ""),
        "refusal": None,
    }
    if thought := "".join(part.text for part in reply.thinking):
        message["reasoning_content"] = thought
    if reply.tools:
        message["tool_calls"] = [
            {
                "id": tool.id,
                "type": "custom",
                "custom": {"name": tool.name, "input": fields.freeform_input(tool.arguments)},
            }
            if tool.name in freeform
            else {
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

    def __init__(
        self,
        *,
        model: str,
        identity: str,
        seconds: int,
        with_usage: bool,
        request: ModelRequest | None = None,
    ) -> None:
        self._frame = {
            "id": f"chatcmpl-{identity}",
            "object": "chat.completion.chunk",
            "created": seconds,
            "model": model,
        }
        self._with_usage = with_usage
        self._begun = False
        self._freeform = fields.freeform_names(request)
        self._inputs: dict[int, str] = {}

    def write(self, event: Event) -> bytes:
        """The bytes of one event."""
        out = b""
        if not self._begun:
            self._begun = True
            out += self._chunk({"role": "assistant", "content": ""})
        match event:
            case TextDelta():
                out += self._chunk({"content": event.text})
            case ThinkingDelta():
                if event.text:
                    out += self._chunk({"reasoning_content": event.text})
            case ToolStart():
                out += self._start(event)
            case ToolDelta():
                if event.index in self._inputs:
                    self._inputs[event.index] += event.fragment
                else:
                    part = {"index": event.index, "function": {"arguments": event.fragment}}
                    out += self._chunk({"tool_calls": [part]})
            case Done():
                for index, arguments in self._inputs.items():
                    custom = {"input": fields.freeform_input(arguments)}
                    out += self._chunk({"tool_calls": [{"index": index, "custom": custom}]})
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

    def _start(self, event: ToolStart) -> bytes:
        call: dict[str, Any] = {"index": event.index, "id": event.id}
        if event.name in self._freeform:
            # Its text is inside JSON that is not whole yet: it is written at the end.
            self._inputs[event.index] = ""
            call |= {"type": "custom", "custom": {"name": event.name, "input": ""}}
        else:
            call |= {"type": "function", "function": {"name": event.name, "arguments": ""}}
        return self._chunk({"tool_calls": [call]})

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
