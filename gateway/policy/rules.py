"""What the platform asks of every call besides money: rate limits, guardrails and caches.

Part of the policy snapshot (`gateway.policy`). Parsed and located by the reconciler, enforced at
the door. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.policy.frozen import Frozen, SecretRef
from gateway.values import Millis


class Match(Frozen):
    """Which calls a rule is about: globs, all of which must match.

    A rule that names a `tool` is about tool calls only, one that names a `model` about model
    calls only.
    """

    agent: str = "*"
    team: str = "*"
    model: str | None = None
    tool: str | None = None


class RateLimit(Frozen):
    """So much per window, as GCRA counts it: a token bucket without a clock of its own.

    `burst` is how many requests may come at once; the window's whole amount when it is None.
    `each_agent`: every matching agent has the limit for itself, or they share it.
    """

    name: str
    requests: int | None = None
    tokens: int | None = None
    window_ms: Millis
    burst: int | None = None
    match: Match = Match()
    each_agent: bool = False
    mode: Literal["enforce", "audit"] = "enforce"


class Hook(StrEnum):
    """Where a guardrail looks: at what goes to a model or a tool, and at what comes back."""

    MODEL_INPUT = "model_input"
    MODEL_OUTPUT = "model_output"
    TOOL_INPUT = "tool_input"
    TOOL_OUTPUT = "tool_output"


class SecretsCheck(Frozen):
    """Texts that look like credentials. `allow` are patterns of those that may pass."""

    kind: Literal["secrets"] = "secrets"
    allow: tuple[str, ...] = ()


class PiiCheck(Frozen):
    """Personal data of the kinds named."""

    kind: Literal["pii"] = "pii"
    kinds: tuple[str, ...]


class RegexCheck(Frozen):
    """A pattern that must not be found (or must, with `required`); `replacement` mutates it."""

    kind: Literal["regex"] = "regex"
    pattern: str
    required: bool = False
    replacement: str | None = None


class SchemaCheck(Frozen):
    """JSON that must be valid under a schema."""

    kind: Literal["json_schema"] = "json_schema"
    json_schema: Mapping[str, Any]


class GlobsCheck(Frozen):
    """Globs over one argument of a tool, or over the whole text: none of `deny` may match, and
    one of `allow` must, where there is any."""

    kind: Literal["globs"] = "globs"
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    argument: str | None = None


class InjectionCheck(Frozen):
    """Markers of prompt injection: those that are built in, and `markers`, as plain text."""

    kind: Literal["injection"] = "injection"
    markers: tuple[str, ...] = ()


class HttpCheck(Frozen):
    """A service that is asked. It, and its key, are sent to a host of `hosts` only."""

    kind: Literal["http"] = "http"
    url: str
    hosts: tuple[str, ...]
    key: SecretRef | None = None
    header: str = "Authorization"
    timeout_ms: Millis


Check = Annotated[
    SecretsCheck | PiiCheck | RegexCheck | SchemaCheck | GlobsCheck | InjectionCheck | HttpCheck,
    Field(discriminator="kind"),
]


class Guardrail(Frozen):
    """One check at one or more hooks.

    `validate` refuses, `mutate` replaces what was found. `enforce_but_ignore_on_error` lets a
    call pass when the check itself fails; `audit` only records.
    """

    name: str
    hooks: tuple[Hook, ...]
    check: Check
    action: Literal["validate", "mutate"] = "validate"
    mode: Literal["enforce", "enforce_but_ignore_on_error", "audit"] = "enforce"
    match: Match = Match()


class Cache(Frozen):
    """Answers of equal requests are given again for `ttl_ms`. Never for evals.

    `namespace`: who shares an answer. Only requests that name no tool and only answers that ended
    by themselves are kept (docs/policies/cache.md).
    """

    name: str
    ttl_ms: Millis
    namespace: Literal["agent", "team", "fleet"] = "agent"
    match: Match = Match()
