"""One conversation with the process inside a container, over the engine's attached stream.

The engine wraps what the container writes in its own frames (8 bytes: stream, 0, 0, 0, length;
"Attach to a container" in the Engine API); inside the first stream are ours (see inside/steps.py).
Everything is read by the event loop itself: no thread waits while a step runs.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

from runner.sandbox.contract import SandboxError, SandboxLost

MAX_PAYLOAD = 256 * 1024 * 1024
_MAX_HEADER = 1024 * 1024
_HALF = 32 * 1024

Reply = tuple[dict[str, Any], bytes]


class Kept:
    """First and last 32 KiB of an output stream of any length, as text."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def add(self, data: bytes) -> None:
        """Take the next bytes; memory stays bounded whatever comes."""
        self._total += len(data)
        room = max(_HALF - len(self._head), 0)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 4 * _HALF:
            del self._tail[:-_HALF]

    def text(self) -> str:
        """What was kept, with a note where something was left out."""
        cut = self._total - len(self._head) - min(len(self._tail), _HALF)
        note = f"\n[... {cut} bytes left out ...]\n".encode() if cut else b""
        return (bytes(self._head) + note + bytes(self._tail[-_HALF:])).decode(errors="replace")


class Stream:
    """Requests and their answers. A broken stream fails every request, now and later, as lost."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._next = 0
        self._pending: dict[int, asyncio.Future[Reply]] = {}
        self._lost: str | None = None
        self._inbox = bytearray()
        self._raw = False
        self.stdout = Kept()
        self.stderr = Kept()
        self._pump = asyncio.create_task(self._receive())

    @classmethod
    async def over(cls, connection: socket.socket) -> Stream:
        """Take over a connected socket (and close it in the end)."""
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 20)
        protocol = asyncio.StreamReaderProtocol(reader)
        unix = connection.family == socket.AF_UNIX
        create = loop.create_unix_connection if unix else loop.create_connection
        transport, _ = await create(lambda: protocol, sock=connection)
        return cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    @property
    def lost(self) -> bool:
        """True once the other side is gone; nothing more will be answered."""
        return self._lost is not None

    async def ask(
        self, op: str, payload: bytes = b"", *, seconds: float, **fields: object
    ) -> Reply:
        """Send a request and wait for its answer, at most so many.

        Raises SandboxLost when the stream breaks or stays silent, SandboxError with the words of
        the other side when it refuses.
        """
        if self._lost is not None:
            raise SandboxLost(self._lost)
        self._next += 1
        number = self._next
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        try:
            async with asyncio.timeout(seconds):
                await self._send({"op": op, "id": number, **fields}, payload)
                answer, data = await future
        except TimeoutError:
            why = f"no answer to {op!r} within {seconds:.0f} s"
            self._fail(why)
            raise SandboxLost(why) from None
        except OSError as error:
            why = f"connection to the container broke: {error}"
            self._fail(why)
            raise SandboxLost(why) from error
        finally:
            self._pending.pop(number, None)
        if "error" in answer:
            raise SandboxError(str(answer["error"])[:2000])
        return answer, data

    async def tell(self, op: str, **fields: object) -> None:
        """Send the last request of all: what follows is plain output, until the end."""
        self._raw = True
        await self._send({"op": op, "id": 0, **fields}, b"")

    async def end(self) -> None:
        """Wait until the other side has closed the stream."""
        await asyncio.shield(self._pump)

    async def close(self) -> None:
        """Let go of the connection. What runs inside goes on."""
        self._fail("closed")
        self._pump.cancel()
        self._writer.close()
        await asyncio.gather(self._pump, return_exceptions=True)

    async def _send(self, fields: Mapping[str, object], payload: bytes) -> None:
        head = json.dumps(fields).encode()
        self._writer.write(struct.pack(">II", len(head), len(payload)) + head)
        self._writer.write(payload)
        await self._writer.drain()

    async def _receive(self) -> None:
        try:
            while True:
                kind, length = struct.unpack(">BxxxI", await self._reader.readexactly(8))
                while length:
                    data = await self._reader.read(min(length, 1 << 16))
                    if not data:
                        raise asyncio.IncompleteReadError(b"", length)
                    length -= len(data)
                    self._take(kind, data)
        except (asyncio.IncompleteReadError, OSError):
            words = self.stderr.text().strip()[-500:]
            self._fail("the container ended" + (f": {words}" if words else ""))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self._fail(f"the container speaks nonsense: {error}")

    def _take(self, kind: int, data: bytes) -> None:
        if kind != 1:
            self.stderr.add(data)
        elif self._raw:
            self.stdout.add(data)
        else:
            self._inbox += data
            self._answers()

    def _answers(self) -> None:
        while len(self._inbox) >= 8:
            head, body = struct.unpack(">II", self._inbox[:8])
            if head > _MAX_HEADER or body > MAX_PAYLOAD:
                raise ValueError(f"a frame of {head} + {body} bytes")
            if len(self._inbox) < 8 + head + body:
                return
            answer = json.loads(self._inbox[8 : 8 + head])
            payload = bytes(self._inbox[8 + head : 8 + head + body])
            del self._inbox[: 8 + head + body]
            future = self._pending.get(answer["id"])
            if future is not None and not future.done():
                future.set_result((answer, payload))

    def _fail(self, why: str) -> None:
        if self._lost is None:
            self._lost = why
        for future in self._pending.values():
            if not future.done():
                future.set_exception(SandboxLost(self._lost))


def own_socket(attached: Any) -> socket.socket:
    """The plain socket beneath what the SDK hands out, as ours: a duplicate, so that the SDK's
    bookkeeping of its connection cannot end our conversation."""
    plain = getattr(attached, "_sock", attached)
    if not isinstance(plain, socket.socket) or type(plain) is not socket.socket:
        raise SandboxError(
            "the container engine is reached over TLS or SSH, which a sandbox's stream cannot "
            "use; run the runner on the engine's machine (DOCKER_HOST=unix://…)"
        )
    connection = plain.dup()
    attached._response.close()
    return connection
