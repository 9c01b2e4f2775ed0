"""Real tool servers: an MCP client over Streamable HTTP, one session per server.

Initialised once, on first use; initialised again when the server has forgotten the session. What
is unclear after a failure is decided here: a call that surely did not reach the tool is
`Failure(done=False)`, anything else after sending is `done=True`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.keys import allowed_hosts
from gateway.mcp.recorded import result
from gateway.mcp.server import VERSIONS
from gateway.policy import ToolServer
from gateway.providers.upstream import Answer, Upstream
from gateway.refusals import Code
from gateway.routing import Failure


@dataclass(slots=True)
class _Session:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    ready: bool = False
    headers: dict[str, str] = field(default_factory=dict)


class Servers:
    """Calls tools on real servers; keeps their sessions."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._ids = itertools.count(1)

    async def call(
        self,
        name: str,
        server: ToolServer,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        effect_key: str | None,
    ) -> dict[str, Any]:
        """The MCP tool result. Raises routing.Failure, Refusal (key not sent).

        The effect key travels twice: as `Idempotency-Key` for servers that look at HTTP, and in
        `_meta` for those that look at MCP.
        """
        session = self._sessions.setdefault((name, server.url), _Session())
        await self._initialise(session, name, server)
        params: dict[str, Any] = {"name": tool, "arguments": dict(arguments)}
        headers: dict[str, str] = {}
        if effect_key is not None:
            params["_meta"] = {"interlock/effect-key": effect_key}
            headers["idempotency-key"] = effect_key
        try:
            reply = await self._request(session, name, server, "tools/call", params, headers)
        except _SessionLost:
            # 404 for a session means that the server did not take the message (transports,
            # session management): it is safe to send it once more in a new one.
            session.ready = False
            await self._initialise(session, name, server)
            try:
                reply = await self._request(session, name, server, "tools/call", params, headers)
            except _SessionLost:
                raise Failure(
                    f"tool server {name} forgets its sessions at once", done=False
                ) from None
        if "error" in reply:
            error = reply["error"]
            return result(f"{error.get('message')} (code {error.get('code')})", error=True)
        found = reply.get("result")
        if not isinstance(found, dict):
            raise Failure(f"tool server {name} answered without a result", done=True)
        return found

    async def _initialise(self, session: _Session, name: str, server: ToolServer) -> None:
        async with session.lock:
            if session.ready:
                return
            session.headers.clear()
            params = {
                "protocolVersion": VERSIONS[0],
                "capabilities": {},
                "clientInfo": {"name": "interlock-gateway", "version": "1"},
            }
            try:
                reply = await self._request(session, name, server, "initialize", params, {})
                if "error" in reply:
                    raise Failure(f"tool server {name} refused to initialize", done=False)
                version = (reply.get("result") or {}).get("protocolVersion", VERSIONS[0])
                session.headers["mcp-protocol-version"] = version
                await self._request(session, name, server, "notifications/initialized", None, {})
            except _SessionLost:
                raise Failure(f"tool server {name} answered HTTP 404", done=False) from None
            except Failure as failure:
                # Whatever went wrong, no tool has been called yet.
                raise Failure(
                    failure.message,
                    done=False,
                    code=failure.code,
                    retry_after=failure.retry_after,
                ) from None
            session.ready = True

    async def _request(
        self,
        session: _Session,
        name: str,
        server: ToolServer,
        method: str,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str],
    ) -> dict[str, Any]:
        """One message; `params` None makes it a notification, which has no answer."""
        secret = self._upstream.keyring.find(
            server.key, url=server.url, hosts=allowed_hosts(server.hosts, server.url)
        )
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message |= {"id": next(self._ids), "params": params}
        sent = {"accept": "application/json, text/event-stream", **session.headers, **headers}
        if secret:
            plain = server.header.lower() == "authorization" and " " not in secret
            sent[server.header] = f"Bearer {secret}" if plain else secret
        async with self._upstream.post(
            server.url,
            message,
            headers=sent,
            where=f"tool server {name}",
            seconds=server.timeout_seconds,
            secret=secret,
        ) as answer:
            if answer.status == 404 and "mcp-session-id" in session.headers:
                raise _SessionLost
            if answer.status >= 400:
                raise await _failure(answer)
            if method == "initialize" and (identity := answer.header("mcp-session-id")):
                session.headers["mcp-session-id"] = identity
            if params is None:
                return {}
            return await _reply(answer, message["id"])


class _SessionLost(Exception):
    """The server does not know our session any more."""


async def _failure(answer: Answer) -> Failure:
    if answer.status in (401, 403):
        return Failure(
            f"{answer.where} refused the gateway's key (HTTP {answer.status})", done=False
        )
    text = f"{answer.where} answered HTTP {answer.status}: {await answer.brief()}"
    busy = answer.status == 429
    return Failure(
        text,
        done=answer.status >= 500 and answer.status != 503,
        code=Code.PROVIDER_BUSY if busy else Code.PROVIDER_ERROR,
        retry_after=answer.retry_after,
    )


async def _reply(answer: Answer, identity: int) -> dict[str, Any]:
    """The response with our id, from a JSON body or out of an event stream."""
    if "text/event-stream" in (answer.header("content-type") or ""):
        async for _, data in answer.events():
            found = _message(data, answer.where)
            if found.get("id") == identity:
                return found
        raise Failure(f"{answer.where} ended its stream without an answer", done=True)
    return _message(await answer.text(), answer.where)


def _message(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Failure(f"{where} did not answer with a JSON-RPC object", done=True)
    return value
