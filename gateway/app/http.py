"""The gateway's HTTP/1.1 server: a protocol on httptools' parser, and nothing about what is asked.

Why not uvicorn: a server that knows nothing of ASGI costs a third per request, which is most of
what the whole gateway may cost (docs/adr/0026-own-http-protocol.md), and it can hold a client to
its time and size while the request is still coming in. Parsing is httptools' (llhttp, strict):
whatever is ambiguous about where a request ends is refused there.

A request is handed over when it is complete. One connection carries out one request at a time, in
order; what a client pipelines waits.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast

import httptools

MAX_BODY = 64 * 1024 * 1024
"""Bytes of a request body; conversations with images are large."""
MAX_BUFFERED = 512 * 1024 * 1024
"""Bytes of all bodies that are coming in at one time."""
MAX_HEAD = 64 * 1024
MAX_PIPELINED = 16
REQUEST_SECONDS = 30.0
"""A request that has begun must go on: so long may a client be silent in the middle of it."""
SLOWEST = 16 * 1024
"""Bytes a second that a body must come in at over its whole length, beside REQUEST_SECONDS."""
IDLE_SECONDS = 75.0
SINGLE = frozenset(
    {b"authorization", b"x-api-key", b"content-length", b"host", b"x-interlock-call-key"}
)
"""Headers that must not come twice: two readers could each believe another one."""
_STATUS = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
Headers = Mapping[bytes, bytes]
Handler = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request, and the way to answer it. Belongs to its event loop."""

    __slots__ = ("_begun", "_close", "_connection", "_ended", "body", "gone", "headers", "method",
                 "path", "principal", "query")  # fmt: skip

    def __init__(
        self,
        connection: _Connection,
        *,
        method: str,
        path: str,
        query: str,
        headers: dict[bytes, bytes],
        body: bytes,
        close: bool,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        """Names in lower case."""
        self.body = body
        self.principal = connection.server.principal
        """Who calls, when the listener stands for one principal."""
        self.gone = False
        """The client has closed the connection."""
        self._connection = connection
        self._close = close
        self._begun = False
        self._ended = False

    @property
    def begun(self) -> bool:
        """Has the head of the response been sent?"""
        return self._begun

    def header(self, name: bytes) -> str | None:
        """A request header (`name` in lower case)."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def respond(
        self,
        status: int,
        body: bytes,
        headers: Headers | None = None,
        *,
        content_type: bytes = b"application/json",
    ) -> None:
        """Send a whole response."""
        if self._begun:
            return
        self._begun = True
        parts = [_STATUS[status], b"content-type: ", content_type, b"\r\ncontent-length: ",
                 str(len(body)).encode(), b"\r\n"]  # fmt: skip
        if headers:
            for name, value in headers.items():
                parts += (name, b": ", value, b"\r\n")
        if self._close:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        if self.method != "HEAD":
            parts.append(body)
        self._send(b"".join(parts))
        self._finish()

    def begin(self, status: int, headers: Headers, *, content_type: bytes) -> None:
        """Send the head of a response whose length is not known yet."""
        self._begun = True
        parts = [_STATUS[status], b"content-type: ", content_type,
                 b"\r\ntransfer-encoding: chunked\r\n"]  # fmt: skip
        for name, value in headers.items():
            parts += (name, b": ", value, b"\r\n")
        if self._close:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        self._send(b"".join(parts))

    def write(self, data: bytes) -> None:
        """Send a piece of the body; nothing for nothing, as an empty chunk would end it."""
        if data:
            self._send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self, data: bytes = b"") -> None:
        """Send the last piece."""
        self.write(data)
        self._send(b"0\r\n\r\n")
        self._finish()

    def abort(self) -> None:
        """Close the connection: a response that has begun cannot be ended in good order."""
        self._close = True
        self._finish()

    def _send(self, data: bytes) -> None:
        if not self.gone:
            self._connection.transport.write(data)

    def _finish(self) -> None:
        if not self._ended:
            self._ended = True
            self._connection.answered(close=self._close)


@dataclass(eq=False)
class Server:
    """What all connections of one listener share."""

    handler: Handler
    gate: Gate
    principal: str | None = None

    def protocol(self) -> asyncio.Protocol:
        """A new connection's protocol."""
        return _Connection(self)


@dataclass(eq=False)
class Gate:
    """Every connection of the process: how much they hold, who is slow, and closing them all."""

    clock: Callable[[], float]
    """Seconds; monotonic."""
    connections: set[_Connection] = field(default_factory=set)
    buffered: int = 0
    closing: bool = False

    def sweep(self) -> None:
        """Refuse or close whoever has been silent too long; called about once a second."""
        now = self.clock()
        for connection in tuple(self.connections):
            connection.look_at(now)

    def close(self) -> None:
        """No further request on any connection; those that are idle close now."""
        self.closing = True
        for connection in tuple(self.connections):
            connection.leave()

    def abort(self) -> None:
        """Close every connection, whatever it is doing."""
        for connection in tuple(self.connections):
            connection.transport.abort()


class _Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self.server = server
        self.transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Exchange] = deque()
        self._current: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._paused = False
        self._heard = 0.0
        self._begun_at = 0.0
        self._reading = False
        """A request has begun to come in and is not complete."""
        self._refused = False
        self._head = 0
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self._size = 0
        self._keep = True

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._heard = self.server.gate.clock()
        self.server.gate.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        gate = self.server.gate
        gate.connections.discard(self)
        gate.buffered -= self._size
        self._size = 0
        self._waiting.clear()
        if self._current is not None:
            self._current.gone = True

    def data_received(self, data: bytes) -> None:
        self._heard = self.server.gate.clock()
        if self._refused:
            return
        if not self._parts:
            self._head += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "upgrading the connection is not supported")
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, _Refused):
                self._refuse(cause.status, cause.message)
            else:
                self._refuse(400, "the request is not valid HTTP")
        except httptools.HttpParserError:
            self._refuse(400, "the request is not valid HTTP")
        if self._reading and not self._parts and self._head > MAX_HEAD:
            self._refuse(431, f"the head of the request is larger than {MAX_HEAD} bytes")

    def eof_received(self) -> None:
        return None

    # --- httptools

    def on_message_begin(self) -> None:
        self._reading = True
        self._begun_at = self.server.gate.clock()
        self._url, self._headers, self._parts = b"", {}, []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in self._headers:
            if name in SINGLE:
                raise _Refused(400, f"the header {name.decode('latin-1')} came twice")
            value = self._headers[name] + b", " + value
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        self._keep = self._parser.should_keep_alive()
        length = self._headers.get(b"content-length", b"0")
        if len(length) > 12 or (length.isdigit() and int(length) > MAX_BODY):
            raise _Refused(413, f"the body is larger than {MAX_BODY} bytes")
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and self._current is None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        self.server.gate.buffered += len(body)
        if self._size > MAX_BODY:
            raise _Refused(413, f"the body is larger than {MAX_BODY} bytes")
        if self.server.gate.buffered > MAX_BUFFERED:
            raise _Refused(503, "too many large requests are coming in; try again")
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self._reading = False
        self._head = 0
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self.server.gate.buffered -= self._size
        self._size = 0
        self._parts = []
        path, _, query = self._url.partition(b"?")
        exchange = Exchange(
            self,
            method=self._parser.get_method().decode("latin-1"),
            path=path.decode("latin-1"),
            query=query.decode("latin-1"),
            headers=self._headers,
            body=body,
            close=not self._keep or self.server.gate.closing,
        )
        if self._current is None:
            self._carry_out(exchange)
            return
        self._waiting.append(exchange)
        if len(self._waiting) >= MAX_PIPELINED and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    # --- one after the other

    def _carry_out(self, exchange: Exchange) -> None:
        self._current = exchange
        self._task = asyncio.get_running_loop().create_task(self._run(exchange))

    async def _run(self, exchange: Exchange) -> None:
        await self.server.handler(exchange)
        if exchange is self._current:
            # The handler left without an answer, or in the middle of one.
            exchange.abort()

    def answered(self, *, close: bool) -> None:
        """The current response is complete."""
        self._current = None
        if close or self.server.gate.closing:
            self._waiting.clear()
            self.transport.close()
            return
        self._heard = self.server.gate.clock()
        if self._waiting:
            self._carry_out(self._waiting.popleft())
            if self._paused and len(self._waiting) < MAX_PIPELINED:
                self._paused = False
                self.transport.resume_reading()

    def leave(self) -> None:
        """Close as soon as nothing is being answered."""
        if self._current is None:
            self.transport.close()

    def look_at(self, now: float) -> None:
        """Has this client kept to its time?"""
        if self._reading and self._current is None:
            allowed = REQUEST_SECONDS + self._size / SLOWEST
            if now - self._heard > REQUEST_SECONDS or now - self._begun_at > allowed:
                self._refuse(408, "the request did not come in time")
        elif self._current is None and now - self._heard > IDLE_SECONDS:
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """What cannot be read is answered in OpenAI's shape, as nobody knows the client's."""
        if self._refused:
            return
        self._refused = True
        codes = {408: "too_slow", 413: "too_large"}
        error = {"message": message, "type": "invalid_request_error", "param": None,
                 "code": codes.get(status, "invalid_request")}  # fmt: skip
        body = json.dumps({"error": error}).encode()
        if self._current is None:
            head = _STATUS[status] + b"content-type: application/json\r\nconnection: close\r\n"
            self.transport.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
            self.transport.close()
        else:
            # Not before the answer that is under way: it would be taken for that.
            self._current._close = True


class _Refused(Exception):
    """Raised in a parser's callback: the request is not taken."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def as_json(document: Any) -> bytes:
    """A JSON document as the body of a response."""
    return json.dumps(document, ensure_ascii=False).encode()
