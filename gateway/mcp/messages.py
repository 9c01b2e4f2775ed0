"""JSON-RPC 2.0, for both sides of MCP: reading what a stranger wrote, and making answers. Pure.

What arrives here was written by an agent's sandbox or by somebody else's tool server. So `load` is
stricter than `json.loads`: whatever it lets through can be walked, hashed and written out again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from gateway.refusals import Refusal

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
HEADER_MISMATCH, UNSUPPORTED_VERSION = -32020, -32022
"""Of revision 2026-07-28 (basic, error codes)."""
RESOURCE_NOT_FOUND = -32002
"""Of revisions before 2026-07-28, which says INVALID_PARAMS instead."""
REFUSED = -31001
"""Our code for refusals: outside the range that JSON-RPC and MCP keep for themselves."""

DEEPEST = 100
"""Levels of nesting; deeper documents are refused, so that no walk over one runs out of stack."""


@dataclass(frozen=True, slots=True)
class Message:
    """A request (`id` set) or a notification (`id` None and `notification`).

    A response to a request that nobody made is a notification without a method.
    """

    method: str
    params: Mapping[str, Any]
    id: int | str | None
    notification: bool


class Malformed(Exception):
    """Not a JSON-RPC message; `answer` is what to say."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer["error"]["message"])
        self.answer = answer


def load(body: bytes | str) -> Any:
    """A JSON value. Raises ValueError: not JSON or not UTF-8, a number that JSON cannot write
    (NaN, infinity), a lone surrogate, nested deeper than `DEEPEST`."""
    text = body.decode() if isinstance(body, bytes) else body
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text.count("[") + text.count("{") > DEEPEST and _depth(value) > DEEPEST:
        raise ValueError("nested too deeply")
    if "\\u" in text:
        # UnicodeEncodeError is a ValueError: what cannot be written was not text.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def parse(body: bytes) -> Message:
    """Read one message. Raises Malformed. Batches are refused (the protocol dropped them)."""
    try:
        value = load(body)
    except ValueError:
        raise Malformed(failure(None, PARSE_ERROR, "the body is not JSON")) from None
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise Malformed(failure(None, INVALID_REQUEST, "expected one JSON-RPC 2.0 object"))
    identity = value.get("id")
    if "id" in value and (isinstance(identity, bool) or not isinstance(identity, int | str)):
        raise Malformed(failure(None, INVALID_REQUEST, "`id` must be a string or an integer"))
    method = value.get("method")
    if method is None and ("result" in value or "error" in value):
        return Message("", {}, None, notification=True)
    if not isinstance(method, str) or not method:
        raise Malformed(failure(identity, INVALID_REQUEST, "`method` must be a string"))
    params = value.get("params", {})
    if not isinstance(params, dict):
        raise Malformed(failure(identity, INVALID_PARAMS, "`params` must be an object"))
    return Message(method, params, identity, notification="id" not in value)


def success(identity: Any, result: Any) -> dict[str, Any]:
    """A JSON-RPC result."""
    return {"jsonrpc": "2.0", "id": identity, "result": result}


def failure(
    identity: Any, code: int, message: str, data: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A JSON-RPC error."""
    error: dict[str, Any] = {"code": code, "message": message}
    if data:
        error["data"] = dict(data)
    return {"jsonrpc": "2.0", "id": identity, "error": error}


def refused(identity: Any, refusal: Refusal, code: int = REFUSED) -> dict[str, Any]:
    """A refusal as a JSON-RPC error: `data` holds its code and facts."""
    facts = refusal.body()
    return failure(identity, code, facts.pop("message"), facts)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _number(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text} is out of range")
    return value


def _depth(value: Any) -> int:
    deepest, todo = 0, [(value, 1)]
    while todo:
        node, depth = todo.pop()
        deepest = max(deepest, depth)
        if isinstance(node, dict):
            todo.extend((item, depth + 1) for item in node.values())
        elif isinstance(node, list):
            todo.extend((item, depth + 1) for item in node)
    return deepest
