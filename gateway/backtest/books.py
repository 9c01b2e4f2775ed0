"""One side while it is replayed: its prices, and what its budgets and rate limits have counted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

from gateway import budgets, pricing
from gateway.backtest.outcome import Reason
from gateway.backtest.recorded import Agent, RecordedCall, Side
from gateway.backtest.verdicts import YES, Verdict
from gateway.budgets import RUN_RULE, Ceiling, Charge, Meter, Rules, Shortfall, Total
from gateway.limits.limiter import Limiter, Refused, Traits
from gateway.policy import Grants
from gateway.pricing import PriceList, Usage
from gateway.values import Millis, Purpose

KEPT: Final = 50_000
"""What is remembered of runs and their budgets before it is looked up again."""
_DAY: Final = 86_400_000
Checks: TypeAlias = tuple[tuple[Ceiling, Total], ...]
"""Ceilings that are enforced over a call, each with what it has counted so far."""


class Books:
    """One side while it is replayed: its prices, and what its budgets have counted so far."""

    def __init__(self, side: Side, priced_at: Millis) -> None:
        self.side = side
        self.policy = side.policy
        self._digest = side.policy.digest()
        self._rules = Rules(side.policy.budgets)
        self._priced_at = priced_at
        self._agents: dict[str, Agent | None] = {}
        self._prices: dict[tuple[str, bool], PriceList | None] = {}
        self._totals: dict[Meter, Total] = {}
        self._limiter = Limiter()
        self._over: dict[Any, tuple[Checks, tuple[Total, ...]]] = {}

    def agent(self, name: str) -> Agent | None:
        """The agent of that recorded name."""
        if name not in self._agents:
            self._agents[name] = self.side.agent(name)
        return self._agents[name]

    def price(self, call: RecordedCall, target: str) -> PriceList | None:
        """What a model costs; None: nobody knows, or there is no such model."""
        key = (target, call.embeddings)
        if key not in self._prices:
            model = self.policy.models.get(target)
            provider = self.policy.providers.get(model.provider) if model else None
            self._prices[key] = (
                pricing.price_of(
                    model, provider, self._digest, self._priced_at, embeddings=call.embeddings
                )
                if model and provider
                else None
            )
        return self._prices[key]

    def cost(self, call: RecordedCall, target: str) -> int:
        """What the call costs here: nothing where the price is not known, as booked where that
        does not follow from tokens."""
        if call.booked:
            return call.cost_nano
        price = self.price(call, target)
        return price.cost(_usage(call)) if price else 0

    def objection(self, call: RecordedCall, target: str, cost: int, checks: Checks) -> Verdict:
        """Whether price and budgets let a call of this target and cost through, as things are."""
        if not checks:
            return YES
        price = self.price(call, target)
        if price is None and any(c.limit_nano is not None for c, _ in checks):
            return Verdict(Reason.PRICE, target)
        tokens = call.input_tokens + call.output_tokens
        for ceiling, total in checks:
            nano, most, times = ceiling.limit_nano, ceiling.limit_tokens, ceiling.limit_requests
            if (
                (nano is not None and total.spent_nano + cost > nano)
                or (most is not None and total.spent_tokens + tokens > most)
                or (times is not None and total.spent_requests >= times)
            ):
                break
        else:
            return YES
        # It does not fit as it was. The door would shorten its answer before it refuses it.
        answer = budgets.admit(
            [ceiling for ceiling, _ in checks],
            {ceiling.meter: total for ceiling, total in checks},
            cost=_worst(price, call),
            input_tokens=call.input_tokens,
            wanted_output=call.output_tokens,
        )
        if isinstance(answer, Shortfall):
            return Verdict(Reason.BUDGET, answer.ceiling.name)
        return YES

    def limited(self, call: RecordedCall, agent: Agent, target: str) -> Verdict:
        """Count the call in the rate limits, and whether they have room for it."""
        rules = self.policy.rate_limits
        if not rules:
            return YES
        model = call.kind == "model"
        traits = Traits(
            agent.name,
            agent.policy.team,
            (call.asked, target) if model else (),
            None if model else call.asked,
        )
        answer = self._limiter.admit(
            rules, traits, tokens=call.input_tokens + call.output_tokens, now=call.at
        )
        return Verdict(Reason.RATE, answer.rule) if isinstance(answer, Refused) else YES

    def counted(
        self, call: RecordedCall, agent: Agent, grants: Grants, target: str
    ) -> tuple[Checks, tuple[Total, ...]]:
        """The enforced ceilings over a call with their totals, and every total that counts it."""
        key = (call.run, call.role, target, call.at // _DAY, call.user, call.tags)
        found = self._over.get(key)
        if found is None:
            charge = Charge(
                run=call.run,
                agent=agent.name,
                team=agent.policy.team,
                model=target,
                purpose=Purpose.LIVE,
                at=call.at,
                user=call.user,
                tags=call.tags,
            )
            over = self._rules.ceilings(grants.limits, charge)
            # The run's own total counts whether or not this role has a limit.
            meters = dict.fromkeys((Meter(RUN_RULE, call.run, 0), *(c.meter for c in over)))
            counting = tuple(self._total(meter) for meter in meters)
            checks = tuple((c, self._total(c.meter)) for c in over if c.enforce)
            if len(self._over) >= KEPT:
                self._over.clear()
            found = self._over[key] = (checks, counting)
        return found

    def _total(self, meter: Meter) -> Total:
        return self._totals.setdefault(meter, Total())


def _usage(call: RecordedCall) -> Usage:
    return Usage(
        call.input_tokens,
        call.output_tokens,
        call.cached_tokens,
        call.reasoning_tokens,
        call.cache_write_tokens,
    )


def _worst(price: PriceList | None, call: RecordedCall) -> Callable[[int, int], int]:
    """What so many tokens can cost. What the call did not do it did not ask for."""
    if price is None:
        return lambda _input, _output: 0
    return partial(price.worst, cache_writes=call.cache_write_tokens > 0, audio=False)
