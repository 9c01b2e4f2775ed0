"""Reading a client's JSON: every wrong field is a refusal that names it."""

from __future__ import annotations

import json
from typing import Any

from gateway.refusals import Code, Refusal


def invalid(message: str) -> Refusal:
    """A refusal of the request as such."""
    return Refusal(Code.INVALID_REQUEST, message)


def document(body: bytes) -> dict[str, Any]:
    """The request's JSON object. Raises Refusal (invalid_request)."""
    try:
        value = json.loads(body)
    except ValueError as error:
        raise invalid(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise invalid("the body must be a JSON object")
    return value


def text(source: dict[str, Any], name: str, where: str = "") -> str:
    """A required string."""
    value = source.get(name)
    if not isinstance(value, str):
        raise invalid(f"`{where}{name}` must be a string")
    return value


def objects(value: Any, name: str) -> list[dict[str, Any]]:
    """A list of objects; absent is empty."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise invalid(f"`{name}` must be a list of objects")
    return value


def number(source: dict[str, Any], name: str) -> float | None:
    """An optional number."""
    value = source.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise invalid(f"`{name}` must be a number")
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


def sse(data: Any, event: str | None = None) -> bytes:
    """One server-sent event with a JSON body."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
