"""What a reference means: `triage.md`, `triage.md@v4`, `ci-runbook@<commit>`.

Without a suffix it is the content at this commit. With a version it is the content that released
the version, whatever stands at this commit; with a commit it is the content of then. A number that
is taken cannot be used for other content, pinned or not: the name of a version in a trace must
lead to one text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Generic, TypeVar

from reconciler.config.fleet import SkillConfig, Text
from reconciler.config.models.agent import TextHeader
from reconciler.config.reader import Notes, Reader
from reconciler.config.skills import FOLDER, read_skill, skill_header, version_of
from reconciler.config.versions import Released
from reconciler.findings import Finding, Place, Severity, quoted
from reconciler.source.excerpt import Excerpt
from reconciler.source.objects import ObjectId, is_object_id
from reconciler.source.tree import LinkedTree, MissingPath, Tree, UnsafePath

T = TypeVar("T", Text, SkillConfig)

_SUFFIX = re.compile(r"(?P<what>.+)@(?P<suffix>[^@/]*)")
_VERSION = re.compile(r"v[1-9][0-9]{0,5}")
_HEX = re.compile(r"[0-9a-fA-F]{4,64}")


@dataclass(frozen=True, slots=True)
class Pin:
    """What stands after the @: a version's number, or a commit's id."""

    number: int | None = None
    commit: str | None = None

    def __str__(self) -> str:
        return f"v{self.number}" if self.number is not None else str(self.commit)

    @property
    def short(self) -> str:
        """For messages."""
        return f"v{self.number}" if self.number is not None else f"commit {str(self.commit)[:12]}"


def split_pin(reference: str, place: Place, notes: Notes) -> tuple[str, Pin | None] | None:
    """`triage.md@v4` as (`triage.md`, v4); None and a finding when the suffix is not a pin."""
    match = _SUFFIX.fullmatch(reference)
    if match is None:
        return reference, None
    suffix = match["suffix"]
    if _VERSION.fullmatch(suffix):
        return match["what"], Pin(number=int(suffix[1:]))
    if is_object_id(suffix):
        return match["what"], Pin(commit=suffix)
    if _HEX.fullmatch(suffix):
        why = "an abbreviated commit id, which may come to mean another commit one day"
        if len(suffix) >= 40:
            why = "not a commit id: one has 40 lower-case hex digits"
        fix = "write all 40 digits (git rev-parse gives them), or @v and a number"
    else:
        why = "not a version"
        fix = "write @v and a number, such as @v4, or nothing for the text at this commit"
    notes.error("version", place, f"{quoted('@' + suffix)} is {why}", fix)
    return None


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """The content, and a reader of the tree it comes from."""

    value: T
    reader: Reader


@dataclass(frozen=True, slots=True)
class _Subject(Generic[T]):
    """Something that has versions. `declared`: its number and where that is written."""

    path: str
    name: str
    declared: Callable[[Reader], tuple[int, Place] | None]
    read: Callable[[Reader, Notes], T | None]
    missing: str
    """What is said when it is not there."""


def pinned_text(
    reader: Reader, path: str, pin: Pin | None, notes: Notes, *, asked: Place
) -> Found[Text] | None:
    """Instructions as the reference at `asked` means them; None and findings when in error."""
    if pin is not None and pin.number is not None and not path.endswith(".md"):
        notes.error(
            "version",
            asked,
            f"{quoted(path)} has no versions: only Markdown files have",
            "give the file a name that ends in .md, or refer to it without @",
        )
        return None
    subject = _Subject(
        path,
        path,
        lambda where: _text_version(where, path),
        # In another tree `asked` means nothing, and what is read there is shared by all who ask.
        lambda where, found: where.text(
            path, found, asked=asked if where is reader else Place(path)
        ),
        f"there is no file {quoted(path)}",
    )
    return _resolve(subject, reader, pin, notes, asked)


def pinned_skill(
    reader: Reader, name: str, pin: Pin | None, notes: Notes, *, asked: Place
) -> Found[SkillConfig] | None:
    """A skill as the reference at `asked` means it; None and findings when in error."""
    subject = _Subject(
        f"{FOLDER}/{name}",
        f"skill {name}",
        lambda where: _skill_version(where, name),
        lambda where, found: read_skill(where, name, found),
        f"there is no skill {quoted(name)}",
    )
    if pin is None:  # nothing is said at the reference then, so that one answer serves all agents
        return reader.once(
            ("as it stands", subject.path),
            notes,
            lambda own: _resolve(subject, reader, None, own, Place(subject.path)),
        )
    return _resolve(subject, reader, pin, notes, asked)


def _text_version(reader: Reader, path: str) -> tuple[int, Place] | None:
    sheet = reader.sheet(path, Notes(), asked=Place(path))
    if sheet is None or sheet.header is None:
        return None
    header = reader.shaped(sheet.header, TextHeader, Notes())
    if header is None or header.version is None:
        return None
    return header.version, sheet.header.at(["version"])


def _skill_version(reader: Reader, name: str) -> tuple[int, Place] | None:
    found = skill_header(reader, name, Notes())
    if found is None:
        return None
    sheet, header = found
    number = version_of(header)
    if number is None or sheet.header is None:
        return None
    at = ["version"] if header.version is not None else ["metadata", "version"]
    return number, sheet.header.at(at)


def _resolve(
    subject: _Subject[T], reader: Reader, pin: Pin | None, notes: Notes, asked: Place
) -> Found[T] | None:
    if pin is None:
        found = subject.read(reader, notes)
        if found is None or not _unchanged(subject, reader, None, notes):
            return None
        return Found(found, reader)
    if pin.commit is not None:
        return _at_commit(subject, reader, pin, notes, asked)
    assert pin.number is not None
    released = reader.history.released(subject.path, pin.number)
    if released is None:
        return _first(subject, reader, pin, notes, asked)
    if not _unchanged(subject, reader, pin.number, notes):
        return None
    tree = reader.history.content(released) or _same_here(reader.tree, released)
    if tree is None:
        notes.error(
            "version",
            asked,
            f"{_when(released)}, but the repository no longer has its content",
            f"push commit {released.commit} again, or refer to another version",
        )
        return None
    return _elsewhere(subject, Reader(tree, reader.memo), pin, notes, asked, released.oid)


def _unchanged(subject: _Subject[T], reader: Reader, number: int | None, notes: Notes) -> bool:
    """Whether what stands at this commit may carry the number it declares.

    With `number` only that one counts: who is pinned to v3 need not wait for v4 to be put right.
    """
    declared = subject.declared(reader)
    if declared is None or (number is not None and declared[0] != number):
        return True
    released = reader.history.released(subject.path, declared[0])
    if released is None or released.oid == _oid(reader.tree, subject.path):
        return True
    following = max(reader.history.numbers(subject.path), default=declared[0]) + 1
    notes.error(
        "version-changed",
        declared[1],
        f"{_when(released)}, and this is other content",
        f"bump to v{following} (version: {following}), or restore the content of then",
    )
    return False


def _when(released: Released) -> str:
    day = datetime.fromtimestamp(released.at / 1000, UTC).date().isoformat()
    what = quoted(released.path)
    return f"v{released.number} of {what} was released on {day} (commit {released.commit[:12]})"


def _first(
    subject: _Subject[T], reader: Reader, pin: Pin, notes: Notes, asked: Place
) -> Found[T] | None:
    """Nobody owns the number yet: what stands at this commit may be the first to declare it."""
    declared = subject.declared(reader)
    if declared is not None and declared[0] == pin.number:
        try:
            # What becomes the owner when this is merged: a link would never.
            if isinstance(reader.tree, LinkedTree):
                Excerpt.of(reader.tree, subject.path)
        except (UnsafePath, MissingPath):
            notes.error(
                "version",
                asked,
                f"{subject.name} is reached through a symbolic link, which has no versions",
                "refer to what the link points to",
            )
            return None
        found = subject.read(reader, notes)
        return None if found is None else Found(replace(found, pin=str(pin)), reader)
    known = reader.history.numbers(subject.path)
    there = f"there {'are' if len(known) > 1 else 'is'} {_listed(known)}" if known else ""
    if _oid(reader.tree, subject.path) is None:
        notes.error("missing-file", asked, subject.missing, there)
        return None
    before = len(notes.findings)
    if subject.read(reader, notes) is None and len(notes.findings) > before:
        return None
    if declared is None:
        fix = f"put `version: {pin.number}` into its front matter, or refer to it without @{pin}"
        message = f"{subject.name} declares no version"
    else:
        fix = f"refer to it as @v{declared[0]}, or write version: {pin.number} into it"
        message = f"{subject.name} declares version {declared[0]}, not {pin.number}"
    if reader.history.absent is None:
        message += ", and the branch has never had one that did"
    notes.error("version", asked, message, f"{there}; {fix}" if there else fix)
    return None


def _listed(numbers: tuple[int, ...]) -> str:
    shown = [f"v{number}" for number in numbers[-5:]]
    return ("…, " if len(numbers) > 5 else "") + ", ".join(shown)


def _at_commit(
    subject: _Subject[T], reader: Reader, pin: Pin, notes: Notes, asked: Place
) -> Found[T] | None:
    assert pin.commit is not None
    absent = reader.history.absent
    if absent is not None:
        notes.error(
            "version",
            asked,
            f"{subject.name} at {pin.short} cannot be looked up: {absent}",
            "check it in a full clone of the repository, or refer to a version (@v4)",
        )
        return None
    tree = reader.history.at(pin.commit)
    if tree is None:
        notes.error(
            "version",
            asked,
            f"the watched branch has never stood at {pin.short}",
            "take a commit that `git log --first-parent` of the branch lists, not one of a pull "
            "request's own",
        )
        return None
    oid = _oid(tree, subject.path)
    if oid is None:
        notes.error("missing-file", asked, f"{subject.missing} at {pin.short}")
        return None
    return _elsewhere(subject, Reader(tree, reader.memo), pin, notes, asked, oid)


def _elsewhere(
    subject: _Subject[T], there: Reader, pin: Pin, notes: Notes, asked: Place, oid: ObjectId
) -> Found[T] | None:
    """Read the content of another time. What is wrong with it is wrong with the reference."""

    def read() -> tuple[T | None, tuple[Finding, ...]]:
        found = Notes()
        value = subject.read(there, found)
        return None if value is None else replace(value, pin=str(pin)), tuple(found.findings)

    # By pin too: a commit's links may lead to other content than those of a version.
    value, findings = there.memo.get(("pinned", subject.path, str(pin), oid), read)
    for one in findings:
        if one.severity is Severity.ERROR:
            notes.error(one.id, asked, f"at {pin.short}, {one.place}: {one.message}", one.fix)
    return None if value is None else Found(value, there)


def _same_here(tree: Tree, released: Released) -> Tree | None:
    """The released content as it stands at this commit, when it does."""
    if not isinstance(tree, LinkedTree):
        return None
    try:
        excerpt = Excerpt.of(tree, released.path)
    except (UnsafePath, MissingPath):
        return None
    return excerpt if excerpt.entry.oid == released.oid else None


def _oid(tree: Tree, path: str) -> ObjectId | None:
    try:
        return tree.oid(path)
    except (UnsafePath, MissingPath):
        return None
