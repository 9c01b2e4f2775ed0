"""The one way in: what happens to every call, in order.

    authenticate → principal → stopped/revoked → grant ∩ policy → replay by key → effect key
    → budget reservation → route → stream → settle → ledger

Model calls (`models`) and tool calls (`tools`) each go through it on one screen; what every call
shares, from the deciding transaction to the ledger, is in `books`. Everything up to the
reservation happens in one transaction, so a revocation, a stop, a tighter policy or a lower budget
that commits first always wins. A call runs as a task of its own: a client that goes away does not
end it, and one that comes back with the same key finds it (`LiveCall`) or its stored answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway import access
from gateway.database import Database, GroupCommit
from gateway.door.books import Books
from gateway.door.models import ModelCalls
from gateway.door.tools import ToolCalls
from gateway.live import LiveCall, LiveCalls
from gateway.policy import Grants, Policy
from gateway.providers.conversation import ModelRequest
from gateway.providers.upstream import Upstream
from gateway.values import Clock, RunId


class Door:
    """Carries out calls. One per process; not thread-safe, belongs to its event loop."""

    def __init__(
        self, database: Database, commits: GroupCommit, clock: Clock, upstream: Upstream
    ) -> None:
        self._database = database
        self._clock = clock
        self.live = LiveCalls(
            lambda hashes: access.barred_among(database, hashes, now=clock.now()), clock.now()
        )
        books = Books(commits, clock, self.live)
        self._models = ModelCalls(books, upstream)
        self._tools = ToolCalls(books, upstream)

    async def model(
        self, token_hash: str, request: ModelRequest, *, request_hash: str, key: str | None
    ) -> LiveCall:
        """Start (or find) a model call. Raises Refusal when it is refused before it begins."""
        return self.live.carry(
            self.live.key(self._run_of(token_hash), key),
            token_hash,
            request_hash,
            lambda call: self._models.carry_out(call, request),
        )

    async def tool(
        self,
        token_hash: str,
        name: str,
        arguments: Mapping[str, Any],
        *,
        request_hash: str,
        key: str | None,
    ) -> LiveCall:
        """Start (or find) a call of `server.tool`. Raises Refusal like `model`."""
        return self.live.carry(
            self.live.key(self._run_of(token_hash), key),
            token_hash,
            request_hash,
            lambda call: self._tools.carry_out(call, name, arguments),
        )

    def rights(self, token_hash: str) -> tuple[Grants, Policy]:
        """What the caller may reach now, for listings. Raises Refusal."""
        who = access.caller(self._database, token_hash, now=self._clock.now())
        _, policy = access.current_policy(self._database)
        return access.rights(who, access.ceiling(self._database, who)), policy

    def _run_of(self, token_hash: str) -> RunId:
        """Whose call it is. Raises Refusal: who may not call at all is told before anything."""
        return access.caller(self._database, token_hash, now=self._clock.now()).principal.run
