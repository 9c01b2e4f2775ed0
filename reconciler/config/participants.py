"""The agent itself and its sub-agents: model, instructions, skills and tools, resolved.

A checker judges a maker's work, so it must not be able to do the work: no tool that changes the
workspace, the notes or the world is accepted for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.policy import Access, Limits, Policy
from reconciler.config.fleet import ParticipantConfig, SkillConfig, Text
from reconciler.config.grants import granted_tools
from reconciler.config.models.agent import Agent, Subagent, TextHeader
from reconciler.config.models.fields import is_text
from reconciler.config.models.fleet import Harness
from reconciler.config.pins import Found, Pin, pinned_skill, pinned_text, split_pin
from reconciler.config.positions import Document
from reconciler.config.reader import Notes, Reader
from reconciler.config.shared import Shared, home, undefined
from reconciler.config.skills import FOLDER, skill_names
from reconciler.findings import Place, quoted
from runner.spec import RoleKind

MAKER_TOOLS = ("shell", "read_file", "write_file", "edit_file", "list_files", "finish")
CHECKER_TOOLS = ("read_file", "list_files", "finish")
CHANGING_TOOLS = frozenset({"write_file", "edit_file", "delegate", "note"})
"""Built-in tools a checker must not have. Its shell runs on a read-only snapshot."""

MAKER_TEXT = (
    "You help another agent with one task. Do exactly what you are asked, check the result, and "
    "answer concisely with what you did and what shows that it works.\n"
)
CHECKER_TEXT = (
    "You judge the work of another agent. You see its task and a read-only copy of its result. "
    "Believe nothing you have not verified yourself, and give a verdict with your reasons.\n"
)

Path = list[str | int]


@dataclass(frozen=True)
class Desk:
    """What every step of resolving one agent needs."""

    reader: Reader
    shared: Shared
    platform: Policy
    document: Document
    notes: Notes

    def at(self, path: Sequence[str | int], *, key: bool = False) -> Place:
        """Where something of the agent's file is."""
        return self.document.at(path, key=key)

    def place(self, path: Path, fallback: Path) -> Place:
        """Where a value is, or where it would be inherited from."""
        return self.at(path) if self.document.has(path) else self.at(fallback)


def resolve_main(desk: Desk, agent: Agent, limits: Limits) -> ParticipantConfig | None:
    """The agent itself."""
    at: Path = ["agent"]
    model = _model(desk, agent.model, at)
    found = _instructions(desk, agent.instructions, [*at, "instructions"])
    skills = _skills(desk, agent.skills, [*at, "skills"])
    tools = granted_tools(
        agent.mcp_servers,
        desk.shared,
        desk.platform,
        document=desk.document,
        at=[*at, "mcp_servers"],
        notes=desk.notes,
    )
    builtin = set(agent.tools) if agent.tools is not None else {*MAKER_TOOLS, "note"}
    builtin |= {"finish"} | ({"load_skill"} if agent.skills else set())
    if agent.tools is None and agent.subagents:
        builtin.add("delegate")
    if "delegate" in builtin and not agent.subagents:
        desk.notes.error(
            "no-subagents",
            desk.at([*at, "tools"]),
            "delegate has nobody to ask",
            "add subagents, or remove delegate from tools",
        )
    if model is None or found is None:
        return None
    return ParticipantConfig(
        name="main",
        kind=RoleKind.MAKER,
        model=model,
        parameters=agent.parameters,
        instructions=found.value,
        skills=skills,
        builtin=desk.reader.same(tuple(sorted(builtin))),
        tools=tools,
        limits=limits,
        place=desk.at(at, key=True),
    )


def resolve_subagents(desk: Desk, agent: Agent, limits: Limits) -> tuple[ParticipantConfig, ...]:
    """Its sub-agents, by name. One in error is left out; the findings say why."""
    found: dict[str, ParticipantConfig] = {}
    for index, subagent in enumerate(agent.subagents):
        at: Path = ["agent", "subagents", index]
        if subagent.name in found or subagent.name == "main":
            first = f" (first at {found[subagent.name].place})" if subagent.name in found else ""
            desk.notes.error(
                "duplicate-name",
                desk.at([*at, "name"]),
                f"sub-agent {quoted(subagent.name)} is defined twice{first}"
                if first
                else "main is the name of the agent itself",
                "rename one of them",
            )
            continue
        resolved = _subagent(desk, agent, subagent, at, limits)
        if resolved is not None:
            found[subagent.name] = resolved
    return tuple(found[name] for name in sorted(found))


def _subagent(
    desk: Desk, agent: Agent, subagent: Subagent, at: Path, limits: Limits
) -> ParticipantConfig | None:
    kind = RoleKind(subagent.role)
    checker = kind is RoleKind.CHECKER
    model = _model(desk, subagent.model or agent.model, at)
    text = _subagent_text(desk, subagent, at)
    skills = _skills(desk, subagent.skills, [*at, "skills"])
    tools = granted_tools(
        subagent.mcp_servers,
        desk.shared,
        desk.platform,
        document=desk.document,
        at=[*at, "mcp_servers"],
        notes=desk.notes,
    )
    usual = CHECKER_TOOLS if checker else MAKER_TOOLS
    listed: Sequence[str] = usual if subagent.tools is None else subagent.tools
    builtin = {*listed, "finish"}
    builtin |= {"load_skill"} if subagent.skills else set()
    for index, tool_name in enumerate(subagent.tools or []):
        here = desk.at([*at, "tools", index])
        if tool_name == "delegate":
            desk.notes.error(
                "delegate",
                here,
                "a sub-agent cannot delegate",
                "remove it: delegation is one level deep",
            )
        elif checker and tool_name in CHANGING_TOOLS:
            desk.notes.error(
                "checker-writes",
                here,
                f"a checker must not have {tool_name}",
                "remove it, or make this sub-agent a maker",
            )
    if checker:
        for name in sorted(tools):
            tool = desk.platform.tool(name)
            if tool is not None and set(tool.access) != {Access.READ}:
                does = ", ".join(a for a in tool.access if a is not Access.READ) or "nothing known"
                desk.notes.error(
                    "checker-writes",
                    desk.at([*at, "mcp_servers"]),
                    f"a checker must not have {name} (access: {does})",
                    "grant tools of access [read] only",
                )
    if model is None or text is None:
        return None
    return ParticipantConfig(
        name=subagent.name,
        kind=kind,
        model=model,
        parameters=subagent.parameters,
        instructions=text,
        skills=skills,
        builtin=desk.reader.same(tuple(sorted(builtin))),
        tools=tools,
        limits=desk.reader.same(_within(desk, subagent.harness, limits, at)),
        place=desk.at([*at, "name"]),
    )


def _model(desk: Desk, name: str | None, at: Path) -> str | None:
    place = desk.place([*at, "model"], at)
    if name is None:
        desk.notes.error(
            "no-model",
            place,
            "no model is named, and neither team nor fleet has a default",
            "add model, or defaults.model of the team or the fleet",
        )
    elif name not in desk.shared.model_names:
        undefined(
            desk.notes,
            place,
            kind="model",
            name=name,
            known=desk.shared.model_names,
            home=home(desk.shared, "model", "gateway/models.yaml"),
        )
        return None
    return name


def _instructions(desk: Desk, reference: str, at: Path) -> Found[Text] | None:
    if is_text(reference):
        return Found(Text("", f"{reference.strip()}\n"), desk.reader)
    place = desk.at(at)
    split = split_pin(reference, place, desk.notes)
    if split is None:
        return None
    path = desk.reader.resolve(desk.document.file, split[0], desk.notes, asked=place)
    if path is None:
        return None
    return pinned_text(desk.reader, path, split[1], desk.notes, asked=place)


def _subagent_text(desk: Desk, subagent: Subagent, at: Path) -> Text | None:
    """Its file, or subagents/<name>.md where there is one, or the words for its role."""
    if subagent.instructions is not None:
        found = _instructions(desk, subagent.instructions, [*at, "instructions"])
    else:
        folder = desk.document.file.rpartition("/")[0]
        path = f"{folder}/subagents/{subagent.name}.md".lstrip("/")
        if subagent.name not in _sheets(desk, f"{folder}/subagents".lstrip("/")):
            words = CHECKER_TEXT if subagent.role == "checker" else MAKER_TEXT
            return Text("", words)
        asked = desk.at([*at, "name"])
        found = pinned_text(desk.reader, path, None, desk.notes, asked=asked)
    if found is None:
        return None
    text = found.value
    if not text.path:
        return text
    sheet = found.reader.sheet(text.path, Notes(), asked=desk.at(at))
    header = (
        desk.reader.shaped(sheet.header, TextHeader, Notes()) if sheet and sheet.header else None
    )
    if header is not None and header.name not in (None, subagent.name) and sheet and sheet.header:
        desk.notes.error(
            "name",
            sheet.header.at(["name"]),
            f"the file is of {quoted(str(header.name))}, not of {subagent.name}",
            "correct the name, or refer to another file",
        )
    return text


def _sheets(desk: Desk, folder: str) -> set[str]:
    names = desk.reader.listing(folder)
    return {name.removesuffix(".md") for name in names if name.endswith(".md")}


def _skills(desk: Desk, references: Sequence[str], at: Path) -> tuple[SkillConfig, ...]:
    found: dict[str, SkillConfig] = {}
    for index, reference in enumerate(references):
        place = desk.at([*at, index])
        split = split_pin(reference, place, desk.notes)
        if split is None:
            continue
        name, pin = split
        if name in found:
            desk.notes.error(
                "duplicate-name",
                place,
                f"skill {quoted(name)} is listed twice",
                "remove one of them",
            )
            continue
        known = skill_names(desk.reader)
        if name not in known and not _was_there(desk, name, pin):
            undefined(
                desk.notes,
                place,
                kind="skill",
                name=name,
                known=known,
                home="skills/<name>/SKILL.md",
            )
            continue
        skill = pinned_skill(desk.reader, name, pin, desk.notes, asked=place)
        if skill is not None:
            found[name] = skill.value
    return tuple(found[name] for name in sorted(found))


def _was_there(desk: Desk, name: str, pin: Pin | None) -> bool:
    """Whether a pinned skill may be found in the past although this commit no longer has it."""
    if pin is None or pin.number is None:
        return pin is not None
    return desk.reader.history.released(f"{FOLDER}/{name}", pin.number) is not None


def _within(desk: Desk, harness: Harness, limits: Limits, at: Path) -> Limits:
    """Limits of a sub-agent: its own, which may not exceed those of the run."""
    own = limits_of(harness)
    for key, field in LIMIT_KEYS.items():
        mine, whole = getattr(own, field), getattr(limits, field)
        if mine is not None and whole is not None and mine > whole:
            desk.notes.error(
                "loosened",
                desk.at([*at, "harness", key]),
                f"{key} is above that of the whole run",
                "lower it, or leave it out",
            )
    return Limits(
        **{
            f: v if (v := getattr(own, f)) is not None else getattr(limits, f)
            for f in LIMIT_KEYS.values()
        }
    )


LIMIT_KEYS = {
    "max_steps": "max_steps",
    "max_tokens_per_run": "max_tokens",
    "max_cost_per_run": "max_cost",
    "max_wall_time": "max_wall_ms",
    "max_output_tokens": "max_output_tokens",
}
"""Key of `harness` → field of `gateway.policy.Limits`."""


def limits_of(harness: Harness) -> Limits:
    """The limits that are written; None where nothing is."""
    return Limits(**{field: getattr(harness, key) for key, field in LIMIT_KEYS.items()})
