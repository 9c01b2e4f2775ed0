"""What a team's agents may name: `teams.<name>.uses`, checked at every reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from reconciler.config.fleet import Origin, Suite
from reconciler.config.models.agent import Agent
from reconciler.config.participants import Desk, Path
from reconciler.findings import Place, quoted


def check_uses(
    desk: Desk, agent: Agent, model: str | None, origins: Mapping[str, Origin], suite: Suite | None
) -> None:
    """An error at each name that the agent's team may not use. `model` is the effective one."""
    uses = desk.shared.team_uses.get(agent.team or "")
    if uses is None or agent.team is None:
        return
    for kind, name, place in _named(desk, agent, model, origins, suite):
        globs = getattr(uses, f"{kind}s")
        if globs is None or any(fnmatchcase(name, glob) for glob in globs):
            continue
        where = desk.shared.team_documents[agent.team].at(["teams", agent.team, "uses", f"{kind}s"])
        desk.notes.error(
            "not-allowed",
            place,
            f"team {quoted(agent.team)} may not use {kind} {quoted(name)}"
            f" (uses.{kind}s at {where})",
            f"use another {kind}, or ask the owners of {where.file} to allow it",
        )


def _named(
    desk: Desk, agent: Agent, model: str | None, origins: Mapping[str, Origin], suite: Suite | None
) -> Iterator[tuple[str, str, Place]]:
    """(kind, name, where) of everything the agent refers to."""
    if model is not None:
        own = origins["model"].level == "agent"
        yield "model", model, desk.at(["agent", "model"] if own else ["agent", "name"])
    participants: list[tuple[Path, list[str], list[str]]] = [
        (["agent"], agent.skills, [grant.name for grant in agent.mcp_servers])
    ]
    for number, subagent in enumerate(agent.subagents):
        at: Path = ["agent", "subagents", number]
        participants.append((at, subagent.skills, [g.name for g in subagent.mcp_servers]))
        if subagent.model is not None:
            yield "model", subagent.model, desk.at([*at, "model"])
    for at, skills, servers in participants:
        for index, reference in enumerate(skills):
            name = reference.partition("@")[0]
            yield "skill", name, desk.at([*at, "skills", index])
        for index, server in enumerate(servers):
            yield "server", server, desk.at([*at, "mcp_servers", index, "name"])
    for sentinel in suite.sentinels if suite else ():
        if sentinel.model is not None:
            yield "model", sentinel.model, sentinel.place
