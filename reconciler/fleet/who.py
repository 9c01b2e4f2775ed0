"""Who can reach a thing: the question of the day a key leaks, a server misbehaves, a model retires.

A resource is named as people name it: a server, `server.tool`, a model, a provider, a skill, a
host, a secret's name, a claim or a path, a repository, a team. Globs work, and a kind in front
narrows it down: `secret:TRACKER_TOKEN`, `tool:tracker.*`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

from gateway.policy import Access, Provider, ToolServer
from gateway.values import AgentName
from reconciler.config import AgentConfig, Fleet, PrincipalConfig
from reconciler.config.globs import can_meet, is_glob
from reconciler.findings import Place
from reconciler.fleet import touches
from reconciler.fleet.claims import owned
from reconciler.fleet.flows import Classes, ToolUse, uses_of

Kind = Literal[
    "tool",
    "server",
    "model",
    "provider",
    "skill",
    "host",
    "secret",
    "claim",
    "repository",
    "team",
    "image",
]
KINDS: tuple[str, ...] = get_args(Kind)

_ORDER = {kind: number for number, kind in enumerate(KINDS)}


@dataclass(frozen=True, slots=True)
class Touch:
    """One way in which an agent reaches a thing. `how` says it in words, for people."""

    agent: AgentName
    kind: Kind
    name: str
    how: str
    place: Place


def who_touches(fleet: Fleet, resource: str) -> tuple[Touch, ...]:
    """Every agent, person and service that can reach what `resource` names, with how; by kind,
    name and agent."""
    kind, wanted = split(resource)
    classes = Classes(fleet.platform)
    found = {
        touch
        for agent in fleet.agents.values()
        for touch in _all(fleet, agent, classes)
        if kind in (None, touch.kind) and _means(wanted, touch)
    }
    found |= {
        touch
        for principal in fleet.principals.values()
        for touch in _from_outside(fleet, principal)
        if kind in (None, touch.kind) and _means(wanted, touch)
    }
    return tuple(
        sorted(found, key=lambda t: (_ORDER[t.kind], t.name, t.agent, t.how, t.place.line))
    )


def split(resource: str) -> tuple[str | None, str]:
    """`secret:NAME` as (`secret`, `NAME`); without a known kind in front, any kind is meant.

    `mcp:server/what` is a claim as it is written, and `env:NAME` a secret.
    """
    kind, colon, rest = resource.partition(":")
    if colon and kind in KINDS:
        return kind, rest
    return None, resource


def names_of(fleet: Fleet) -> dict[str, tuple[str, ...]]:
    """Everything that can be asked about, by kind: what exists, whether an agent uses it or not."""
    platform = fleet.platform
    ends: list[Provider | ToolServer] = [*platform.providers.values()]
    ends += platform.servers.values()
    found: dict[str, set[str]] = {
        "tool": {f"{s}.{tool}" for s, server in platform.servers.items() for tool in server.tools},
        "server": {*platform.servers},
        "model": {*platform.models, *platform.virtual_models},
        "provider": {*platform.providers},
        "host": {host for end in ends for host in touches.end_hosts(end)},
        "secret": {reference for end in ends for reference in touches.secrets_at(end)},
        "team": {*fleet.teams},
        "image": {*fleet.images},
        "skill": set(),
        "claim": set(),
        "repository": set(),
    }
    for agent in fleet.agents.values():
        found["skill"].update(touches.skills_of(agent))
        found["claim"].update(claim.pattern for claim in agent.owns)
        if agent.workspace is not None:
            found["repository"].add(agent.workspace.git)
    found["skill"] |= {name for kind, name in fleet.places if kind == "skill"}
    return {kind: tuple(sorted(names)) for kind, names in found.items()}


def is_known(fleet: Fleet, resource: str) -> bool:
    """Whether the repository declares anything of that name, used or not."""
    kind, wanted = split(resource)
    return any(
        _same(wanted, name, of)
        for of, names in names_of(fleet).items()
        if kind in (None, of)
        for name in names
    )


def _means(wanted: str, touch: Touch) -> bool:
    return _same(wanted, touch.name, touch.kind)


def _same(wanted: str, name: str, kind: str) -> bool:
    if wanted == name:
        return True
    if kind == "claim":
        # A path asks for whoever claims it, so the claim is a pattern as well. `*` asks for all.
        return wanted == "*" or (("/" in wanted or "." in wanted) and can_meet(wanted, name))
    if kind == "secret":
        bare = name.partition(":")[2]
        return fnmatchcase(bare, wanted) or fnmatchcase(name, wanted)
    if kind == "host" and name.partition(":")[0] == wanted:
        return True
    return is_glob(wanted) and fnmatchcase(name, wanted)


def _all(fleet: Fleet, agent: AgentConfig, classes: Classes) -> Iterator[Touch]:
    def touch(kind: Kind, name: str, how: str, place: Place | None = None) -> Touch:
        return Touch(agent.name, kind, name, how, place or agent.place)

    places = {role.name: role.place for role in agent.participants}
    servers: dict[str, list[str]] = {}
    for use in uses_of(agent, classes):
        yield touch("tool", use.tool, in_words(use), places[use.role])
        server, _, tool = use.tool.partition(".")
        servers.setdefault(server, []).append(tool)
    for server, tools in servers.items():
        yield touch("server", server, ", ".join(sorted(set(tools))))
    for model in touches.models_of(fleet, agent):
        roles = ", ".join(model.roles)
        yield touch("model", model.name, f"named by {roles}")
        for target in model.targets:
            if target != model.name:
                yield touch("model", target, f"behind {model.name} of {roles}")
    for provider in touches.providers_of(fleet, agent):
        yield touch("provider", provider, "serves its models")
    for skill in touches.skills_of(agent):
        having = [r.name for r in agent.participants if any(s.name == skill for s in r.skills)]
        yield touch("skill", skill, f"read by {', '.join(having)}")
    for host in touches.hosts_of(fleet, agent):
        yield touch("host", host, "through the gateway")
    for secret in touches.secrets_of(fleet, agent):
        where = f", to {', '.join(secret.hosts)}" if secret.hosts else ", as its environment"
        yield touch("secret", secret.reference, f"{secret.user}{where}")
    for claim in owned(fleet, agent):
        yield touch("claim", claim.pattern, _claimed(claim.realm), claim.place)
    if agent.workspace is not None:
        source = agent.workspace
        yield touch("repository", source.git, f"works on {source.ref}")
    yield touch("team", agent.team, "owned by it")
    yield touch("image", agent.sandbox.image, "its container")


def _from_outside(fleet: Fleet, principal: PrincipalConfig) -> Iterator[Touch]:
    """What a person or a service reaches without a run."""

    def touch(kind: Kind, name: str, how: str) -> Touch:
        return Touch(principal.name, kind, name, how, principal.place)

    servers: dict[str, list[str]] = {}
    for tool in sorted(principal.tools):
        yield touch("tool", tool, "from outside a run")
        server, _, short = tool.partition(".")
        servers.setdefault(server, []).append(short)
    for server, tools in servers.items():
        yield touch("server", server, f"from outside a run: {', '.join(tools)}")
    for model in principal.models:
        yield touch("model", model, "from outside a run")
        for target in fleet.platform.targets(model):
            if target != model:
                yield touch("model", target, f"from outside a run, behind {model}")
    yield touch("team", principal.team, "answered for by it")


def in_words(use: ToolUse) -> str:
    """`main: write, args project=northwind-*, needs approval`."""
    parts = [", ".join(use.access) or "nothing"]
    if not use.classified:
        parts[0] += " (unclassified)"
    if use.args:
        parts.append(
            " ".join(f"{name}={'|'.join(globs)}" for name, globs in sorted(use.args.items()))
        )
    if use.approval:
        parts.append("waits for approval")
    elif Access.DESTRUCTIVE in use.access:
        parts.append("NO approval")
    return f"{use.role}: {'; '.join(parts)}"


def _claimed(realm: str) -> str:
    return "owns it" if realm in ("", "mcp") else f"owns it in {realm}"
