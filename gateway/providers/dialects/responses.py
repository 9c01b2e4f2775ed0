"""OpenAI Responses as clients speak it: requests, whole answers, errors.

https://platform.openai.com/docs/api-reference/responses. Nothing is stored here, so `store` is
ignored and a request that builds on a stored one (`previous_response_id`, `conversation`, item
references) can only be served by a provider that speaks Responses itself. The objects of
answers are in `responses_items`, the stream in `responses_stream`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gateway.policy import Api
from gateway.providers.conversation import (
    Document,
    Foreign,
    Image,
    Message,
    ModelRequest,
    Output,
    Part,
    Reply,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
)
from gateway.providers.dialects import fields, openai
from gateway.providers.dialects import responses_items as items
from gateway.providers.dialects.responses_stream import Writer
from gateway.refusals import Refusal

__all__ = ["API", "PATH", "Writer", "answer", "error", "read"]

API: Api = "responses"
PATH = "/v1/responses"
NATIVE_ONLY = ("previous_response_id", "conversation", "background", "prompt", "top_logprobs")
"""What would change the answer, and no other API has."""
MAKER = "openai:"
"""Whose `encrypted_content` it is when it is not one that we handed on from another provider; the
signature is `openai:<id>:<encrypted>`."""
HANDED_ON = ("anthropic:", "chat:", items.REDACTED)


def read(body: dict[str, Any]) -> ModelRequest:
    """A client's request. Raises Refusal (invalid_request) naming the field."""
    system, messages = _input(body.get("input"))
    instructions = fields.optional_text(body, "instructions")
    tools, hosted = _tools(body)
    reasoning = fields.mapping(body, "reasoning") or {}
    return ModelRequest(
        model=fields.text(body, "model"),
        messages=messages,
        system="\n\n".join(text for text in (instructions, *system) if text),
        tools=tools,
        hosted_tools=hosted,
        tool_choice=_choice(body.get("tool_choice"), tools),
        parallel_tools=fields.flag(body, "parallel_tool_calls"),
        max_output_tokens=fields.count(body, "max_output_tokens"),
        temperature=fields.number(body, "temperature"),
        top_p=fields.number(body, "top_p"),
        output=_output(body),
        user=fields.optional_text(body, "user") or None,
        effort=fields.optional_text(reasoning, "effort", "reasoning.") or None,
        dialect=API,
        native_only=tuple(f"`{name}`" for name in NATIVE_ONLY if body.get(name)),
    )


def _input(given: Any) -> tuple[list[str], tuple[Message, ...]]:
    """System texts and messages. One item is one turn here; providers merge neighbours."""
    if isinstance(given, str):
        return [], (Message("user", (Text(given),)),)
    listed = fields.objects(given, "input")
    if not listed:
        raise fields.invalid("`input` must be a string or a list of items, and not empty")
    system: list[str] = []
    messages: list[Message] = []
    for index, item in enumerate(listed):
        where = f"input[{index}]."
        match item.get("type", "message"):
            case "message":
                role = fields.text(item, "role", where)
                parts = tuple(_parts(item.get("content"), where))
                if role in ("system", "developer"):
                    system.extend(part.text for part in parts if isinstance(part, Text))
                elif role in ("user", "assistant"):
                    messages.append(Message(role, parts))
                else:
                    raise fields.invalid(
                        f"`{where}role` is {role!r}; expected user, assistant, system, developer"
                    )
            case "function_call" | "custom_tool_call" as kind:
                messages.append(Message("assistant", (_call(item, kind, where),)))
            case "function_call_output" | "custom_tool_call_output":
                messages.append(Message("user", (_result(item, where),)))
            case "reasoning":
                messages.append(Message("assistant", (_reasoning(item, where),)))
            case str(kind):
                messages.append(Message("user", (Foreign(kind, fields.size(item)),)))
            case kind:
                raise fields.invalid(f"`{where}type` is {kind!r}; expected a string")
    return system, tuple(messages)


def _parts(content: Any, where: str) -> Iterator[Part]:
    for part in fields.parts(content, f"{where}content"):
        at = f"{where}content."
        match part.get("type"):
            case "input_text" | "output_text" | "text":
                yield Text(fields.text(part, "text", at))
            case "refusal":
                yield Text(fields.text(part, "refusal", at))
            case "input_image" if part.get("image_url") is not None:
                yield Image(fields.text(part, "image_url", at))
            case "input_file":
                yield _file(part, at)
            case str(kind):
                yield Foreign(kind, fields.size(part))
            case kind:
                raise fields.invalid(f"`{at}type` is {kind!r}; expected a string")


def _file(part: dict[str, Any], at: str) -> Part:
    name = fields.optional_text(part, "filename", at) or "document.pdf"
    data = fields.optional_text(part, "file_data", at)
    url = fields.optional_text(part, "file_url", at)
    if data.startswith("data:application/pdf;base64,"):
        return Document(data, name)
    return Document(url, name) if url else Foreign("input_file", fields.size(part))


def _call(item: dict[str, Any], kind: str, where: str) -> ToolUse:
    name = fields.text(item, "name", where)
    namespace = fields.optional_text(item, "namespace", where)
    if kind == "custom_tool_call":
        arguments = fields.freeform(fields.text(item, "input", where))
    else:
        arguments = fields.text(item, "arguments", where)
    return ToolUse(fields.text(item, "call_id", where), flat(namespace, name), arguments)


def _result(item: dict[str, Any], where: str) -> ToolResult:
    output = item.get("output")
    if isinstance(output, str):
        return ToolResult(fields.text(item, "call_id", where), output)
    said = list(_parts(output, f"{where}output."))
    return ToolResult(
        fields.text(item, "call_id", where),
        "".join(part.text for part in said if isinstance(part, Text)),
        images=tuple(part for part in said if isinstance(part, Image)),
    )


def _reasoning(item: dict[str, Any], where: str) -> Thinking:
    texts = fields.objects(item.get("content"), f"{where}content") or fields.objects(
        item.get("summary"), f"{where}summary"
    )
    said = "".join(fields.text(part, "text", where) for part in texts)
    secret = fields.optional_text(item, "encrypted_content", where)
    if secret and not secret.startswith(HANDED_ON):
        identity = fields.optional_text(item, "id", where)
        return Thinking(said, f"{MAKER}{identity}:{secret}")
    return Thinking(said, secret.removeprefix(items.REDACTED), secret.startswith(items.REDACTED))


def without_foreign(given: Any) -> Any:
    """A request's input for OpenAI itself, without the reasoning of other providers that this
    gateway handed on: OpenAI could not decrypt it."""
    if not isinstance(given, list):
        return given
    return [item for item in given if not (isinstance(item, dict) and _foreign(item))]


def _foreign(item: dict[str, Any]) -> bool:
    secret = item.get("encrypted_content")
    return isinstance(secret, str) and secret.startswith(HANDED_ON)


def flat(namespace: str, name: str) -> str:
    """The one name of a tool of a group, for APIs without groups."""
    return f"{namespace}__{name}" if namespace else name


def _tools(body: dict[str, Any]) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    tools: list[Tool] = []
    hosted: list[str] = []
    for index, tool in enumerate(fields.objects(body.get("tools"), "tools")):
        where = f"tools[{index}]."
        kind = fields.text(tool, "type", where)
        if kind == "namespace":
            group = fields.text(tool, "name", where)
            for inner in fields.objects(tool.get("tools"), f"{where}tools"):
                tools.extend(_tool(inner, f"{where}tools.", group))
        elif found := list(_tool(tool, where, "")):
            tools.extend(found)
        else:
            hosted.append(kind)
    return tuple(tools), tuple(hosted)


def _tool(tool: dict[str, Any], where: str, group: str) -> Iterator[Tool]:
    if tool.get("type") not in ("function", "custom"):
        return
    name = flat(group, fields.text(tool, "name", where))
    said = fields.optional_text(tool, "description", where)
    if tool["type"] == "custom":
        yield fields.custom_tool(name, said, tool.get("format"))
        return
    schema = fields.mapping(tool, "parameters", where) or openai.NO_PARAMETERS
    yield Tool(name, said, schema, fields.flag(tool, "strict", where), namespace=group)


def _choice(choice: Any, tools: Sequence[Tool]) -> str:
    if choice is None:
        return "auto"
    if choice in ("auto", "none", "required"):
        return str(choice)
    if isinstance(choice, dict):
        if choice.get("type") in ("function", "custom"):
            name = fields.text(choice, "name", "tool_choice.")
            return f"name:{flat(fields.optional_text(choice, 'namespace', 'tool_choice.'), name)}"
        if choice.get("type") == "allowed_tools" and choice.get("mode") in ("auto", "required"):
            return str(choice["mode"])
        if isinstance(choice.get("type"), str) and not tools:
            return "auto"  # one that the provider runs itself: `hosted_tools` says so
    raise fields.invalid("`tool_choice` must be auto, none, required or one function")


def _output(body: dict[str, Any]) -> Output | None:
    wanted = fields.mapping(fields.mapping(body, "text") or {}, "format", "text.")
    match (wanted or {}).get("type", "text"):
        case "text":
            return None
        case "json_object":
            return Output(None)
        case "json_schema":
            return fields.output(wanted or {}, "text.format.")
    raise fields.invalid("`text.format.type` must be text, json_object or json_schema")


def answer(
    reply: Reply, *, model: str, identity: str, seconds: int, request: ModelRequest | None = None
) -> dict[str, Any]:
    """A whole `response`; `model` is the name the client asked for."""
    output = [
        items.reasoning(thought, f"rs_{identity}_{i}") for i, thought in enumerate(reply.thinking)
    ]
    if reply.text or not reply.tools:
        output.append(items.message(reply.text, f"msg_{identity}"))
    output.extend(
        items.call(tool, f"fc_{identity}_{index}", request)
        for index, tool in enumerate(reply.tools)
    )
    return items.response(
        model=model,
        identity=identity,
        seconds=seconds,
        request=request,
        output=output,
        stop=reply.stop,
        usage=reply.usage,
    )


def error(refusal: Refusal) -> dict[str, Any]:
    """OpenAI's error object with the gateway's code and facts."""
    return openai.error(refusal)
