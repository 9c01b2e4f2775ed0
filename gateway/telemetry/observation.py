"""What is told about a call: one value for each attempt that ended and each refusal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from gateway.pricing import Usage
from gateway.refusals import Code
from gateway.values import CallKey, Millis, NanoUSD, Principal

FREE: Final = NanoUSD(0)

Dialect = Literal["chat", "responses", "messages", "embeddings", "mcp"]
"""What the caller speaks."""


class Outcome(StrEnum):
    """How an attempt or a call ended. The first three are states of the ledger."""

    SETTLED = "settled"
    RELEASED = "released"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    """Never sent: somebody's rule said no. `code` says which kind."""
    REPLAYED = "replayed"
    """The stored answer of the same call key."""
    CACHED = "cached"
    """The stored answer of an equal request."""

    @property
    def sent(self) -> bool:
        """Has something left for a provider or a server?"""
        return self in _SENT


_SENT = frozenset({Outcome.SETTLED, Outcome.RELEASED, Outcome.UNKNOWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """An attempt that ended, or a call that was refused or answered from what is stored.

    It has no field that could hold a prompt, an answer, an argument or a header.
    """

    kind: Literal["model", "tool"]
    outcome: Outcome
    started_at: Millis
    duration_us: int
    """Microseconds from `started_at` to the end, by a clock that never goes back."""
    first_token_us: int | None = None
    """Microseconds from `started_at` to the first piece of the answer."""
    code: Code | None = None
    """Why it is refused; of an attempt, what went wrong with it."""
    who: Principal | None = None
    """None: nobody we know (unauthenticated)."""
    key: CallKey | None = None
    attempt: int = 0
    dialect: Dialect | None = None
    streamed: bool = False
    asked: str | None = None
    """In the caller's words, so it may be anything: never a label of a metric."""
    target: str | None = None
    """What served, or would have: a model's policy name, or `server.tool`. None: not decided."""
    model_id: str | None = None
    """The target's model as its provider names it."""
    provider: str | None = None
    """The target's provider, as the policy names it."""
    provider_kind: str | None = None
    """`kind` of that provider."""
    usage: Usage | None = None
    cost_nano: NanoUSD = FREE
    price_table: str | None = None
    label: str | None = None
    """Integrity and sensitivity of the answer."""
    rule: str | None = None
    """The budget, rate limit or guardrail that refused."""
    audited: tuple[str, ...] = ()
    """Rules in audit mode that would have refused."""
    findings: tuple[tuple[str, int], ...] = ()
    """What guardrails found: (rule, how often)."""
    traceparent: str | None = None
    """The caller's W3C `traceparent` header, as it came."""
