"""Which tools a principal has, how they are described, and whether it may make this very call.

A tool is `server.tool` in policies and the ledger, and `server__tool` to models and MCP clients
(OpenAI allows no dots in tool names). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, TypeAlias

from gateway.mcp.arguments import validate
from gateway.mcp.finder import DEFER_ABOVE, Listing
from gateway.mcp.fingerprints import Observed
from gateway.mcp.recorded import as_text
from gateway.mcp.revisions import without_headers
from gateway.policy import Access, Grants, Policy, ToolClass, ToolServer
from gateway.refusals import Code, Refusal
from gateway.values import Integrity, Label

Seen: TypeAlias = Mapping[str, Mapping[str, Observed]]
"""Server to tool to what the server says of it (`upstream.Servers.seen`)."""

NAME: Final = re.compile(r"[A-Za-z0-9_\-]{1,64}\.[A-Za-z0-9_.\-]{1,128}")
"""What any `server.tool` looks like."""
ANYTHING: Final[Mapping[str, Any]] = {"type": "object"}
"""The input schema of a tool of which nothing may be told."""


@dataclass(frozen=True, slots=True)
class GrantedTool:
    """A tool that the principal may call, arguments checked: `name` is `server.tool`."""

    name: str
    kind: ToolClass
    approval: str | None = None
    """Why a person must approve this very call; None: nobody must."""

    @property
    def changes(self) -> bool:
        """Does calling it have an effect, so that it needs an effect key?"""
        return set(self.kind.access) != {Access.READ}

    @property
    def label(self) -> Label:
        """The label of what it answers."""
        integrity = Integrity.TRUSTED if self.kind.trusted else Integrity.UNTRUSTED
        return Label(integrity, self.kind.sensitivity)


def canonical(name: str) -> str:
    """`server__tool` (or `server.tool`) as `server.tool`."""
    server, separator, tool = name.partition("__")
    return f"{server}.{tool}" if separator and "." not in server else name


def offered(name: str) -> str:
    """`server.tool` as models see it."""
    return name.replace(".", "__", 1)


def tighten(kind: ToolClass, seen: Observed | None) -> ToolClass:
    """The class of a tool, made stricter by what its server admits; never looser.

    A hint counts only where it is given and says the worse: the defaults of the specification
    would make every tool of a silent server destructive.
    """
    if seen is None:
        return kind
    hints = seen.annotations
    more: list[Access] = []
    if hints.get("destructiveHint") is True:
        more = [Access.WRITE, Access.DESTRUCTIVE]
    elif hints.get("readOnlyHint") is False:
        more = [Access.WRITE]
    if hints.get("openWorldHint") is True:
        more.append(Access.EGRESS)
    access = kind.access + tuple(a for a in more if a not in kind.access)
    idempotent = kind.idempotent and hints.get("idempotentHint") is not False
    if (access, idempotent) == (kind.access, kind.idempotent):
        return kind
    return kind.model_copy(update={"access": access, "idempotent": idempotent})


def described(
    kind: ToolClass, server: ToolServer, seen: Observed | None
) -> tuple[str, Mapping[str, Any]]:
    """Description and input schema that models are shown.

    What the config repo says goes before what the server says. The server's own words are shown
    when they match the lock, or when nothing of this server is locked: then nobody has reviewed
    any of it, and the result's label says so too. One unlocked tool of a locked server is new
    since the review: its words are kept back.
    """
    locked = any(tool.fingerprint is not None for tool in server.tools.values())
    shown = seen is not None and (
        seen.fingerprint == kind.fingerprint if kind.fingerprint is not None else not locked
    )
    own_schema = kind.input_schema != ANYTHING
    description = kind.description or (seen.description if seen and shown else "")
    schema = seen.input_schema if seen and shown and not own_schema else kind.input_schema
    return description, schema


def listing(grants: Grants, policy: Policy, seen: Seen | None = None) -> list[dict[str, Any]]:
    """MCP tool descriptions of everything granted, by name. A tool that has changed since it was
    locked is not listed: it could not be called."""
    found = []
    for name in sorted(grants.tools):
        kind = policy.tool(name)
        if kind is None:
            continue
        server, _, short = name.partition(".")
        observed = (seen or {}).get(server, {}).get(short)
        if observed and kind.fingerprint not in (None, observed.fingerprint):
            continue
        kind = tighten(kind, observed)
        description, schema = described(kind, policy.servers[server], observed)
        found.append(
            {
                "name": offered(name),
                "description": description,
                "inputSchema": _object(without_headers(schema)),
                "annotations": {
                    "readOnlyHint": set(kind.access) == {Access.READ},
                    "destructiveHint": Access.DESTRUCTIVE in kind.access,
                    "idempotentHint": kind.idempotent,
                    "openWorldHint": Access.EGRESS in kind.access,
                },
            }
        )
    return sorted(found, key=lambda tool: str(tool["name"]))


def offer(
    grants: Grants, policy: Policy, seen: Seen | None = None, *, artifacts: bool = False
) -> Listing:
    """`listing`, and which of it is found by searching instead of being listed; with `artifacts`,
    a tool to read large results with, where there is any tool that could have one."""
    tools = listing(grants, policy, seen)
    large = len(tools) > DEFER_ABOVE

    def deferred(name: str) -> bool:
        mode = policy.servers[canonical(name).partition(".")[0]].listing
        return mode == "deferred" or (mode == "auto" and large)

    hidden = frozenset(tool["name"] for tool in tools if deferred(tool["name"]))
    return Listing(tuple(tools), hidden, artifacts and bool(tools))


def undescribed(grants: Grants, policy: Policy) -> dict[str, ToolServer]:
    """The servers whose own words `listing` needs (`upstream.Servers.describe`)."""
    found = {}
    for name in grants.tools:
        kind = policy.tool(name)
        if kind is not None and (not kind.description or kind.input_schema == ANYTHING):
            server = name.partition(".")[0]
            found[server] = policy.servers[server]
    return found


def check(
    name: str,
    arguments: Mapping[str, Any],
    *,
    grants: Grants,
    sides: Sequence[Grants],
    policy: Policy,
    seen: Observed | None = None,
    approved: bool = False,
) -> GrantedTool:
    """The tool, if this principal may call it with these arguments.

    `grants` is the effective policy; `sides` are the release's grants and the current policy's
    ceiling. Arguments are held against each side by itself: globs cannot be intersected as text,
    two answers can; then against the tool's input schema. `seen` is what its server says of it.
    Raises Refusal: unknown_tool (no such server, or no such tool that anybody granted or
    classified), not_granted (tool, or an argument outside a constraint; an argument that is
    missing is outside), invalid_request (the schema), approval_required unless `approved`.
    """
    if not NAME.fullmatch(name):
        # Nobody can have granted it. It is not repeated whole: it may be anything.
        raise Refusal(Code.UNKNOWN_TOOL, f"{name[:80]!a} is not the name of a tool")
    server, _, short = name.partition(".")
    kind = policy.tool(name)
    if kind is None:
        raise Refusal(
            Code.UNKNOWN_TOOL, f"tool server {server!r} is not defined in the current policy"
        )
    grant = grants.tools.get(name)
    if grant is None and short not in policy.servers[server].tools:
        raise Refusal(Code.UNKNOWN_TOOL, f"there is no tool {name}")
    if grant is None:
        granted = ", ".join(sorted(grants.tools)) or "none"
        raise Refusal(
            Code.NOT_GRANTED,
            f"tool {name} is not granted to this role by its release and the current policy; "
            f"granted tools: {granted}",
        )
    for side in sides:
        _constrain(name, arguments, side.tools[name].args)
    kind = tighten(kind, seen)
    validate(name, arguments, described(kind, policy.servers[server], seen)[1])
    why = None
    if Access.DESTRUCTIVE in kind.access:
        why = "it is destructive"
    elif grant.approval:
        why = "its grant asks for it"
    if why is not None and not approved:
        raise Refusal(
            Code.APPROVAL_REQUIRED,
            f"tool {name} needs a person's approval for this exact call ({why}); approvals are "
            "not available in this version, so the call is refused",
        )
    return GrantedTool(name, kind, why)


def _constrain(
    name: str, arguments: Mapping[str, Any], constraints: Mapping[str, tuple[str, ...]]
) -> None:
    for argument, patterns in constraints.items():
        value = arguments.get(argument)
        if value is None or not any(fnmatchcase(as_text(value), p) for p in patterns):
            allowed = " or ".join(patterns) or "nothing"
            raise Refusal(
                Code.NOT_GRANTED,
                f"tool {name}: argument {argument!r} must match {allowed} (a constraint of its "
                "grant)",
            )


def _object(schema: Any) -> Any:
    """Every client takes a schema whose root says that it is an object; some take no other."""
    return schema if "type" in schema else {"type": "object", **schema}
