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
from typing import Any

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError, PyreqwestError
from pyreqwest.response import Response

from gateway.keys import Keyring, scrub
from gateway.routing import Failure

CONNECT_SECONDS = 10
IDLE_SECONDS = 15
"""Kept-alive connections are dropped early: one that died unnoticed makes an outcome unknown."""
ERROR_CHARACTERS = 500


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


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that has begun. Every text read through it is scrubbed of the secret."""

    response: Response
    where: str
    seconds: int
    secret: str | None

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

    async def text(self) -> str:
        """The whole body. Raises Failure (done) when it breaks off."""
        parts = [chunk async for chunk in self._chunks()]
        return scrub(b"".join(parts).decode(errors="replace"), self.secret)

    async def brief(self) -> str:
        """The start of an error body, for people."""
        try:
            text = await self.text()
        except Failure as failure:
            return failure.message
        try:
            found = json.loads(text)
            text = found["error"]["message"]
        except (ValueError, KeyError, TypeError):
            pass
        return str(text)[:ERROR_CHARACTERS]

    async def events(self) -> AsyncIterator[tuple[str, str]]:
        """Server-sent events as (event name, data), per the WHATWG event-stream format."""
        name, data = "", list[str]()
        async for line in self._lines():
            if not line:
                if data:
                    yield name, "\n".join(data)
                name, data = "", []
            elif line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
            elif line.startswith("event:"):
                name = line[6:].strip()
        if data:
            yield name, "\n".join(data)

    async def _lines(self) -> AsyncIterator[str]:
        rest = b""
        async for chunk in self._chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield scrub(line.rstrip(b"\r").decode(errors="replace"), self.secret)
        if rest:
            yield scrub(rest.decode(errors="replace"), self.secret)

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self.seconds):
                    chunk = await self.response.body_reader.read_chunk()
            except (PyreqwestError, TimeoutError) as error:
                raise Failure(f"{self.where} broke off: {_kind(error)}", done=True) from None
            if chunk is None:
                return
            yield bytes(chunk)


class Upstream:
    """Sends requests with the keys that belong to them."""

    def __init__(self, client: Client, keyring: Keyring) -> None:
        self._client = client
        self.keyring = keyring

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
        """POST a JSON body and hand over the response once it has begun, whatever its status.

        Bytes are sent as they are; `headers` then name their content type.

        `seconds` bounds the wait for the response and for each piece of its body. Raises Failure:
        not `done` when no connection was made, `done` when the request left and no answer came.
        """
        try:
            request = (
                self._client.post(url)
                .headers({"content-type": "application/json", **headers})
                .body_bytes(
                    body
                    if isinstance(body, bytes)
                    else json.dumps(body, ensure_ascii=False).encode()
                )
                .build_streamed()
            )
        except (BuilderError, ValueError):
            raise Failure(f"{where}: the address or a header is not valid", done=False) from None
        try:
            async with asyncio.timeout(seconds):
                response = await request.__aenter__()
        except (PyreqwestError, TimeoutError) as error:
            if _never_connected(error):
                raise Failure(f"{where} cannot be reached: {_kind(error)}", done=False) from None
            raise Failure(f"{where} did not answer: {_kind(error)}", done=True) from None
        try:
            yield Answer(response, where, seconds, secret)
        finally:
            await request.__aexit__(None, None, None)


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
