"""Guardrails at the door: the texts of a request before it leaves, of an answer before it is given.

What is unchanged stays the very bytes it was. An answer that is streamed is looked at in windows,
unless a rule must see the whole of it or ask a service: then it is fetched whole, and given as a
stream once it has been judged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.access.directory import InForce
from gateway.guardrails import Ask, Found, Guard, Guardrails, Window, texts
from gateway.live import LiveCall
from gateway.policy.rules import Hook
from gateway.providers import native
from gateway.providers.asked import Asked
from gateway.providers.dialects import fields
from gateway.providers.pieces import End
from gateway.values import Principal


class Guarding:
    """The guardrails in force. `ask` reaches the services of `http` rules."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._compiled: dict[str, Guardrails] = {}

    def at(
        self,
        hook: Hook,
        policy: InForce,
        who: Principal,
        *,
        model: str | None = None,
        tool: str | None = None,
    ) -> Guard | None:
        """The guard of a call; None, the usual answer, when no rule is about it."""
        if not policy.policy.guardrails:
            return None
        found = self._compiled.get(policy.digest)
        if found is None:
            if len(self._compiled) >= 4:
                self._compiled.clear()
            found = self._compiled[policy.digest] = Guardrails(policy.policy.guardrails)
        return found.at(hook, agent=who.agent, team=who.team, model=model, tool=tool)

    async def request(self, guard: Guard, call: LiveCall, asked: Asked) -> Asked:
        """The request with what may go out. Raises Refusal."""
        document = fields.document(asked.body)
        if asked.api == "embeddings" and guard.refuses and _numbers(document.get("input")):
            raise fields.invalid(
                "`input` holds numbers of tokens, which a guardrail cannot read: send text"
            )
        changed = await self._through(guard, call, document, texts.said)
        return asked if changed is document else asked.texts(changed)

    async def answer(self, guard: Guard, call: LiveCall, asked: Asked, end: End) -> End:
        """A whole answer with what may be given. Raises Refusal."""
        document = json.loads(end.body)
        changed = await self._through(guard, call, document, texts.said)
        if changed is document:
            return end
        body = json.dumps(changed, ensure_ascii=False).encode()
        return End(end.usage, native.stored(asked.api, "body", body), body)

    async def arguments(
        self, guard: Guard, call: LiveCall, arguments: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """A tool's arguments with what may go out. Raises Refusal."""
        found: Mapping[str, Any] = await self._through(guard, call, arguments, texts.everything)
        return found

    async def result(self, guard: Guard, call: LiveCall, result: dict[str, Any]) -> dict[str, Any]:
        """A tool's result with what may be given. Raises Refusal."""
        found: dict[str, Any] = await self._through(guard, call, result, texts.result)
        return found

    async def _through(self, guard: Guard, call: LiveCall, document: Any, walk: texts.Walk) -> Any:
        if guard.asks:
            verdict = await guard.check_through(document, self._ask, walk)
        else:
            verdict = guard.look_through(document, walk)
        note(call, verdict.findings)
        return verdict.value


def _numbers(value: Any) -> bool:
    if isinstance(value, list):
        return any(_numbers(item) for item in value)
    return isinstance(value, int)


def note(call: LiveCall, findings: tuple[Found, ...]) -> None:
    """Keep what was found for whoever tells of the call: the rule and how often, never a text."""
    for found in findings:
        name = (found.rule, found.count)
        call.findings.append(name)
        if found.mode == "audit":
            call.audited.append(found.rule)


__all__ = ["Guarding", "Window", "note"]
