"""The rules of `lint`: one small function each, which registers itself under a stable id.

A rule looks at facts and yields hits. An agent rule is asked once per agent, a fleet rule once.
What loading already refuses is not asked again: such an agent is not in the fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from reconciler.config import AgentConfig, Fleet
from reconciler.findings import Finding, Place, Severity
from reconciler.fleet.flows import Classes, Source, ToolUse, sources_of, uses_of
from reconciler.fleet.graph import Graph, graph_of
from reconciler.fleet.schedules import Week, sample_week


class Facts:
    """What rules ask: the fleet, the day, and what is worked out once for all of them."""

    def __init__(
        self, fleet: Fleet, today: date, *, skills: Mapping[str, Place] | None = None
    ) -> None:
        """`skills` are those of the repository, used or not, with where they are."""
        self.fleet = fleet
        self.today = today
        self.skills = skills or {}
        self.classes = Classes(fleet.platform)

    @cached_property
    def week(self) -> Week:
        """The schedules of the fleet over the week that begins today."""
        return sample_week(self.fleet, self.today)

    @cached_property
    def graph(self) -> Graph:
        """The triggers of the fleet."""
        return graph_of(self.fleet)

    def place(self, kind: str, name: str, file: str) -> Place:
        """Where a shared thing is named; the beginning of `file` when that is not known."""
        return self.fleet.places.get((kind, name), Place(file))


@dataclass(frozen=True, slots=True)
class Desk:
    """One agent on the table, with what several rules want to know of it."""

    facts: Facts
    agent: AgentConfig
    uses: tuple[ToolUse, ...]
    sources: tuple[Source, ...]

    def at(self, *paths: str) -> Place:
        """Where the first of these values is written; the agent's name when none is."""
        for path in paths:
            origin = self.agent.origins.get(path)
            if origin is not None and origin.place is not None:
                return origin.place
        return self.agent.place

    def role(self, name: str) -> Place:
        """Where a role is written; the agent itself is where its name is."""
        if name == self.agent.main.name:
            return self.agent.place
        return next(role.place for role in self.agent.participants if role.name == name)


def desk(facts: Facts, agent: AgentConfig) -> Desk:
    """The agent with its tools and where text enters it."""
    uses = uses_of(agent, facts.classes)
    return Desk(facts, agent, uses, sources_of(agent, uses))


@dataclass(frozen=True, slots=True)
class Hit:
    """A rule's finding before it has the rule's id. `severity` only where it is not the rule's."""

    place: Place
    message: str
    fix: str
    severity: Severity | None = None


AgentCheck = Callable[[Desk], Iterable[Hit]]
FleetCheck = Callable[[Facts], Iterable[Hit]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule. `why` is one line: what goes wrong where it is broken."""

    id: str
    severity: Severity
    why: str

    def finding(self, hit: Hit) -> Finding:
        """The hit as a finding."""
        place = hit.place
        return Finding(
            self.id,
            hit.severity or self.severity,
            place.file,
            place.line,
            place.column,
            hit.message,
            hit.fix,
        )


AGENT_RULES: dict[Rule, AgentCheck] = {}
FLEET_RULES: dict[Rule, FleetCheck] = {}


def agent_rule(name: str, severity: Severity, why: str) -> Callable[[AgentCheck], AgentCheck]:
    """Register a function as the rule `name`, asked of every agent."""

    def register(check: AgentCheck) -> AgentCheck:
        AGENT_RULES[Rule(name, severity, why)] = check
        return check

    return register


def fleet_rule(name: str, severity: Severity, why: str) -> Callable[[FleetCheck], FleetCheck]:
    """Register a function as the rule `name`, asked once of the whole fleet."""

    def register(check: FleetCheck) -> FleetCheck:
        FLEET_RULES[Rule(name, severity, why)] = check
        return check

    return register


def named(names: Iterable[str], *, most: int = 4) -> str:
    """`a, b and 3 more`: names in a sentence."""
    listed = list(names)
    if len(listed) <= most:
        return ", ".join(listed)
    return f"{', '.join(listed[:most])} and {len(listed) - most} more"
