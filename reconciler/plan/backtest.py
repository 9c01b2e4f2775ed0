"""What recent calls say of a change, beside its plan.

Not a part of the plan: that is decided by git alone, and its digest with it. This is about what
happened here lately, and is another one tomorrow.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from gateway.backtest.outcome import AgentOutcome, Outcome
from gateway.backtest.recorded import Agent
from gateway.backtest.recorded import Side as Policies
from gateway.values import AgentName, Json, Millis
from reconciler.config import Fleet
from reconciler.config.policy import ceiling, external
from reconciler.plan.changes import Plan

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Backtest:
    """A replay of the live calls made from `since` until `until` (exclusive). `cut`: there are
    older ones in the time that was asked for, too many to be replayed."""

    outcome: Outcome
    since: Millis
    until: Millis
    cut: bool = False

    @property
    def span_ms(self) -> int:
        """The time that costs per day are taken over: since the first call, at least a day."""
        begun = self.outcome.first if self.outcome.first is not None else self.since
        return max(DAY_MS, self.until - max(begun, self.since))

    def per_day(self, nano: int) -> int:
        """An amount of the whole time, per day."""
        return nano * DAY_MS // self.span_ms

    def expected(self, plan: Plan) -> tuple[AgentOutcome, ...]:
        """Agents whose cost is worth telling: it is another one now, or its bound is."""
        billed = {bill.agent for bill in plan.money.bills}
        return tuple(
            one
            for one in self.outcome.agents
            if one.before_nano != one.after_nano or one.agent in billed
        )

    def as_json(self) -> dict[str, Json]:
        """All of it, with the cost per day that is expected of each agent."""
        return {
            "since": self.since,
            "until": self.until,
            "cut": self.cut,
            "calls": self.outcome.calls,
            "runs": self.outcome.runs,
            "calls_of_others": self.outcome.strangers,
            "agents": [
                {
                    **_object(one.as_json()),
                    "expected_per_day_nano": {
                        "before": self.per_day(one.before_nano),
                        "after": self.per_day(one.after_nano),
                    },
                }
                for one in self.outcome.agents
            ],
        }


def policies_of(
    fleet: Fleet, *, broken: Collection[AgentName] = (), live: Policies | None = None
) -> Policies:
    """What a commit declares, as the gateway would be told. Agents in error keep what is `live`.

    Ceilings are made when they are asked for: most agents of a large fleet have made no call.
    """
    renamed = {
        agent.formerly: name
        for name, agent in fleet.agents.items()
        if agent.formerly is not None and agent.formerly not in fleet.agents
    }

    def find(recorded: str) -> Agent | None:
        name = AgentName(recorded)
        caller = fleet.principals.get(name)
        if caller is not None:
            return Agent(caller.name, external(caller, fleet.platform))
        config = fleet.agents.get(renamed.get(name, name))
        if config is None:
            return live.agent(name) if live is not None and name in broken else None
        asks = {one.name: one.model for one in config.participants}
        return Agent(config.name, ceiling(config, fleet.platform), asks)

    return Policies(fleet.platform, find)


def enforced_differs(before: Policies, after: Policies, plan: Plan) -> bool:
    """Whether the change touches anything that the gateway holds calls against."""
    if before.policy != after.policy:
        return True
    for change in plan.agents:
        then = before.agent(change.former or change.name)
        if then is not None and then != after.agent(change.former or change.name):
            return True
    return any(change.name.startswith("principal/") for change in plan.units)


def _object(value: Json) -> dict[str, Json]:
    assert isinstance(value, dict)
    return value
