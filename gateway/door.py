"""The one way in: what happens to every call, in order, on one screen.

    authenticate → principal → stopped/revoked → grant ∩ policy → replay by key → effect key
    → budget reservation → route → stream → settle → ledger

Everything up to the reservation happens in one transaction (`_open_model`, `_open_tool`), so a
revocation, a stop, a tighter policy or a lower budget that commits first always wins. A call runs
as a task of its own: a client that goes away does not end it, and one that comes back with the
same key finds it (`LiveCall`) or its stored answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from gateway import access, budgets, calls, pricing, providers, routing
from gateway.budgets import Admission, Ceiling, Shortfall
from gateway.calls import Ask, Next, Settlement, Stored
from gateway.database import Database, GroupCommit, Row, Transaction
from gateway.live import Finished, LiveCall, LiveCalls
from gateway.mcp import catalogue, recorded
from gateway.mcp.catalogue import GrantedTool
from gateway.mcp.upstream import Servers
from gateway.policy import BudgetRule, Grants, Policy, ToolServer
from gateway.pricing import PriceList, Usage
from gateway.providers.conversation import Done, ModelRequest, Reply, assemble, estimate_input
from gateway.providers.upstream import Upstream
from gateway.refusals import Code, Refusal
from gateway.routing import Failure, Target
from gateway.values import Clock, Label, NanoUSD, Principal, Purpose


@dataclass(frozen=True, slots=True)
class ModelAttempt:
    """A reserved attempt of a model call: everything needed to send and to settle it."""

    row: Row
    target: Target
    request: ModelRequest
    price: PriceList | None
    over: tuple[Ceiling, ...]
    policy: Policy


@dataclass(frozen=True, slots=True)
class ToolAttempt:
    """A reserved attempt of a tool call. `server` is None when a recorded world answers."""

    row: Row
    tool: GrantedTool
    server: ToolServer | None
    world: tuple[Mapping[str, Any], ...]
    policy: Policy


class Door:
    """Carries out calls. One per process; not thread-safe, belongs to its event loop."""

    def __init__(
        self, database: Database, commits: GroupCommit, clock: Clock, upstream: Upstream
    ) -> None:
        self._database = database
        self._commits = commits
        self._clock = clock
        self._upstream = upstream
        self._servers = Servers(upstream)
        self.live = LiveCalls(lambda hashes: access.revoked_among(database, hashes), clock.now())

    # --- what callers may ask -------------------------------------------------------------

    async def model(
        self, token_hash: str, request: ModelRequest, *, request_hash: str, key: str | None
    ) -> LiveCall:
        """Start (or find) a model call. Raises Refusal when it is refused before it begins."""
        principal = self._admit(token_hash)
        return self.live.carry(
            self.live.key(principal.run, key),
            token_hash,
            request_hash,
            lambda call: self._run_model(call, request),
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
        principal = self._admit(token_hash)
        return self.live.carry(
            self.live.key(principal.run, key),
            token_hash,
            request_hash,
            lambda call: self._run_tool(call, name, arguments),
        )

    def rights(self, token_hash: str) -> tuple[Grants, Policy]:
        """What the caller may reach now, for listings. Raises Refusal."""
        who = access.caller(self._database, token_hash, now=self._clock.now())
        _, policy = access.current_policy(self._database)
        return access.rights(who, policy), policy

    # --- the order ------------------------------------------------------------------------

    def _open_model(
        self, tx: Transaction, call: LiveCall, request: ModelRequest, number: int
    ) -> ModelAttempt | Stored | Refusal | None:
        """Decide and reserve, in one transaction. None: there is no such target any more."""
        now = self._clock.now()
        who = access.caller(tx, call.token_hash, now=now)
        digest, policy = access.current_policy(tx)
        grants = access.rights(who, policy)
        targets = routing.targets(request.model, grants, policy)
        ask = Ask(call.key, who.principal, "model", request.model, call.request_hash, digest, True)
        stands = calls.standing(tx, ask, live=self.live.others(call), rules=policy.budgets, now=now)
        if not isinstance(stands, Next):
            return stands
        if number >= len(targets):
            return None
        target = targets[number]
        over = budgets.ceilings(policy.budgets, grants.limits, calls.charge(ask, target.name, now))
        price = pricing.price_of(target.model, target.provider, digest, now)
        if price is None and any(c.enforce and c.limit_nano is not None for c in over):
            names = ", ".join(c.name for c in over if c.enforce and c.limit_nano is not None)
            return Refusal(
                Code.UNKNOWN_PRICE,
                f"the price of {target.name} ({target.model.id}) is not known, and {names} limits "
                "cost: give the model a `price` in gateway/models.yaml",
            )
        admission = budgets.admit(
            over,
            calls.totals(tx, [c.meter for c in over], rules=policy.budgets),
            cost=price.worst if price else lambda _input, _output: 0,
            input_tokens=estimate_input(request),
            wanted_output=_wanted(request, target, grants),
        )
        if isinstance(admission, Shortfall):
            return self._shortfall(tx, admission, who.principal)
        row = calls.reserve(
            tx,
            ask,
            attempt=stands.attempt,
            effect_key=stands.effect_key,
            target=target.name,
            admission=admission,
            price_table=price.table if price else None,
            label=calls.run_label(tx, call.key.run),
            rules=policy.budgets,
            now=now,
        )
        clamped = replace(request, max_output_tokens=admission.output_tokens)
        return ModelAttempt(row, target, clamped, price, over, policy)

    def _open_tool(
        self, tx: Transaction, call: LiveCall, name: str, arguments: Mapping[str, Any]
    ) -> ToolAttempt | Stored | Refusal:
        """Decide and reserve, in one transaction."""
        now = self._clock.now()
        who = access.caller(tx, call.token_hash, now=now)
        digest, policy = access.current_policy(tx)
        grants = access.rights(who, policy)
        sides = access.sides(who, policy)
        tool = catalogue.check(name, arguments, grants=grants, sides=sides, policy=policy)
        ask = Ask(
            call.key,
            who.principal,
            "tool",
            name,
            call.request_hash,
            digest,
            repeatable=tool.kind.repeatable,
            changes=tool.changes,
        )
        stands = calls.standing(tx, ask, live=self.live.others(call), rules=policy.budgets, now=now)
        if not isinstance(stands, Next):
            return stands
        row = calls.reserve(
            tx,
            ask,
            attempt=stands.attempt,
            effect_key=stands.effect_key,
            target=name,
            admission=Admission(0, 0, 0),
            price_table=None,
            label=tool.label,
            rules=policy.budgets,
            now=now,
        )
        # An eval never reaches a real server, even when nobody recorded anything for it.
        real = who.recorded is None and who.principal.purpose is Purpose.LIVE
        server = policy.servers[name.partition(".")[0]] if real else None
        return ToolAttempt(row, tool, server, who.recorded or (), policy)

    async def _run_model(self, call: LiveCall, request: ModelRequest) -> None:
        """Try the targets in order until one answers."""
        failures: list[Failure] = []
        number = 0
        while True:
            opened = await self._decide(
                lambda tx, n=number: self._open_model(tx, call, request, n)  # type: ignore[misc]
            )
            if isinstance(opened, Stored):
                return self._replay(call, opened.row)
            if isinstance(opened, Refusal):
                raise opened if not failures else _exhausted(failures)
            if opened is None:
                raise _exhausted(failures)
            try:
                done = await self._stream(call, opened)
            except Failure as failure:
                await self._give_up(opened.row, failure, opened.over, opened.policy)
                failures.append(failure)
                if call.events or not failure.fallback:
                    raise _exhausted(failures) from None
                number += 1
                continue
            except BaseException as error:
                await self._abandon(call, opened.row, error, opened.over, opened.policy)
                raise
            return await self._settle_model(call, opened, done)

    async def _run_tool(self, call: LiveCall, name: str, arguments: Mapping[str, Any]) -> None:
        """Call the tool, on its server or in the recorded world."""
        opened = await self._decide(lambda tx: self._open_tool(tx, call, name, arguments))
        if isinstance(opened, Stored):
            return self._replay(call, opened.row)
        if isinstance(opened, Refusal):
            raise opened
        row, tool = opened.row, opened.tool
        call.begin(target=name, label=tool.label, effect_key=row["effect_key"])
        try:
            if opened.server is None:
                answer = recorded.answer(opened.world, name, arguments)
            else:
                server, _, short = name.partition(".")
                answer = await self._servers.call(
                    server, opened.server, short, arguments, effect_key=row["effect_key"]
                )
        except Failure as failure:
            await self._give_up(row, failure, (), opened.policy)
            if failure.done and not tool.kind.repeatable:
                raise Refusal(
                    Code.OUTCOME_UNKNOWN,
                    f"{name} may have happened: {failure.message}. It is not safe to repeat; "
                    "look at the system it changes, then decide.",
                    call_key=str(call.key),
                ) from None
            raise _exhausted([failure]) from None
        except BaseException as error:
            await self._abandon(call, row, error, (), opened.policy)
            raise
        await self._settle(call, row, Settlement(NanoUSD(0)), answer, tool.label, (), opened.policy)
        return None

    # --- streaming and settling -----------------------------------------------------------

    async def _stream(self, call: LiveCall, attempt: ModelAttempt) -> Done:
        """Hand the answer on as it comes. `Done` is held back until it is settled."""
        label = Label.parse(attempt.row["label"])
        begun = False
        source = providers.stream(self._upstream, attempt.target, attempt.request)
        try:
            async with aclosing(source) as events:  # type: ignore[type-var]
                async for event in events:
                    if not begun:
                        begun = True
                        call.begin(target=attempt.target.name, label=label, effect_key=None)
                    if isinstance(event, Done):
                        return event
                    call.add(event)
        except Refusal as refusal:
            # No key, or a host that may not have it: this target did nothing.
            raise Failure(refusal.message, done=False, code=refusal.code) from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Failure(
                f"provider {attempt.target.provider_name} answered something that is not its "
                f"dialect ({type(error).__name__})",
                done=True,
            ) from None
        raise Failure(f"provider {attempt.target.provider_name} ended without an answer", done=True)

    async def _settle_model(self, call: LiveCall, attempt: ModelAttempt, done: Done) -> None:
        row = attempt.row
        if done.usage is None:
            # The provider does not say: the reservation is what we know it cannot exceed.
            estimate = estimate_input(attempt.request)
            output = max(0, row["reserved_tokens"] - estimate)
            cost, usage = row["reserved_nano"], Usage(estimate, output)
            error = "the provider reported no usage; charged as reserved"
        else:
            usage, error = done.usage, None
            cost = attempt.price.cost(usage) if attempt.price else 0
        reply = assemble([*call.events, Done(done.stop, usage)])
        settlement = Settlement(
            cost_nano=NanoUSD(cost),
            input_tokens=usage.input,
            output_tokens=usage.output,
            cached_tokens=usage.cached,
            reasoning_tokens=usage.reasoning,
            error=error,
        )
        label = Label.parse(row["label"])
        await self._settle(
            call, row, settlement, reply.to_json(), label, attempt.over, attempt.policy
        )

    async def _settle(
        self,
        call: LiveCall,
        row: Row,
        settlement: Settlement,
        response: Any,
        label: Label,
        over: tuple[Ceiling, ...],
        policy: Policy,
    ) -> None:
        def write(tx: Transaction) -> tuple[int, int, int]:
            calls.settle(
                tx,
                row,
                settlement,
                response=response,
                label=label,
                over=over,
                rules=_rules(tx, policy),
                now=self._clock.now(),
            )
            return calls.summary(calls.attempts(tx, call.key))

        # Shielded: an answer that is here must not be lost because somebody cancels the task.
        cost, tokens_in, tokens_out = await asyncio.shield(self._commits.write(write))
        call.finish(
            Finished(
                response=response,
                cost_nano=cost,
                input_tokens=tokens_in,
                output_tokens=tokens_out,
                replayed=False,
            )
        )

    async def _give_up(
        self, row: Row, failure: Failure, over: tuple[Ceiling, ...], policy: Policy
    ) -> None:
        end = calls.lose if failure.done else calls.release
        await asyncio.shield(
            self._commits.write(
                lambda tx: end(
                    tx,
                    row,
                    error=failure.message,
                    rules=_rules(tx, policy),
                    now=self._clock.now(),
                    **({"over": over} if failure.done else {}),
                )
            )
        )

    async def _abandon(
        self,
        call: LiveCall,
        row: Row,
        error: BaseException,
        over: tuple[Ceiling, ...],
        policy: Policy,
    ) -> None:
        """Cut off in the middle (revoked, shutting down, a fault of ours): nobody knows."""
        why = call.cut or f"cut off: {type(error).__name__}"
        with contextlib.suppress(asyncio.CancelledError):
            await self._give_up(row, Failure(why, done=True), over, policy)

    def _replay(self, call: LiveCall, row: Row) -> None:
        response = json.loads(row["response"])
        call.begin(
            target=row["target"], label=Label.parse(row["label"]), effect_key=row["effect_key"]
        )
        if row["kind"] == "model":
            for event in Reply.from_json(response).events():
                if not isinstance(event, Done):
                    call.add(event)
        call.finish(Finished(response, 0, 0, 0, replayed=True))

    # --- what every step needs --------------------------------------------------------------

    def _admit(self, token_hash: str) -> Principal:
        return access.caller(self._database, token_hash, now=self._clock.now()).principal

    async def _decide(self, work: Callable[[Transaction], Any]) -> Any:
        """Run a deciding transaction; what it refuses is returned, so that its writes stay."""

        def decide(tx: Transaction) -> Any:
            try:
                return work(tx)
            except Refusal as refusal:
                return refusal

        writing = asyncio.ensure_future(self._commits.write(decide))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            # Cut while the reservation was being written: nothing is sent, so give it back.
            opened = await writing
            if isinstance(opened, ModelAttempt | ToolAttempt):
                nothing = Failure("cut before it was sent", done=False)
                await self._give_up(opened.row, nothing, (), opened.policy)
            raise

    def _shortfall(self, tx: Transaction, short: Shortfall, who: Principal) -> Refusal:
        ceiling = short.ceiling
        meter = ceiling.meter
        calls.alert(
            tx,
            kind="budget_refused",
            agent=who.agent,
            identity=(meter.rule, meter.scope, meter.start, ceiling.limit_nano or 0),
            text=short.message,
            now=self._clock.now(),
        )
        return Refusal(
            Code.BUDGET_EXCEEDED,
            short.message,
            rule=ceiling.name,
            left_nano=short.left_nano,
            left_tokens=short.left_tokens,
            resets_at=ceiling.end,
        )


def _wanted(request: ModelRequest, target: Target, grants: Grants) -> int:
    """The most output anybody would let this call have, before budgets look at it."""
    ceilings = (
        request.max_output_tokens,
        target.model.max_output_tokens,
        grants.limits.max_output_tokens,
    )
    return min(value for value in ceilings if value is not None)


def _rules(tx: Transaction, policy: Policy) -> tuple[BudgetRule, ...]:
    """The rules in force now; those of the reservation when the policy has gone away."""
    try:
        return access.current_policy(tx)[1].budgets
    except Refusal:
        return policy.budgets


def _exhausted(failures: list[Failure]) -> Refusal:
    """What the client hears when no target is left: the last reason, and all of them in words."""
    if not failures:
        return Refusal(Code.PROVIDER_ERROR, "the model has no target whose provider is declared")
    busy = all(failure.code is Code.PROVIDER_BUSY for failure in failures)
    last = failures[-1].code
    code = Code.PROVIDER_ERROR if last is Code.PROVIDER_BUSY and not busy else last
    waits = [f.retry_after for f in failures if f.retry_after is not None]
    return Refusal(
        code,
        "; ".join(failure.message for failure in failures),
        retry_after=min(waits, default=None) if busy else None,
    )
