"""Questions about a config repo in a work directory: readiness, reach, and what starts what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from gateway.values import AgentName
from reconciler.config import AgentConfig, Fleet, Loaded
from reconciler.findings import Finding, Place, Severity, did_you_mean, quoted, render, tidy
from reconciler.fleet import explain as explaining
from reconciler.fleet import lint as linting
from reconciler.fleet import touches as touching
from reconciler.fleet import who
from reconciler.fleet.claims import owned
from reconciler.fleet.explain import Explained as Explained
from reconciler.fleet.explain import Row as Row
from reconciler.fleet.flows import ToolUse as ToolUse
from reconciler.fleet.graph import Graph as Graph
from reconciler.fleet.graph import graph_of
from reconciler.fleet.graph import told as told
from reconciler.fleet.rules import Rule
from reconciler.fleet.touches import Touches as Touches
from reconciler.fleet.who import Touch as Touch
from reconciler.fleet.who import in_words as in_words
from reconciler.operations.outcome import Refused
from reconciler.operations.repository import read
from reconciler.source.tree import Kind, Tree, UnsafePath

SAID_BY_LINT = {"no-team": "no-owner"}
"""Warnings of loading that lint says better."""


@dataclass(frozen=True, slots=True)
class Linted:
    """Findings of loading and of lint. `rules` explains the ids that are lint's."""

    findings: tuple[Finding, ...]
    rules: Mapping[str, Rule]
    agents: int

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What makes a plan fail."""
        return tuple(f for f in self.findings if f.severity is Severity.ERROR)


def page(finding_id: str, rules: Mapping[str, Rule]) -> str:
    """Where the docs explain a finding; `""` for what only loading says."""
    return f"{linting.PAGE}#{finding_id}" if finding_id in rules else ""


def lint(directory: Path, today: date) -> Linted:
    """Unattended readiness of the config repo in `directory`. Never raises for what is in it."""
    opened = read(directory)
    loaded, found = opened.loaded, list(opened.findings)
    if loaded.fleet is not None:
        mine = linting.lint(loaded.fleet, today, skills=_skills(opened.tree))
        ids = {finding.id for finding in mine}
        found = [f for f in found if SAID_BY_LINT.get(f.id) not in ids]
        found += mine
    agents = len(loaded.fleet.agents) if loaded.fleet is not None else 0
    return Linted(tidy(found), linting.rules(), agents)


def touches(directory: Path, name: str) -> Touches:
    """What an agent can reach. Refused with what to do when it is not there, or in error."""
    loaded = read(directory).loaded
    fleet = _fleet(loaded)
    return touching.touches(fleet, _agent(loaded, fleet, name))


@dataclass(frozen=True, slots=True)
class Asked:
    """Who touches a resource. `known`: the repository declares something of that name."""

    touches: tuple[Touch, ...]
    known: bool
    close: str
    """`did you mean …?`, or empty."""
    broken: tuple[AgentName, ...]
    """Agents in error: what they would touch is not known."""


def who_touches(directory: Path, resource: str) -> Asked:
    """Every agent that can reach what `resource` names."""
    loaded = read(directory).loaded
    fleet = _fleet(loaded)
    found = who.who_touches(fleet, resource)
    kind, wanted = who.split(resource)
    # Any path may be asked about: that nobody claims it is an answer.
    known = bool(found) or "/" in wanted or kind == "claim" or who.is_known(fleet, resource)
    names = [
        name
        for of, listed in who.names_of(fleet).items()
        if kind in (None, of)
        for full in listed
        for name in {full, full.rpartition(":")[2] if of == "secret" else full}
    ]
    close = "" if known else did_you_mean(wanted, names)
    return Asked(found, known, close, tuple(loaded.broken))


def explain(directory: Path, path: str, key: str | None) -> Explained:
    """Effective values of an agent, named by itself, its folder or a file of it.

    `path` may end in `:key`. Refused when there is no such agent or key.
    """
    if key is None and ":" in path:
        path, _, key = path.partition(":")
    loaded = read(directory).loaded
    fleet = _fleet(loaded)
    inside = _inside(directory, path)
    agent = explaining.agent_at(fleet, path) or explaining.agent_at(fleet, inside)
    if agent is None:
        folder = inside.split("/")[1] if inside.startswith("agents/") else path
        agent = _agent(loaded, fleet, folder)
    found = explaining.explain(fleet, agent, key or None)
    if key and not found.rows and not found.tools:
        keys = explaining.keys_of(agent)
        hint = did_you_mean(key, keys) or f"known: {', '.join(keys)}"
        raise Refused(f"agent {quoted(agent.name)} has no value {quoted(key)}; {hint}")
    return found


@dataclass(frozen=True, slots=True)
class Drawn:
    """Triggers of a fleet, and who claims what."""

    graph: Graph
    claims: Mapping[AgentName, tuple[str, ...]]
    broken: tuple[AgentName, ...]


def graph(directory: Path) -> Drawn:
    """What starts what, and what each agent owns."""
    loaded = read(directory).loaded
    fleet = _fleet(loaded)
    claims = {
        name: tuple(claim.pattern for claim in owned(fleet, agent))
        for name, agent in fleet.agents.items()
    }
    return Drawn(graph_of(fleet), claims, tuple(loaded.broken))


def _fleet(loaded: Loaded) -> Fleet:
    if loaded.fleet is None:
        errors = [f for f in loaded.findings if f.severity is Severity.ERROR]
        raise Refused(f"the config repo does not load:\n{render(errors)}")
    return loaded.fleet


def _agent(loaded: Loaded, fleet: Fleet, name: str) -> AgentConfig:
    found = fleet.agents.get(AgentName(name))
    if found is not None:
        return found
    if AgentName(name) in loaded.broken:
        told_why = render(loaded.broken[AgentName(name)])
        raise Refused(f"agent {quoted(name)} is in error:\n{told_why}")
    names = sorted({*fleet.agents, *loaded.broken})
    hint = did_you_mean(name, names) or f"known: {', '.join(names[:12]) or 'none'}"
    raise Refused(f"there is no agent {quoted(name)}; {hint}")


def _inside(directory: Path, path: str) -> str:
    """A path as the repository names it, when it was written from the work directory."""
    try:
        return Path(path).resolve().relative_to(directory.resolve()).as_posix()
    except (ValueError, OSError):
        return path


def _skills(tree: Tree) -> dict[str, Place]:
    """Skills of the repository, used or not."""
    try:
        if not tree.exists("skills"):
            return {}
        folders = [e.name for e in tree.entries("skills") if e.kind is Kind.TREE]
        return {
            name: Place(f"skills/{name}/SKILL.md")
            for name in folders
            if tree.exists(f"skills/{name}/SKILL.md")
        }
    except UnsafePath:
        return {}  # loading has said so
