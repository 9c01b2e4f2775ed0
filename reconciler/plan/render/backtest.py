"""How a replay of recent calls is told: the same sentences in a comment and in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from gateway.backtest.outcome import AgentOutcome, Reason, Told
from reconciler.plan.backtest import DAY_MS, Backtest
from reconciler.plan.phrases import listed, plural, tick
from reconciler.plan.render.summary import usd

EXAMPLES: Final = 3
"""Call keys that people are shown; `--format json` has more."""

_DENIED: Final = {
    Reason.UNDECLARED: "role {} is not declared any more",
    Reason.MODEL: "model {} is not granted any more",
    Reason.TOOL: "tool {} is not granted any more",
    Reason.ARGUMENT: "an argument of {} is outside of what is granted",
    Reason.PRICE: "nobody knows the price of {}, and a budget limits cost",
    Reason.BUDGET: "budget {} is spent",
    Reason.RATE: "rate limit {} has no room",
    Reason.GUARDRAIL: "guardrail {} refuses what it finds",
    Reason.APPROVAL: "{} waits for an approval",
}
_ALLOWED: Final = {
    Reason.UNDECLARED: "role {} is declared",
    Reason.MODEL: "model {} is granted",
    Reason.TOOL: "tool {} is granted",
    Reason.ARGUMENT: "the arguments of {} are within what is granted",
    Reason.PRICE: "the price of {} is known, or no budget asks for it",
    Reason.BUDGET: "budget {} covers it",
    Reason.RATE: "rate limit {} has room",
    Reason.GUARDRAIL: "guardrail {} lets it pass",
    Reason.APPROVAL: "{} waits for nobody any more",
}
RUN: Final = "run"
"""The budget that is the run's own limits."""


class Row(NamedTuple):
    """One line: the sign of its direction, and a sentence with values between backticks."""

    sign: str
    agent: str
    calls: int
    text: str
    examples: tuple[str, ...] = ()


def rows(found: Backtest) -> Iterator[Row]:
    """What comes off otherwise, agent by agent: denied, allowed, served by another model."""
    for agent in found.outcome.agents:
        for told in agent.denied:
            sign = "!" if told.reason is Reason.APPROVAL else "−"
            yield _row(sign, agent, told, _DENIED[told.reason])
        for told in agent.allowed:
            yield _row("+", agent, told, _ALLOWED[told.reason])
        for before, after, calls in agent.rerouted:
            text = f"served by {tick(after)} instead of {tick(before)}"
            yield Row("~", agent.agent, calls, text)


def _row(sign: str, agent: AgentOutcome, told: Told, words: str) -> Row:
    text = words.format(tick(told.about))
    if told.reason is Reason.BUDGET and told.about == RUN:
        text = text.replace(f"budget {tick(RUN)}", "the run's own limit")
    examples = tuple(str(key) for key in told.examples[:EXAMPLES])
    return Row(sign, agent.agent, told.calls, text, examples)


def headline(found: Backtest) -> str:
    """How much was replayed, and what it comes to."""
    agents = found.outcome.agents
    replayed = (
        f"{plural(found.outcome.calls, 'live call')} of {plural(found.outcome.runs, 'run')} "
        f"{period(found)}"
    )
    noes = [told for one in agents for told in one.denied]
    waiting = sum(told.calls for told in noes if told.reason is Reason.APPROVAL)
    denied = sum(told.calls for told in noes) - waiting
    allowed = sum(told.calls for one in agents for told in one.allowed)
    moved = sum(calls for one in agents for _, _, calls in one.rerouted)
    parts = [
        f"{denied:,} would be denied" if denied else "",
        f"{waiting:,} would wait for an approval" if waiting else "",
        f"{allowed:,} would newly be allowed" if allowed else "",
        f"{moved:,} would go to another model" if moved else "",
    ]
    told = listed([part for part in parts if part])
    return f"{replayed}: {told or 'none would come off otherwise'}"


def period(found: Backtest) -> str:
    """The time that was looked at."""
    if found.cut:
        return "(the newest; there were more)"
    days = -(-(found.until - found.since) // DAY_MS)
    return f"of the last {plural(days, 'day')}" if days > 1 else "of the last day"


def expected(one: AgentOutcome, found: Backtest) -> str:
    """An agent's cost per day, before and after; one value where both are the same."""
    return _arrow(found.per_day(one.before_nano), found.per_day(one.after_nano))


def expected_of_all(found: Backtest) -> str:
    """The cost per day of everything that was replayed."""
    agents = found.outcome.agents
    before, after = (sum(a.before_nano for a in agents), sum(a.after_nano for a in agents))
    return _arrow(found.per_day(before), found.per_day(after))


def _arrow(before: int, after: int) -> str:
    one, other = usd(before), usd(after)
    return one if one == other else f"{one} → {other}"


def notes(found: Backtest) -> Iterator[str]:
    """What the replay could not know."""
    agents = found.outcome.agents
    unseen = sum(one.unseen for one in agents)
    if unseen:
        yield f"the arguments of {plural(unseen, 'call')} were not recorded, and not judged"
    unpriced = sum(one.unpriced for one in agents)
    if unpriced:
        yield f"{plural(unpriced, 'call')} count as free: nobody knows the model's price"
    already = sum(one.denied_before for one in agents)
    if already:
        yield f"{plural(already, 'call')} are refused with and without this change"
    if found.outcome.strangers:
        yield f"{plural(found.outcome.strangers, 'call')} of agents that are not declared left out"
