"""Fleet → team → agent: which value is effective, who said it, and what it loosens.

Each level below may say something else. The nearest level that says anything wins; what is looser
than a level above is marked, with where the stricter value stands, because that level's owners
decide about it. The marks are facts about the text; whether a loosening may go live is decided
elsewhere.

A level's `Origin` values are made once and shared by all its agents: a fleet has thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gateway.values import Json
from reconciler.config.fleet import Level, Loosened, Origin
from reconciler.config.models.fields import (
    written_duration,
    written_size,
    written_thousandths,
    written_usd,
)
from reconciler.config.models.fleet import Defaults, Harness, Sandbox
from reconciler.config.positions import Document

BUILT_IN = Origin("built in", None)
"""Of values that nobody wrote."""

WRITTEN: Mapping[str, Callable[[int], str]] = {
    "harness.max_steps": str,
    "harness.max_tokens_per_run": str,
    "harness.max_cost_per_run": written_usd,
    "harness.max_wall_time": written_duration,
    "harness.max_output_tokens": str,
    "sandbox.cpus": written_thousandths,
    "sandbox.memory": written_size,
    "sandbox.pids": str,
    "sandbox.disk": written_size,
    "sandbox.exec_timeout": written_duration,
}
"""Path of a limit → how people write it. A higher one is looser."""

Path = list[str | int]
T = TypeVar("T")
Stated = tuple[Origin, T]
Difference = tuple[str, str, str]
"""(path below the value's own, what is said, the stricter thing that it loosens)."""
Differences = Callable[[Any, Any], Iterable[Difference]]


@dataclass(frozen=True, slots=True)
class Layer:
    """What the fleet or a team says for its agents: value and origin by path, only what is said.

    Values are those of the models: nano-dollars, milliseconds, bytes, thousandths. Approvals are
    `approvals.<tool>`, with the word `pause_for_human`.
    """

    level: Level
    values: Mapping[str, Json] = field(default_factory=dict)
    origins: Mapping[str, Origin] = field(default_factory=dict)

    @property
    def approvals(self) -> tuple[str, ...]:
        """Tools whose calls wait for a person."""
        mark = "approvals."
        return tuple(path.removeprefix(mark) for path in self.values if path.startswith(mark))


def layer(level: Level, defaults: Defaults, document: Document, at: Path) -> Layer:
    """The layer that `defaults`, written at `at`, makes."""
    values: dict[str, Json] = {}
    origins: dict[str, Origin] = {}

    def say(path: str, value: Json, *keys: str, key: bool = False) -> None:
        if value is not None:
            values[path] = value
            origins[path] = Origin(level, document.at([*at, *keys], key=key))

    say("model", defaults.model, "model")
    say("rollout", defaults.rollout, "rollout")
    for section, part in (("harness", defaults.harness), ("sandbox", defaults.sandbox)):
        for name in (Harness if section == "harness" else Sandbox).model_fields:
            say(f"{section}.{name}", getattr(part, name), section, name)
    for tool, word in defaults.approvals.items():
        say(f"approvals.{tool}", word, "approvals", tool, key=True)
    return Layer(level, values, origins)


@dataclass(slots=True)
class Ledger:
    """Origins and loosenings of one agent, as its values are settled one by one."""

    layers: Sequence[Layer]
    """What it inherits from, the nearest first."""
    origins: dict[str, Origin] = field(default_factory=dict)
    loosened: list[Loosened] = field(default_factory=list)

    def inherited(self, path: str) -> list[Stated[Any]]:
        """What the levels above say, the nearest first."""
        return [(one.origins[path], one.values[path]) for one in self.layers if path in one.values]

    def settle(
        self,
        path: str,
        own: T | None,
        origin: Callable[[], Origin],
        *,
        built_in: Any = None,
        differences: Differences | None = None,
    ) -> Any:
        """The effective value of `path`; its origin and what it loosens are noted.

        `origin` is asked for only when the agent says something itself.
        """
        stated: list[Stated[Any]] = self.inherited(path)
        if own is not None:
            stated = [(origin(), own), *stated]
        if not stated:
            self.origins[path] = BUILT_IN
            return built_in
        self.origins[path] = stated[0][0]
        if len(stated) > 1 and differences is not None:
            self.loosened += loosenings(path, stated, differences)
        return stated[0][1]

    def limit(self, path: str, own: int | None, origin: Callable[[], Origin], **more: Any) -> Any:
        """As `settle`, of a number that is looser the higher it is."""
        return self.settle(path, own, origin, differences=_higher(WRITTEN[path]), **more)


def _higher(written: Callable[[int], str]) -> Differences:
    def differences(value: int, stricter: int) -> Iterable[Difference]:
        return [("", written(value), written(stricter))] if value > stricter else []

    return differences


def loosenings(
    path: str, stated: Sequence[Stated[Any]], differences: Differences
) -> Iterable[Loosened]:
    """What the effective value, the first of `stated`, loosens at each level above it.

    The mark stands at the highest level below the stricter one that allows as much: where a team
    already allows what its agent asks for, it is the team that loosens the fleet.
    """
    _, effective = stated[0]
    for index in range(1, len(stated)):
        stricter, strict = stated[index]
        if not list(differences(effective, strict)):
            continue
        allowing, value = next(
            (origin, value)
            for origin, value in reversed(stated[:index])
            if not list(differences(effective, value))
        )
        assert allowing.place is not None
        for below, said, instead in differences(value, strict):
            yield Loosened(path + below, said, instead, allowing.place, stricter)
