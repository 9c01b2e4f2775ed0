"""What is at a path that somebody wants imported: agent files and skill folders, read with care.

The folder may come from anywhere. Links that lead out of it are not followed, nothing beyond the
sizes of the config repo is read, and what is not text stays where it is, each with a word.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.config.positions import Refused, decode
from reconciler.config.reader import MAX_TEXT
from reconciler.findings import printable

MAX_SOURCES = 500
"""Agents and skills of one import."""
MAX_FILES = 200
MAX_SKILL = 2 * 1024 * 1024
"""As for a skill of the config repo: files, and bytes of all of them."""
_SKIPPED = frozenset({".git", "node_modules", "__pycache__", ".venv", ".DS_Store"})
_NOT_AGENTS = frozenset(
    {"readme.md", "claude.md", "agents.md", "changelog.md", "contributing.md", "license.md"}
)
_UNSEEN = ("commands", "hooks", "settings.json", "settings.local.json", ".mcp.json", "CLAUDE.md")


@dataclass(frozen=True, slots=True)
class TextSource:
    """An agent's file."""

    shown: str
    stem: str
    text: str


@dataclass(frozen=True, slots=True)
class SkillSource:
    """A skill's folder. `files` by path inside it, SKILL.md among them."""

    shown: str
    stem: str
    files: dict[str, bytes]
    executable: frozenset[str] = frozenset()
    left: tuple[str, ...] = ()
    """Files that stay behind, each with the reason."""

    @property
    def text(self) -> str:
        """The SKILL.md."""
        return decode("SKILL.md", self.files["SKILL.md"], limit=MAX_TEXT)


@dataclass
class Sources:
    """Everything found at a path."""

    agents: list[TextSource] = field(default_factory=list)
    skills: list[SkillSource] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Agents and skills that cannot be read, each with the reason."""
    unseen: list[str] = field(default_factory=list)
    """What lies beside them and is not imported."""


def find_sources(path: Path) -> Sources:
    """Agents and skills at `path`: a file, a skill, a folder of either, a `.claude`, a plugin."""
    found = Sources()
    if path.is_file():
        if path.name == "SKILL.md":
            _take_skill(path.parent, path.parent, found)
        else:
            _take_agent(path, path.parent, found)
        return found
    if (path / "SKILL.md").is_file():
        _take_skill(path, path, found)
        return found
    inside = path / ".claude"
    root = inside if inside.is_dir() and not inside.is_symlink() else path
    if (root / "agents").is_dir() or (root / "skills").is_dir():
        for file in _markdown(root / "agents"):
            _take_agent(file, root, found)
        for folder in _skill_folders(root / "skills"):
            _take_skill(folder, root, found)
        for name in _UNSEEN:
            if (root / name).exists() or (path / name).exists():
                found.unseen.append(name)
        return found
    folders = list(_skill_folders(root))
    for folder in folders:
        _take_skill(folder, root, found)
    for file in _markdown(root):
        if any(folder in file.parents for folder in folders):
            continue
        if "commands" in file.relative_to(root).parts[:-1]:
            if "commands" not in found.unseen:
                found.unseen.append("commands")  # what a person types, not what a loop is told
            continue
        _take_agent(file, root, found, strict=True)
    return found


def _markdown(root: Path) -> Iterator[Path]:
    for path in _walk(root):
        if path.suffix.lower() == ".md" and path.name.lower() not in _NOT_AGENTS:
            yield path


def _skill_folders(root: Path) -> Iterator[Path]:
    below: Path | None = None
    for path in _walk(root):
        inner = below is not None and below in path.parents
        if path.name == "SKILL.md" and not inner:
            below = path.parent
            yield path.parent


def _walk(root: Path) -> Iterator[Path]:
    """Files below a folder in order, SKILL.md before its neighbours; no folder behind a link."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in _SKIPPED)
        for name in sorted(files, key=lambda name: (name != "SKILL.md", name)):
            if name not in _SKIPPED:
                yield Path(folder) / name


def _within(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def _take_agent(path: Path, root: Path, found: Sources, *, strict: bool = False) -> None:
    shown = printable(path.name if path.parent == root else path.relative_to(root).as_posix())
    if len(found.agents) + len(found.skills) >= MAX_SOURCES:
        if not any("at most" in reason for reason in found.refused):
            found.refused.append(f"{shown} and what follows: at most {MAX_SOURCES} at a time")
        return
    if not _within(path, root):
        found.refused.append(f"{shown}: a link that leads out of the folder")
        return
    try:
        if path.stat().st_size > MAX_TEXT:
            found.refused.append(f"{shown}: larger than {MAX_TEXT:,} bytes; put data elsewhere")
            return
        text = decode(shown, path.read_bytes(), limit=MAX_TEXT)
    except Refused as refused:
        found.refused.append(str(refused.finding))
        return
    except OSError as error:
        found.refused.append(f"{shown}: {error.strerror or error}")
        return
    if strict and not text.lstrip("\n").startswith("---"):
        found.unseen.append(f"{shown} (no front matter)")
    elif not text.strip():
        found.refused.append(f"{shown}: the file is empty")
    else:
        found.agents.append(TextSource(shown, path.stem, text))


def _take_skill(folder: Path, root: Path, found: Sources) -> None:
    same = folder.resolve() == root.resolve()
    shown = printable(folder.resolve().name if same else folder.relative_to(root).as_posix())
    files: dict[str, bytes] = {}
    executable: set[str] = set()
    left: list[str] = []
    binary: list[str] = []
    size = 0
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if not _within(path, folder):
            left.append(f"{printable(name)}: a link that leads out of the skill")
            continue
        try:
            large = path.stat().st_size > MAX_TEXT
            content = b"" if large or not path.is_file() else path.read_bytes()
            if large:
                left.append(f"{printable(name)}: larger than {MAX_TEXT:,} bytes")
                continue
            decode(name, content, limit=MAX_TEXT)
        except Refused as refused:
            if refused.finding.id == "encoding":
                binary.append(printable(name))
            else:
                left.append(f"{printable(name)}: {printable(refused.finding.message)}")
            continue
        except OSError as error:
            left.append(f"{printable(name)}: {error.strerror or error}")
            continue
        files[name] = content
        size += len(content)
        if os.access(path, os.X_OK):
            executable.add(name)
        if len(files) > MAX_FILES or size > MAX_SKILL:
            found.refused.append(f"{shown}: more than {MAX_FILES} files or {MAX_SKILL:,} bytes")
            return
    if "SKILL.md" not in files:
        found.refused.append(f"{shown}: its SKILL.md cannot be read")
        return
    if binary:
        more = f" and {len(binary) - 3} more" if len(binary) > 3 else ""
        left.append(f"no text, and a skill is text: {', '.join(binary[:3])}{more}")
    stem = folder.resolve().name
    found.skills.append(SkillSource(shown, stem, files, frozenset(executable), tuple(left)))
