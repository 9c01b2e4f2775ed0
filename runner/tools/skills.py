"""`load_skill`: the text of a skill, on demand; only its index line is always in context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.values import TRUSTED
from runner.journal import Attempt, Kind, Outcome
from runner.tools.base import Tool, ToolContext, register, result, shape


async def _load(context: ToolContext, arguments: Mapping[str, Any], attempt: Attempt) -> Outcome:
    name, file = arguments["name"], arguments.get("file", "SKILL.md")
    skill = next((s for s in context.role.skills if s.name == name), None)
    if skill is None:
        known = ", ".join(s.name for s in context.role.skills) or "none"
        return result(f"there is no skill {name!r}; skills: {known}", error=True)
    if file not in skill.files:
        return result(f"{name} has no file {file!r}; files: {', '.join(skill.files)}", error=True)
    others = sorted(other for other in skill.files if other != file)
    more = f"\n\nOther files of this skill: {', '.join(others)}" if others else ""
    # Skills are part of the release: reviewed, and so trusted.
    return result(skill.files[file] + more, label=TRUSTED)


LOAD_SKILL = register(
    Tool(
        name="load_skill",
        description="Read a skill (or another file of it) that the list of skills names.",
        parameters=shape({"name": "the skill"}, {"file": "default: SKILL.md"}),
        kind=Kind.SKILL,
        reads_only=True,
        run=_load,
    )
)
