"""People and services that call from outside a run: what each may reach, resolved and checked.

They are declared for all to see, as agents are, and held to the same: a team that answers for
them, what that team may name, tools that are classified, destructive ones only by name, and the
approvals that fleet and team ask for.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from gateway.values import AgentName, TeamName
from reconciler.config.common import Shared, home, undefined
from reconciler.config.fleet import GrantedTool, PrincipalConfig
from reconciler.config.grants import granted_tools
from reconciler.config.models.principals import Principal
from reconciler.config.positions import Document
from reconciler.config.reader import Notes
from reconciler.findings import Place, quoted

PREFIXES = {"person": "user:", "service": "service:"}
"""Kind → what stands before the name. No agent is called so: their names have no colon."""


def resolve_principals(shared: Shared, notes: Notes) -> None:
    """Put every principal into `shared.principals`. Not before everything else is read."""
    for file, document in shared.principal_files:
        for index, principal in enumerate(file.principals):
            at: list[str | int] = ["principals", index]
            name = AgentName(PREFIXES[principal.kind] + principal.name)
            place = document.at([*at, "name"])
            first = shared.places.setdefault(("principal", name), place)
            if first != place:
                notes.error(
                    "duplicate-name",
                    place,
                    f"principal {quoted(name)} is defined twice (first at {first})",
                    "rename or remove one of them",
                )
                continue
            shared.principals[name] = _resolved(shared, name, principal, document, at, notes)


def _resolved(
    shared: Shared,
    name: AgentName,
    principal: Principal,
    document: Document,
    at: list[str | int],
    notes: Notes,
) -> PrincipalConfig:
    if principal.team not in shared.teams:
        undefined(
            notes,
            document.at([*at, "team"]),
            kind="team",
            name=principal.team,
            known=list(shared.teams),
            home=home(shared, "team", "teams.yaml"),
        )
    for index, model in enumerate(principal.models):
        if model not in shared.model_names:
            undefined(
                notes,
                document.at([*at, "models", index]),
                kind="model",
                name=model,
                known=shared.model_names,
                home=home(shared, "model", "gateway/models.yaml"),
            )
    tools = granted_tools(
        principal.servers,
        shared,
        shared.platform,
        document=document,
        at=[*at, "servers"],
        notes=notes,
    )
    _within_team(shared, principal, document, at, notes)
    waiting = {tool for layer in shared.layers(principal.team) for tool in layer.approvals}
    return PrincipalConfig(
        name=name,
        team=TeamName(principal.team),
        models=tuple(sorted(set(principal.models))),
        tools={
            tool: GrantedTool(
                args=granted.args, approval=not waiting.isdisjoint({tool, tool.partition(".")[2]})
            )
            for tool, granted in sorted(tools.items())
        },
        max_output_tokens=principal.limits.max_output_tokens,
        tags=tuple(sorted(set(principal.tags))),
        place=document.at([*at, "name"]),
    )


def _within_team(
    shared: Shared, principal: Principal, document: Document, at: list[str | int], notes: Notes
) -> None:
    """An error at each name that its team may not use."""
    uses = shared.team_uses.get(principal.team)
    if uses is None:
        return
    for kind, name, place in _named(principal, document, at):
        globs = getattr(uses, f"{kind}s")
        if globs is None or any(fnmatchcase(name, glob) for glob in globs):
            continue
        file = shared.team_documents[principal.team]
        where = file.at(["teams", principal.team, "uses", f"{kind}s"])
        notes.error(
            "not-allowed",
            place,
            f"team {quoted(principal.team)} may not use {kind} {quoted(name)}"
            f" (uses.{kind}s at {where})",
            f"use another {kind}, or ask the owners of {where.file} to allow it",
        )


def _named(
    principal: Principal, document: Document, at: list[str | int]
) -> Iterator[tuple[str, str, Place]]:
    for index, model in enumerate(principal.models):
        yield "model", model, document.at([*at, "models", index])
    for index, grant in enumerate(principal.servers):
        yield "server", grant.name, document.at([*at, "servers", index, "name"])
