"""The leaves of releases, each made and hashed once however many agents share it.

Ten thousand agents share fifty skills, a dozen tools and a handful of limits. A leaf that two
agents have in common is one object here, with its hash beside it, so that a release costs what is
its own. The memory of it goes from commit to commit; it changes no digest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

from gateway.policy import Limits, Policy, ToolClass
from gateway.values import Json, canonical_json, content_hash
from reconciler.config import AgentConfig, GrantedTool, SandboxConfig, SkillConfig
from runner.spec import Until

Leaf = tuple[Json, str]
"""A leaf and the hash of its content."""
T = TypeVar("T")

MOST_KEPT = 20_000
"""Leaves remembered of one kind. Beyond it the memory starts again: it saves work, no more."""


class Leaves:
    """Leaves by what they are made of, under one platform."""

    def __init__(self, platform: Policy, before: Leaves | None = None) -> None:
        self.platform = platform
        self._kept: dict[Hashable, Leaf] = before._kept if before else {}
        self._skills: dict[int, tuple[SkillConfig, Leaf]] = before._skills if before else {}
        self._models: dict[str, Leaf] = {}
        self._tools: dict[str, dict[str, Json]] = {}
        self._before = before if before is not None and before.platform is not platform else None
        if before is not None and before.platform is platform:
            self._models, self._tools = before._models, before._tools

    def _once(self, key: Hashable, make: Callable[[], Json]) -> Leaf:
        known = self._kept.get(key)
        if known is None:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            leaf = make()
            known = self._kept[key] = (leaf, content_hash(leaf))
        return known

    def limits(self, limits: Limits) -> Leaf:
        """All limits, those that are not set too."""
        return self._once(("limits", limits), lambda: dict(limits.model_dump(mode="json")))

    def until(self, until: Until) -> Leaf:
        """What ends a run, without what is not set."""
        return self._once(
            ("until", until),
            lambda: {k: v for k, v in until.model_dump(mode="json").items() if v is not None},
        )

    def sandbox(self, sandbox: SandboxConfig, image: str) -> Leaf:
        """The container, with the digest of its image."""
        return self._once(
            ("sandbox", sandbox, image),
            lambda: {
                "image": image,
                "cpus_milli": sandbox.cpus_milli,
                "memory_bytes": sandbox.memory_bytes,
                "pids": sandbox.pids,
                "disk_bytes": sandbox.disk_bytes,
                "exec_timeout_ms": sandbox.exec_timeout_ms,
            },
        )

    def safety(self, agent: AgentConfig) -> Leaf:
        """The checks without ids, as a sorted set: their order and names change nothing."""
        return self._once(("safety", agent.safety), lambda: _safety(agent))

    def workspace(self, agent: AgentConfig) -> Leaf:
        """The repository a run works on."""
        source = agent.workspace
        return self._once(
            ("workspace", source),
            lambda: (
                None
                if source is None
                else {"git": source.git, "ref": source.ref, "protect": as_set(source.protect)}
            ),
        )

    def builtin(self, names: tuple[str, ...]) -> Leaf:
        """Built-in tools."""
        return self._once(("builtin", names), lambda: as_set(names))

    def parameters(self, parameters: Mapping[str, str | int]) -> Leaf:
        """Model parameters. By type too: 1 and True are one key and two values."""
        key = tuple((name, type(value), value) for name, value in sorted(parameters.items()))
        return self._once(("parameters", key), lambda: dict(parameters))

    def text(self, value: str) -> Leaf:
        """A word that many have, such as a role."""
        return self._once(("text", value), lambda: value)

    def skill(self, skill: SkillConfig) -> Leaf:
        """Description and files. By the object: agents that share a skill share it."""
        known = self._skills.get(id(skill))
        if known is None or known[0] is not skill:
            if len(self._skills) >= MOST_KEPT:
                self._skills.clear()
            leaf: Json = {"description": skill.description, "files": dict(skill.files)}
            known = self._skills[id(skill)] = (skill, (leaf, content_hash(leaf)))
        return known[1]

    def model(self, name: str) -> Leaf:
        """The name and the set of models it may stand for, with the parameters that the platform
        sets; their order is the router's business."""
        known = self._models.get(name)
        if known is None:
            targets: list[Json] = []
            for target in sorted(self.platform.targets(name)):
                model = self.platform.models[target]
                provider = self.platform.providers[model.provider]
                told: dict[str, Json] = {"name": target, "provider": provider.kind, "id": model.id}
                parameters = self._parameters_of(name, target)
                if parameters:  # left out when empty: releases from before there were any stay
                    told["parameters"] = parameters
                targets.append(told)
            leaf: Json = {"name": name, "targets": targets}
            known = (leaf, content_hash(leaf))
            if self._before is not None and (old := self._before._models.get(name)) is not None:
                known = old if old[1] == known[1] else known
            self._models[name] = known
        return known

    def _parameters_of(self, name: str, target: str) -> dict[str, Json]:
        """What the platform puts over a caller's parameters when `name` is served by `target`."""
        virtual = self.platform.virtual_models.get(name)
        over = virtual.parameters.get(target, {}) if virtual is not None else {}
        return {**self.platform.models[target].parameters, **over}

    def tool(self, name: str, granted: GrantedTool) -> Leaf:
        """A tool as the platform classifies it and the agent may use it."""
        base = self.tool_class(name)
        args = tuple(sorted(granted.args.items()))
        return self._once(
            ("tool", name, _digest(base), granted.approval, args),
            lambda: {
                **base,
                "args": {argument: as_set(globs) for argument, globs in args},
                "approval": granted.approval,
            },
        )

    def tool_class(self, name: str) -> dict[str, Json]:
        """What of a tool's classification decides behaviour."""
        known = self._tools.get(name)
        if known is None:
            known = _classified(self.platform.tool(name))
            if self._before is not None and self._before._tools.get(name) == known:
                known = self._before._tools[name]
            self._tools[name] = known
        return known

    def changed(self) -> tuple[set[str], set[str]]:
        """(models, tools) whose leaf is another than under the platform before."""
        if self._before is None:
            return set(), set()
        models = {n for n, old in self._before._models.items() if self.model(n)[1] != old[1]}
        tools = {n for n, old in self._before._tools.items() if self.tool_class(n) != old}
        self._before = None  # or every commit would keep all those before it
        return models, tools


def path_of(*parts: str) -> str:
    """The path of a leaf; one object for all releases that have it."""
    return sys.intern("/".join(parts))


def as_set(texts: Iterable[str]) -> Json:
    """Texts of which only the set counts."""
    return [*sorted(set(texts))]


def _digest(tool: Mapping[str, Json]) -> tuple[Json, ...]:
    return (str(tool["access"]), tool["description"], tool["schema"], tool["fingerprint"])


def _classified(tool: ToolClass | None) -> dict[str, Json]:
    tool = tool or ToolClass()
    return {
        "access": as_set(access.value for access in tool.access),
        "description": tool.description,
        "schema": content_hash(tool.input_schema),
        "fingerprint": tool.fingerprint,
    }


def _safety(agent: AgentConfig) -> Json:
    checks: dict[bytes, Json] = {}
    for check in agent.safety:
        value: Json = {
            "kind": check.kind,
            "include": as_set(check.include),
            "exclude": as_set(check.exclude),
        }
        checks[canonical_json(value)] = value
    return [checks[key] for key in sorted(checks)]
