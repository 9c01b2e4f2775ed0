"""gateway/mcp-servers.yaml: where tools come from, how they are reached, and what they may do.

What is written here becomes the models of gateway.policy, which is what the gateway reads. What a
server is sent that is secret is a reference with a list of hosts; what is written in full here is
readable by everybody who can read the repository.
"""

# ruff: noqa: RUF012 - pydantic copies a mutable default for every instance

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from gateway import policy as gateway
from reconciler.config.models.fields import (
    Count,
    Document,
    Line,
    ServerName,
    Size,
    ToolName,
    whole_json,
)
from reconciler.config.models.platform import Secret, Url, hosts_allow

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


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


class OAuth(Document):
    """How the gateway gets a token for the server (RFC 6749): by client credentials, or with a
    refresh token."""

    token_url: Url
    """Address that gives tokens; https."""
    client_id: Line
    """The client's name there; not a secret."""
    client_secret: Secret | None = None
    """Reference to the client's secret."""
    refresh_token: Secret | None = None
    """Reference to a refresh token that all calls share."""
    scopes: list[Line] = []
    """What the token is asked for."""
    per_user: bool = False
    """Whether each call is made with the word of the person its run is for
    (`interlock token delegate`); a run for nobody may not call then."""
    hosts: list[Line] = []
    """Hosts the secret and the refresh token may be sent to; left out: that of `token_url`."""

    @model_validator(mode="after")
    def _consistent(self) -> OAuth:
        url = urlsplit(self.token_url)
        if url.scheme != "https" and url.hostname not in LOOPBACK:
            raise ValueError("token_url must be https: the client's secret is sent there")
        if self.hosts and url.hostname not in self.hosts:
            raise ValueError(
                f"the client's secret may not be sent to {url.hostname}; list it under hosts"
            )
        if self.per_user and self.refresh_token is not None:
            raise ValueError(
                "with per_user each person has a refresh token of their own; remove refresh_token"
            )
        if not self.per_user and self.refresh_token is None and self.client_secret is None:
            raise ValueError(
                "client credentials need a client_secret: {env: NAME}; for the word of a person "
                "write per_user: true"
            )
        return self


class Server(Document):
    """An MCP server: reached over Streamable HTTP (`url`) or started by the gateway (`command`)."""

    url: Url | None = None
    """Its address."""
    command: Annotated[list[Line], Field(min_length=1)] | None = None
    """Program and arguments of a server that speaks on standard input and output; it runs beside
    the gateway, with `env` and nothing else of the gateway's environment."""
    env: dict[Annotated[Line, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], Secret] = {}
    """Environment of the command, by reference."""
    key: Secret | None = None
    """Reference to its token."""
    header: Annotated[Line, Field(pattern=r"^[A-Za-z0-9-]+$")] = "Authorization"
    """HTTP header the token is sent in."""
    oauth: OAuth | None = None
    """How to get a token for it."""
    hosts: list[Line] = []
    """Hosts the token may be sent to."""
    timeout_seconds: Annotated[Count, Field(le=3600)] = 60
    """Seconds without an answer after which a call fails."""
    max_result: Size = 65_536
    """A larger result becomes an artifact, and its beginning the answer."""
    listing: Literal["auto", "full", "deferred"] = "auto"
    """Whether its tools are listed, or found by searching; `auto` defers large catalogues."""
    defaults: ToolDefaults = ToolDefaults()
    """What holds for its tools that do not say it themselves."""
    tools: dict[ToolName, Tool] = {}
    """Its tools, each classified."""

    @model_validator(mode="after")
    def _consistent(self) -> Server:
        if (self.url is None) == (self.command is None):
            raise ValueError("give either url or command")
        if self.url is None:
            for given, key in ((self.key, "key"), (self.oauth, "oauth"), (self.hosts, "hosts")):
                if given:
                    raise ValueError(f"{key} is of a server with a url; a command gets its env")
            return self
        if self.env:
            raise ValueError("env is of a command; a server with a url gets a key or oauth")
        if self.key is not None and self.oauth is not None:
            raise ValueError("give either key or oauth: one token is sent")
        if self.oauth is not None and urlsplit(self.url).hostname not in self.hosts:
            raise ValueError(
                f"the token may not be sent to {urlsplit(self.url).hostname}; list it under hosts"
            )
        hosts_allow(self.url, self.key, self.hosts)
        return self

    def server(self) -> gateway.ToolServer:
        """The server as the gateway knows it, each tool with what it says itself, else what the
        server says."""
        shared = self.defaults.model_dump(exclude_none=True)
        fields = self.model_dump(exclude={"defaults", "tools", "max_result", "url", "command"})
        tools = {
            name: {
                **tool.model_dump(),
                **{k: v for k, v in shared.items() if k not in tool.model_fields_set},
            }
            for name, tool in self.tools.items()
        }
        return gateway.ToolServer.model_validate(
            {
                **fields,
                "url": self.url or "",
                "command": tuple(self.command or ()),
                "max_result_bytes": self.max_result,
                "tools": tools,
            }
        )


class ServersFile(Document):
    """gateway/mcp-servers.yaml"""

    servers: dict[ServerName, Server]
    """Servers by name."""
    destructive: list[Line] = []
    """Globs over `server.tool` that are destructive whatever the server says."""
