"""Real tool servers: one face for all of them, whatever their transport and era.

What is unclear after a failure is decided here: a call that surely did not reach the tool is
`Failure(done=False)`, anything else after sending is `done=True`. And the lock is held here: a
tool that does not describe itself as it was locked is closed, whoever may call it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from gateway.clock import SystemClock
from gateway.mcp import results
from gateway.mcp.catalogue import tighten
from gateway.mcp.client import Catalogue, Client
from gateway.mcp.connection import Connection, Handshake
from gateway.mcp.fingerprints import TOOL_NAME, Observed, changed
from gateway.mcp.http import HttpConnection
from gateway.mcp.oauth import Tokens, Vault
from gateway.mcp.recorded import result
from gateway.mcp.revisions import META_EFFECT, MODERN, parameter_headers
from gateway.mcp.stdio import StdioConnection
from gateway.policy import Access, ToolClass, ToolServer
from gateway.providers.upstream import Upstream
from gateway.refusals import Code, Refusal
from gateway.routing import Failure
from gateway.values import Clock

CHECKED_FOR_MS: Final = 300_000
"""How long a catalogue is taken for true."""
CHECKED_FOR_WRITES_MS: Final = 60_000
"""The same, before a tool that changes anything is called."""

DESCRIBE_SECONDS, SILENT_FOR_MS = 5.0, 30_000
"""How long a server's words are waited for where they are not needed, and how long a listing leaves
one in peace that did not answer."""

OnDrift: TypeAlias = Callable[[str, str, str, str], None]
"""(server, tool, locked fingerprint, the one seen or "" when it is gone): once for each."""


def _nobody_listens(_server: str, _tool: str, _locked: str, _seen: str) -> None:
    return None


class Servers:
    """Calls tools on real servers; keeps their connections, catalogues and tokens."""

    def __init__(
        self,
        upstream: Upstream,
        clock: Clock | None = None,
        *,
        vault: Vault | None = None,
        on_drift: OnDrift = _nobody_listens,
    ) -> None:
        self._upstream = upstream
        self._clock = clock or SystemClock()
        self._tokens = Tokens(upstream, self._clock, vault)
        self._on_drift = on_drift
        self._clients: dict[tuple[str, str, tuple[str, ...], str], Client] = {}
        self._policies: dict[str, ToolServer] = {}
        self._silent: dict[str, int] = {}
        """Server to the time before which a listing does not ask it again."""

    async def call(
        self,
        name: str,
        server: ToolServer,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        effect_key: str | None,
        user: str | None = None,
        decided: ToolClass | None = None,
    ) -> dict[str, Any]:
        """The MCP tool result, however large (`results.fit`).

        `decided` is the class under which the call was allowed: a server that has admitted worse
        since then is not called (Failure, not done), so that the next try is decided by it.

        Raises Refusal: tool_changed, no_delegation, unknown_tool, provider_error (a secret is
        missing or may not go there): nothing was sent. Raises routing.Failure. The effect key
        travels twice: as `Idempotency-Key` for servers that look at HTTP, and in `_meta` for
        those that look at MCP.
        """
        client = await self._client(name, server, user)
        params: dict[str, Any] = {"name": tool, "arguments": dict(arguments)}
        headers: dict[str, str] = {}
        if effect_key is not None:
            params["_meta"] = {META_EFFECT: effect_key}
            headers["idempotency-key"] = effect_key
        reply = await self._sent(client, name, server, tool, params, headers, decided)
        if "error" in reply:
            error = reply["error"]
            return result(f"{error.get('message')} (code {error.get('code')})", error=True)
        return results.checked(reply.get("result"), client.where)

    async def look(
        self, name: str, server: ToolServer, tool: str, *, user: str | None = None
    ) -> Observed | None:
        """What the server says of a tool, for `catalogue.check` to tighten by, before anything is
        decided; asked of the server as seldom as `call` does it.

        None when the server does not say and need not. Raises what `call` would raise before it
        sends anything: Failure (not done), Refusal (tool_changed, no_delegation, …).
        """
        client = await self._client(name, server, user)
        return (await self._unchanged(client, name, server, tool))[0]

    async def catalogue(
        self, name: str, server: ToolServer, *, user: str | None = None, max_age_ms: int = 0
    ) -> list[Observed]:
        """Everything the server offers that can be used, by name. Raises Failure (not done),
        Refusal."""
        found = await (await self._client(name, server, user)).listed(max_age_ms)
        return [found.tools[tool] for tool in sorted(found.tools)]

    async def describe(self, servers: Mapping[str, ToolServer]) -> None:
        """Have `seen` know these servers, as far as they answer. Never raises for one of them:
        a listing must not fail because a server is down."""

        async def ask(name: str, server: ToolServer) -> None:
            per_user = server.oauth is not None and server.oauth.per_user
            if per_user or self._clock.now() < self._silent.get(name, 0):
                return  # nobody's view of a server that is used as a person exists
            try:
                async with asyncio.timeout(DESCRIBE_SECONDS):
                    await self.catalogue(name, server, max_age_ms=CHECKED_FOR_MS)
            except (Failure, Refusal, TimeoutError):
                self._silent[name] = self._clock.now() + SILENT_FOR_MS

        await asyncio.gather(*(ask(name, server) for name, server in servers.items()))

    def seen(self) -> dict[str, Mapping[str, Observed]]:
        """What each server was last seen to offer, as `catalogue.listing` takes it."""
        found: dict[str, Mapping[str, Observed]] = {}
        for (name, _, _, user), client in self._clients.items():
            if client.catalogue is not None and (not user or name not in found):
                found[name] = client.catalogue.tools
        return found

    async def close(self) -> None:
        """End every child process and session."""
        clients, self._clients = list(self._clients.values()), {}
        await asyncio.gather(*(client.close() for client in clients))

    # --- inside -------------------------------------------------------------------------------

    async def _sent(
        self,
        client: Client,
        name: str,
        server: ToolServer,
        tool: str,
        params: Mapping[str, Any],
        headers: Mapping[str, str],
        decided: ToolClass | None,
    ) -> dict[str, Any]:
        """The response to a call, sent to the very server whose lock was looked at: one that was
        started again, or has forgotten us, may be another version of itself."""
        for _ in range(3):
            seen, epoch = await self._unchanged(client, name, server, tool)
            if decided is not None and tighten(decided, seen) != decided:
                raise Failure(
                    f"{client.where} says worse of {tool} than when the call was decided; "
                    "call it again",
                    done=False,
                )
            mirrored: dict[str, str] = {}
            if seen is not None and client.connection.version in MODERN:
                mirrored = parameter_headers(seen.input_schema, params["arguments"])
            try:
                return await client.call(params, {**headers, **mirrored}, epoch)
            except Handshake:
                continue
        raise Failure(f"{client.where} forgets its sessions at once", done=False)

    async def _unchanged(
        self, client: Client, name: str, server: ToolServer, tool: str
    ) -> tuple[Observed | None, int | None]:
        """The tool as its server describes it, if that is as it was locked, and the epoch in which
        it does; None for what could not be asked and need not be."""
        if not TOOL_NAME.fullmatch(tool):
            raise Refusal(Code.UNKNOWN_TOOL, f"{tool[:80]!a} is not the name of a tool")
        kind = server.tools.get(tool, ToolClass())
        reads = set(kind.access) == {Access.READ}
        try:
            known = await client.listed(CHECKED_FOR_MS if reads else CHECKED_FOR_WRITES_MS)
        except Failure as failure:
            # Without a lock the list only makes a class stricter, and shows in which headers
            # arguments go: a server that cannot list may still be called.
            if kind.fingerprint is None and client.connection.version is not None:
                return None, None
            raise Failure(
                failure.message, done=False, code=failure.code, retry_after=failure.retry_after
            ) from None
        seen = known.tools.get(tool)
        if kind.fingerprint is None:
            return seen, known.epoch
        if seen is not None and seen.fingerprint == kind.fingerprint:
            client.matched[tool] = seen
            return seen, known.epoch
        raise self._drifted(client, known, name, tool, kind)

    def _drifted(
        self, client: Client, known: Catalogue, name: str, tool: str, kind: ToolClass
    ) -> Refusal:
        seen, locked = known.tools.get(tool), kind.fingerprint or ""
        before = client.matched.get(tool)
        if before is not None and before.fingerprint != locked:
            before = None
        now = seen.fingerprint if seen else ""
        if client.alerted.get(tool) != f"{locked} {now}":
            client.alerted[tool] = f"{locked} {now}"
            self._on_drift(name, tool, locked, now)
        return Refusal(
            Code.TOOL_CHANGED,
            f"tool {name}.{tool} is closed: {changed(locked, seen, before, kind.description)} "
            "since interlock.lock was written. Look at the change, then run `interlock lock` and "
            "merge what it writes.",
        )

    async def _client(self, name: str, server: ToolServer, user: str | None) -> Client:
        """The client of a server, made when it is first needed."""
        person = (user or "") if server.oauth is not None and server.oauth.per_user else ""
        key = (name, server.url, server.command, person)
        self._policies[name] = server
        client = self._clients.get(key)
        if client is None:
            client = self._make(name, server, person or None)
            self._clients[key] = client
            # The policy has moved the server: nobody will ask the old one for anything.
            for other in [k for k in self._clients if k[0] == name and k[1:3] != key[1:3]]:
                await self._clients.pop(other).close()
        client.seconds = server.timeout_seconds
        return client

    def _make(self, name: str, server: ToolServer, person: str | None) -> Client:
        def policy() -> ToolServer:
            return self._policies[name]

        def note(method: str) -> None:
            client.note(method)

        connection: Connection
        if server.command:
            keyring = self._upstream.keyring
            connection = StdioConnection(name, policy, keyring, self._clock, note)
        else:
            connection = HttpConnection(name, policy, self._upstream, self._tokens, person, note)
        client = Client(name, connection, self._clock)
        return client


async def observe(name: str, server: ToolServer, upstream: Upstream) -> list[Observed]:
    """What a server offers now, over a connection of its own: what `interlock lock` writes down."""
    servers = Servers(upstream)
    try:
        return await servers.catalogue(name, server)
    finally:
        await servers.close()
