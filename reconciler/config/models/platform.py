"""The documents of gateway/: who serves models and tools, what they cost and what they may do.

What is written here becomes the models of gateway.policy, which is what the gateway reads.
"""

# ruff: noqa: RUF012 - pydantic copies a mutable default for every instance

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from gateway.policy import Script
from reconciler.config.models.fields import (
    Count,
    Document,
    Label,
    Line,
    Name,
    Reference,
    ServerName,
    ToolName,
    Usd,
    UsdPerMillion,
    whole_json,
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

    kind: Literal["openai", "anthropic", "scripted"]
    """The protocol it speaks; `scripted` is a set of rules, without network."""
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

    @model_validator(mode="after")
    def _consistent(self) -> Provider:
        if (self.kind == "scripted") != (self.script is not None):
            raise ValueError("a scripted provider, and no other, has a script")
        if self.kind != "scripted" and self.base_url is None:
            raise ValueError("base_url is missing")
        hosts_allow(self.base_url, self.key, self.hosts)
        return self


class Price(Document):
    """Dollars per million tokens; overrides the price table."""

    input: UsdPerMillion
    """Input tokens."""
    output: UsdPerMillion
    """Output tokens."""
    cached_input: UsdPerMillion | None = None
    """Input tokens read from the provider's cache; as input when left out."""


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
    retires: Annotated[Line, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None
    """Date (in quotes or not, 2027-01-31) after which the provider no longer serves it."""


class VirtualModel(Document):
    """A name that agents use, for one or more models."""

    targets: Annotated[list[Label], Field(min_length=1)]
    """Models, tried in this order."""


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


class Tool(Document):
    """Classification of one tool."""

    access: list[Literal["read", "write", "destructive", "egress"]] = ["write", "egress"]
    """What it does to the world; unclassified is write and egress."""
    idempotent: bool = False
    """Whether it may be sent again when it is not known whether it happened."""
    trusted: bool = False
    """Whether its results are written by people we trust."""
    sensitivity: Literal["public", "internal", "secret"] = "internal"
    """Who may read its results."""
    description: str = ""
    """What the model is told about it."""
    input_schema: Annotated[dict[str, Any], AfterValidator(whole_json)] = {"type": "object"}
    """JSON Schema of its arguments."""


class ToolDefaults(Document):
    """What holds for tools of a server that do not say it themselves."""

    access: list[Literal["read", "write", "destructive", "egress"]] | None = None
    """What they do to the world."""
    idempotent: bool | None = None
    """Whether they may be sent again when it is not known whether it happened."""
    trusted: bool | None = None
    """Whether their results are written by people we trust."""
    sensitivity: Literal["public", "internal", "secret"] | None = None
    """Who may read their results."""


class Server(Document):
    """An MCP server reached over Streamable HTTP."""

    url: Url
    """Its address."""
    key: Secret | None = None
    """Reference to its token."""
    header: Annotated[Line, Field(pattern=r"^[A-Za-z0-9-]+$")] = "Authorization"
    """HTTP header the token is sent in."""
    hosts: list[Line] = []
    """Hosts the token may be sent to."""
    timeout_seconds: Annotated[Count, Field(le=3600)] = 60
    """Seconds without an answer after which a call fails."""
    defaults: ToolDefaults = ToolDefaults()
    """What holds for its tools that do not say it themselves."""
    tools: dict[ToolName, Tool] = {}
    """Its tools, each classified."""

    @model_validator(mode="after")
    def _consistent(self) -> Server:
        hosts_allow(self.url, self.key, self.hosts)
        return self

    def classified(self) -> dict[str, dict[str, Any]]:
        """Its tools by name, each with what it says itself, else what the server says."""
        shared = self.defaults.model_dump(exclude_none=True)
        return {
            name: {
                **tool.model_dump(),
                **{k: v for k, v in shared.items() if k not in tool.model_fields_set},
            }
            for name, tool in self.tools.items()
        }


class ServersFile(Document):
    """gateway/mcp-servers.yaml"""

    servers: dict[ServerName, Server]
    """Servers by name."""
    destructive: list[Line] = []
    """Globs over `server.tool` that are destructive whatever the server says."""


class Budget(Document):
    """A limit on money. Every budget that matches a call must have room for it."""

    name: Name
    """Name of the budget, as refusals state it."""
    limit: Usd
    """Dollars per window."""
    window: Literal["run", "day", "week", "month", "quarter"]
    """Over what it is counted; calendar windows are UTC."""
    agent: Line = "*"
    """Glob over agent names."""
    team: Line = "*"
    """Glob over team names."""
    model: Line = "*"
    """Glob over model names."""
    purpose: Literal["*", "live", "eval"] = "*"
    """Live runs, evals, or both."""
    mode: Literal["enforce", "audit"] = "enforce"
    """`audit` only records that the limit was passed."""
    alert_at: list[Annotated[int, Field(gt=0, le=100)]] = [80]
    """Percentages of the limit at which an alert is recorded."""
    each_agent: bool = False
    """Whether every matching agent has the limit for itself, or they share it."""


class BudgetsFile(Document):
    """gateway/budgets.yaml"""

    budgets: list[Budget]
    """Budgets."""
