"""Who serves models, what they cost, and the names that agents use for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from gateway.policy.frozen import Frozen, SecretRef
from gateway.policy.script import Script
from gateway.values import Millis, NanoUSD

Api = Literal["chat", "responses", "messages", "embeddings"]
"""What a provider can be asked in: OpenAI's Chat Completions, Responses and embeddings, or
Anthropic's Messages."""


class Price(Frozen):
    """Nano-dollars per token; overrides the price table. What is not given costs as `input`
    (audio: as input or output)."""

    input: NanoUSD
    output: NanoUSD
    cached_input: NanoUSD | None = None
    cache_write: NanoUSD | None = None
    audio_input: NanoUSD | None = None
    audio_output: NanoUSD | None = None


class TapeEntry(Frozen):
    """A recorded call: `request` is the SHA-256 of what was asked in the provider's own dialect
    (docs/policies/cassettes.md), `response` its JSON body or, of a stream, `events` their data.
    A body with a fraction in it is its JSON as text: the policy has no floats."""

    request: str
    status: int = 200
    response: Any = None
    events: tuple[str, ...] | None = None


class Provider(Frozen):
    """A place that serves models. `hosts` is the operator's list of where `key` may be sent.

    `openai` is OpenAI and whatever speaks like it (Ollama, vLLM, …); `azure` has a deployment in
    its path and `api-key` in its head; `cassette` plays `tape` and reaches nothing.
    """

    kind: Literal["openai", "azure", "anthropic", "scripted", "cassette"]
    base_url: str | None = None
    key: SecretRef | None = None
    hosts: tuple[str, ...] = ()
    timeout_seconds: int = 120
    script: Script | None = None
    tape: tuple[TapeEntry, ...] = ()
    apis: tuple[Api, ...] | None = None
    """None: what the kind is known to have (`apis_of`)."""
    api_version: str | None = None
    """Azure's `api-version`."""
    max_concurrent: int | None = None
    """Calls at once; more wait, and teams take turns. None: as many as come."""
    max_waiting: int = 256
    """Calls of one team that may wait for a place; one more is refused with Retry-After."""


class Model(Frozen):
    """A model as a provider names it."""

    provider: str
    id: str
    price: Price | None = None
    max_output_tokens: int = 4096
    parameters: Mapping[str, Any] = Field(default_factory=dict)
    """Put over what the caller says. Decimals are strings (the policy has no floats)."""
    retires: str | None = None
    """ISO date after which the provider no longer serves it."""


class Retry(Frozen):
    """When a target is asked again: `attempts` in all, `backoff_ms` doubling up to
    `max_backoff_ms` with full jitter, or as long as `Retry-After` says when that is no more than
    `max_backoff_ms`."""

    attempts: int = 2
    backoff_ms: Millis = Millis(250)
    max_backoff_ms: Millis = Millis(8_000)
    on: tuple[int, ...] = (408, 429, 500, 503, 529)
    """HTTP statuses after which the same target is asked again. A connection that could not be
    made counts as 503."""


class VirtualModel(Frozen):
    """A name that agents use, for one or more models.

    `priority`: the targets in their order. `weight`: by chance, in proportion to `weights`.
    `latency`: the one that answered fastest lately. A target whose breaker is open comes last.
    """

    targets: tuple[str, ...]
    routing: Literal["priority", "weight", "latency"] = "priority"
    weights: Mapping[str, int] = Field(default_factory=dict)
    """Of `weight` routing; 1 where none is given, and 0 is never chosen first."""
    parameters: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """By target, over the model's own."""
    retry: Retry = Retry()
    fallback_on: tuple[int, ...] = ()
    """HTTP statuses after which the next target is asked although the provider calls them final,
    such as 400 of a prompt that is too long for the first."""
    first_token_ms: Millis | None = None
    """Longest wait for the first token before the next target is asked."""
    sticky: Literal["none", "run", "agent"] = "none"
    """Whose calls stay with the target that served them last, as long as it is well."""
