"""A model call, from the decision to the ledger: its targets in order until one answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

from gateway import budgets, calls, pricing, routing
from gateway.access.directory import InForce
from gateway.budgets import Shortfall
from gateway.calls import Ask, Next, Settlement, Stored, answers
from gateway.calls.answers import Shelf
from gateway.database import Row, Transaction
from gateway.door.books import Books, Changed, exhausted
from gateway.door.guarding import Guarding
from gateway.door.sending import ModelAttempt, Sender, Withheld
from gateway.limits import Lanes, Limiter, Refused, Traits
from gateway.live import Finished, LiveCall
from gateway.policy import Grants
from gateway.policy.rules import Hook
from gateway.pricing import PriceList, Usage
from gateway.providers import serving, stored
from gateway.providers.asked import Asked
from gateway.providers.pieces import End
from gateway.providers.stored import Frame
from gateway.providers.upstream import Upstream
from gateway.refusals import Code, Refusal
from gateway.routing import Exhausted, Failure, Route, Router, Target, Try, Wait
from gateway.telemetry import Outcome
from gateway.values import Label, Millis, NanoUSD, Principal


@dataclass(frozen=True, slots=True)
class FromCache:
    """An equal request was answered before: here is that answer, already in the ledger."""

    found: Stored


OF_ONE_TARGET = frozenset(
    {Code.BUDGET_EXCEEDED, Code.UNKNOWN_PRICE, Code.QUEUE_FULL, Code.RATE_LIMITED}
)
"""Refusals of ours that another target may not meet: a cheaper one, or one that is not busy."""


class ModelCalls:
    """The order for model calls."""

    def __init__(
        self,
        books: Books,
        upstream: Upstream,
        guarding: Guarding,
        limiter: Limiter,
        *,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._books = books
        self._sender = Sender(upstream, guarding, books.clock, books.monotonic)
        self._guarding = guarding
        self._limiter = limiter
        self.router = Router()
        self.lanes = Lanes(books.now)
        self._prices: dict[tuple[str, str, bool, int], PriceList | None] = {}
        self._chance = chance
        self._sleep = sleep

    async def carry_out(self, call: LiveCall, asked: Asked) -> None:
        """Prepare the call under the policy in force and carry it out. Raises Refusal."""
        for _ in range(8):
            standing, policy = self._books.caller(call.token_hash)
            who = standing.who.principal
            try:
                guard = self._guarding.at(Hook.MODEL_INPUT, policy, who, model=asked.model)
                ready = asked if guard is None else await self._guarding.request(guard, call, asked)
                return await self._route(call, ready, policy, standing.grants)
            except Changed:
                self._books.look_again()
            except Refusal:
                # A no must be certain: it may be of a policy that is not in force any more.
                if call.attempts or not self._books.look_again():
                    raise
            call.findings.clear()
            call.audited.clear()
        raise Refusal(Code.NO_POLICY, "the policy changes faster than a call can be prepared")

    async def _route(self, call: LiveCall, asked: Asked, policy: InForce, grants: Grants) -> None:
        """Ask one target after the other until one answers. Raises Refusal, Changed."""
        now = self._books.now
        assert call.who is not None
        targets = routing.targets(asked.model, grants, policy.policy)
        virtual = policy.policy.virtual_models.get(asked.model)
        route = self.router.plan(
            asked.model,
            targets,
            virtual,
            run=call.key.run,
            agent=call.who.agent,
            now=now(),
            chance=self._chance,
        )
        refused: Refusal | None = None
        try:
            while True:
                match route.next(now()):
                    case Wait(ms):
                        await self._sleep(ms / 1000)
                    case Exhausted(failures):
                        raise refused or exhausted(list(failures))
                    case Try() as step:
                        try:
                            if await self._try(call, asked, policy, route, step):
                                return
                        except Refusal as refusal:
                            if refusal.code not in OF_ONE_TARGET or len(targets) == 1:
                                raise
                            refused = refusal
                            route.skip(Failure(refusal.message, done=False, code=refusal.code))
        finally:
            route.end()

    async def _try(
        self, call: LiveCall, asked: Asked, policy: InForce, route: Route, step: Try
    ) -> bool:
        """One attempt at one target. True: the call has ended. Raises Refusal, Changed."""
        books, target, who = self._books, step.target, call.who
        assert who is not None
        serving.check(target.provider, asked)
        traits = Traits(who.agent, who.team, (asked.model, target.name))
        room = self._limiter.admit(
            policy.policy.rate_limits, traits, tokens=asked.input_tokens, now=books.now()
        )
        if isinstance(room, Refused):
            raise room.refusal()
        call.audited.extend(over.rule for over in room.over)
        shelf = self._shelf(policy, who, asked)
        used: int | None = None
        try:
            cost = asked.input_tokens + (asked.output_tokens or target.model.max_output_tokens)
            async with self.lanes.place(target.provider_name, target.provider, who.team, cost):
                opened = await books.decide(
                    call, lambda tx: self._open(tx, call, asked, policy, target, shelf)
                )
                if isinstance(opened, Refusal):
                    raise opened
                if not isinstance(opened, ModelAttempt):
                    self._stored(call, asked, opened)
                    return True
                try:
                    end = await self._sender.send(call, opened, asked, policy, step)
                except Failure as failure:
                    failure.begun = call.said
                    used = 0 if failure.done else None
                    await books.give_up(call, opened, failure)
                    if failure.blameless:
                        route.skip(failure)
                    else:
                        route.failed(target, failure, books.now())
                    return False
                except Withheld as withheld:
                    used = await self._settle(
                        call, opened, asked, withheld.end, route, why=withheld.refusal.message
                    )
                    raise withheld.refusal from None
                except Refusal as refusal:
                    # In the middle of a stream: what it will have cost nobody can say.
                    used = 0
                    await books.give_up(call, opened, Failure(refusal.message, done=True))
                    raise
                except BaseException as error:
                    await books.abandon(call, opened, error)
                    raise
                used = await self._settle(call, opened, asked, end, route)
                return True
        finally:
            if used is None:
                self._limiter.release(room, books.now())
            elif used:
                self._limiter.correct(room, used, books.now())

    def _open(
        self,
        tx: Transaction,
        call: LiveCall,
        asked: Asked,
        prepared: InForce,
        target: Target,
        shelf: Shelf | None,
    ) -> ModelAttempt | Stored | FromCache | Refusal:
        """Decide and reserve, in one transaction. Raises Refusal, Changed."""
        now = self._books.now()
        standing, policy = self._books.deciding(tx, call.token_hash, now)
        if policy.digest != prepared.digest:
            raise Changed
        who, grants = standing.who.principal, standing.grants
        if asked.model not in grants.models or target.name not in grants.models:
            raise Changed
        ask = Ask(
            call.key,
            who,
            "model",
            asked.model,
            call.request_hash,
            policy.digest,
            repeatable=True,
            fresh=call.fresh and not call.attempts,
            api=asked.api,
        )
        stands = self._books.standing(tx, call, ask, rules=policy.rules, now=now)
        if not isinstance(stands, Next):
            return stands
        over = policy.rules.ceilings(grants.limits, calls.charge_of(ask, target.name, now))
        price = self._price(target, policy, now, embeddings=asked.api == "embeddings")
        if price is None and any(c.enforce and c.limit_nano is not None for c in over):
            return _unpriced(target, over)
        ledger = self._books.ledger
        admission = budgets.admit(
            over,
            {c.meter: ledger.total(tx, c.meter, rules=policy.rules) for c in over},
            cost=_worst(price, target, asked) if price else lambda _input, _output: 0,
            input_tokens=asked.input_tokens,
            wanted_output=_wanted(asked, target, grants),
        )
        if isinstance(admission, Shortfall):
            return _shortfall(tx, admission, who, now)
        label = ledger.label_of(tx, call.key.run)
        if shelf is not None:
            ledger.write(tx)
            source = answers.find(tx, shelf, call.request_hash, policy.digest, now)
            if source is not None:
                label = label.join(Label.parse(source["label"]))
                row = ledger.cached(
                    tx,
                    ask,
                    source,
                    attempt=stands.attempt,
                    label=label,
                    rules=policy.rules,
                    now=now,
                )
                return FromCache(Stored(row))
        row = ledger.reserve(
            tx,
            ask,
            attempt=stands.attempt,
            effect_key=stands.effect_key,
            target=target.name,
            provider=target.provider_name,
            admission=admission,
            price_table=price.table if price else None,
            label=label,
            rules=policy.rules,
            now=now,
        )
        return ModelAttempt(
            row,
            tuple(over),
            policy,
            self._books.monotonic(),
            target,
            admission.output_tokens,
            price,
            shelf,
        )

    def _shelf(self, policy: InForce, who: Principal, asked: Asked) -> Shelf | None:
        """Where the answer is kept for equal requests, if it is. Not one that is the start of
        something, and not one that a guardrail looks at: it may look at another caller's too."""
        if not policy.policy.caches or asked.uses_tools:
            return None
        if self._guarding.at(Hook.MODEL_OUTPUT, policy, who, model=asked.model) is not None:
            return None
        return answers.shelf(policy.policy, who, asked.model)

    def _price(
        self, target: Target, policy: InForce, now: Millis, *, embeddings: bool
    ) -> PriceList | None:
        """What the target costs. Looked up once an hour: tables take their time, and know of
        prices that begin at a date."""
        key = (policy.digest, target.name, embeddings, now // 3_600_000)
        if key not in self._prices:
            if len(self._prices) >= 1024:
                self._prices.clear()
            self._prices[key] = pricing.price_of(
                target.model, target.provider, policy.digest, now, embeddings=embeddings
            )
        return self._prices[key]

    async def _settle(
        self,
        call: LiveCall,
        attempt: ModelAttempt,
        asked: Asked,
        end: End,
        route: Route,
        *,
        why: str | None = None,
    ) -> int:
        """Write what it cost. Returns the tokens it used. `why`: the answer is withheld."""
        row, books = attempt.row, self._books
        if end.usage is None:
            # The provider does not say: the reservation is what we know it cannot exceed.
            output = max(0, row["reserved_tokens"] - asked.input_tokens)
            cost, usage = row["reserved_nano"], Usage(asked.input_tokens, output)
            error = "the provider reported no usage; charged as reserved"
        else:
            usage, error = end.usage, None
            cost = attempt.price.cost(usage) if attempt.price else 0
        first = None if call.first is None else int((call.first - attempt.begun) * 1000)
        took = int((books.monotonic() - attempt.begun) * 1000)
        route.answered(attempt.target, first, took, books.now())
        settlement = Settlement(
            cost_nano=NanoUSD(cost),
            input_tokens=usage.input,
            output_tokens=usage.output,
            cached_tokens=usage.cached,
            reasoning_tokens=usage.reasoning,
            cache_write_tokens=usage.cache_write,
            audio_tokens=usage.audio_input + usage.audio_output,
            begun_at=None if first is None else Millis(row["reserved_at"] + first),
            error=error,
        )
        shelf = attempt.shelf
        also = None
        if shelf is not None and stored.final(end.stored):
            also = partial(_keep, shelf, row)
        if why is not None:
            withheld = replace(settlement, error=why)
            await asyncio.shield(books.settle(call, attempt, withheld, None, usage=usage))
            return usage.input + usage.output
        settled = books.settle(call, attempt, settlement, end.stored, usage=usage, also=also)
        cost, read, written = await asyncio.shield(settled)
        call.finish(Finished(cost, read, written, stored=end.stored, body=end.body, tail=end.tail))
        return usage.input + usage.output

    def _stored(self, call: LiveCall, asked: Asked, opened: Stored | FromCache) -> None:
        """Give a stored answer again, in the way it is asked for now."""
        cached = isinstance(opened, FromCache)
        row = opened.found.row if isinstance(opened, FromCache) else opened.row
        if row["response"] is None:
            raise Refusal(Code.GUARDRAIL, f"the answer was withheld: {row['error']}")
        self._books.replayed(call, row, Outcome.CACHED if cached else Outcome.REPLAYED)
        call.begin(
            target=row["target"],
            label=Label.parse(row["label"]),
            effect_key=row.get("effect_key"),
        )
        frame = Frame.of(call.key, asked.model, self._books.now())
        pieces, end = stored.again(asked, row["response"], frame)
        for piece in pieces:
            call.add(piece.data)
        call.finish(
            Finished(
                replayed=not cached,
                cached=cached,
                stored=end.stored,
                body=end.body,
                tail=end.tail,
            )
        )


def _keep(shelf: Shelf, row: Row, tx: Transaction, now: Millis) -> None:
    """From now on this answer answers equal requests."""
    answers.keep(tx, shelf, row, now)


def _worst(price: PriceList, target: Target, asked: Asked) -> Callable[[int, int], NanoUSD]:
    """What so many tokens can cost. Anthropic writes to its cache only when told to, and sound is
    in a request only where it is named; an escaped name could hide either."""
    hidden = b"\\u00" in asked.body
    told = b"cache_control" in asked.body or "cache_control" in target.model.parameters
    writes = hidden or told or target.provider.kind != "anthropic"
    audio = hidden or b"audio" in asked.body or "audio" in target.model.parameters
    return price.worst_case(cache_writes=writes, audio=audio)


def _unpriced(target: Target, over: list[budgets.Ceiling]) -> Refusal:
    names = ", ".join(c.name for c in over if c.enforce and c.limit_nano is not None)
    return Refusal(
        Code.UNKNOWN_PRICE,
        f"the price of {target.name} ({target.model.id}) is not known, and {names} limits cost: "
        "give the model a `price` in gateway/models.yaml",
    )


def _shortfall(tx: Transaction, short: Shortfall, who: Principal, now: Millis) -> Refusal:
    ceiling = short.ceiling
    calls.alert(
        tx,
        kind="budget_refused",
        agent=who.agent,
        identity=(*ceiling.meter, ceiling.limit_nano or 0),
        text=short.message,
        now=now,
    )
    return Refusal(
        Code.BUDGET_EXCEEDED,
        short.message,
        rule=ceiling.name,
        left_nano=short.left_nano,
        left_tokens=short.left_tokens,
        left_requests=short.left_requests,
        resets_at=ceiling.end,
    )


def _wanted(asked: Asked, target: Target, grants: Grants) -> int:
    """The most output anybody would let this call have, before budgets look at it."""
    if asked.api == "embeddings":
        return 0
    ceilings = (
        asked.output_tokens,
        target.model.max_output_tokens * asked.choices,
        grants.limits.max_output_tokens,
    )
    return min(value for value in ceilings if value is not None)
