"""The check by a service: one question for a text, one answer, within a time.

Question: `{"hook", "agent", "team", "model" | "tool", "text"}`. Answer: `{"allow": true | false}`,
with `reason` (shown to the caller) and `text` (what a rule that mutates puts in its place).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.guardrails.verdict import CheckError
from gateway.policy.rules import HttpCheck

REASON = 200
"""Characters of a service's reason that are repeated."""


class Ask(Protocol):
    """Puts a question to a service: POST of `question` as JSON to `check.url`."""

    async def __call__(self, check: HttpCheck, question: Mapping[str, Any]) -> Any:
        """The answer's JSON. Raises anything when there is none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` is None when the service put nothing in its place."""

    allow: bool
    reason: str
    text: str | None


async def put(ask: Ask, check: HttpCheck, question: Mapping[str, Any]) -> Answer:
    """The service's answer. Raises CheckError: too late, unreachable, or nothing of this form."""
    try:
        async with asyncio.timeout(check.timeout_ms / 1000):
            answer = await ask(check, question)
    except TimeoutError:
        raise CheckError(f"the service did not answer within {check.timeout_ms} ms") from None
    except Exception as error:
        # Its message may hold what was sent, or a key: the kind of error must do.
        raise CheckError(f"the service could not be asked ({type(error).__name__})") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("allow"), bool):
        raise CheckError("the service's answer has no allow: true or false")
    reason, text = answer.get("reason"), answer.get("text")
    if not isinstance(reason, str | None) or not isinstance(text, str | None):
        raise CheckError("the service's reason and text must be text")
    return Answer(answer["allow"], " ".join((reason or "").split())[:REASON], text)
