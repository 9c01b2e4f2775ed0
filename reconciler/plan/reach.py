"""What a role of an agent can reach, read out of its release: tools, models, and whose texts.

Untrusted text that meets an unapproved change or way out is how an injection becomes an effect, so
every such pair of *source* and *sink* in one role is a capability of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.policy import Access, ToolClass
from gateway.values import Json, Sensitivity
from reconciler.fleet.flows import (
    PAYLOADS,
    READS_FILES,
    Flow,
    ToolUse,
    leaks,
    sources_from,
)
from reconciler.plan.model import Standing, Unit
from reconciler.plan.phrases import record, texts, tick, ticks

MAIN = "main"
DANGERS = (Access.WRITE, Access.DESTRUCTIVE, Access.EGRESS)
COMES_ALONG = frozenset({"finish", "load_skill", "delegate"})
"""Built-in tools that reach nothing by themselves: they end a run, read a skill that is listed, or
ask a sub-agent, whose own reach is shown."""
_SECRECY = tuple(Sensitivity)


@dataclass(frozen=True, slots=True)
class Tool(ToolUse):
    """A granted tool: its class on this side, and how the role may use it."""

    @property
    def name(self) -> str:
        """`server.tool`."""
        return self.tool

    @property
    def dangers(self) -> tuple[str, ...]:
        """What of its access is not reading."""
        return tuple(one.value for one in DANGERS if one in self.access)

    @property
    def told(self) -> str:
        """Access and conditions, for a sentence."""
        parts = ["+".join(self.dangers) or "read", f"{self.sensitivity} results"]
        parts += [f"only {tick(name)} = {ticks(globs)}" for name, globs in self.args.items()]
        parts += ["each call waits for a person"] if self.approval else []
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Reach:
    """One role of one release."""

    role: str
    kind: str
    model: str
    targets: Mapping[str, str]
    """Admissible model → what it is: protocol and the provider's name of it."""
    builtin: tuple[str, ...]
    tools: Mapping[str, Tool]
    sources: tuple[str, ...]
    """Where untrusted text comes from."""
    secrecy: Sensitivity
    """The most sensitive that it reads."""

    @property
    def sinks(self) -> tuple[Tool, ...]:
        """Tools that change something or send something out, and nothing is in the way."""
        return tuple(tool for tool in self.tools.values() if tool.free)


def reach_of(standing: Standing, units: Mapping[str, Unit]) -> dict[str, Reach]:
    """Every role of an agent with what it reaches; `main` first. Empty without a release."""
    if standing.release is None:
        return {}
    leaves = standing.release.leaves
    subs = sorted({path.split("/")[1] for path in leaves if path.startswith("subagents/")})
    found: dict[str, Reach] = {}
    payload = str(record(standing.facts.get("trigger")).get("kind")) in {*PAYLOADS, "after"}
    for name in (MAIN, *subs):
        prefix = MAIN if name == MAIN else f"subagents/{name}"
        model = record(leaves.get(f"{prefix}/model"))
        builtin = texts(leaves.get(f"{prefix}/builtin"))
        start = f"{prefix}/tools/"
        tools = {
            path.removeprefix(start): _tool(path.removeprefix(start), name, record(leaf), units)
            for path, leaf in leaves.items()
            if path.startswith(start)
        }
        sources = _sources(tools, builtin, workspace=leaves.get("workspace") is not None)
        if name == MAIN and payload:
            sources += ("the trigger's payload",)
        if name == MAIN and subs and "delegate" in builtin:
            sources += ("sub-agents' answers",)
        if name != MAIN and found[MAIN].sources:
            sources += ("what it is asked",)
        found[name] = Reach(
            role=name,
            kind=str(leaves.get(f"{prefix}/role", "maker")),
            model=str(model.get("name")),
            targets=_targets(model),
            builtin=builtin,
            tools=tools,
            sources=sources,
            secrecy=max(
                (tool.sensitivity for tool in tools.values()),
                key=_SECRECY.index,
                default=Sensitivity.PUBLIC,
            ),
        )
    return found


def _sources(
    tools: Mapping[str, Tool], builtin: tuple[str, ...], *, workspace: bool
) -> tuple[str, ...]:
    found = tuple(
        tick(name) for name, tool in sorted(tools.items()) if not tool.trusted and tool.gives_text
    )
    if workspace and READS_FILES & set(builtin):
        found += ("workspace files",)
    return found


def _targets(model: Mapping[str, Json]) -> dict[str, str]:
    listed = model.get("targets")
    found = [record(target) for target in listed] if isinstance(listed, list) else []
    return {str(t.get("name")): f"{t.get('provider')}:{t.get('id')}" for t in found}


def _tool(name: str, role: str, leaf: Mapping[str, Json], units: Mapping[str, Unit]) -> Tool:
    """Access is the release's; trust and sensitivity are the platform's, as it is on this side.
    What nobody classified, or what this version does not know, is as dangerous as can be."""
    unit = units.get(f"tool/{name}")
    declared = record(unit.value) if unit is not None else {}
    unknown = ToolClass()
    access = texts(leaf.get("access"))
    known = tuple(one for one in Access if one in access)
    sensitivity = declared.get("sensitivity", unknown.sensitivity)
    return Tool(
        tool=name,
        role=role,
        access=known if len(known) == len(set(access)) else tuple({*known, *unknown.access}),
        classified=unit is not None,
        trusted=bool(declared.get("trusted", unknown.trusted)),
        sensitivity=Sensitivity(sensitivity) if sensitivity in _SECRECY else Sensitivity.SECRET,
        args={key: texts(globs) for key, globs in record(leaf.get("args")).items()},
        approval=bool(leaf.get("approval")),
    )


def leaks_of(standing: Standing, reach: Mapping[str, Reach]) -> tuple[Flow, ...]:
    """The lethal trifecta of an agent, all its roles together: as `fleet.flows` defines it."""
    uses = tuple(tool for role in reach.values() for tool in role.tools.values())
    trigger = record(standing.facts.get("trigger"))
    files = standing.facts.get("workspace")
    reads = any(READS_FILES & set(role.builtin) for role in reach.values())
    sources = sources_from(
        uses,
        files=str(files) if files is not None and reads else None,
        trigger=str(trigger.get("kind")),
        what=str(trigger.get("what") or ""),
        after=texts(trigger.get("after")),
    )
    return leaks(sources, uses)


def combinations(before: Reach | None, after: Reach) -> tuple[tuple[str, ...], str] | None:
    """(sinks, a sentence) for what untrusted text can newly reach in a role; None for nothing.

    New is a sink that was not there, or any sink when text comes from where none came before.
    """
    then = before.sources if before else ()
    sinks = {tool.name for tool in before.sinks} if before and then else set()
    sources = tuple(source for source in after.sources if source not in then)
    reached = [tool for tool in after.sinks if sources or tool.name not in sinks]
    if not reached or not after.sources:
        return None
    # With a new sink all sources are news to it; with new sources only those are.
    fresh = all(tool.name in sinks for tool in reached)
    told = sources if fresh else after.sources
    origin = ", ".join(told[:4]) + (" …" if len(told) > 4 else "")
    ways = ", ".join(f"{tick(tool.name)} ({'+'.join(tool.dangers)}{_within(tool)})"
                     for tool in reached)  # fmt: skip
    text = f"untrusted text from {origin} can reach {ways} with no approval between"
    if after.secrecy != Sensitivity.PUBLIC:
        text += f"; the role reads {after.secrecy} data"
    return tuple(tool.name for tool in reached), text


def _within(tool: Tool) -> str:
    if not tool.args:
        return ""
    return ", only " + ", ".join(f"{tick(k)} = {ticks(globs)}" for k, globs in tool.args.items())
