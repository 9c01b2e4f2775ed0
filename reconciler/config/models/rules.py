"""gateway/rate-limits.yaml, guardrails.yaml and caches.yaml: what every call is held to besides
money, and which calls are answered from what was answered before.

What is written here becomes the models of gateway.policy.rules. A rule that could never apply,
such as a number of tokens for a tool, is refused: it would look like a protection and be none.
"""

# ruff: noqa: RUF012 - pydantic copies a mutable default for every instance

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from gateway.policy import SecretRef
from gateway.policy import rules as gateway
from gateway.values import Millis
from reconciler.config.models.fields import (
    Count,
    Document,
    Duration,
    Line,
    Name,
    Regex,
    whole_json,
)
from reconciler.config.models.platform import Secret, Url

SECOND = 1000
WINDOWS = {"second": SECOND, "minute": 60 * SECOND, "hour": 3600 * SECOND, "day": 86400 * SECOND}
"""Name of a window → milliseconds."""


class RateLimit(Document):
    """So much per window. Every limit that matches a call must have room for it."""

    name: Name
    """Name of the limit, as refusals state it."""
    window: Literal["second", "minute", "hour", "day"]
    """Over what it is counted; a sliding window."""
    requests: Count | None = None
    """Calls per window."""
    tokens: Count | None = None
    """Tokens of model calls per window."""
    burst: Count | None = None
    """Calls that may come at once; all of a window's when left out."""
    agent: Line = "*"
    """Glob over agent names."""
    team: Line = "*"
    """Glob over team names."""
    model: Line | None = None
    """Glob over model names: model calls only."""
    tool: Line | None = None
    """Glob over `server.tool`: tool calls only."""
    each_agent: bool = False
    """Whether every matching agent has the limit for itself, or they share it."""
    mode: Literal["enforce", "audit"] = "enforce"
    """`audit` only records that the limit was passed."""

    @model_validator(mode="after")
    def _consistent(self) -> RateLimit:
        if self.requests is None and self.tokens is None:
            raise ValueError("give requests, tokens or both")
        _one_kind(self.model, self.tool)
        if self.tool is not None and self.tokens is not None:
            raise ValueError("a tool call has no tokens; give requests")
        if self.burst is not None and (self.requests is None or self.burst > self.requests):
            raise ValueError("burst is a part of requests, and at most as large")
        return self

    def rule(self) -> gateway.RateLimit:
        """The limit as the gateway knows it."""
        return gateway.RateLimit(
            name=self.name,
            requests=self.requests,
            tokens=self.tokens,
            window_ms=Millis(WINDOWS[self.window]),
            burst=self.burst,
            match=_match(self),
            each_agent=self.each_agent,
            mode=self.mode,
        )


class RateLimitsFile(Document):
    """gateway/rate-limits.yaml"""

    rate_limits: list[RateLimit]
    """Rate limits."""


class SecretsRule(Document):
    """Texts that look like credentials."""

    allow: list[Regex] = []
    """Patterns of credentials that may pass, such as documented examples."""


class PiiRule(Document):
    """Personal data."""

    kinds: Annotated[
        list[Literal["email", "phone", "credit_card", "iban", "ip_address", "national_id"]],
        Field(min_length=1),
    ]
    """What counts."""


class RegexRule(Document):
    """A pattern, searched anywhere in the text."""

    pattern: Regex
    """Regular expression."""
    required: bool = False
    """Whether it must be found; otherwise it must not be."""
    replacement: str | None = None
    """What is put in its place; only with `action: mutate`."""


class GlobsRule(Document):
    """Lists of globs."""

    allow: list[Line] = []
    """One of these must match."""
    deny: list[Line] = []
    """None of these may match."""
    argument: Line | None = None
    """Argument of the tool that is looked at; the whole text when left out."""

    @model_validator(mode="after")
    def _any(self) -> GlobsRule:
        if not self.allow and not self.deny:
            raise ValueError("give allow or deny")
        return self


class InjectionRule(Document):
    """Markers of prompt injection."""

    markers: list[Line] = []
    """Texts that count besides those that are built in."""


class HttpRule(Document):
    """A service that is asked about every text."""

    url: Url
    """Its address."""
    hosts: Annotated[list[Line], Field(min_length=1)]
    """Hosts that texts and the key may be sent to."""
    key: Secret | None = None
    """Reference to its token."""
    header: Annotated[Line, Field(pattern=r"^[A-Za-z0-9-]+$")] = "Authorization"
    """HTTP header the token is sent in."""
    timeout: Duration = Millis(5000)
    """Time without an answer after which the check has failed."""

    @model_validator(mode="after")
    def _listed(self) -> HttpRule:
        host = urlsplit(self.url).hostname
        if host not in self.hosts:
            raise ValueError(f"texts may not be sent to {host}; list it under hosts")
        return self


CHECKS = ("secrets", "pii", "regex", "json_schema", "globs", "injection", "http")
MUTATING = frozenset({"secrets", "pii", "regex", "http"})
"""Checks that know what to put in place of what they find."""
Hook = Literal["model_input", "model_output", "tool_input", "tool_output"]


class Guardrail(Document):
    """A check of what goes to models and tools, and of what comes back. Exactly one kind."""

    name: Name
    """Name of the guardrail, as refusals state it."""
    hooks: Annotated[list[Hook], Field(min_length=1)]
    """Where it looks."""
    action: Literal["validate", "mutate"] = "validate"
    """`validate` refuses; `mutate` replaces what was found."""
    mode: Literal["enforce", "enforce_but_ignore_on_error", "audit"] = "enforce"
    """Whether a call also passes when the check itself fails; `audit` only records."""
    agent: Line = "*"
    """Glob over agent names."""
    team: Line = "*"
    """Glob over team names."""
    model: Line | None = None
    """Glob over model names: model calls only."""
    tool: Line | None = None
    """Glob over `server.tool`: tool calls only."""
    secrets: SecretsRule | None = None
    """Texts that look like credentials; `{}` will do."""
    pii: PiiRule | None = None
    """Personal data."""
    regex: RegexRule | None = None
    """A pattern."""
    json_schema: Annotated[dict[str, Any], AfterValidator(whole_json)] | None = None
    """JSON Schema that the text, or a tool's arguments, must be valid under."""
    globs: GlobsRule | None = None
    """Lists of globs that are allowed or denied."""
    injection: InjectionRule | None = None
    """Markers of prompt injection; `{}` will do."""
    http: HttpRule | None = None
    """A service that is asked."""

    @property
    def kind(self) -> str:
        """The kind of check that is given."""
        return next(kind for kind in CHECKS if getattr(self, kind) is not None)

    @model_validator(mode="after")
    def _consistent(self) -> Guardrail:
        if sum(getattr(self, kind) is not None for kind in CHECKS) != 1:
            raise ValueError(f"give one of {', '.join(CHECKS[:-1])} or {CHECKS[-1]}")
        _one_kind(self.model, self.tool)
        for mine, other in (("model", "tool"), ("tool", "model")):
            bad = next((h for h in self.hooks if h.startswith(other)), None)
            if getattr(self, mine) is not None and bad is not None:
                raise ValueError(f"{bad} never sees a {mine}; remove it, or remove {mine}")
        if self.action == "mutate" and self.kind not in MUTATING:
            raise ValueError(f"{self.kind} cannot mutate; write action: validate")
        if self.regex is not None:
            mutates, replaces = self.action == "mutate", self.regex.replacement is not None
            if mutates != replaces or (mutates and self.regex.required):
                raise ValueError("a regex mutates with a replacement, and is not required then")
        if self.globs is not None and self.globs.argument and set(self.hooks) != {"tool_input"}:
            raise ValueError("an argument is seen by the hook tool_input only")
        return self

    def rule(self) -> gateway.Guardrail:
        """The guardrail as the gateway knows it."""
        return gateway.Guardrail(
            name=self.name,
            hooks=tuple(gateway.Hook(hook) for hook in self.hooks),
            check=self._check(),
            action=self.action,
            mode=self.mode,
            match=_match(self),
        )

    def _check(self) -> gateway.Check:
        if self.secrets is not None:
            return gateway.SecretsCheck(allow=tuple(self.secrets.allow))
        if self.pii is not None:
            return gateway.PiiCheck(kinds=tuple(self.pii.kinds))
        if self.regex is not None:
            return gateway.RegexCheck(**self.regex.model_dump())
        if self.json_schema is not None:
            return gateway.SchemaCheck(json_schema=self.json_schema)
        if self.globs is not None:
            rule = self.globs
            return gateway.GlobsCheck(
                allow=tuple(rule.allow), deny=tuple(rule.deny), argument=rule.argument
            )
        if self.injection is not None:
            return gateway.InjectionCheck(markers=tuple(self.injection.markers))
        assert self.http is not None
        http = self.http
        return gateway.HttpCheck(
            url=http.url,
            hosts=tuple(http.hosts),
            key=SecretRef(**http.key.model_dump()) if http.key else None,
            header=http.header,
            timeout_ms=Millis(http.timeout),
        )


class GuardrailsFile(Document):
    """gateway/guardrails.yaml"""

    guardrails: list[Guardrail]
    """Guardrails."""


class Cache(Document):
    """Whose equal requests to models are answered from what was answered before; never evals."""

    name: Name
    """Name of the cache."""
    ttl: Duration
    """How long an answer is given again."""
    namespace: Literal["agent", "team", "fleet"] = "agent"
    """Who shares an answer: one agent's calls, those of a team, or everybody's."""
    agent: Line = "*"
    """Glob over agent names."""
    team: Line = "*"
    """Glob over team names."""
    model: Line | None = None
    """Glob over model names; every model when left out."""

    def rule(self) -> gateway.Cache:
        """The cache as the gateway knows it."""
        return gateway.Cache(
            name=self.name,
            ttl_ms=Millis(self.ttl),
            namespace=self.namespace,
            match=gateway.Match(agent=self.agent, team=self.team, model=self.model),
        )


class CachesFile(Document):
    """gateway/caches.yaml"""

    caches: list[Cache]
    """Caches."""


def _one_kind(model: str | None, tool: str | None) -> None:
    if model is not None and tool is not None:
        raise ValueError("give either model or tool: no call is to both")


def _match(rule: RateLimit | Guardrail) -> gateway.Match:
    return gateway.Match(agent=rule.agent, team=rule.team, model=rule.model, tool=rule.tool)
