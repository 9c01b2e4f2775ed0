"""Tool servers, and what each of their tools does to the world."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from gateway.policy.frozen import Frozen, SecretRef
from gateway.values import Sensitivity


class Access(StrEnum):
    """What a tool does to the world. An unclassified tool is write + egress."""

    READ = "read"
    WRITE = "write"
    DESTRUCTIVE = "destructive"
    EGRESS = "egress"


class ToolClass(Frozen):
    """Classification of one tool. `fingerprint` is what interlock.lock recorded, if anything."""

    access: tuple[Access, ...] = (Access.WRITE, Access.EGRESS)
    idempotent: bool = False
    trusted: bool = False
    sensitivity: Sensitivity = Sensitivity.INTERNAL
    description: str = ""
    input_schema: dict[str, Any] = Field(default_factory=lambda: {"type": "object"})
    fingerprint: str | None = None

    @property
    def repeatable(self) -> bool:
        """May be sent again when it is not known whether it happened."""
        return self.idempotent or set(self.access) == {Access.READ}


class OAuth(Frozen):
    """How the gateway gets a token for a server (RFC 6749): by client credentials, or by a refresh
    token. `per_user`: the refresh token of the person a run is for (`interlock token delegate`);
    a run without one may not call."""

    token_url: str
    client_id: str
    client_secret: SecretRef | None = None
    refresh_token: SecretRef | None = None
    scopes: tuple[str, ...] = ()
    per_user: bool = False
    hosts: tuple[str, ...] = ()
    """Where the client's secret may be sent; the host of `token_url` when empty."""


class ToolServer(Frozen):
    """An MCP server: over Streamable HTTP (`url`), or a command that speaks on its standard input
    and output (`command`), which gets `env` and nothing else of the gateway's environment."""

    url: str = ""
    command: tuple[str, ...] = ()
    env: Mapping[str, SecretRef] = Field(default_factory=dict)
    key: SecretRef | None = None
    header: str = "Authorization"
    oauth: OAuth | None = None
    hosts: tuple[str, ...] = ()
    timeout_seconds: int = 60
    max_result_bytes: int = 65_536
    """A larger result becomes an artifact, and its beginning the answer."""
    listing: Literal["auto", "full", "deferred"] = "auto"
    """Whether its tools are listed, or found by searching; `auto` defers large catalogues."""
    tools: Mapping[str, ToolClass] = Field(default_factory=dict)
