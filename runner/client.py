"""The runner's way to the gateway: loopback HTTP with a run token, and patience.

The gateway may be restarted at any time. Its address is in `STATE/gateway.json`, read again
whenever it does not answer; a request is repeated with the same call key, which the gateway
answers at most once (docs/gateway-http.md). So a lost connection is never a second call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import RequestError

from gateway.values import CallKey, Label, NanoUSD, RunId

Sleep = Callable[[float], Awaitable[None]]
"""Waits that many seconds."""

NOTHING = NanoUSD(0)
UNREACHABLE_ATTEMPTS = 12
REFUSED_ATTEMPTS = 4
MAX_DELAY = 10.0
TIMEOUT = timedelta(minutes=10)

_AGAIN = frozenset(
    {
        "provider_error",
        "provider_busy",
        "in_flight",
        "no_policy",
        "rate_limited",
        "queue_full",
        "too_slow",
        "overloaded",
        "internal_error",
    }
)
"""Refusals that the same key may be sent again after (docs/gateway-http.md)."""


class GatewayUnreachable(Exception):
    """The gateway does not answer, or cannot serve yet: not the run's fault, try later."""


class CallRefused(Exception):
    """The gateway answered no. `code` is one of docs/gateway-http.md, `details` its numbers."""

    def __init__(
        self, code: str, message: str, details: Mapping[str, Any] | None = None, after: float = 0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or {}
        self.after = after
        """Seconds the gateway asked to wait before a repetition; 0 when it did not say."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, with what it cost. `replayed`: it comes from the ledger, and the figures are 0
    because it was paid for before."""

    body: Mapping[str, Any]
    tokens: int = 0
    cost_nano: NanoUSD = NOTHING
    label: Label = field(default_factory=Label)
    effect_key: str | None = None
    replayed: bool = False


class Gateway(Protocol):
    """The gateway's face, as the harness sees it. All raise CallRefused, GatewayUnreachable."""

    async def chat(self, token: str, key: CallKey, request: Mapping[str, Any]) -> Reply:
        """One model call in the Chat Completions dialect; the body is the completion."""
        ...

    async def call_tool(
        self, token: str, key: CallKey, name: str, arguments: Mapping[str, Any]
    ) -> Reply:
        """One external tool call, `name` being `server__tool`; the body is the MCP result."""
        ...

    async def list_tools(self, token: str) -> tuple[Mapping[str, Any], ...]:
        """External tools the token may call: MCP's {name, description, inputSchema}."""
        ...


class GatewayClient:
    """`Gateway` over HTTP. One per runner process; use as an async context manager."""

    def __init__(self, state: Path, sleep: Sleep) -> None:
        self._state = state
        self._sleep = sleep
        self._client: Client = ClientBuilder().timeout(TIMEOUT).no_proxy().build()
        self._url: str | None = None

    async def __aenter__(self) -> GatewayClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def chat(self, token: str, key: CallKey, request: Mapping[str, Any]) -> Reply:
        return await self._patiently("/v1/chat/completions", token, key, request)

    async def call_tool(
        self, token: str, key: CallKey, name: str, arguments: Mapping[str, Any]
    ) -> Reply:
        request = _rpc("tools/call", {"name": name, "arguments": dict(arguments)})
        return await self._patiently("/mcp", token, key, request)

    async def list_tools(self, token: str) -> tuple[Mapping[str, Any], ...]:
        tools: list[Mapping[str, Any]] = []
        cursor: str | None = None
        while True:
            request = _rpc("tools/list", {"cursor": cursor} if cursor else {})
            reply = await self._patiently("/mcp", token, None, request)
            tools += reply.body.get("tools", [])
            cursor = reply.body.get("nextCursor")
            if not cursor:
                return tuple(tools)

    async def _patiently(
        self, path: str, token: str, key: CallKey | None, request: Mapping[str, Any]
    ) -> Reply:
        """Send until there is an answer. A restarted gateway is found again; a refusal that may
        pass is repeated a few times."""
        refused = unreachable = 0
        while True:
            try:
                return await self._send(path, token, key, request)
            except (RequestError, GatewayUnreachable, OSError) as error:
                self._url = None
                unreachable += 1
                if unreachable >= UNREACHABLE_ATTEMPTS:
                    raise GatewayUnreachable(
                        f"the gateway does not answer ({error}); is it running? "
                        f"Its address is in {self._state / 'gateway.json'}"
                    ) from error
                await self._sleep(min(0.1 * 2**unreachable, MAX_DELAY))
            except CallRefused as error:
                if error.code not in _AGAIN:
                    raise
                refused += 1
                if refused >= REFUSED_ATTEMPTS:
                    if error.code in ("no_policy", "internal_error"):
                        raise GatewayUnreachable(error.message) from error
                    raise
                await self._sleep(min(max(error.after, 0.25 * 2**refused), 30.0))

    async def _send(
        self, path: str, token: str, key: CallKey | None, request: Mapping[str, Any]
    ) -> Reply:
        if self._url is None:
            self._url = await asyncio.to_thread(_address, self._state / "gateway.json")
        builder = self._client.post(self._url + path).bearer_auth(token)
        if key is not None:
            builder = builder.header("X-Interlock-Call-Key", str(key))
        response = await builder.body_json(request).build().send()
        text = await response.text()
        return _reply(response.status, text, response.get_header)


class ControlSocket:
    """Opens and closes the sockets that containers reach the gateway through.

    Spoken by hand: HTTP over a Unix socket, two requests, which the HTTP client cannot do.
    """

    def __init__(self, state: Path, sleep: Sleep) -> None:
        self._state = state
        self._sleep = sleep

    async def open(self, run: RunId, token_hash: str) -> Path:
        """Let the run's socket stand for the token's principal; returns its directory.

        Waits for a gateway that is being restarted. Raises GatewayUnreachable.
        """
        body = json.dumps({"token_hash": token_hash})
        unreachable, answer = 0, None
        while answer is None:
            try:
                answer = await self._ask("PUT", run, body)
            except GatewayUnreachable:
                unreachable += 1
                if unreachable >= UNREACHABLE_ATTEMPTS:
                    raise
                await self._sleep(min(0.1 * 2**unreachable, MAX_DELAY))
        status, text = answer
        if status != 200:
            raise GatewayUnreachable(f"the gateway opened no socket for {run}: {text[:300]}")
        return Path(json.loads(text)["directory"])

    async def close(self, run: RunId) -> None:
        """Close the run's socket. A gateway that is gone has closed it already."""
        with contextlib.suppress(GatewayUnreachable):
            await self._ask("DELETE", run, "")

    async def _ask(self, method: str, run: RunId, body: str) -> tuple[int, str]:
        head = (
            f"{method} /runs/{run} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            # Through the folder's descriptor: a socket's own path may have only 107 bytes.
            folder = os.open(self._state, os.O_RDONLY | os.O_DIRECTORY)
            try:
                async with asyncio.timeout(10):
                    reader, writer = await asyncio.open_unix_connection(
                        f"/proc/self/fd/{folder}/gateway-control.sock"
                    )
                    try:
                        writer.write((head + body).encode())
                        answer = (await reader.read()).decode()
                    finally:
                        writer.close()
            finally:
                os.close(folder)
            start, _, text = answer.partition("\r\n\r\n")
            return int(start.split()[1]), text
        except (OSError, TimeoutError, ValueError, IndexError) as error:
            raise GatewayUnreachable(f"the gateway's control socket: {error}") from error


def _address(path: Path) -> str:
    try:
        url: str = json.loads(path.read_text())["url"]
    except (OSError, ValueError, KeyError) as error:
        raise GatewayUnreachable(f"{path}: {error}") from error
    return url


def _rpc(method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def _reply(status: int, text: str, header: Callable[[str], str | None]) -> Reply:
    """Read an answer of either endpoint. Raises CallRefused, or GatewayUnreachable when what
    answers is not the gateway."""
    try:
        body = json.loads(text)
    except ValueError:
        raise GatewayUnreachable(f"status {status} and no JSON: {text[:200]}") from None
    error = body.get("error")
    if error is not None:
        details = {**error, **(error.get("data") or {})}
        raise CallRefused(
            str(details.get("code") or "internal_error"),
            str(error.get("message", "")),
            {k: v for k, v in details.items() if k not in ("message", "data", "code")},
            after=float(header("Retry-After") or 0),
        )
    if status >= 400:
        raise GatewayUnreachable(f"status {status}: {text[:200]}")
    into, out = (header("X-Interlock-Tokens") or "0,0").split(",")
    return Reply(
        body=body.get("result", body),
        tokens=int(into) + int(out),
        cost_nano=NanoUSD(int(header("X-Interlock-Cost-Nano") or 0)),
        label=Label.parse(header("X-Interlock-Label") or "untrusted/internal"),
        effect_key=header("X-Interlock-Effect-Key"),
        replayed=header("X-Interlock-Replayed") == "1",
    )
