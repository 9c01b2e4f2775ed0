"""The gateway's HTTP/1.1 server: a protocol on httptools' parser, and nothing about what is asked.

Why not uvicorn: a server that knows nothing of ASGI costs a third per request, which is most of
what the whole gateway may cost (docs/adr/0026-own-http-protocol.md), and it can hold a client to
its time and size while the request is still coming in. Parsing is httptools' (llhttp, strict):
whatever is ambiguous about where a request ends is refused there.

A request is handed over when it is complete. One connection carries out one request at a time, in
order; what a client pipelines waits, and so it does while the client does not read its answers. A
request that cannot be taken is handed over too, with the reason (`Exchange.refused`), so that its
client hears it in its own dialect.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import httptools

from gateway.app.exchange import Exchange
from gateway.refusals import Code, Refusal

MAX_BODY = 64 * 1024 * 1024
"""Bytes of a request body; conversations with images are large."""
MAX_BUFFERED = 512 * 1024 * 1024
"""Bytes of all bodies that are coming in, wait, or are being answered."""
MAX_HEAD = 64 * 1024
"""Bytes of a request beside its body."""
MAX_HEADERS = 128
MAX_PIPELINED = 16
REQUEST_SECONDS = 30.0
"""A request that has begun must go on: so long may a client be silent in the middle of it."""
SLOWEST = 16 * 1024
"""Bytes a second that a body must come in at over its whole length, beside REQUEST_SECONDS."""
IDLE_SECONDS = 75.0
SEND_SECONDS = 30.0
"""So long may a client read nothing of what waits for it."""
LINGER_SECONDS = 5.0
"""So long is read on, and thrown away, after a request was refused in the middle: closing at once
would reset the connection, and the client might never see why."""
SINGLE = frozenset(
    {b"authorization", b"x-api-key", b"content-length", b"host", b"x-interlock-call-key"}
)
"""Headers that must not come twice: two readers could each believe another one."""
Handler = Callable[[Exchange], Awaitable[None]]


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
        """Nothing more is read: enough waits already."""
        self._full = False
        """Nothing more is answered: the client does not read what was."""
        self._half_closed = False
        """The client sends nothing more, but may still read."""
        self._heard = 0.0
        self._begun_at = 0.0
        self._written = self._left = 0
        self._left_at = 0.0
        """Bytes given to the transport; those that had left at the last look, and since when."""
        self._reading = False
        """A request has begun to come in and is not complete."""
        self._refused_at: float | None = None
        """When a request was refused: nothing is read after it."""
        self._forget()

    def _forget(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._head = self._count = 0
        self._in_body = False
        self._expects = False
        self._keep = True
        self._chunked = True
        self._parts: list[bytes] = []
        self._size = 0
        self._beside = 0
        """Bytes that have come for the request and are not of its body."""

    @property
    def principal(self) -> str | None:
        """Who calls, when the listener stands for one principal."""
        return self.server.principal

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._heard = self._left_at = self.server.gate.clock()
        self.server.gate.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        gate = self.server.gate
        gate.connections.discard(self)
        gate.buffered -= self._size + sum(len(exchange.body) for exchange in self._waiting)
        self._waiting.clear()
        self._reading = False
        self._forget()
        if self._current is not None:
            self._current.gone = True

    def data_received(self, data: bytes) -> None:
        self._heard = self.server.gate.clock()
        if self._refused_at is not None:
            return
        self._beside += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, Refusal) else _invalid())
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(_invalid())
        # Framing may take as much as the body: some clients write chunks of a few bytes.
        if self._reading and self._beside > MAX_HEAD + self._size:
            self._refuse(_too_large(f"the head of the request is larger than {MAX_HEAD} bytes"))

    def eof_received(self) -> bool:
        # A client may say that it has sent everything and wait for its answers.
        self._half_closed = True
        return self._refused_at is None and (self._current is not None or bool(self._waiting))

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._next()

    # --- httptools

    def on_message_begin(self) -> None:
        self._reading = True
        self._begun_at = self.server.gate.clock()

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._grow(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            return  # a trailer: it must not pass for a header (RFC 9110, 6.5.1)
        name = name.lower()
        self._grow(len(name) + len(value))
        self._count += 1
        if self._count > MAX_HEADERS:
            raise _too_large(f"the request has more than {MAX_HEADERS} headers")
        if name in self._headers:
            if name in SINGLE:
                raise _invalid(f"the header {name.decode('latin-1')} came twice")
            value = self._headers[name] + b", " + value
        self._headers[name] = value

    def _grow(self, size: int) -> None:
        self._head += size
        if self._head > MAX_HEAD:
            raise _too_large(f"the head of the request is larger than {MAX_HEAD} bytes")

    def on_headers_complete(self) -> None:
        self._in_body = True
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise _invalid(f"HTTP/{version} is not supported; use HTTP/1.1")
        self._chunked = version == "1.1"
        self._keep = self._chunked and self._parser.should_keep_alive()
        if self._parser.should_upgrade():
            raise _invalid("upgrading the connection is not supported; use plain HTTP/1.1")
        coding = self._headers.get(b"transfer-encoding")
        if coding is not None and (coding.lower() != b"chunked" or not self._chunked):
            raise _invalid("the only supported Transfer-Encoding is `chunked`, of HTTP/1.1")
        length = self._headers.get(b"content-length", b"0")
        if len(length) > 12 or int(length) > MAX_BODY:
            raise _too_large(f"the body is larger than {MAX_BODY} bytes")
        self._expects = self._headers.get(b"expect", b"").lower() == b"100-continue"
        if self._current is None and not self._waiting:
            self._invite()

    def on_body(self, body: bytes) -> None:
        gate = self.server.gate
        self._size += len(body)
        self._beside -= len(body)
        gate.buffered += len(body)
        if self._size > MAX_BODY:
            raise _too_large(f"the body is larger than {MAX_BODY} bytes")
        if gate.buffered > MAX_BUFFERED:
            raise Refusal(
                Code.OVERLOADED, "too many large requests are here already; try again in a moment"
            )
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self._reading = False
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        exchange = self._exchange(body, close=not self._keep or self.server.gate.closing)
        self._forget()
        self._take(exchange)

    def _exchange(self, body: bytes, *, close: bool, refused: Refusal | None = None) -> Exchange:
        path, _, query = self._url.partition(b"?")
        return Exchange(
            self,
            method=self._parser.get_method().decode("latin-1"),
            path=path.decode("latin-1"),
            query=query.decode("latin-1"),
            headers=self._headers,
            body=body,
            close=close,
            chunked=self._chunked,
            refused=refused,
        )

    # --- one after the other

    def _take(self, exchange: Exchange) -> None:
        self._waiting.append(exchange)
        self._next()
        if len(self._waiting) >= MAX_PIPELINED and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def _next(self) -> None:
        if self._current is not None or self._full:
            return
        if self._waiting:
            self._current = exchange = self._waiting.popleft()
            self._task = asyncio.get_running_loop().create_task(self._run(exchange))
            if self._paused and len(self._waiting) < MAX_PIPELINED:
                self._paused = False
                self.transport.resume_reading()
        elif self._half_closed:
            self.transport.close()
        elif self._reading:
            self._invite()

    def _invite(self) -> None:
        if self._expects:
            self._expects = False
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self.server.handler(exchange)
        finally:
            self.server.gate.buffered -= len(exchange.body)
            if exchange is self._current:
                # The handler left without an answer, or in the middle of one.
                exchange.abort()

    def answered(self, *, close: bool) -> None:
        """The current response is complete."""
        self._current = None
        if close or self.server.gate.closing:
            self._leave()
            return
        self._heard = self._begun_at = self.server.gate.clock()
        self._next()

    def send(self, data: bytes) -> None:
        """Give bytes to the transport."""
        self._written += len(data)
        self.transport.write(data)

    @property
    def unsent(self) -> int:
        """Bytes that the client has not taken yet."""
        return self.transport.get_write_buffer_size()

    def drop(self) -> None:
        """Close at once; what is unsent is lost."""
        if self._current is not None:
            self._current.gone = True
        self.transport.abort()

    def leave(self) -> None:
        """Close as soon as nothing is being answered."""
        if self._current is None and not self._waiting:
            self.transport.close()

    def _leave(self) -> None:
        self.server.gate.buffered -= sum(len(exchange.body) for exchange in self._waiting)
        self._waiting.clear()
        if self._refused_at is None or self._half_closed or self.transport.is_closing():
            self.transport.close()
            return
        self._refused_at = self.server.gate.clock()
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        self.transport.write_eof()

    def look_at(self, now: float) -> None:
        """Has this client kept to its time?"""
        left = self._written - self.unsent
        if left > self._left or left == self._written:
            self._left, self._left_at = left, now
        elif now - self._left_at > SEND_SECONDS:
            return self.drop()
        if self._current is not None:
            return None
        if self._refused_at is not None:
            if now - self._refused_at > LINGER_SECONDS:
                self.drop()
        elif self._reading:
            allowed = REQUEST_SECONDS + self._size / SLOWEST
            if now - self._heard > REQUEST_SECONDS or now - self._begun_at > allowed:
                self._refuse(Refusal(Code.TOO_SLOW, "the request did not come in time"))
        elif now - self._heard > IDLE_SECONDS:
            self.transport.close()
        return None

    def _refuse(self, refusal: Refusal) -> None:
        """Hand over what there is of the request, after those that came before it. Nothing that
        comes after it is read: nobody knows where the next request begins."""
        if self._refused_at is not None:
            return
        self._refused_at = self.server.gate.clock()
        self._reading = False
        self.server.gate.buffered -= self._size
        exchange = self._exchange(b"", close=True, refused=refusal)
        self._forget()
        self._take(exchange)


def _invalid(message: str = "the request is not valid HTTP/1.1") -> Refusal:
    return Refusal(Code.INVALID_REQUEST, message)


def _too_large(message: str) -> Refusal:
    return Refusal(Code.TOO_LARGE, message)
