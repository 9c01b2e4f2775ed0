"""`formerly: old-name`: a name has one history, so one agent at most may go on with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from gateway.values import AgentName
from reconciler.findings import Finding, Place, Severity, quoted


class Renamed(Protocol):
    """What of an agent matters here; `place` is that of its name."""

    @property
    def name(self) -> AgentName: ...
    @property
    def formerly(self) -> AgentName | None: ...
    @property
    def place(self) -> Place: ...


def wrong_renames(
    agents: Iterable[Renamed], names: Collection[AgentName]
) -> list[tuple[AgentName, Finding]]:
    """(agent, why) for each that says it was formerly what another still is, or also was.

    `names` are those of all agents, broken ones included. Of two that were the same, both are
    refused: nobody can tell whose the history is.
    """
    by_former: dict[AgentName, list[Renamed]] = {}
    for agent in agents:
        if agent.formerly is not None:
            by_former.setdefault(agent.formerly, []).append(agent)
    found: list[tuple[AgentName, Finding]] = []
    for former, successors in sorted(by_former.items()):
        for agent in successors:
            if former in names:
                why = f"formerly: there is still an agent {quoted(former)}"
                fix = "remove the other, or this formerly"
            elif len(successors) > 1:
                other = next(one for one in successors if one is not agent)
                why = f"formerly: {quoted(other.name)} was {quoted(former)} too (at {other.place})"
                fix = "only one of them can go on with its history"
            else:
                continue
            place = agent.place
            error = Finding(
                "formerly", Severity.ERROR, place.file, place.line, place.column, why, fix
            )
            found.append((agent.name, error))
    return found
