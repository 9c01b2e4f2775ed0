"""Tools over HTTP: `/mcp` in every revision that is served, and large results piece by piece."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from gateway.app.credentials import credential, head
from gateway.app.exchange import Exchange
from gateway.app.headers import figures, known
from gateway.door import Door
from gateway.live import Finished, LiveCall
from gateway.mcp import server
from gateway.mcp.finder import Listing
from gateway.mcp.server import ArtifactList, ArtifactRead, Reply, ToolCall
from gateway.refusals import Code, Refusal

ARTIFACTS = "/v1/artifacts/"
MOST_BYTES = 1024 * 1024
"""Of an artifact, in one answer."""


class ToolFace:
    """Answers requests for tools. `end` waits for a call and tells of it."""

    def __init__(self, door: Door, end: Callable[[LiveCall], Awaitable[Finished]]) -> None:
        self._door = door
        self._end = end

    async def answer(self, exchange: Exchange) -> None:
        """One MCP message."""
        asked = server.read(exchange.method, exchange.headers.items(), exchange.body)
        if isinstance(asked, Reply):
            _send(exchange, asked)
            return
        said: dict[bytes, bytes] = {}
        try:
            caller = credential(exchange)
            self._door.caller(caller)
            listing = await self._door.listing(caller) if asked.lists else None
            todo = server.respond(asked, listing or (lambda: Listing(())))
            if isinstance(todo, ToolCall):
                reply = await self._call(exchange, caller, todo, said)
            elif isinstance(todo, ArtifactList):
                reply = todo.listed(self._door.artifacts(caller, todo.skip, server.PAGE))
            elif isinstance(todo, ArtifactRead):
                piece = self._door.artifact(caller, todo.id, todo.offset, todo.limit)
                said[b"X-Interlock-Label"] = str(piece.label).encode()
                reply = todo.contents(
                    piece.text,
                    media=piece.media,
                    total=piece.total,
                    next_offset=piece.next_offset,
                )
            else:
                reply = todo
        except Refusal as refusal:
            reply = asked.refuse(refusal)
        _send(exchange, reply, said)

    async def _call(
        self, exchange: Exchange, caller: str, todo: ToolCall, said: dict[bytes, bytes]
    ) -> Reply:
        call = await self._door.tool(
            caller,
            todo.name,
            todo.arguments,
            request_hash=_hash(["/mcp", todo.name, todo.arguments]),
            head=head(exchange),
        )
        try:
            end = await self._end(call)
        finally:
            said |= known(call)
        said |= figures(end)
        return todo.exchange.result(end.response)

    async def artifact(self, exchange: Exchange) -> None:
        """`GET /v1/artifacts/ID?offset=0&limit=65536`: the bytes as they are."""
        numbers = {"offset": 0, "limit": MOST_BYTES}
        try:
            asked = parse_qs(exchange.query, max_num_fields=len(numbers))
        except ValueError:
            asked = {"": [""]}
        for name, values in asked.items():
            if name not in numbers or not values[-1].isascii() or not values[-1].isdigit():
                raise Refusal(
                    Code.INVALID_REQUEST, "`offset` and `limit` are whole numbers, each there once"
                )
            numbers[name] = min(int(values[-1][:15]), 2**40)
        piece = self._door.artifact(
            credential(exchange),
            exchange.path.removeprefix(ARTIFACTS),
            numbers["offset"],
            min(numbers["limit"], MOST_BYTES),
        )
        # RFC 9110, 14.4: a range has a last byte, so nothing of it is an unsatisfied range.
        span = b"*"
        if piece.content:
            span = b"%d-%d" % (piece.offset, piece.offset + len(piece.content) - 1)
        headers = {
            b"X-Interlock-Label": str(piece.label).encode(),
            b"content-range": b"bytes %b/%d" % (span, piece.total),
        }
        exchange.respond(200, piece.content, headers, content_type=piece.media.encode())


def _send(exchange: Exchange, reply: Reply, more: dict[bytes, bytes] | None = None) -> None:
    headers = {name.lower().encode(): value.encode() for name, value in reply.headers.items()}
    kind = headers.pop(b"content-type", b"application/json")
    exchange.respond(reply.status, reply.body, {**headers, **(more or {})}, content_type=kind)


def _hash(value: Any) -> str:
    # Not canonical_json: a client's request may hold floats, which repr renders exactly.
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
