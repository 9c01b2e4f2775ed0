"""Which tools a participant gets from the servers it names, and with which arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from sys import intern

from gateway.policy import Access, Policy, ToolServer
from gateway.values import AgentName
from reconciler.config.common import Shared, home, undefined
from reconciler.config.fleet import Claim, GrantedTool
from reconciler.config.models.agent import ServerGrant
from reconciler.config.positions import Document
from reconciler.config.reader import Notes
from reconciler.findings import did_you_mean, quoted

Args = dict[str, tuple[str, ...]]


def granted_tools(
    grants: Sequence[ServerGrant],
    shared: Shared,
    platform: Policy,
    *,
    document: Document,
    at: list[str | int],
    notes: Notes,
) -> dict[str, GrantedTool]:
    """`server.tool` → constraints, for a list of grants written at `at`."""
    found: dict[str, GrantedTool] = {}
    seen: set[str] = set()
    for index, grant in enumerate(grants):
        here = [*at, index]
        server = shared.servers.get(grant.name)
        if grant.name in seen:
            notes.error(
                "duplicate-name",
                document.at([*here, "name"]),
                f"server {quoted(grant.name)} is listed twice",
                "merge the two entries",
            )
        elif server is None:
            undefined(
                notes,
                document.at([*here, "name"]),
                kind="server",
                name=grant.name,
                known=list(shared.servers),
                home=home(shared, "server", "gateway/mcp-servers.yaml"),
            )
        else:
            names = _names(grant, server, platform, document, here, notes)
            args = _args(grant, server, names, document, here, notes)
            found |= {intern(f"{grant.name}.{n}"): GrantedTool(args=args.get(n, {})) for n in names}
        seen.add(grant.name)
    return found


def _names(
    grant: ServerGrant,
    server: ToolServer,
    platform: Policy,
    document: Document,
    at: list[str | int],
    notes: Notes,
) -> list[str]:
    """The tools meant. A destructive one is never granted without being named."""
    for key, names in (("tools", grant.tools or []), ("deny", grant.deny)):
        for index, name in enumerate(names):
            if name not in server.tools:
                fix = did_you_mean(name, list(server.tools)) or (
                    f"classified there: {', '.join(sorted(server.tools)) or 'none'}"
                )
                notes.error(
                    "undefined",
                    document.at([*at, key, index]),
                    f"server {quoted(grant.name)} declares no tool {quoted(name)}",
                    fix,
                )
    if grant.tools is None:
        chosen = [
            name
            for name in server.tools
            if (tool := platform.tool(f"{grant.name}.{name}")) is not None
            and Access.DESTRUCTIVE not in tool.access
        ]
    else:
        chosen = [name for name in grant.tools if name in server.tools]
    return sorted({name for name in chosen if name not in grant.deny})


def _args(
    grant: ServerGrant,
    server: ToolServer,
    names: Sequence[str],
    document: Document,
    at: list[str | int],
    notes: Notes,
) -> dict[str, Args]:
    """Constraints by tool. An argument for all tools goes to those that have it, one at least."""
    found: dict[str, Args] = {name: {} for name in names}
    for key, value in grant.args.items():
        place = document.at([*at, "args", key], key=True)
        if isinstance(value, dict):
            if key not in found:
                fix = did_you_mean(key, list(names)) or f"granted: {', '.join(names) or 'none'}"
                notes.error("undefined", place, f"tool {quoted(key)} is not granted here", fix)
                continue
            targets: Mapping[str, object] = value
            for argument, globs in targets.items():
                if not _has(server, key, argument):
                    inner = document.at([*at, "args", key, argument], key=True)
                    _no_argument(notes, inner, argument, server, [key])
                else:
                    found[key][argument] = _globs(globs)
            continue
        having = [name for name in names if _has(server, name, key)]
        if not having:
            _no_argument(notes, place, key, server, names)
        for name in having:
            found[name][key] = _globs(value)
    return found


def _no_argument(
    notes: Notes, place: object, argument: str, server: ToolServer, names: Sequence[str]
) -> None:
    known = sorted({p for n in names for p in _properties(server, n)})
    notes.error(
        "undefined",
        place,  # type: ignore[arg-type]
        f"no granted tool has an argument {quoted(argument)}",
        did_you_mean(argument, known) or f"arguments: {', '.join(known) or 'none'}",
    )


def _properties(server: ToolServer, tool: str) -> list[str]:
    properties = server.tools[tool].input_schema.get("properties")
    return list(properties) if isinstance(properties, dict) else []


def _has(server: ToolServer, tool: str, argument: str) -> bool:
    """A schema that does not list its properties may have any."""
    known = _properties(server, tool)
    return not known or argument in known


def _globs(value: object) -> tuple[str, ...]:
    return tuple(sorted(set(value))) if isinstance(value, list) else (str(value),)


def handed_over(
    a_name: AgentName, a_claim: Claim, b_name: AgentName, b_claim: Claim
) -> AgentName | None:
    """The owner after a hand-over that both sides agree to; None when there is none.

    Two claims that overlap are no conflict when one side says `to: B` and B says `from: A`: B is
    the owner then, and A's claim counts for nothing any more. One side alone is not enough, since
    neither may an agent take what its owner keeps, nor be given what it did not ask for.
    """
    if a_claim.given_to == b_name and b_claim.taken_from == a_name:
        return b_name
    if b_claim.given_to == a_name and a_claim.taken_from == b_name:
        return a_name
    return None
