"""A model call, from the decision to the ledger: its targets in order until one answers."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, replace

from gateway import access, budgets, calls, pricing, providers, routing
from gateway.budgets import Shortfall
from gateway.calls import Ask, Next, Settlement, Stored
from gateway.database import Transaction
from gateway.door.books import Attempt, Books, exhausted, replay
from gateway.live import LiveCall
from gateway.policy import Grants
from gateway.pricing import PriceList, Usage
from gateway.providers.conversation import Done, ModelRequest, assemble, estimate_input
from gateway.providers.upstream import Upstream
from gateway.refusals import Code, Refusal
from gateway.routing import Failure, Target
from gateway.values import Millis, NanoUSD, Principal


@dataclass(frozen=True, slots=True)
class ModelAttempt(Attempt):
    """A reserved attempt of a model call: everything needed to send and to settle it."""

    target: Target
    request: ModelRequest
    price: PriceList | None


class ModelCalls:
    """The order for model calls."""

    def __init__(self, books: Books, upstream: Upstream) -> None:
        self._books = books
        self._upstream = upstream

    async def carry_out(self, call: LiveCall, request: ModelRequest) -> None:
        """Try the targets in order until one answers. Raises Refusal."""
        failures: list[Failure] = []
        number = 0
        while True:
            opened = await self._books.decide(
                lambda tx, n=number: self._open(tx, call, request, n)  # type: ignore[misc]
            )
            if isinstance(opened, Stored):
                return replay(call, opened.row)
            if isinstance(opened, Refusal):
                raise opened if not failures else exhausted(failures)
            if opened is None:
                raise exhausted(failures)
            try:
                done = await self._stream(call, opened)
            except Failure as failure:
                await self._books.give_up(opened, failure)
                failures.append(failure)
                if call.events or not failure.fallback:
                    raise exhausted(failures) from None
                number += 1
                continue
            except BaseException as error:
                await self._books.abandon(call, opened, error)
                raise
            return await self._settle(call, opened, done)

    def _open(
        self, tx: Transaction, call: LiveCall, request: ModelRequest, number: int
    ) -> ModelAttempt | Stored | Refusal | None:
        """Decide and reserve, in one transaction. None: there is no such target any more."""
        now = self._books.now()
        who = access.caller(tx, call.token_hash, now=now)
        digest, policy = access.current_policy(tx)
        grants = access.rights(who, access.ceiling(tx, who))
        targets = routing.targets(request.model, grants, policy)
        ask = Ask(call.key, who.principal, "model", request.model, call.request_hash, digest, True)
        stands = self._books.standing(tx, call, ask, policy=policy, now=now)
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
            return _shortfall(tx, admission, who.principal, now)
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
        return ModelAttempt(row, over, policy, target, clamped, price)

    async def _stream(self, call: LiveCall, attempt: ModelAttempt) -> Done:
        """Hand the answer on as it comes. `Done` is held back until it is settled."""
        begun = False
        source = providers.stream(self._upstream, attempt.target, attempt.request)
        try:
            async with aclosing(source) as events:  # type: ignore[type-var]
                async for event in events:
                    if not begun:
                        begun = True
                        call.begin(target=attempt.target.name, label=attempt.label, effect_key=None)
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

    async def _settle(self, call: LiveCall, attempt: ModelAttempt, done: Done) -> None:
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
        await self._books.settle(call, attempt, settlement, reply.to_json())


def _shortfall(tx: Transaction, short: Shortfall, who: Principal, now: Millis) -> Refusal:
    ceiling = short.ceiling
    meter = ceiling.meter
    calls.alert(
        tx,
        kind="budget_refused",
        agent=who.agent,
        identity=(meter.rule, meter.scope, meter.start, ceiling.limit_nano or 0),
        text=short.message,
        now=now,
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
