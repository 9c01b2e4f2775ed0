"""Skill folders in the agentskills.io format: SKILL.md with front matter, and files beside it."""

from __future__ import annotations

import re

from reconciler.config.fleet import SkillConfig
from reconciler.config.models.agent import SkillHeader
from reconciler.config.positions import Refused, decode
from reconciler.config.reader import MAX_TEXT, Notes, Reader, Sheet
from reconciler.config.secrets import secret_finding
from reconciler.findings import Place, quoted
from reconciler.source.tree import Kind, MissingPath, SourceTooLarge, UnsafePath

FOLDER = "skills"
MAX_FILES = 200
MAX_SKILL = 2 * 1024 * 1024
"""Bytes of all files of one skill."""

_NUMBER = re.compile("[1-9][0-9]{0,5}")


def skill_names(reader: Reader) -> list[str]:
    """Names of the folders in skills/."""
    return reader.listing(FOLDER, Kind.TREE, Kind.LINK)


def skill_header(reader: Reader, name: str, notes: Notes) -> tuple[Sheet, SkillHeader] | None:
    """SKILL.md and its front matter; None and findings when it is in error."""
    path = f"{FOLDER}/{name}/SKILL.md"
    sheet = reader.sheet(path, notes, asked=Place(path))
    if sheet is None:
        return None
    if sheet.header is None:
        notes.error(
            "front-matter",
            Place(path),
            "there is no front matter",
            "start the file with ---, name: and description:, and ---",
        )
        return None
    header = reader.shaped(sheet.header, SkillHeader, notes)
    if header is None:
        return None
    if header.name != name:
        notes.error(
            "name",
            sheet.header.at(["name"]),
            f"the skill calls itself {quoted(header.name)}, its folder {quoted(name)}",
            "give both the same name",
        )
        return None
    return sheet, header


def read_skill(reader: Reader, name: str, notes: Notes) -> SkillConfig | None:
    """The skill in skills/<name>, read once for all; None and findings when it is in error."""
    return reader.once(("skill", name), notes, lambda own: _read(reader, name, own))


def _read(reader: Reader, name: str, notes: Notes) -> SkillConfig | None:
    found = skill_header(reader, name, notes)
    if found is None:
        return None
    sheet, header = found
    files = _files(reader, f"{FOLDER}/{name}", notes)
    if files is None:
        return None
    # What the model reads is the body: name and description stand in the index already, and a
    # changed licence or version number must not look like changed behaviour.
    files["SKILL.md"] = sheet.body
    return SkillConfig(name, header.description, files, version_of(header))


def version_of(header: SkillHeader) -> int | None:
    """The number it declares: `version`, or `metadata.version` when that is a whole number."""
    if header.version is not None:
        return header.version
    found = header.metadata.get("version")
    text = str(found) if isinstance(found, int | str) else ""
    return int(text) if _NUMBER.fullmatch(text) else None


def _files(reader: Reader, folder: str, notes: Notes) -> dict[str, str] | None:
    files: dict[str, str] = {}
    size = 0
    failed = False
    try:
        for path, _entry in reader.tree.walk(folder):
            inside = path.removeprefix(f"{folder}/")
            if inside == "SKILL.md":
                continue
            raw = reader.tree.read(path, limit=MAX_TEXT)
            size += len(raw)
            if len(files) >= MAX_FILES or size > MAX_SKILL:
                notes.error(
                    "too-large",
                    Place(f"{folder}/SKILL.md"),
                    f"the skill has more than {MAX_FILES} files or {MAX_SKILL:,} bytes",
                    "keep what the agent must read, and no more",
                )
                return None
            try:
                files[inside] = decode(path, raw, limit=MAX_TEXT)
            except Refused as refused:
                notes.findings.append(refused.finding)
                failed = True
                continue
            secret = secret_finding(path, files[inside])
            if secret is not None:
                notes.findings.append(secret)
                failed = True
    except (MissingPath, UnsafePath, SourceTooLarge) as error:
        kind = "unsafe-path" if isinstance(error, UnsafePath) else "missing-file"
        notes.error(kind, Place(f"{folder}/SKILL.md"), str(error))
        return None
    return None if failed else files
