"""What starts what: schedules, events, people and agents, and the circles they can form.

`after: other` starts an agent when a run of the other one was accepted. A circle of such arrows is
a loop that nobody stops: each run starts the next for ever, within its budgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.values import AgentName
from reconciler.config import Fleet, TriggerConfig
from reconciler.findings import Place


@dataclass(frozen=True, slots=True)
class Unknown:
    """`after` names an agent that is not there."""

    agent: AgentName
    name: AgentName
    place: Place


@dataclass(frozen=True, slots=True)
class Graph:
    """Triggers of a fleet. `starts` is by who starts; both sides sorted; agents only."""

    triggers: Mapping[AgentName, TriggerConfig]
    starts: Mapping[AgentName, tuple[AgentName, ...]]
    unknown: tuple[Unknown, ...]

    @property
    def roots(self) -> tuple[AgentName, ...]:
        """Agents that something other than an agent starts, or that nothing known starts."""
        started = {name for targets in self.starts.values() for name in targets}
        return tuple(
            name
            for name, trigger in self.triggers.items()
            if trigger.kind != "after" or name not in started
        )

    @property
    def cycles(self) -> tuple[tuple[AgentName, ...], ...]:
        """Groups of agents that can each start themselves again, each from its first name on."""
        return tuple(
            sorted(
                tuple(_around(sorted(group), self.starts))
                for group in _components(tuple(self.triggers), self.starts)
                if len(group) > 1 or group[0] in self.starts.get(group[0], ())
            )
        )


def graph_of(fleet: Fleet) -> Graph:
    """The triggers of a fleet as a graph."""
    starts: dict[AgentName, list[AgentName]] = {}
    unknown = []
    for name, agent in fleet.agents.items():
        for starter in agent.trigger.after:
            if starter in fleet.agents:
                starts.setdefault(starter, []).append(name)
            else:
                unknown.append(Unknown(name, starter, agent.trigger.place or agent.place))
    return Graph(
        triggers={name: agent.trigger for name, agent in sorted(fleet.agents.items())},
        starts={name: tuple(sorted(set(targets))) for name, targets in sorted(starts.items())},
        unknown=tuple(sorted(unknown, key=lambda each: (each.agent, each.name))),
    )


def told(trigger: TriggerConfig) -> str:
    """A trigger in words: `schedule 0 6 * * 1-5 Europe/Berlin`, `event push`, `by hand`."""
    if trigger.kind == "schedule":
        return f"schedule {trigger.schedule} {trigger.timezone}"
    if trigger.kind == "manual":
        return "by hand"
    if trigger.kind == "after":
        return f"after {', '.join(trigger.after)}"
    return f"{trigger.kind} {trigger.what}".strip()


def _components(
    names: Sequence[AgentName], starts: Mapping[AgentName, Sequence[AgentName]]
) -> list[list[AgentName]]:
    """Strongly connected components (Tarjan 1972), without recursion: chains may be long."""
    number: dict[AgentName, int] = {}
    low: dict[AgentName, int] = {}
    stack: list[AgentName] = []
    waiting: set[AgentName] = set()
    found: list[list[AgentName]] = []
    for start in names:
        if start in number:
            continue
        number[start] = low[start] = len(number)
        stack.append(start)
        waiting.add(start)
        work = [(start, iter(starts.get(start, ())))]
        while work:
            name, following = work[-1]
            for target in following:
                if target not in number:
                    number[target] = low[target] = len(number)
                    stack.append(target)
                    waiting.add(target)
                    work.append((target, iter(starts.get(target, ()))))
                    break
                if target in waiting:
                    low[name] = min(low[name], number[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == number[name]:
                    group: list[AgentName] = []
                    while not group or group[-1] != name:
                        group.append(stack.pop())
                        waiting.discard(group[-1])
                    found.append(group)
    return found


def _around(
    group: Sequence[AgentName], starts: Mapping[AgentName, Sequence[AgentName]]
) -> list[AgentName]:
    """A shortest way from the first of a group back to itself; others may be in the group too."""
    members, first = set(group), group[0]
    came: dict[AgentName, AgentName] = {}
    edge = [first]
    while edge:
        reached = []
        for name in edge:
            for target in starts.get(name, ()):
                if target == first:
                    way = [name]
                    while way[-1] != first:
                        way.append(came[way[-1]])
                    return way[::-1]
                if target in members and target not in came:
                    came[target] = name
                    reached.append(target)
        edge = reached
    return list(group)
