"""The one HTTP client of the gateway: posts JSON, reads JSON or server-sent events.

Redirects are not followed (a key must not travel to where a server points), and no proxy is taken
from the environment (a key goes to the host on the operator's list, and nowhere else on its way).
What a failure means for the ledger is told by `routing.Failure.done`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError, PyreqwestError
from pyreqwest.request import RequestBuilder

from gateway.keys import REDACTED, Keyring, scrub
from gateway.policy import TapeEntry
from gateway.routing import Failure

CONNECT_SECONDS = 10
IDLE_SECONDS = 15
"""Kept-alive connections are dropped early: one that died unnoticed makes an outcome unknown."""
ERROR_CHARACTERS = 500
MAX_LINE = 8 * 1024 * 1024
"""Bytes of one line, or one event, of a stream: no provider sends as much at once."""
MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer that is read whole."""
MAX_ERROR = 64 * 1024
"""Bytes that are read of an error's body."""


def build_client() -> Client:
    """A client with the gateway's rules; close it with `await client.close()`."""
    return (
        ClientBuilder()
        .user_agent("interlock-gateway")
        .follow_redirects(False)
        .no_proxy()
        .connect_timeout(timedelta(seconds=CONNECT_SECONDS))
        .pool_idle_timeout(timedelta(seconds=IDLE_SECONDS))
        .build()
    )


class Chunks(Protocol):
    """A body that comes in pieces."""

    async def read_chunk(self) -> Any:
        """The next piece as bytes, or None at the end."""
        ...


class Head(Protocol):
    """What is needed of a response: pyreqwest's, or a recorded one (`providers.tape`)."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    def get_header(self, name: str) -> str | None:
        """First value of a header."""
        ...

    @property
    def body_reader(self) -> Any:
        """Its body: `Chunks`."""
        ...


@dataclass(slots=True)
class Answer:
    """A response that has begun. Every text read through it is scrubbed of the secret.

    `seconds` bounds the wait for each piece; None: the request itself bounds the whole.
    """

    response: Head
    where: str
    seconds: int | None
    secret: str | None
    body: bytes | None = None
    """The whole body, once it has been read."""

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.response.status

    def header(self, name: str) -> str | None:
        """First value of a header."""
        return self.response.get_header(name)

    @property
    def retry_after(self) -> int | None:
        """Seconds of a `Retry-After` header, when it gives a number."""
        value = self.header("retry-after") or ""
        return int(value) if value.isdigit() else None

    async def text(self, most: int = MAX_ANSWER) -> str:
        """The whole body. Raises Failure (done) when it breaks off or is larger than `most`."""
        return (await self.raw(most)).decode(errors="replace")

    async def raw(self, most: int = MAX_ANSWER) -> bytes:
        """The whole body's bytes. Raises Failure (done) when it breaks off or is too large."""
        if self.body is not None:
            return self.body
        parts: list[bytes] = []
        size = 0
        async for chunk in self._chunks():
            size += len(chunk)
            if size > most:
                raise Failure(f"{self.where} answered more than {most} bytes", done=True)
            parts.append(chunk)
        return self.scrubbed(parts[0] if len(parts) == 1 else b"".join(parts))

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. A secret that lies across two pieces is found in neither: whoever
        passes pieces on joins them to whole events first and scrubs those."""
        async for chunk in self._pieces():
            yield chunk

    def scrubbed(self, data: bytes) -> bytes:
        """`data` without the secret."""
        if self.secret is None:
            return data
        secret = self.secret.encode()
        return data.replace(secret, REDACTED.encode()) if secret in data else data

    async def document(self) -> dict[str, Any]:
        """The whole body, which is a JSON object. Raises Failure (done)."""
        return parsed(await self.text(), self.where)

    async def brief(self) -> str:
        """The start of an error body, for people: its message, where it has one."""
        try:
            text = await self.text(MAX_ERROR)
        except Failure as failure:
            return failure.message
        if "html" in (self.header("content-type") or ""):
            return "a page of HTML"
        try:
            found = json.loads(text)
            text = found["error"]["message"]
        except (ValueError, LookupError, TypeError, RecursionError):
            pass
        return " ".join(str(text)[:ERROR_CHARACTERS].split())

    async def events(self) -> AsyncIterator[tuple[str, str]]:
        """Server-sent events as (event name, data), per the WHATWG event-stream format.

        A server that does not stream although it was asked to gives one event, its JSON. Raises
        Failure (done): a page of HTML, a line or an event larger than `MAX_LINE`.
        """
        kind = self.header("content-type") or ""
        if "html" in kind:
            raise Failure(f"{self.where} answered a page of HTML", done=True)
        if "application/json" in kind:
            yield "", await self.text()
            return
        name, data, size = "", list[str](), 0
        async for line in self._lines():
            if not line:
                if data:
                    yield name, "\n".join(data)
                name, data, size = "", [], 0
            elif line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
                size += len(line)
                if size > MAX_LINE:
                    raise Failure(f"{self.where} sent an event that is too large", done=True)
            elif line.startswith("event:"):
                name = line[6:].strip()
        if data:
            yield name, "\n".join(data)

    async def _lines(self) -> AsyncIterator[str]:
        rest: list[bytes] = []
        size = 0
        async for chunk in self._pieces():
            rest.append(chunk)
            size += len(chunk)
            if b"\n" in chunk:
                *lines, last = b"".join(rest).split(b"\n")
                rest, size = [last], len(last)
                for line in lines:
                    yield scrub(line.rstrip(b"\r").decode(errors="replace"), self.secret)
            if size > MAX_LINE:
                raise Failure(f"{self.where} sent a line that is too long", done=True)
        if size:
            yield scrub(b"".join(rest).decode(errors="replace"), self.secret)

    async def _pieces(self) -> AsyncIterator[bytes]:
        if self.body is not None:
            yield self.body
            return
        async for chunk in self._chunks():
            yield chunk

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            try:
                if self.seconds is None:
                    chunk = await self.response.body_reader.read_chunk()
                else:
                    async with asyncio.timeout(self.seconds):
                        chunk = await self.response.body_reader.read_chunk()
            except (PyreqwestError, TimeoutError) as error:
                raise Failure(f"{self.where} broke off: {_kind(error)}", done=True) from None
            if chunk is None:
                return
            yield bytes(chunk)


def parsed(text: str, where: str) -> dict[str, Any]:
    """A JSON object that a server sent. Raises Failure (done) on anything else.

    Half of a surrogate pair is no character: it could neither be stored nor be handed on.
    """
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Failure(f"{where} answered something that is not JSON", done=True) from None
    if not isinstance(value, dict):
        raise Failure(f"{where} answered JSON that is not an object", done=True)
    return value


class Recorder(Protocol):
    """Takes recordings of finished calls."""

    def record(self, provider: str, entry: TapeEntry) -> None:
        """Keep one call to this provider."""
        ...


class Upstream:
    """Sends requests with the keys that belong to them."""

    def __init__(self, client: Client, keyring: Keyring, recorder: Recorder | None = None) -> None:
        self._client = client
        self.keyring = keyring
        self.recorder = recorder
        """Keeps what models are asked and answer (`providers.tape`); None: nothing is kept."""

    async def ask(
        self,
        url: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
        where: str,
        seconds: int,
        secret: str | None,
    ) -> Answer:
        """POST a JSON body and wait for the whole response, `seconds` at most; its body is kept in
        the answer. Raises Failure like `post`."""
        try:
            request = self._request(url, body, headers, where, timedelta(seconds=seconds))
            async with request.build_streamed() as response:
                answer = Answer(response, where, None, secret)
                answer.body = await answer.raw()
                return answer
        except PyreqwestError as error:
            raise _lost(error, where) from None

    @asynccontextmanager
    async def post(
        self,
        url: str,
        body: Any,
        *,
        headers: Mapping[str, str],
        where: str,
        seconds: int,
        secret: str | None,
    ) -> AsyncIterator[Answer]:
        """POST a JSON body (bytes are sent as they are) and hand over the response once it has
        begun, whatever its status.

        `seconds` bounds the wait for the response and for each piece of its body. Raises Failure:
        not `done` when no connection was made, `done` when the request left and no answer came.
        """
        data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        # Nothing is read ahead: the client would hold the answer back until it has 64 KiB of it.
        request = self._request(url, data, headers, where).streamed_read_buffer_limit(0)
        streamed = request.build_streamed()
        try:
            async with asyncio.timeout(seconds):
                response = await streamed.__aenter__()
        except (PyreqwestError, TimeoutError) as error:
            raise _lost(error, where) from None
        try:
            yield Answer(response, where, seconds, secret)
        finally:
            await streamed.__aexit__(None, None, None)

    def _request(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        where: str,
        timeout: timedelta | None = None,
    ) -> RequestBuilder:
        try:
            request = self._client.post(url).header("content-type", "application/json")
            for name, value in headers.items():
                request = request.header(name, value)
            request = request.body_bytes(body)
            return request if timeout is None else request.timeout(timeout)
        except (BuilderError, ValueError):
            raise Failure(f"{where}: the address or a header is not valid", done=False) from None


def _lost(error: BaseException, where: str) -> Failure:
    """No whole response came."""
    if _never_connected(error):
        return Failure(f"{where} cannot be reached: {_kind(error)}", done=False)
    return Failure(f"{where} did not answer: {_kind(error)}", done=True)


def _never_connected(error: BaseException) -> bool:
    """Did the request surely not leave? Only a failure in the connect phase says so.

    The exception's class does not: pyreqwest 0.15 raises ConnectError also when an established
    connection closes after the request was sent. The phase stands in the chain of causes, as
    hyper-util words it: `client error (Connect)` as against `client error (SendRequest)`.
    """
    details = getattr(error, "details", None) or {}
    causes = details.get("causes") or ()
    return any(cause.get("message") == "client error (Connect)" for cause in causes)


def _kind(error: BaseException) -> str:
    # Only the kind: the text of a client error may hold the request.
    return type(error).__name__
