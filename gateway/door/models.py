"""A model call, from the decision to the ledger: its targets in order until one answers."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from gateway import budgets, calls, pricing, routing
from gateway.budgets import Shortfall
from gateway.calls import Ask, Next, Settlement, Stored
from gateway.database import Transaction
from gateway.door.books import Attempt, Books, exhausted
from gateway.live import Finished, LiveCall
from gateway.policy import Grants
from gateway.pricing import PriceList, Usage
from gateway.providers import stored
from gateway.providers.asked import Asked
from gateway.providers.pieces import End
from gateway.providers.serving import Serving, stream, whole
from gateway.providers.stored import Frame
from gateway.providers.upstream import Upstream
from gateway.refusals import Code, Refusal
from gateway.routing import Failure, Target
from gateway.telemetry import Outcome
from gateway.values import Label, Millis, NanoUSD, Principal


@dataclass(frozen=True, slots=True)
class ModelAttempt(Attempt):
    """A reserved attempt of a model call: everything needed to send and to settle it."""

    target: Target
    output_tokens: int
    price: PriceList | None

    @property
    def model_id(self) -> str | None:
        return self.target.model.id

    @property
    def provider_kind(self) -> str | None:
        return self.target.provider.kind


class ModelCalls:
    """The order for model calls."""

    def __init__(self, books: Books, upstream: Upstream) -> None:
        self._books = books
        self._upstream = upstream

    async def carry_out(self, call: LiveCall, asked: Asked) -> None:
        """Try the targets in order until one answers. Raises Refusal."""
        frame = Frame.of(call.key, asked.model, self._books.now())
        failures: list[Failure] = []
        number = 0
        while True:
            opened = await self._books.decide(
                call,
                lambda tx, n=number: self._open(tx, call, asked, n),  # type: ignore[misc]
            )
            if isinstance(opened, Stored):
                self._books.replayed(call, opened.row, Outcome.REPLAYED)
                return replay(call, asked, frame, opened)
            if isinstance(opened, Refusal):
                raise opened if not failures else exhausted(failures)
            if opened is None:
                raise exhausted(failures)
            try:
                end = await self._stream(call, opened, asked, frame)
            except Failure as failure:
                await self._books.give_up(call, opened, failure)
                failures.append(failure)
                if call.said or not failure.fallback:
                    raise exhausted(failures) from None
                number += 1
                continue
            except BaseException as error:
                await self._books.abandon(call, opened, error)
                raise
            return await self._settle(call, opened, asked, end)

    def _open(
        self, tx: Transaction, call: LiveCall, asked: Asked, number: int
    ) -> ModelAttempt | Stored | Refusal | None:
        """Decide and reserve, in one transaction. None: there is no such target any more."""
        now = self._books.now()
        standing, policy = self._books.deciding(tx, call.token_hash, now)
        who, grants = standing.who.principal, standing.grants
        targets = routing.targets(asked.model, grants, policy.policy)
        ask = Ask(
            call.key,
            who,
            "model",
            asked.model,
            call.request_hash,
            policy.digest,
            repeatable=True,
            fresh=call.fresh and not number,
            api=asked.api,
        )
        stands = self._books.standing(tx, call, ask, rules=policy.rules, now=now)
        if not isinstance(stands, Next):
            return stands
        if number >= len(targets):
            return None
        target = targets[number]
        over = policy.rules.ceilings(grants.limits, calls.charge_of(ask, target.name, now))
        price = pricing.price_of(target.model, target.provider, policy.digest, now)
        if price is None and any(c.enforce and c.limit_nano is not None for c in over):
            return _unpriced(target, over)
        ledger = self._books.ledger
        admission = budgets.admit(
            over,
            {c.meter: ledger.total(tx, c.meter, rules=policy.rules) for c in over},
            cost=price.worst if price else lambda _input, _output: 0,
            input_tokens=asked.input_tokens,
            wanted_output=_wanted(asked, target, grants),
        )
        if isinstance(admission, Shortfall):
            return _shortfall(tx, admission, who, now)
        row = ledger.reserve(
            tx,
            ask,
            attempt=stands.attempt,
            effect_key=stands.effect_key,
            target=target.name,
            provider=target.provider_name,
            admission=admission,
            price_table=price.table if price else None,
            label=ledger.label_of(tx, call.key.run),
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
        )

    async def _stream(
        self, call: LiveCall, attempt: ModelAttempt, asked: Asked, frame: Frame
    ) -> End:
        """Hand the answer on as it comes. Its end is held back until it is settled."""
        target = attempt.target
        serving = Serving(
            self._upstream,
            target,
            asked,
            attempt.output_tokens,
            target.model.parameters,
            frame,
        )
        try:
            if not asked.stream:
                end = await whole(serving)
                call.begin(target=target.name, label=attempt.label, effect_key=None)
                return end
            async with aclosing(stream(serving)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    if call.target is None:
                        call.first = self._books.monotonic()
                        call.begin(target=target.name, label=attempt.label, effect_key=None)
                    if isinstance(piece, End):
                        return piece
                    call.add(piece.data)
        except Refusal as refusal:
            # No key, or a host that may not have it: this target did nothing.
            raise Failure(refusal.message, done=False, code=refusal.code) from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Failure(
                f"{serving.where} answered something that is not its dialect "
                f"({type(error).__name__})",
                done=True,
            ) from None
        raise Failure(f"{serving.where} ended without an answer", done=True)

    async def _settle(self, call: LiveCall, attempt: ModelAttempt, asked: Asked, end: End) -> None:
        row = attempt.row
        if end.usage is None:
            # The provider does not say: the reservation is what we know it cannot exceed.
            output = max(0, row["reserved_tokens"] - asked.input_tokens)
            cost, usage = row["reserved_nano"], Usage(asked.input_tokens, output)
            error = "the provider reported no usage; charged as reserved"
        else:
            usage, error = end.usage, None
            cost = attempt.price.cost(usage) if attempt.price else 0
        settlement = Settlement(
            cost_nano=NanoUSD(cost),
            input_tokens=usage.input,
            output_tokens=usage.output,
            cached_tokens=usage.cached,
            reasoning_tokens=usage.reasoning,
            error=error,
        )
        cost, read, written = await self._books.settle(call, attempt, settlement, end.stored, usage)
        call.finish(Finished(cost, read, written, stored=end.stored, body=end.body, tail=end.tail))


def replay(call: LiveCall, asked: Asked, frame: Frame, found: Stored) -> None:
    """Give a stored answer again, in the way it is asked for now."""
    row = found.row
    call.begin(target=row["target"], label=Label.parse(row["label"]), effect_key=row["effect_key"])
    pieces, end = stored.again(asked, row["response"], frame)
    for piece in pieces:
        call.add(piece.data)
    call.finish(Finished(replayed=True, stored=end.stored, body=end.body, tail=end.tail))


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
