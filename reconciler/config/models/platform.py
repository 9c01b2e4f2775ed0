"""gateway/models.yaml and gateway/budgets.yaml: who serves models, what they cost, and what may be
spent.

What is written here becomes the models of gateway.policy, which is what the gateway reads.
"""

# ruff: noqa: RUF012 - pydantic copies a mutable default for every instance

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway import policy as gateway
from gateway.policy import Script
from gateway.values import Millis
from reconciler.config.models.fields import (
    Count,
    Document,
    Duration,
    Label,
    Line,
    Name,
    Parameter,
    Reference,
    Usd,
    UsdPerMillion,
)


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http(s) address")
    if parts.username or parts.password:
        raise ValueError("an address must not hold a password; use key: {env: NAME}")
    return value


Url = Annotated[Line, AfterValidator(_url)]


class Secret(Document):
    """Where a secret is found, never the secret. Exactly one key."""

    env: Line | None = None
    """Environment variable of the gateway process."""
    file: Line | None = None
    """File that the gateway process can read."""

    @model_validator(mode="after")
    def _one(self) -> Secret:
        if (self.env is None) == (self.file is None):
            raise ValueError("give either env or file")
        if self.env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.env):
            raise ValueError("not the name of an environment variable")
        return self


def hosts_allow(url: str | None, key: Secret | None, hosts: list[str]) -> None:
    host = urlsplit(url).hostname if url else None
    if key is not None and host not in hosts:
        raise ValueError(
            f"the key may not be sent to {host or 'an unnamed host'}; list it under hosts"
        )


class Provider(Document):
    """A place that serves models."""

    kind: Literal["openai", "azure", "anthropic", "scripted", "cassette"]
    """The protocol it speaks: `openai` is also Ollama, vLLM and whatever speaks like it. Without
    network: `scripted` goes by rules, `cassette` plays recorded calls."""
    base_url: Url | None = None
    """Address of the API."""
    key: Secret | None = None
    """Reference to the API key."""
    hosts: list[Line] = []
    """Hosts the key may be sent to."""
    timeout_seconds: Annotated[Count, Field(le=3600)] = 120
    """Seconds without an answer after which a call fails."""
    script: Reference | None = None
    """File with `script:`; only with kind scripted."""
    cassette: Reference | None = None
    """File of recorded calls, one a line; only with kind cassette."""
    apis: list[Literal["chat", "responses", "messages", "embeddings"]] | None = None
    """What it can be asked in; left out: what its kind is known to have."""
    api_version: Annotated[Line, Field(pattern=r"^[A-Za-z0-9.-]+$")] | None = None
    """Value of `api-version`; only with kind azure."""
    max_concurrent: Count | None = None
    """Calls at once; more wait, and teams take turns. Left out: as many as come."""
    max_waiting: Annotated[int, Field(ge=0, le=100_000)] = 256
    """Calls of one team that may wait for a place; one more is refused."""

    @model_validator(mode="after")
    def _consistent(self) -> Provider:
        offline = {"scripted": "script", "cassette": "cassette"}
        for kind, key in offline.items():
            if (self.kind == kind) != (getattr(self, key) is not None):
                raise ValueError(f"a {kind} provider, and no other, has a {key}")
        if self.kind not in offline and self.base_url is None:
            raise ValueError("base_url is missing")
        if (self.kind == "azure") != (self.api_version is not None):
            raise ValueError(
                "an azure provider, and no other, has an api_version, such as 2024-10-21"
            )
        if self.apis is not None and not self.apis:
            raise ValueError("apis is empty; leave it out for all that the kind has")
        hosts_allow(self.base_url, self.key, self.hosts)
        return self

    def provider(
        self, *, script: gateway.Script | None, tape: tuple[gateway.TapeEntry, ...]
    ) -> gateway.Provider:
        """The provider as the gateway knows it, with what its files say."""
        fields = self.model_dump(exclude={"script", "cassette"})
        return gateway.Provider(**fields, script=script, tape=tape)


class Price(Document):
    """Dollars per million tokens; overrides the price table."""

    input: UsdPerMillion
    """Input tokens."""
    output: UsdPerMillion
    """Output tokens."""
    cached_input: UsdPerMillion | None = None
    """Input tokens read from the provider's cache; as input when left out."""
    cache_write: UsdPerMillion | None = None
    """Input tokens written into the provider's cache; as input when left out."""
    audio_input: UsdPerMillion | None = None
    """Input tokens of audio; as input when left out."""
    audio_output: UsdPerMillion | None = None
    """Output tokens of audio; as output when left out."""


Parameters = dict[Name | Line, Parameter]


class Model(Document):
    """A model as a provider names it."""

    provider: Label
    """Name of a provider."""
    id: Line
    """The provider's name of the model."""
    price: Price | None = None
    """Dollars per million tokens."""
    max_output_tokens: Count = 4096
    """Most output tokens of one call."""
    parameters: Parameters = {}
    """Model parameters, put over what the caller says; they decide behaviour, so a change of them
    is gated."""
    retires: Annotated[Line, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None
    """Date (in quotes or not, 2027-01-31) after which the provider no longer serves it."""


Status = Annotated[int, Field(ge=400, le=599)]
"""An HTTP status that says that a call failed."""


class Retry(Document):
    """When a target is asked again before the next one is."""

    attempts: Annotated[Count, Field(le=10)] = 2
    """How often a target is asked in all; 1 is no retry."""
    backoff: Duration = Millis(250)
    """Wait before the second attempt, at most; doubled for each after it."""
    max_backoff: Duration = Millis(8_000)
    """The longest wait, also where the provider says Retry-After."""
    on: list[Status] = [408, 429, 500, 503, 529]
    """HTTP statuses after which a target is asked again; no connection counts as 503."""

    @model_validator(mode="after")
    def _consistent(self) -> Retry:
        if self.max_backoff < self.backoff:
            raise ValueError("max_backoff is shorter than backoff; raise it")
        return self


class Target(Document):
    """A model behind a virtual one."""

    model: Label
    """Name of a model."""
    weight: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Its part of the calls, in proportion to the others'; 1 when left out. Only with
    `routing: weight`; 0 is never chosen first."""
    parameters: Parameters = {}
    """Model parameters, put over the model's own."""


def _plain_target(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


class VirtualModel(Document):
    """A name that agents use, for one or more models."""

    targets: Annotated[list[Annotated[Target, BeforeValidator(_plain_target)]], Field(min_length=1)]
    """Models: names, or names with their weight and parameters."""
    routing: Literal["priority", "weight", "latency"] = "priority"
    """Which target is asked first: in the order given, by chance in proportion to `weight`, or the
    one that answered fastest lately."""
    retry: Retry = Retry()
    """When a target is asked again."""
    fallback_on: list[Status] = []
    """HTTP statuses after which the next target is asked although the provider calls them final,
    such as 400 of a prompt that is too long for the first."""
    first_token: Duration | None = None
    """Longest wait for the first token before the next target is asked."""
    sticky: Literal["none", "run", "agent"] = "none"
    """Whose calls stay with the target that served them last, as long as it is well."""

    @model_validator(mode="after")
    def _consistent(self) -> VirtualModel:
        names = [target.model for target in self.targets]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is listed twice; remove one of them")
        weights = [target.weight for target in self.targets]
        if self.routing != "weight" and any(weight is not None for weight in weights):
            raise ValueError("weights do nothing without routing: weight; add it, or remove them")
        if self.routing == "weight" and all(weight == 0 for weight in weights):
            raise ValueError("every weight is 0, so none could be chosen; raise one")
        return self

    def virtual(self) -> gateway.VirtualModel:
        """The virtual model as the gateway knows it."""
        retry = self.retry
        return gateway.VirtualModel(
            targets=tuple(target.model for target in self.targets),
            routing=self.routing,
            weights={t.model: t.weight for t in self.targets if t.weight not in (None, 1)},
            parameters={t.model: dict(t.parameters) for t in self.targets if t.parameters},
            retry=gateway.Retry(
                attempts=retry.attempts,
                backoff_ms=Millis(retry.backoff),
                max_backoff_ms=Millis(retry.max_backoff),
                on=tuple(sorted(set(retry.on))),
            ),
            fallback_on=tuple(sorted(set(self.fallback_on))),
            first_token_ms=None if self.first_token is None else Millis(self.first_token),
            sticky=self.sticky,
        )


class ModelsFile(Document):
    """gateway/models.yaml"""

    providers: dict[Label, Provider] = {}
    """Providers by name."""
    models: dict[Label, Model] = {}
    """Models by name."""
    virtual_models: dict[Label, VirtualModel] = {}
    """Virtual models by name; a name is either a model or a virtual model."""


class ScriptFile(Document):
    """A script of a scripted provider."""

    script: Script
    """Rules over the conversation, as in `example-config-repo/gateway/scripts/`."""


class Budget(Document):
    """A limit on money, tokens or calls. Every budget that matches a call must have room for it."""

    name: Name
    """Name of the budget, as refusals state it."""
    limit: Usd | None = None
    """Dollars per window."""
    tokens: Count | None = None
    """Tokens of model calls per window."""
    requests: Count | None = None
    """Model calls per window."""
    window: Literal["run", "day", "week", "month", "quarter"]
    """Over what it is counted; calendar windows are UTC."""
    agent: Line = "*"
    """Glob over agent names."""
    team: Line = "*"
    """Glob over team names."""
    user: Line = "*"
    """Glob over the people that runs and calls are for."""
    model: Line = "*"
    """Glob over model names."""
    tag: Line = "*"
    """Glob over tags, one of which must match."""
    purpose: Literal["*", "live", "eval"] = "*"
    """Live runs, evals, or both."""
    mode: Literal["enforce", "audit"] = "enforce"
    """`audit` only records that the limit was passed."""
    alert_at: list[Annotated[int, Field(gt=0, le=100)]] = [80]
    """Percentages of the limit at which an alert is recorded."""
    each_agent: bool = False
    """Whether every matching agent has the limit for itself, or they share it."""

    @model_validator(mode="after")
    def _some(self) -> Budget:
        if self.limit is None and self.tokens is None and self.requests is None:
            raise ValueError("give limit (dollars), tokens, requests or several of them")
        return self


class BudgetsFile(Document):
    """gateway/budgets.yaml"""

    budgets: list[Budget]
    """Budgets."""
