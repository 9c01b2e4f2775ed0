"""HTTP by hand: raw requests, what comes back, and a connection without a network."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from gateway.app.exchange import Exchange
from gateway.app.http import Gate, Server


@dataclass
class Said:
    """One response as it stood on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error code in whichever dialect."""
        document = self.json()
        error = document["error"]
        return str(error["code"] if "data" not in error else error["data"]["code"])


def responses(data: bytes, *, heads: int = 0) -> list[Said]:
    """Every response in these bytes; the first `heads` of them have no body."""
    found = []
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        assert separator, f"a head without an end: {head!r}"
        first, *lines = head.decode("latin-1").split("\r\n")
        assert first.startswith("HTTP/1.1 "), first
        headers = {n.lower(): v for n, _, v in (line.partition(": ") for line in lines)}
        status = int(first.split()[1])
        body = b""
        if len(found) < heads or status in (100, 204):
            pass
        elif headers.get("transfer-encoding") == "chunked":
            while True:
                size, _, data = data.partition(b"\r\n")
                count = int(size, 16)
                body, data = body + data[:count], data[count + 2 :]
                if not count:
                    break
        elif "content-length" in headers:
            count = int(headers["content-length"])
            body, data = data[:count], data[count:]
        else:
            body, data = data, b""
        found.append(Said(status, headers, body))
    return found


def post(path: str, body: bytes = b"{}", *headers: str) -> bytes:
    """A whole request."""
    lines = [f"POST {path} HTTP/1.1", "Host: gateway", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chat(text: str = "hello", *headers: str, token: str = "token-of-run-1", **more: Any) -> bytes:
    """A whole request of a Chat Completions client."""
    body = {"model": "fast", "messages": [{"role": "user", "content": text}], **more}
    return post(
        "/v1/chat/completions",
        json.dumps(body).encode(),
        f"Authorization: Bearer {token}",
        *headers,
    )


@dataclass
class Seconds:
    """A clock that stands still until it is told otherwise."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class Pipe(asyncio.Transport):
    """A transport that keeps what is written. `reads`: its client takes everything at once."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: Any = None
        self.out = b""
        self.reads = True
        self.waiting = 0
        self.reading = True
        self.closed = self.aborted = self.ended = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        assert not self.closed, "nobody may write after closing"
        self.out += bytes(data)
        if not self.reads:
            self.waiting += len(data)
            if self.waiting > 65536:
                self.protocol.pause_writing()

    def read(self) -> None:
        """The client reads everything."""
        self.waiting = 0
        self.protocol.resume_writing()
        if self.closed:
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if not self.waiting:
                asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.closed = self.aborted = True
        asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self.closed

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


@dataclass
class Line:
    """One connection to a server whose handler a test writes."""

    handler: Callable[[Exchange], Any]
    clock: Seconds = field(default_factory=Seconds)

    def __post_init__(self) -> None:
        self.gate = Gate(self.clock)
        self.seen: list[Exchange] = []
        self.pipe = self.open()

    def open(self) -> Pipe:
        """Another connection to the same server."""

        async def handle(exchange: Exchange) -> None:
            self.seen.append(exchange)
            await self.handler(exchange)

        pipe = Pipe()
        pipe.protocol = cast(Any, Server(handle, self.gate).protocol())
        pipe.protocol.connection_made(pipe)
        return pipe

    async def send(self, data: bytes, pipe: Pipe | None = None) -> Pipe:
        """The client sends, and everybody does what there is to do."""
        pipe = pipe or self.pipe
        pipe.protocol.data_received(data)
        await settled()
        return pipe

    async def after(self, seconds: float) -> None:
        """Time passes; the sweep looks around once at the end."""
        self.clock.now += seconds
        self.gate.sweep()
        await settled()


async def settled() -> None:
    """Let every task do what it can do by now."""
    for _ in range(20):
        await asyncio.sleep(0)


def raw(address: tuple[str, int], data: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes to a real server and read until it closes the connection."""
    with socket.create_connection(address, timeout=30) as line:
        line.sendall(data)
        if half_close:
            line.shutdown(socket.SHUT_WR)
        out = b""
        while piece := line.recv(65536):
            out += piece
        return out
