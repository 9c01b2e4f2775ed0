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

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway import routing
from gateway.access.directory import InForce, Standing
from gateway.budgets import Rules
from gateway.database import Database, GroupCommit, Transaction
from gateway.door.books import Books, Memory
from gateway.door.guarding import Guarding
from gateway.door.models import ModelCalls
from gateway.door.tools import ToolCalls, reaches
from gateway.limits import Limiter, MeterRow
from gateway.live import LiveCall, LiveCalls
from gateway.mcp import artifacts, catalogue
from gateway.mcp.artifacts import Piece
from gateway.mcp.finder import Listing
from gateway.mcp.fingerprints import Observed
from gateway.mcp.oauth import Vault
from gateway.mcp.upstream import Servers
from gateway.policy.rules import Hook
from gateway.providers import counting
from gateway.providers.asked import Asked
from gateway.providers.dialects import fields
from gateway.providers.services import services
from gateway.providers.upstream import Upstream
from gateway.refusals import Code, Refusal
from gateway.routing import Failure
from gateway.telemetry import BudgetLevel, Readings, Telemetry
from gateway.values import Clock, Millis

__all__ = ["Door", "Head", "Memory", "recover"]


@dataclass(frozen=True, slots=True)
class Head:
    """What comes with a request besides its body: the key of the call and the caller's trace."""

    key: str | None = None
    traceparent: str | None = None


class Door:
    """Carries out calls. One per process; not thread-safe, belongs to its event loop."""

    def __init__(
        self,
        database: Database,
        commits: GroupCommit,
        memory: Memory,
        clock: Clock,
        upstream: Upstream,
        telemetry: Telemetry,
    ) -> None:
        self.live = LiveCalls(
            lambda hashes: memory.directory.barred_among(database, hashes, now=clock.now()),
            clock.now(),
        )
        self.books = Books(database, commits, memory, clock, self.live, telemetry)
        self.limiter = Limiter()
        self._upstream = upstream
        self._guarding = guarding = Guarding(services(upstream))
        self.models = ModelCalls(self.books, upstream, guarding, self.limiter)
        self._servers = Servers(
            upstream,
            clock,
            vault=Vault(database, commits, clock),
            on_drift=self._drifted,
        )
        self._tools = ToolCalls(self.books, self._servers, guarding, self.limiter)
        self._database = database
        self._commits = commits
        self._memory = memory
        self._clock = clock

    def readings(self) -> Readings:
        """What is asked at every scrape of the metrics."""
        return Readings(
            reservations=lambda: self._memory.ledger.open,
            budgets=self._levels,
            waiting=lambda: {
                name: waiting for name, (_, waiting) in self.models.lanes.occupancy().items()
            },
            breakers=lambda: {
                f"{each.provider}/{each.model}": each.state.value
                for each in self.models.router.standing(self._clock.now())
            },
        )

    def _levels(self) -> list[BudgetLevel]:
        policy = self._memory.directory.known_policy
        if policy is None:
            return []
        levels = self._memory.ledger.windows.levels(policy.rules, self._clock.now())
        return [
            BudgetLevel(
                rule.name,
                total.held_nano + total.spent_nano,
                rule.limit,
                scope if rule.each_agent else "",
            )
            for rule, scope, total in levels
        ]

    def load(self, database: Database) -> None:
        """Go on with the rate limits where the last process stood."""
        rows = database.read("SELECT rule, scope, tat FROM rate_limits")
        self.limiter.load([MeterRow(r["rule"], r["scope"], Millis(r["tat"])) for r in rows])

    async def keep(self) -> None:
        """Write down where the rate limits stand; now and then, and at the end."""
        rows = [row._asdict() for row in self.limiter.dump(self._clock.now())]

        def write(tx: Transaction) -> None:
            tx.execute("DELETE FROM rate_limits")
            tx.many("INSERT INTO rate_limits (rule, scope, tat) VALUES (:rule, :scope, :tat)", rows)

        if rows:
            await self._commits.write(write)

    async def model(self, token_hash: str, asked: Asked, head: Head) -> LiveCall:
        """Start (or find) a model call. Raises Refusal when it is refused before it begins."""
        call = self._call(token_hash, asked.digest, head, streams=asked.stream, api=asked.api)

        def carry_out(call: LiveCall) -> Awaitable[None]:
            return self.models.carry_out(call, asked)

        if call.fresh and not asked.stream:
            return await self.live.carry_here(call, carry_out)
        return self.live.carry(call, carry_out)

    async def count_tokens(self, token_hash: str, asked: Asked) -> int:
        """How many input tokens a request would have, for the first of its targets. Raises
        Refusal; costs nothing and leaves no row."""
        standing, policy = self.caller(token_hash)
        target = routing.targets(asked.model, standing.grants, policy.policy)[0]
        who = standing.who.principal
        guard = self._guarding.at(Hook.MODEL_INPUT, policy, who, model=asked.model)
        if guard is not None:
            asked = await self._guarding.request(guard, self._call(token_hash, "", Head()), asked)
        document = fields.document(asked.body)
        try:
            return await counting.count_tokens(
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
        head: Head,
    ) -> LiveCall:
        """Start (or find) a call of `server.tool`. Raises Refusal like `model`."""
        call = self._call(token_hash, request_hash, head)
        return self.live.carry(call, lambda call: self._tools.carry_out(call, name, arguments))

    async def listing(self, token_hash: str) -> Callable[[], Listing]:
        """The tools that the caller may use, described by their servers where the policy leaves
        that to them. Raises Refusal."""
        standing, policy = self.caller(token_hash)
        live = reaches(standing.who)
        if live:
            await self._servers.describe(catalogue.undescribed(standing.grants, policy.policy))
        seen = self._servers.seen() if live else {}
        return lambda: catalogue.offer(standing.grants, policy.policy, seen, artifacts=live)

    def artifacts(self, token_hash: str, skip: int, limit: int) -> list[dict[str, Any]]:
        """The caller's run's large results: {id, tool, bytes, media}. Raises Refusal."""
        run = self.caller(token_hash)[0].who.principal.run
        return artifacts.listed(self._database, run, skip=skip, limit=limit)

    def artifact(self, token_hash: str, identity: str, offset: int, limit: int) -> Piece:
        """A piece of one of them. Raises Refusal (not_found: not this run's)."""
        run = self.caller(token_hash)[0].who.principal.run
        return artifacts.read(self._database, identity, run, offset, limit)

    async def catalogue(self, server: str) -> list[Observed]:
        """What a server of the policy in force offers now: for `interlock lock`. Raises Refusal."""
        self.books.look_again()
        known = self._memory.directory.in_force(self._database).policy.servers
        if server not in known:
            raise Refusal(Code.NOT_FOUND, f"the policy in force has no tool server {server!r}")
        try:
            return await self._servers.catalogue(server, known[server])
        except Failure as failure:
            raise Refusal(failure.code, failure.message, retry_after=failure.retry_after) from None

    async def close(self) -> None:
        """End what was started for tools."""
        await self._servers.close()

    def _drifted(self, server: str, tool: str, locked: str, seen: str) -> None:
        gone = "is gone" if not seen else "describes itself otherwise than interlock.lock has it"
        self.books.tell(
            kind="tool_changed",
            agent=None,
            identity=(server, tool, locked, seen),
            text=f"tool {server}.{tool} {gone}: it is closed until `interlock lock` is run and "
            "merged",
        )

    def caller(self, token_hash: str) -> tuple[Standing, InForce]:
        """Who calls and what may be reached now, for listings. Raises Refusal."""
        return self.books.caller(token_hash, certainly=True)

    def _call(
        self,
        token_hash: str,
        request_hash: str,
        head: Head,
        *,
        streams: bool = False,
        api: str | None = None,
    ) -> LiveCall:
        """Whose call it is. Who may not call at all is told before anything: raises Refusal."""
        who = self.books.caller(token_hash)[0].who.principal
        return LiveCall(
            self.live.key(who.run, head.key),
            token_hash,
            request_hash,
            fresh=head.key is None,
            streams=streams,
            who=who,
            traceparent=head.traceparent,
            api=api,
        )


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
