"""One comparison of an agent on its way: where its loosenings are collected and attributed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.values import AgentName, Json
from reconciler.findings import Finding, Place
from reconciler.plan.model import Loosening, Side, Standing
from reconciler.plan.people import Asked
from reconciler.plan.phrases import record
from reconciler.plan.sides import HOMES


@dataclass(frozen=True, slots=True)
class Context:
    """What all comparisons of one plan share: changed unit → its fields that differ, and those of
    them that became looser."""

    live: Side
    desired: Side
    asked: Asked
    paths: Mapping[str, frozenset[str]]
    looser: Mapping[str, frozenset[str]]
    dropped: tuple[tuple[AgentName, str, str], ...] = ()
    """(agent, realm, pattern) of claims that are live and that their owners no longer make."""


@dataclass(slots=True)
class Desk:
    """One comparison on its way."""

    context: Context
    name: AgentName
    before: Standing
    after: Standing
    new: bool
    settings: list[str] = field(default_factory=list)
    found: list[Loosening] = field(default_factory=list)
    scopes: set[str] = field(default_factory=set)
    collisions: list[Finding] = field(default_factory=list)

    @property
    def place(self) -> Place:
        return self.after.place or Place(str(self.after.facts.get("file", "agents")))

    @property
    def live_place(self) -> Place:
        """Where the agent stands on the live side; a new one, where it is asked for. A stored side
        knows the file only: it must not be asked of the file that a change moves the agent to."""
        if self.before.place is not None:
            return self.before.place
        file = self.before.facts.get("file")
        return Place(file) if isinstance(file, str) else self.place

    def loosen(self, kind: str, text: str, path: str = "", old: Json = None) -> None:
        """Something to approve: by the owners of the stricter value's place, else of the file's
        place as it is live, else of the new file's. `old` is the value at `path` on the live side.

        A value that is looser than what two levels say (its team and the fleet) is asked of both.
        """
        self._lean(path)
        marks = [one for one in self.after.loosened if one.path == path and path]
        stricter: list[Place | None] = [
            mark.stricter.place for mark in marks if mark.stricter.place is not None
        ]
        stricter = stricter or [_origin(self.before, path) or self._stated(path, old)]
        place = marks[0].place if marks else _origin(self.after, path) or self.place
        for each in stricter:
            owners = self.context.asked.about(each or self.live_place)
            self.found.append(Loosening(f"agent/{self.name}", kind, text, place, each, owners))

    def inherited(self, path: str, old: Json, new: Json) -> bool:
        """Whether a looser value at `path` is that of a level above, which itself became looser:
        then that level is what waits, and this agent with it.

        Decided by values, since a stored side has no origins: the agent had what the level said,
        and has what it says now. Only a level that is asked for counts; whatever is looser in any
        other way is asked for here.
        """
        origin = self.after.origins.get(path)
        if origin is not None and origin.level == "agent":
            return False
        then, now = (
            self._level(self.context.live, self.before, path),
            self._level(self.context.desired, self.after, path),
        )
        if (old, new) != (then[1], now[1]):
            return False
        for unit, at in dict.fromkeys((now[0], then[0])):
            if at in self.context.looser.get(unit, ()):
                self.scopes.add(unit)
                return True
        return False

    def _lean(self, path: str) -> None:
        """A value that is inherited now waits for its level too, if that became looser."""
        origin = self.after.origins.get(path)
        if origin is None or origin.level == "agent":
            return
        (unit, at), _ = self._level(self.context.desired, self.after, path)
        if at in self.context.looser.get(unit, ()):
            self.scopes.add(unit)

    def _level(self, side: Side, standing: Standing, path: str) -> tuple[tuple[str, str], Json]:
        """((unit, path in it), value) of the nearest level that says something; else the fleet."""
        team = (f"team/{standing.facts.get('team')}", f"defaults.{path}")
        fleet = ("fleet/defaults", path)
        unit = side.units.get(team[0])
        defaults = record(record(unit.value).get("defaults")) if unit is not None else {}
        if path in defaults:
            return team, defaults[path]
        unit = side.units.get(fleet[0])
        return fleet, record(unit.value).get(path) if unit is not None else None

    def _stated(self, path: str, old: Json) -> Place | None:
        """Where the level stands whose value the agent had, on a side without origins."""
        if not path or old is None or self.before.origins:
            return None
        (name, _), value = self._level(self.context.live, self.before, path)
        if value != old:
            return None
        unit = self.context.live.units[name]
        return unit.place or Place(HOMES[name.partition("/")[0]])


def _origin(standing: Standing, path: str) -> Place | None:
    origin = standing.origins.get(path) if path else None
    return origin.place if origin is not None else None
