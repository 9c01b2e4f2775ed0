"""Guardrails: what may go to models and tools and come back, text by text.

The door asks `Guardrails.at` at each of the four hooks; None, the usual answer, costs a look-up.
Otherwise the guard looks at one text (`look`), at all texts of a document (`look_through`), or at a
stream (`window`), and gives back what may go on, or raises `Refused`. Guards that ask a service
(`asks`) are awaited instead: `check`, `check_through`. docs/policies/guardrails.md says what each
check finds.

    every text, in the rules' order:   secrets · pii · regex · injection     (may replace)
    then the whole, in order:          json_schema · globs · regex required
    then every text, by services:      http: those that replace in order, the others at once

So no service is sent what a rule of the gateway's own refuses or replaces.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from gateway.guardrails.asking import Ask
from gateway.guardrails.compiled import Rules, ready
from gateway.guardrails.guard import Guard, Window
from gateway.guardrails.verdict import CheckError, Found, Refused, Verdict
from gateway.policy.rules import Guardrail, Hook

__all__ = ["Ask", "CheckError", "Found", "Guard", "Guardrails", "Refused", "Verdict", "Window"]

PLACES = 65_536
"""Guards that are remembered: more than the agents, models and tools of most fleets make."""


class Guardrails:
    """The guardrails of one policy. Not for several threads."""

    def __init__(self, rules: tuple[Guardrail, ...]) -> None:
        self._rules = tuple(ready(rule) for rule in rules)
        self._sets: dict[tuple[int, ...], Rules] = {}
        self._guards: dict[tuple[str, str, str, str | None, str | None], Guard | None] = {}

    def at(
        self,
        hook: Hook,
        *,
        agent: str,
        team: str,
        model: str | None = None,
        tool: str | None = None,
    ) -> Guard | None:
        """The guard of a call: by `model` at the model hooks, by `tool` (`server.tool`) at the
        others. None when no rule applies."""
        if not self._rules:
            return None
        # The member itself hashes in Python, its value in C.
        key = (hook._value_, agent, team, model, tool)
        try:
            return self._guards[key]
        except KeyError:
            return self._find(hook, key)

    def _find(self, hook: Hook, key: tuple[str, str, str, str | None, str | None]) -> Guard | None:
        _, agent, team, model, tool = key
        numbers = tuple(
            number
            for number, each in enumerate(self._rules)
            if hook in each.rule.hooks and _applies(each.rule, agent, team, model, tool)
        )
        guard = None
        if numbers:
            if numbers not in self._sets:
                self._sets[numbers] = Rules([self._rules[number] for number in numbers])
            guard = Guard(hook, self._sets[numbers], agent=agent, team=team, model=model, tool=tool)
        if len(self._guards) >= PLACES:
            self._guards.clear()
        self._guards[key] = guard
        return guard


def _applies(rule: Guardrail, agent: str, team: str, model: str | None, tool: str | None) -> bool:
    match = rule.match
    return (
        fnmatchcase(agent, match.agent)
        and fnmatchcase(team, match.team)
        and (match.model is None or (model is not None and fnmatchcase(model, match.model)))
        and (match.tool is None or (tool is not None and fnmatchcase(tool, match.tool)))
    )
