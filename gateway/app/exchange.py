"""Reading an ASGI request and writing its response, and nothing about what they mean."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.refusals import Code, Refusal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY = 64 * 1024 * 1024
"""Bytes of a request body; conversations with images are large."""


def header(scope: Scope, name: bytes) -> str | None:
    """First value of a request header (`name` in lower case)."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return None


async def read_body(receive: Receive) -> bytes:
    """The whole request body. Raises Refusal (invalid_request) when it is too large."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client went away before its request was complete")
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            raise Refusal(Code.INVALID_REQUEST, f"the body is larger than {MAX_BODY} bytes")
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def begin(send: Send, status: int, headers: dict[str, str], *, content_type: str) -> None:
    """Send the response's head."""
    pairs = [(b"content-type", content_type.encode())]
    pairs.extend((name.lower().encode(), value.encode()) for name, value in headers.items())
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def write(send: Send, body: bytes, *, more: bool) -> None:
    """Send a piece of the response's body."""
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def respond(
    send: Send, status: int, document: Any, headers: dict[str, str] | None = None
) -> None:
    """Send a whole JSON response; `document` None sends no body."""
    body = b"" if document is None else json.dumps(document, ensure_ascii=False).encode()
    sized = {**(headers or {}), "content-length": str(len(body))}
    await begin(send, status, sized, content_type="application/json")
    await write(send, body, more=False)
