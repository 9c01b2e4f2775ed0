"""What guardrails say of recorded tool calls: of their arguments, and of their results.

What went to models is not recorded, only its hash, and what they said is kept in many dialects;
services are not asked about the past. So rules at those hooks and of kind `http` are left out.
This module is apart from the others, which only decide: guardrails keep time and can wait.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.backtest.recorded import Agent, RecordedCall
from gateway.guardrails import Guardrails, Refused, texts
from gateway.policy import Guardrail
from gateway.policy.rules import Hook


def guarded(rules: tuple[Guardrail, ...]) -> Callable[[RecordedCall, Agent], str | None]:
    """For `Side.guard`: the name of the first of these rules that refuses a tool call."""
    guardrails = Guardrails(tuple(rule for rule in rules if rule.check.kind != "http"))

    def refusing(call: RecordedCall, agent: Agent) -> str | None:
        for hook, document, walk in (
            (Hook.TOOL_INPUT, call.arguments, texts.everything),
            (Hook.TOOL_OUTPUT, call.result, texts.result),
        ):
            if document is None:
                continue
            guard = guardrails.at(hook, agent=agent.name, team=agent.policy.team, tool=call.asked)
            if guard is None:
                continue
            try:
                guard.look_through(document, walk)
            except Refused as refused:
                return str(refused.facts["rule"])
        return None

    return refusing
