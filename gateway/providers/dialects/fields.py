"""Reading a client's JSON: every wrong field is a refusal that names it."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

from gateway.providers.conversation import ModelRequest, Output, Tool
from gateway.refusals import Code, Refusal


def invalid(message: str) -> Refusal:
    """A refusal of the request as such."""
    return Refusal(Code.INVALID_REQUEST, message)


def document(body: bytes) -> dict[str, Any]:
    """The request's JSON object. Raises Refusal (invalid_request)."""
    try:
        value = json.loads(body, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise invalid("the body is nested too deeply") from None
    except ValueError as error:
        raise invalid(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise invalid("the body must be a JSON object")
    if b"\\u" in body and not _encodable(value):
        raise invalid("the body has half of a surrogate pair, which is no character")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def text(source: dict[str, Any], name: str, where: str = "") -> str:
    """A required string."""
    value = source.get(name)
    if not isinstance(value, str):
        raise invalid(f"`{where}{name}` must be a string")
    return value


def optional_text(source: dict[str, Any], name: str, where: str = "") -> str:
    """An optional string; absent is empty."""
    return "" if source.get(name) is None else text(source, name, where)


def mapping(source: dict[str, Any], name: str, where: str = "") -> dict[str, Any] | None:
    """An optional object."""
    value = source.get(name)
    if value is not None and not isinstance(value, dict):
        raise invalid(f"`{where}{name}` must be an object")
    return value


def flag(source: dict[str, Any], name: str, where: str = "") -> bool | None:
    """An optional boolean."""
    value = source.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(f"`{where}{name}` must be true or false")
    return value


def objects(value: Any, name: str) -> list[dict[str, Any]]:
    """A list of objects; absent is empty."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise invalid(f"`{name}` must be a list of objects")
    return value


def parts(content: Any, name: str) -> list[dict[str, Any]]:
    """Content, which every dialect also takes as a plain string: its parts, none when empty."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return objects(content, name)


def number(source: dict[str, Any], name: str) -> float | None:
    """An optional number."""
    value = source.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise invalid(f"`{name}` must be a number")
    return value


def whole(source: dict[str, Any], name: str) -> int | None:
    """An optional integer."""
    value = source.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise invalid(f"`{name}` must be an integer")
    return value


def count(source: dict[str, Any], name: str) -> int | None:
    """An optional positive integer."""
    value = source.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise invalid(f"`{name}` must be a positive integer")
    return value


def strings(value: Any, name: str) -> tuple[str, ...]:
    """A string, or a list of strings; absent is empty."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise invalid(f"`{name}` must be a string or a list of strings")
    return tuple(value)


def size(value: Any) -> int:
    """About how many bytes a JSON value has."""
    return len(json.dumps(value, ensure_ascii=False).encode())


def sse(data: Any, event: str | None = None) -> bytes:
    """One server-sent event with a JSON body."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


# --- what OpenAI's two dialects share


def output(about: dict[str, Any], where: str) -> Output:
    """A `json_schema` that the answer must follow."""
    schema = mapping(about, "schema", where)
    return Output(
        schema or {},
        optional_text(about, "name", where) or "answer",
        optional_text(about, "description", where),
        flag(about, "strict", where),
    )


FREEFORM_SCHEMA = {
    "type": "object",
    "properties": {"input": {"type": "string", "description": "The whole input, as plain text."}},
    "required": ["input"],
    "additionalProperties": False,
}


def custom_tool(name: str, description: str, form: Any) -> Tool:
    """A custom tool: one text as its argument. Its grammar, if any, goes into the description."""
    grammar = form.get("grammar", form) if isinstance(form, dict) else {}
    definition = grammar.get("definition") if isinstance(grammar, dict) else None
    if isinstance(definition, str) and definition:
        description += f"\n\nThe input must follow this grammar:\n{definition}"
    return Tool(name, description, FREEFORM_SCHEMA, freeform=True)


def freeform(text: str) -> str:
    """A custom tool's text as the JSON arguments that other providers know it by."""
    return json.dumps({"input": text}, ensure_ascii=False)


def freeform_input(arguments: str) -> str:
    """Inverse of `freeform`; what is no such JSON was meant as the text itself."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    said = value.get("input") if isinstance(value, dict) else None
    return said if isinstance(said, str) else arguments


def freeform_names(request: ModelRequest | None) -> frozenset[str]:
    """The custom tools of a request, whose calls are written back as such."""
    return (
        frozenset(tool.name for tool in request.tools if tool.freeform) if request else frozenset()
    )
