"""Which tools a principal has, and whether it may make this very call. Pure.

A tool is `server.tool` in policies and the ledger, and `server__tool` to models and MCP clients
(OpenAI allows no dots in tool names).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from gateway.mcp.recorded import as_text
from gateway.policy import Access, Grants, Policy, ToolClass
from gateway.refusals import Code, Refusal
from gateway.values import Integrity, Label


@dataclass(frozen=True, slots=True)
class GrantedTool:
    """A tool that the principal may call, arguments checked: `name` is `server.tool`."""

    name: str
    kind: ToolClass

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
    return name.replace("__", ".", 1) if "__" in name else name


def offered(name: str) -> str:
    """`server.tool` as models see it."""
    return name.replace(".", "__", 1)


def listing(grants: Grants, policy: Policy) -> list[dict[str, Any]]:
    """MCP tool descriptions of everything granted, by name."""
    found = []
    for name in sorted(grants.tools):
        kind = policy.tool(name)
        if kind is None:
            continue
        found.append(
            {
                "name": offered(name),
                "description": kind.description,
                "inputSchema": kind.input_schema,
                "annotations": {
                    "readOnlyHint": set(kind.access) == {Access.READ},
                    "destructiveHint": Access.DESTRUCTIVE in kind.access,
                    "idempotentHint": kind.idempotent,
                    "openWorldHint": Access.EGRESS in kind.access,
                },
            }
        )
    return found


def check(
    name: str,
    arguments: Mapping[str, Any],
    *,
    grants: Grants,
    sides: Sequence[Grants],
    policy: Policy,
) -> GrantedTool:
    """The tool, if this principal may call it with these arguments.

    `grants` is the effective policy; `sides` are the release's grants and the current policy's
    ceiling. Arguments are held against each side by itself: globs cannot be intersected as text,
    two answers can. Raises Refusal: unknown_tool (no such server), not_granted (tool, or an
    argument outside a constraint; an argument that is missing is outside), approval_required.
    """
    kind = policy.tool(name)
    if kind is None:
        server = name.partition(".")[0]
        raise Refusal(
            Code.UNKNOWN_TOOL, f"tool server {server!r} is not defined in the current policy"
        )
    grant = grants.tools.get(name)
    if grant is None:
        granted = ", ".join(sorted(grants.tools)) or "none"
        raise Refusal(
            Code.NOT_GRANTED,
            f"tool {name} is not granted to this role by its release and the current policy; "
            f"granted tools: {granted}",
        )
    for side in sides:
        _constrain(name, arguments, side.tools[name].args)
    if Access.DESTRUCTIVE in kind.access or grant.approval:
        why = "it is destructive" if Access.DESTRUCTIVE in kind.access else "its grant asks for it"
        raise Refusal(
            Code.APPROVAL_REQUIRED,
            f"tool {name} needs a person's approval for this exact call ({why}); approvals are "
            "not available in this version, so the call is refused",
        )
    return GrantedTool(name, kind)


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
