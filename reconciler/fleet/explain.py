"""What holds for one agent, and who said so: effective values with their origin.

Values stand as people write them in YAML. Each row tells the level it comes from (agent, team,
fleet, built in) and where it is written; a value that is looser than what a level above says is
marked with the stricter one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.values import AgentName
from reconciler.config import AgentConfig, Fleet, Level, Loosened, ParticipantConfig
from reconciler.config.models.fields import (
    written_duration,
    written_size,
    written_thousandths,
    written_usd,
)
from reconciler.findings import Place
from reconciler.fleet.flows import Classes, ToolUse, uses_of
from reconciler.fleet.graph import told

LIMITS: Mapping[str, tuple[str, Callable[[int], str]]] = {
    "max_steps": ("max_steps", str),
    "max_tokens_per_run": ("max_tokens", str),
    "max_cost_per_run": ("max_cost", written_usd),
    "max_wall_time": ("max_wall_ms", written_duration),
    "max_output_tokens": ("max_output_tokens", str),
}
"""Key of `harness` → field of the limits, and how it is written."""

SANDBOX: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "image": ("image", str),
    "cpus": ("cpus_milli", written_thousandths),
    "memory": ("memory_bytes", written_size),
    "pids": ("pids", str),
    "disk": ("disk_bytes", written_size),
    "exec_timeout": ("exec_timeout_ms", written_duration),
}
"""Key of `sandbox` → field of its config, and how it is written."""

NONE = "none"


@dataclass(frozen=True, slots=True)
class Row:
    """One effective value. `place` is None for what is built in."""

    key: str
    value: str
    level: Level
    place: Place | None
    loosened: Loosened | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """A tool of a server in one role, where the grant is written and where it is classified."""

    use: ToolUse
    place: Place
    classified_at: Place | None


@dataclass(frozen=True, slots=True)
class Explained:
    """An agent's effective values in the order of its file, and its tools."""

    agent: AgentName
    place: Place
    rows: tuple[Row, ...]
    tools: tuple[Granted, ...]


def explain(fleet: Fleet, agent: AgentConfig, key: str | None = None) -> Explained:
    """Effective values with origins; with `key`, those of it and below (`harness`, `sandbox.cpus`).

    No row is left when there is no such key; `keys_of` lists those that there are.
    """
    classes = Classes(fleet.platform)
    rows = tuple(row for row in _rows(agent) if key is None or _under(row.key, key))
    places = {role.name: role.place for role in agent.participants}
    granted = [
        Granted(
            use,
            places[use.role],
            fleet.places.get(("tool", use.tool))
            or fleet.places.get(("server", use.tool.partition(".")[0])),
        )
        for use in uses_of(agent, classes)
        if key is None or _under(f"mcp_servers.{use.tool}", key)
    ]
    return Explained(agent.name, agent.place, rows, tuple(granted))


def keys_of(agent: AgentConfig) -> tuple[str, ...]:
    """Keys that `explain` can be asked for."""
    return tuple(dict.fromkeys([*(row.key for row in _rows(agent)), "mcp_servers"]))


def agent_at(fleet: Fleet, path: str) -> AgentConfig | None:
    """The agent of that name, of that file, or of the folder that holds the file."""
    named = fleet.agents.get(AgentName(path))
    if named is not None:
        return named
    wanted = "/".join(part for part in path.split("/") if part not in ("", "."))
    for agent in fleet.agents.values():
        folder = agent.place.file.rpartition("/")[0]
        if wanted in (agent.place.file, folder) or wanted.startswith(f"{folder}/"):
            return agent
    return None


def _under(key: str, asked: str) -> bool:
    return key == asked or key.startswith(f"{asked}.")


def _rows(agent: AgentConfig) -> Iterator[Row]:
    make = _Rows(agent)
    main = agent.main
    yield make.row("team", agent.team)
    if agent.formerly is not None:
        yield make.row("formerly", agent.formerly)
    yield make.row("model", main.model)
    yield from _parameters(make, main, "")
    yield make.row("instructions", _text(main))
    yield make.row("skills", _skills(main), otherwise="agent" if main.skills else "built in")
    yield make.row("tools", ", ".join(main.builtin))
    for key, (field, written) in LIMITS.items():
        value = getattr(agent.limits, field)
        yield make.row(f"harness.{key}", NONE if value is None else written(value))
    yield make.row(
        "harness.until", _until(agent), otherwise="agent" if _aims(agent) else "built in"
    )
    for key, (field, written) in SANDBOX.items():
        yield make.row(f"sandbox.{key}", written(getattr(agent.sandbox, field)))
    work = agent.workspace
    if work is not None:
        yield make.row("sandbox.workspace", f"{work.git} at {work.ref}")
        if work.protect:
            yield make.row("sandbox.workspace.protect", ", ".join(work.protect))
    for tool in sorted({t for role in agent.participants for t in role.tools}):
        if any(role.tools[tool].approval for role in agent.participants if tool in role.tools):
            yield make.row(f"approvals.{tool}", "pause_for_human")
    for claim in agent.owns:
        hand = f" to {claim.given_to}" if claim.given_to else ""
        hand += f" from {claim.taken_from}" if claim.taken_from else ""
        yield Row("owns", claim.pattern + hand, "agent", claim.place)
    yield make.row("rollout", _rollout(agent))
    for check in agent.safety:
        said = [f"include {', '.join(check.include)}"] if check.include else []
        said += [f"exclude {', '.join(check.exclude)}"] if check.exclude else []
        yield make.row("safety", f"{check.kind}: {'; '.join(said)}")
    yield make.row("trigger", told(agent.trigger), place=agent.trigger.place)
    suite = agent.suite
    if suite is None:
        yield Row("evals", NONE, "built in", None)
    else:
        yield make.row("evals", f"{suite.path} ({len(suite.cases)} cases)")
    for subagent in agent.subagents:
        yield from _subagent(make, agent, subagent)


def _subagent(make: _Rows, agent: AgentConfig, role: ParticipantConfig) -> Iterator[Row]:
    """What differs from the agent's own; the rest is inherited and would only repeat it."""
    at = f"subagents.{role.name}"
    yield make.row(f"{at}.role", str(role.kind), place=role.place)
    yield make.row(f"{at}.model", role.model, place=role.place)
    yield from _parameters(make, role, f"{at}.")
    yield make.row(f"{at}.instructions", _text(role), place=role.place)
    if role.skills:
        yield make.row(f"{at}.skills", _skills(role), place=role.place)
    yield make.row(f"{at}.tools", ", ".join(role.builtin), place=role.place)
    for key, (field, written) in LIMITS.items():
        value = getattr(role.limits, field)
        if value is not None and value != getattr(agent.limits, field):
            yield make.row(f"{at}.harness.{key}", written(value), place=role.place)


def _parameters(make: _Rows, role: ParticipantConfig, at: str) -> Iterable[Row]:
    return [
        make.row(f"{at}parameters.{name}", str(value), place=role.place)
        for name, value in sorted(role.parameters.items())
    ]


class _Rows:
    """Makes rows of one agent: looks up origins and marks."""

    def __init__(self, agent: AgentConfig) -> None:
        self._agent = agent
        self._loosened = {one.path: one for one in agent.loosened}

    def row(
        self, key: str, value: str, *, place: Place | None = None, otherwise: Level = "agent"
    ) -> Row:
        """A row; where no origin is known, the value is the agent's own, or `otherwise`."""
        origin = self._agent.origins.get(key)
        level = origin.level if origin is not None else otherwise
        at = origin.place if origin is not None else None
        if at is None and level == "agent":
            at = place or self._agent.place
        return Row(key, value, level, at, self._loosened.get(key))


def _text(role: ParticipantConfig) -> str:
    text = role.instructions
    name = text.path or f"({len(text.body.split())} words, in place)"
    return f"{name}@{text.pin}" if text.pin is not None else name


def _skills(role: ParticipantConfig) -> str:
    named = [f"{s.name}@{s.pin}" if s.pin is not None else s.name for s in role.skills]
    return ", ".join(named) or NONE


def _aims(agent: AgentConfig) -> bool:
    return agent.until.command is not None or agent.until.checker is not None


def _until(agent: AgentConfig) -> str:
    if agent.until.command is not None:
        return f"command: {agent.until.command}"
    if agent.until.checker is not None:
        return f"checker: {agent.until.checker}"
    return "the agent says so"


def _rollout(agent: AgentConfig) -> str:
    policy = agent.rollout
    gate = "gated" if policy.gate is not None else "no gate"
    canary = f", canary of {policy.canary.count} runs" if policy.canary is not None else ""
    return f"{policy.name} ({gate}{canary})"
