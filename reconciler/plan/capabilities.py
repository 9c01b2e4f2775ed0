"""The difference between what two releases of an agent can reach, role by role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway.values import AgentName
from reconciler.plan.changes import Capability
from reconciler.plan.globs import newly_allowed, no_longer_allowed
from reconciler.plan.phrases import tick, ticks
from reconciler.plan.reach import COMES_ALONG, MAIN, Reach, Tool, combinations

EXTERNAL = frozenset({"tool", "argument", "approval", "untrusted"})
"""Kinds that are about the world outside of the sandbox: asked for, even in a new agent."""
CHECKER = "checker"


@dataclass(frozen=True, slots=True)
class Power:
    """One capability, and the unit-independent name under which an approval is asked for it."""

    kind: str
    role: str
    text: str
    tool: str = ""
    asked: bool = True


def gained(
    before: Mapping[str, Reach], after: Mapping[str, Reach], *, new: bool
) -> tuple[Power, ...]:
    """What becomes possible. `new`: a new agent, of which only what is external is asked for."""
    known = {model for reach in before.values() for model in reach.targets.values()}
    providers = {model.partition(":")[0] for model in known}
    found: list[Power] = []
    for role, reach in after.items():
        found += _gained(before.get(role), reach, providers)
    return tuple(
        Power(p.kind, p.role, p.text, p.tool, asked=p.asked and (not new or p.kind in EXTERNAL))
        for p in found
    )


def lost(before: Mapping[str, Reach], after: Mapping[str, Reach]) -> tuple[Power, ...]:
    """What is possible no longer."""
    found: list[Power] = []
    for role, reach in before.items():
        found += _lost(reach, after.get(role))
    return tuple(found)


def capability(agent: AgentName, power: Power) -> Capability:
    """A power as the plan shows it."""
    return Capability(agent, power.role, power.kind, power.text, power.asked)


def _gained(old: Reach | None, new: Reach, providers: set[str]) -> Iterator[Power]:
    if old is not None and old.kind == CHECKER and new.kind != CHECKER:
        yield Power("role", new.role, "is no checker any more: it may change its workspace")
    if old is None and new.role != MAIN:
        yield Power("role", new.role, f"new sub-agent ({new.kind})", asked=False)
    for name in new.builtin:
        if name not in COMES_ALONG and (old is None or name not in old.builtin):
            yield Power("builtin", new.role, f"built-in tool {tick(name)}", name)
    for target, what in new.targets.items():
        if old is None or old.targets.get(target) != what:
            elsewhere = bool(providers) and what.partition(":")[0] not in providers
            told = f"model {tick(target)} ({tick(what)})"
            text = f"{told}, of a kind of provider it did not use" if elsewhere else told
            # The same provider reads the same data; another model has to pass the gate.
            yield Power("model", new.role, text, target, asked=elsewhere)
    for name, tool in new.tools.items():
        yield from _tool_gained(new.role, old.tools.get(name) if old else None, tool)
    met = combinations(old, new)
    if met is not None:
        sinks, text = met
        yield Power("untrusted", new.role, text, ",".join(sinks))


def _tool_gained(role: str, old: Tool | None, new: Tool) -> Iterator[Power]:
    name = tick(new.name)
    if old is None:
        yield Power("tool", role, f"{name} ({new.told})", new.name)
        return
    for argument in old.args:
        wider = newly_allowed(old.args[argument], new.args.get(argument))
        if wider:
            free = argument not in new.args
            range_ = "anything" if free else ticks(wider)
            text = f"{name} with {tick(argument)} = {range_} (was {ticks(old.args[argument])})"
            yield Power("argument", role, text, new.name)
    if old.approval and not new.approval:
        yield Power("approval", role, f"{name} without waiting for a person", new.name)


def _lost(old: Reach, new: Reach | None) -> Iterator[Power]:
    if new is None:
        yield Power("role", old.role, f"sub-agent ({old.kind})", asked=False)
    for name in old.builtin:
        if name not in (new.builtin if new else ()) and name not in COMES_ALONG:
            yield Power("builtin", old.role, f"built-in tool {tick(name)}", name, asked=False)
    for target, what in old.targets.items():
        if new is None or new.targets.get(target) != what:
            yield Power(
                "model", old.role, f"model {tick(target)} ({tick(what)})", target, asked=False
            )
    for name, tool in old.tools.items():
        after = new.tools.get(name) if new else None
        if after is None:
            yield Power("tool", old.role, f"{tick(name)} ({tool.told})", name, asked=False)
            continue
        for argument, globs in after.args.items():
            narrower = no_longer_allowed(tool.args.get(argument), globs)
            if narrower:
                was = ticks(tool.args[argument]) if argument in tool.args else "anything"
                text = f"{tick(name)} with {tick(argument)} other than {ticks(globs)} (was {was})"
                yield Power("argument", old.role, text, name, asked=False)
        if after.approval and not tool.approval:
            text = f"{tick(name)} without waiting for a person"
            yield Power("approval", old.role, text, name, asked=False)
