"""The client of one tool server: finds out its era, opens, lists its tools, calls them.

Era detection (specification 2026-07-28, basic/versioning and the transports): a `server/discover`
first; only its result or a recognised modern error says that the server is modern, anything else
means `initialize`. What was found holds for an epoch of the connection. Until a tool has been
called nothing has happened, whatever failed: then failures are never `done`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.mcp.connection import LIST_CHANGED, Connection, Handshake, NoAnswer, Rejected
from gateway.mcp.fingerprints import Observed, observed
from gateway.mcp.messages import UNSUPPORTED_VERSION
from gateway.mcp.revisions import INFO, LEGACY, MODERN, envelope, supported
from gateway.routing import Failure
from gateway.values import Clock, Millis

PROBE_SECONDS: Final = 10.0
"""A legacy server may not answer what it does not know; it must start within this time too."""
MOST_PAGES, MOST_TOOLS = 100, 5_000
_FINAL: Final = (401, 403, 429, 502, 503, 504)
"""Statuses that say nothing about a server's era."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the server offered, and when it was asked. `unusable` says why others are left out."""

    at: Millis
    epoch: int
    """Of the connection: another one is another server, for all that is known."""
    changes: int
    """How often the server had said that its list has changed, when it was asked for it."""
    tools: Mapping[str, Observed]
    unusable: tuple[str, ...] = ()


@dataclass(slots=True)
class Client:
    """One server, used as one person (or as nobody)."""

    name: str
    connection: Connection
    clock: Clock
    seconds: float = 60.0
    catalogue: Catalogue | None = None
    matched: dict[str, Observed] = field(default_factory=dict)
    """Each locked tool as it was when it last matched its lock."""
    alerted: dict[str, str] = field(default_factory=dict)
    """Tool to the fingerprint for which an alert was given."""
    changes: int = 0
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    _listing: asyncio.Task[Catalogue] | None = None
    _opened: int = -1
    _watch: asyncio.Task[Any] | None = None

    @property
    def where(self) -> str:
        """For errors."""
        return f"tool server {self.name}"

    def note(self, method: str) -> None:
        """A notification of the server."""
        if method == LIST_CHANGED:
            self.changes += 1

    async def call(
        self, params: Mapping[str, Any], headers: Mapping[str, str], epoch: int | None
    ) -> dict[str, Any]:
        """The JSON-RPC response to a `tools/call`. Raises Failure, Refusal; Handshake when the
        connection is not of `epoch` any more: what was known of the server must be looked at
        again, and nothing was sent that the server has taken. None: of any."""
        await self.open()
        if epoch is not None and self.connection.epoch != epoch:
            raise Handshake
        return await self._ask("tools/call", params, headers)

    async def listed(self, max_age_ms: int) -> Catalogue:
        """The catalogue, asked for again if it is older than that or known to have changed.

        Raises Failure (not done), Refusal. However many calls want it, it is asked for once.
        """
        known = self.catalogue
        if known is not None and self._holds(known, max_age_ms):
            return known
        if self._listing is None:
            self._listing = asyncio.create_task(self._relist())
            self._listing.add_done_callback(self._relisted)
        # Shared, failures too: a server that hangs must not hang once for every caller.
        return await asyncio.shield(self._listing)

    async def open(self) -> None:
        """Agree on a revision, once in an epoch. Raises Failure (not done), Refusal."""
        async with self._opening:
            try:
                await self.connection.start()
                if self._opened == self.connection.epoch:
                    return
                self.catalogue = None
                if not await self._discover():
                    await self._initialize()
            except Handshake:
                raise Failure(f"{self.where} answered HTTP 404", done=False) from None
            except Failure as failure:
                raise _before_anything(failure) from None
            self._opened = self.connection.epoch

    async def close(self) -> None:
        """Let go of the server."""
        for task in (self._watch, self._listing):
            if task is not None:
                task.cancel()
        await self.connection.close()

    # --- inside -------------------------------------------------------------------------------

    async def _ask(
        self, method: str, params: Mapping[str, Any], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        version = self.connection.version
        sent = envelope(params, version) if version in MODERN else params
        return await self.connection.ask(method, sent, seconds=self.seconds, headers=headers)

    def _holds(self, known: Catalogue, max_age_ms: int) -> bool:
        same = known.epoch == self.connection.epoch and known.changes == self.changes
        young = 0 <= self.clock.now() - known.at <= max_age_ms
        return same and young and self.connection.ready

    async def _relist(self) -> Catalogue:
        try:
            for _ in range(2):
                try:
                    await self.open()
                    self.catalogue = await self._list()
                except Handshake:
                    continue
                return self.catalogue
        except Failure as failure:
            raise _before_anything(failure) from None
        raise Failure(f"{self.where} forgets its sessions at once", done=False)

    def _relisted(self, task: asyncio.Task[Catalogue]) -> None:
        self._listing = None
        if not task.cancelled():
            task.exception()  # looked at: whoever wanted it may be gone

    async def _discover(self) -> bool:
        """Is the server modern? Raises Failure when it is, but of no revision known here."""
        version = MODERN[0]
        self.connection.version = version
        try:
            reply = await self.connection.ask(
                "server/discover",
                envelope({}, version),
                seconds=min(PROBE_SECONDS, self.seconds),
            )
        except Rejected as rejected:
            self.connection.version = None
            if rejected.status in _FINAL:
                raise
            return False
        except Failure as failure:
            self.connection.version = None
            # A legacy server may say nothing to what it does not know (stdio, compatibility).
            if isinstance(failure, NoAnswer):
                return False
            raise
        result, error = reply.get("result"), reply.get("error")
        if isinstance(result, Mapping) and version in _texts(result.get("supportedVersions")):
            self._subscribe(result.get("capabilities"))
            return True
        self.connection.version = None
        if isinstance(error, Mapping) and error.get("code") == UNSUPPORTED_VERSION:
            offers = supported(error)
            if offers and not set(offers) & set(LEGACY):
                raise Failure(
                    f"{self.where} speaks MCP {', '.join(offers)[:200]}, none of which this "
                    f"gateway does ({', '.join((*MODERN, *LEGACY))})",
                    done=False,
                )
        return False

    async def _initialize(self) -> None:
        params = {"protocolVersion": LEGACY[0], "capabilities": {}, "clientInfo": INFO}
        reply = await self.connection.ask("initialize", params, seconds=self.seconds)
        result = reply.get("result")
        if not isinstance(result, Mapping):
            raise Failure(f"{self.where} refused to initialize", done=False)
        version = result.get("protocolVersion")
        if version not in LEGACY:
            raise Failure(
                f"{self.where} speaks MCP {str(version)[:40]!r}, which this gateway does not",
                done=False,
            )
        self.connection.version = str(version)
        await self.connection.tell("notifications/initialized", {})

    def _subscribe(self, capabilities: Any) -> None:
        """Hear of changes where that costs nothing: on the one channel of a stdio server. Over
        HTTP it would be a connection held open for each server; there the age limits do."""
        tools = capabilities.get("tools") if isinstance(capabilities, Mapping) else None
        wanted = isinstance(tools, Mapping) and tools.get("listChanged") is True
        if not wanted or not self.connection.one_channel:
            return
        params = envelope({"notifications": {"toolsListChanged": True}}, MODERN[0])

        async def watch() -> None:
            try:
                await self.connection.ask("subscriptions/listen", params, seconds=86_400)
            except Failure:
                return

        if self._watch is not None:
            self._watch.cancel()
        self._watch = asyncio.create_task(watch())

    async def _list(self) -> Catalogue:
        begun, epoch, changes = self.clock.now(), self.connection.epoch, self.changes
        tools: dict[str, Observed] = {}
        unusable: list[str] = []
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            params = {} if cursor is None else {"cursor": cursor}
            reply = await self._ask("tools/list", params, {})
            result = reply.get("result")
            entries = result.get("tools") if isinstance(result, Mapping) else None
            if not isinstance(result, Mapping) or not isinstance(entries, list):
                error = reply.get("error") or {}
                told = str(error.get("message", "no list of tools"))[:200]
                raise Failure(f"{self.where} does not list its tools: {told}", done=False)
            for entry in entries:
                try:
                    tool = observed(entry)
                    if tool.name in tools:
                        raise ValueError("a name that is there twice")
                except ValueError as error:
                    name = entry.get("name") if isinstance(entry, Mapping) else None
                    unusable.append(f"{str(name)[:80]!a}: {error}")
                else:
                    tools[tool.name] = tool
            following = result.get("nextCursor")
            if following is None:
                return Catalogue(begun, epoch, changes, tools, tuple(unusable))
            if not isinstance(following, str) or following == cursor or len(tools) > MOST_TOOLS:
                break
            cursor = following
        raise Failure(f"{self.where} does not come to the end of its list of tools", done=False)


def _before_anything(failure: Failure) -> Failure:
    return Failure(failure.message, done=False, code=failure.code, retry_after=failure.retry_after)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()
