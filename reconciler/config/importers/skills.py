"""A skill folder (agentskills.io) as one that is valid here: pure, files in and files out.

A SKILL.md that is valid as it is keeps every byte. Otherwise its front matter is written again:
keys of other tools move into `metadata`, which the format has for them, so nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from reconciler.config.importers.front_matter import Page, read_page, words
from reconciler.config.models.agent import SkillHeader
from reconciler.config.positions import split_front_matter

MAX_DESCRIPTION = 1024
MAX_COMPATIBILITY = 500
_OURS = ("name", "description", "version", "license", "compatibility", "metadata", "allowed-tools")
_KEYS = (
    *_OURS, "argument-hint", "user-invocable", "disable-model-invocation", "context", "agent",
    "model", "hooks", "when_to_use", "tags", "author", "category", "effort",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BroughtSkill:
    """`text` is the SKILL.md; `changed` says what is different from what was read."""

    name: str
    text: str
    changed: tuple[str, ...]


def skill_name(text: str) -> str:
    """What a SKILL.md calls itself; `""` when it does not say."""
    name = (read_page(text, _KEYS).header or {}).get("name")
    return name if isinstance(name, str) else ""


def brought_skill(text: str, *, name: str) -> BroughtSkill:
    """SKILL.md for the folder skills/`name`. `text` has `\\n` line ends. Never raises."""
    page = read_page(text, _KEYS)
    fenced = split_front_matter(text)[0] is not None
    if page.header is not None and fenced and not page.guessed and _valid(page.header, name):
        return BroughtSkill(name, text, ())
    header, changed = _mended(page, name)
    lines = [f"{key}: {_yaml(value)}" for key, value in header.items()]
    body = page.body if page.body.endswith("\n") else f"{page.body}\n"
    return BroughtSkill(name, "\n".join(["---", *lines, "---", body]), tuple(changed))


def _valid(header: Mapping[str, Any], name: str) -> bool:
    listed = header.get("allowed-tools")
    if isinstance(listed, str) and listed.split() != words(listed):
        return False  # commas, or blanks inside parentheses
    try:
        return SkillHeader.model_validate(dict(header)).name == name
    except ValidationError:
        return False


def _mended(page: Page, name: str) -> tuple[dict[str, Any], list[str]]:
    old = page.header or {}
    changed: list[str] = []
    metadata = dict(old["metadata"]) if isinstance(old.get("metadata"), dict) else {}
    if page.header is None:
        changed.append("it had no front matter")
    if page.guessed:
        changed.append("its front matter was no valid YAML; it was read line by line: compare")
    if page.header is not None and old.get("name") != name:
        changed.append(f"its name is now {name}")
        metadata.setdefault("name-before", str(old.get("name") or ""))
    new: dict[str, Any] = {"name": name, "description": _description(page, changed, metadata)}
    version = old.get("version")
    if isinstance(version, int) and not isinstance(version, bool) and 0 < version <= 10**6:
        new["version"] = version
    elif version is not None:
        metadata.setdefault("version", str(version))
    for key, longest in (("license", 1000), ("compatibility", MAX_COMPATIBILITY)):
        if old.get(key):
            text = " ".join(str(old[key]).split())
            if len(text) > longest:
                metadata[key] = text
                changed.append(f"its {key} is longer than {longest} characters: see metadata")
            new[key] = text[:longest]
    strangers = [key for key in old if key not in _OURS]
    for key in strangers:
        metadata[str(key)] = old[key]
    if strangers:
        changed.append(f"moved into metadata: {', '.join(map(str, strangers))}")
    if metadata:
        new["metadata"] = metadata
    tools = words(old.get("allowed-tools"))
    if tools:
        new["allowed-tools"] = tools
    return new, changed


def _description(page: Page, changed: list[str], metadata: dict[str, Any]) -> str:
    said = str((page.header or {}).get("description") or "").strip()
    if not said:
        lines = (line.strip() for line in page.body.split("\n"))
        said = next((line for line in lines if line and not line.startswith(("#", "```"))), "")
        said = said or "No description was given; say when to use this skill."
        changed.append("it had no description: its first line of text stands in for it")
    if len(said) <= MAX_DESCRIPTION:
        return said
    metadata["description"] = said
    changed.append(f"its description was cut at {MAX_DESCRIPTION} characters: see metadata")
    return said[: MAX_DESCRIPTION - 1] + "…"


def _yaml(value: Any) -> str:
    """A value as JSON, which is YAML: nothing in it can be taken for something else."""
    return json.dumps(value, ensure_ascii=False)
