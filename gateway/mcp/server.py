"""The MCP face, thin: JSON-RPC over Streamable HTTP with plain JSON responses, no session.

Specification: modelcontextprotocol.io, revision 2025-06-18 (transports, lifecycle, tools). A
server may answer a POST with one JSON object and need not offer a stream or a session; this one
does neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.providers.dialects import fields
from gateway.refusals import Refusal

VERSIONS = ("2025-06-18", "2025-03-26", "2024-11-05")
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
REFUSED = -32001
"""Our code for refusals (the range -32000…-32099 is the implementation's)."""


@dataclass(frozen=True, slots=True)
class Message:
    """A request (`id` set) or a notification (`id` None and `notification`)."""

    method: str
    params: Mapping[str, Any]
    id: int | str | None
    notification: bool


class Malformed(Exception):
    """Not a JSON-RPC message; `answer` is what to say."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer["error"]["message"])
        self.answer = answer


def parse(body: bytes) -> Message:
    """Read one message. Raises Malformed. Batches are refused (the protocol dropped them)."""
    try:
        value = fields.document(body)
    except Refusal as refusal:
        raise Malformed(failure(None, PARSE_ERROR, refusal.message)) from None
    if value.get("jsonrpc") != "2.0":
        raise Malformed(failure(None, INVALID_REQUEST, "expected one JSON-RPC 2.0 object"))
    method = value.get("method")
    if not isinstance(method, str):
        # A response to a request that this server never makes: taken, like a notification.
        return Message("", {}, None, notification=True)
    params = value.get("params") or {}
    if not isinstance(params, dict):
        raise Malformed(failure(value.get("id"), INVALID_PARAMS, "`params` must be an object"))
    return Message(method, params, value.get("id"), notification="id" not in value)


def initialize(message: Message) -> dict[str, Any]:
    """Answer to `initialize`: the client's version if we know it, else our newest."""
    asked = message.params.get("protocolVersion")
    return success(
        message.id,
        {
            "protocolVersion": asked if asked in VERSIONS else VERSIONS[0],
            "capabilities": {"tools": {"listChanged": False}},
            "serverInfo": {"name": "interlock-gateway", "version": "1"},
        },
    )


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


def refused(identity: Any, refusal: Refusal) -> dict[str, Any]:
    """A refusal as a JSON-RPC error: `data` holds its code and facts."""
    facts = refusal.body()
    return failure(identity, REFUSED, facts.pop("message"), facts)
