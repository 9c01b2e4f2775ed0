"""The one way in: what happens to every call, in order.

    authenticate → principal → stopped/revoked → grant ∩ policy → rate limits → replay by key
    → guardrails → effect key → approval → budget reservation → cache → route → stream
    → guardrails → settle → ledger

Model calls (`models`) and tool calls (`tools`) each go through it on one screen; what every call
shares, from the deciding transaction to the ledger, is in `books`. Everything from who calls to the
reservation is decided in one transaction, so a revocation, a stop, a tighter policy or a lower
budget that commits first always wins. A call runs as a task of its own: a client that goes away
does not end it, and one that comes back with the same key finds it (`LiveCall`) or its stored
answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway import providers, routing
from gateway.access.directory import InForce, Standing
from gateway.budgets import Rules
from gateway.database import Database, GroupCommit
from gateway.door.books import Books, Memory
from gateway.door.models import ModelCalls
from gateway.door.tools import ToolCalls
from gateway.live import LiveCall, LiveCalls
from gateway.providers.asked import Asked
from gateway.providers.dialects import fields
from gateway.providers.upstream import Upstream
from gateway.refusals import Refusal
from gateway.routing import Failure
from gateway.values import Clock, Millis

__all__ = ["Door"]


class Door:
    """Carries out calls. One per process; not thread-safe, belongs to its event loop."""

    def __init__(
        self,
        database: Database,
        commits: GroupCommit,
        memory: Memory,
        clock: Clock,
        upstream: Upstream,
    ) -> None:
        self._database = database
        self._memory = memory
        self._clock = clock
        self.live = LiveCalls(
            lambda hashes: memory.directory.barred_among(database, hashes, now=clock.now()),
            clock.now(),
        )
        self._books = Books(database, commits, memory, clock, self.live)
        self._upstream = upstream
        self._models = ModelCalls(self._books, upstream)
        self._tools = ToolCalls(self._books, upstream)

    async def model(self, token_hash: str, asked: Asked, *, key: str | None) -> LiveCall:
        """Start (or find) a model call. Raises Refusal when it is refused before it begins."""
        run = self._memory.directory.run_of(self._database, token_hash, self._clock.now())
        return self.live.carry(
            self.live.key(run, key),
            token_hash,
            asked.digest,
            lambda call: self._models.carry_out(call, asked),
            fresh=key is None,
            streams=asked.stream,
        )

    async def count_tokens(self, token_hash: str, asked: Asked) -> int:
        """How many input tokens a request would have, for the first of its targets. Raises
        Refusal; costs nothing and leaves no row."""
        standing, policy = self.caller(token_hash)
        target = routing.targets(asked.model, standing.grants, policy.policy)[0]
        document = fields.document(asked.body)
        try:
            return await providers.count_tokens(
                self._upstream, target, asked.conversation, document, asked.betas
            )
        except Failure as failure:
            raise Refusal(failure.code, failure.message, retry_after=failure.retry_after) from None

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
        run = self._memory.directory.run_of(self._database, token_hash, self._clock.now())
        return self.live.carry(
            self.live.key(run, key),
            token_hash,
            request_hash,
            lambda call: self._tools.carry_out(call, name, arguments),
            fresh=key is None,
        )

    def caller(self, token_hash: str) -> tuple[Standing, InForce]:
        """Who calls and what may be reached now, for listings. Raises Refusal."""
        self._memory.directory.refresh(self._database)
        return self._books.caller(token_hash)


def recover(database: Database, memory: Memory, now: Millis) -> int:
    """At the start: every open reservation is a dead process's. Returns how many there were."""
    with database.transaction() as tx:
        memory.directory.refresh(tx)
        try:
            rules = memory.directory.in_force(tx).rules
        except Refusal:
            rules = Rules(())
        lost = memory.ledger.recover(tx, rules=rules, now=now)
        memory.ledger.finish(tx)
    return lost
