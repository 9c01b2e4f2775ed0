"""What is replayed, and against what: values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from gateway.policy import AgentPolicy, Policy
from gateway.values import Millis


class RecordedCall(NamedTuple):
    """One attempt of a live run that was sent (a row of the ledger), or a tool call that was
    refused (the journal).

    `arguments` and `result` (of a tool call) are None where nobody recorded them. `booked`: it
    costs what was booked for it, whatever the price, because its answer was lost (then its tokens
    are those reserved), came from a cache of ours, or had sound in it (the ledger does not tell
    heard from spoken).
    """

    run: str
    step: str
    call: int
    kind: Literal["model", "tool"]
    agent: str
    role: str
    at: Millis
    asked: str
    target: str
    cost_nano: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0
    booked: bool = False
    embeddings: bool = False
    user: str | None = None
    tags: tuple[str, ...] = ()
    arguments: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent as a side declares it. `asks`: the model that each of its roles asks for; a role
    that is not there (a caller from outside) asks for what it likes."""

    name: str
    policy: AgentPolicy
    asks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Side:
    """One policy, and who is declared under it.

    `agent` finds an agent by the name that its calls were recorded under: a renamed one is found
    by both of its names. `guard` is the name of the guardrail that refuses a tool call or its
    result, if one does (`guarded`); without it guardrails are not asked.
    """

    policy: Policy
    agent: Callable[[str], Agent | None]
    guard: Callable[[RecordedCall, Agent], str | None] | None = None
