"""A tool server over Streamable HTTP: JSON and event-stream answers, sessions of the legacy era."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from gateway.keys import allowed_hosts, bound_to
from gateway.mcp.connection import (
    LARGEST,
    Handshake,
    OnNote,
    Rejected,
    checked_response,
    response,
)
from gateway.mcp.oauth import Tokens
from gateway.mcp.revisions import (
    METHOD_HEADER,
    MODERN,
    NAME_HEADER,
    NAMED,
    SESSION_HEADER,
    VERSION_HEADER,
    encode,
    error_of,
)
from gateway.policy import ToolServer
from gateway.providers.upstream import Answer, Upstream
from gateway.refusals import Code
from gateway.routing import Failure


class HttpConnection:
    """One server, as one person's or nobody's. `server` tells the policy of the moment, so that a
    key or a host that changes is used from the next request on."""

    one_channel = False

    def __init__(
        self,
        name: str,
        server: Callable[[], ToolServer],
        upstream: Upstream,
        tokens: Tokens,
        user: str | None,
        on_note: OnNote,
    ) -> None:
        self.epoch = 0
        self.version: str | None = None
        self._name = name
        self._server = server
        self._upstream = upstream
        self._tokens = tokens
        self._user = user
        self._on_note = on_note
        self._session: str | None = None
        self._ids = itertools.count(1)

    @property
    def ready(self) -> bool:
        """A server that has forgotten us says so when it is asked."""
        return True

    async def start(self) -> None:
        """Nothing to do: every request finds its own way."""

    async def close(self) -> None:
        """Forget the session; the server ends it in its own time."""
        self._forget()

    async def tell(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification; the answer is only looked at for its status."""
        server = self._server()
        credential = await self._credential(server)
        await self._send(method, params, None, server.timeout_seconds, {}, credential)

    async def ask(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        seconds: float,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """One request. 401 of a server with OAuth is worth one new token, and no more."""
        identity = next(self._ids)
        for last in (False, True):
            oauth = self._server().oauth
            credential = await self._credential(self._server())
            try:
                return await self._send(
                    method, params, identity, seconds, headers or {}, credential
                )
            except Rejected as rejected:
                if rejected.status != 401 or last or oauth is None:
                    raise
                self._tokens.forget(self._name, oauth, self._user, credential[1])
        raise AssertionError  # the second round returns or raises

    async def _send(
        self,
        method: str,
        params: Mapping[str, Any],
        identity: int | None,
        seconds: float,
        headers: Mapping[str, str],
        credential: tuple[Mapping[str, str], str | None],
    ) -> dict[str, Any]:
        server = self._server()
        session = self._session
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params:
            message["params"] = dict(params)
        if identity is not None:
            message["id"] = identity
        own, secret = credential
        sent = {
            **own,
            "accept": "application/json, text/event-stream",
            **headers,
            **self._routing(method, params),
        }
        async with self._upstream.post(
            server.url,
            message,
            headers=sent,
            where=f"tool server {self._name}",
            seconds=max(1, round(seconds)),
            secret=secret,
        ) as raw:
            answer = _Bounded(raw.response, raw.where, raw.seconds, raw.secret)
            if answer.status == 404 and session is not None:
                # The server did not take the message (2025-11-25, transports, session
                # management): it may be sent once more in a new session, which another call
                # may have opened already.
                if self._session == session:
                    self._forget()
                raise Handshake
            if answer.status >= 400:
                return await self._rejected(answer, identity)
            if method == "initialize":
                self._session = answer.header(SESSION_HEADER)
            if identity is None:
                return {}
            return await self._reply(answer, identity)

    def _routing(self, method: str, params: Mapping[str, Any]) -> dict[str, str]:
        """Version and session, or what a modern server wants repeated of the body."""
        headers = {}
        if self.version is not None and method != "initialize":
            headers[VERSION_HEADER] = self.version
        if self._session is not None and method != "initialize":
            headers[SESSION_HEADER] = self._session
        if self.version in MODERN:
            headers[METHOD_HEADER] = method
            if method in NAMED:
                headers[NAME_HEADER] = encode(str(params[NAMED[method]]))
        return headers

    def _forget(self) -> None:
        self._session = None
        self.version = None
        self.epoch += 1

    async def _credential(self, server: ToolServer) -> tuple[dict[str, str], str | None]:
        """Headers with the server's secret, and the secret. Raises Refusal."""
        hosts = allowed_hosts(server.hosts, server.url)
        if server.oauth is not None:
            bound_to(server.url, hosts)
            token = await self._tokens.access(self._name, server.oauth, self._user)
            return {"authorization": f"Bearer {token}"}, token
        secret = self._upstream.keyring.find(server.key, url=server.url, hosts=hosts)
        if secret is None:
            return {}, None
        plain = server.header.lower() == "authorization" and " " not in secret
        return {server.header: f"Bearer {secret}" if plain else secret}, secret

    async def _rejected(self, answer: Answer, identity: int | None) -> dict[str, Any]:
        """A JSON-RPC error that came with an HTTP status, as modern servers send it."""
        if answer.status in (401, 403):
            # The body is not read: servers quote parts of a key in it.
            raise Rejected(
                answer.status,
                Failure(
                    f"{answer.where} refused the gateway's key (HTTP {answer.status})", done=False
                ),
            )
        try:
            text = await answer.text()
        except Failure as failure:
            text = failure.message
        error = error_of(text)
        if error is not None and identity is not None and answer.status in (400, 404):
            return {**error, "id": identity}
        busy = answer.status == 429
        brief = error["error"].get("message") if error else text
        raise Rejected(
            answer.status,
            Failure(
                f"{answer.where} answered HTTP {answer.status}: {str(brief)[:500]}",
                done=answer.status >= 500 and answer.status != 503,
                code=Code.PROVIDER_BUSY if busy else Code.PROVIDER_ERROR,
                retry_after=answer.retry_after,
            ),
        )

    async def _reply(self, answer: Answer, identity: int) -> dict[str, Any]:
        """The response with our id, from a JSON body or out of an event stream."""
        where = answer.where
        if "text/event-stream" not in (answer.header("content-type") or ""):
            return checked_response(response(await answer.text(), where), identity, where)
        async for _, data in answer.events():
            if not data:
                continue
            found = response(data, where)
            if "method" in found:
                # Requests of a legacy server are not answered: no ability was declared for any.
                if isinstance(found["method"], str):
                    self._on_note(found["method"])
                continue
            return checked_response(found, identity, where)
        raise Failure(f"{where} ended its stream without an answer", done=True)


class _Bounded(Answer):
    """An answer that may have LARGEST bytes."""

    async def _chunks(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in super()._chunks():
            size += len(chunk)
            if size > LARGEST:
                raise Failure(f"{self.where} answered more than {LARGEST} bytes", done=True)
            yield chunk
