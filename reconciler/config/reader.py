"""Reads files of a tree into documents and texts, each once, and collects findings.

A path that leaves the tree, by `..` or by a symbolic link, a missing file and an oversized one
all become a finding at the place that refers to the file.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from reconciler.config import positions, shapes
from reconciler.config.fleet import Text
from reconciler.config.models.agent import TextHeader
from reconciler.config.secrets import secret_offset
from reconciler.findings import Finding, Place, Severity, quoted
from reconciler.source.tree import (
    Kind,
    MissingPath,
    SourceTooLarge,
    Tree,
    UnsafePath,
    join_path,
)

MAX_TEXT = 512 * 1024
"""Bytes of one Markdown file."""

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class Memo:
    """Parsed documents by (path, blob OID), so that a commit parses only what it changed.

    Bounded: the least recently used go first. Safe to share between loads, not between threads.
    """

    def __init__(self, *, size: int = 20_000) -> None:
        self._size = size
        self._kept: OrderedDict[tuple[str, ...], Any] = OrderedDict()

    def get(self, key: tuple[str, ...], make: Callable[[], T]) -> T:
        """What is kept under `key`, or what `make` returns, which is then kept."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]  # type: ignore[no-any-return]
        made = make()
        self._kept[key] = made
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return made


@dataclass(frozen=True, slots=True)
class Sheet:
    """A Markdown file: front matter as a document (None when there is none) and body."""

    header: positions.Document | None
    body: str


class Notes:
    """Findings as they are made. One per agent, so that each error is somebody's."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def error(self, kind: str, place: Place, message: str, fix: str = "") -> None:
        """Record something that blocks."""
        self._add(kind, Severity.ERROR, place, message, fix)

    def warn(self, kind: str, place: Place, message: str, fix: str = "") -> None:
        """Record something that does not block."""
        self._add(kind, Severity.WARNING, place, message, fix)

    def _add(self, kind: str, severity: Severity, place: Place, message: str, fix: str) -> None:
        self.findings.append(
            Finding(kind, severity, place.file, place.line, place.column, message, fix)
        )

    @property
    def failed(self) -> bool:
        """Whether an error was recorded."""
        return any(f.severity is Severity.ERROR for f in self.findings)


class Reader:
    """A tree and a memo."""

    def __init__(self, tree: Tree, memo: Memo) -> None:
        self.tree = tree
        self.memo = memo
        self._listings: dict[tuple[str, ...], list[str]] = {}

    def document(self, path: str, *, asked: Place | None = None) -> positions.Document:
        """The YAML document at `path`. What is wrong with it is in its findings."""
        raw = self._raw(path, "document", positions.MAX_BYTES, asked)
        if isinstance(raw, Finding):
            return positions.Document(path, None, (raw,))
        oid, content = raw
        return self.memo.get(("document", path, oid), lambda: positions.parse(path, content()))

    def expect(
        self, path: str, model: type[M], notes: Notes, *, asked: Place | None = None
    ) -> tuple[M | None, positions.Document]:
        """The document at `path` as `model`; why it is not one goes to `notes`."""
        document = self.document(path, asked=asked)
        return self.shaped(document, model, notes), document

    def shaped(self, document: positions.Document, model: type[M], notes: Notes) -> M | None:
        """A parsed document as `model`; why it is not one goes to `notes`."""
        value, findings = shapes.expect(document, model)
        notes.findings += findings
        return value

    def sheet(self, path: str, notes: Notes, *, asked: Place) -> Sheet | None:
        """The Markdown file at `path`, or None and a finding."""
        raw = self._raw(path, "file", MAX_TEXT, asked)
        if isinstance(raw, Finding):
            notes.findings.append(raw)
            return None
        oid, content = raw
        sheet, findings = self.memo.get(("sheet", path, oid), lambda: _sheet(path, content()))
        notes.findings += findings
        return sheet

    def text(self, path: str, notes: Notes, *, asked: Place) -> Text | None:
        """Instructions: body and declared version."""
        sheet = self.sheet(path, notes, asked=asked)
        if sheet is None:
            return None
        header = self.shaped(sheet.header, TextHeader, notes) if sheet.header else TextHeader()
        if header is None:
            return None
        if not sheet.body.strip():
            notes.error("empty", Place(path), "the file has no text", "say what the agent is to do")
            return None
        return Text(path, sheet.body, header.version)

    def resolve(self, file: str, reference: str, notes: Notes, *, asked: Place) -> str | None:
        """A reference as written in `file`, as a path of the tree; None and a finding if unsafe."""
        try:
            return join_path(file.rpartition("/")[0], reference)
        except UnsafePath as unsafe:
            notes.error("unsafe-path", asked, f"{quoted(reference)}: {unsafe.reason}")
            return None

    def _raw(
        self, path: str, what: str, limit: int, asked: Place | None
    ) -> Finding | tuple[str, Callable[[], bytes]]:
        """(oid, reader of the bytes), having made sure that the bytes can be read."""
        place = asked or Place(path)
        kind, message = "missing-file", ""
        try:
            oid = str(self.tree.oid(path))
            content = self.tree.read(path, limit=limit)
            return oid, lambda: content
        except MissingPath as missing:
            message = f"there is no {what} {quoted(path)}"
            if "directory" in str(missing) or "submodule" in str(missing):
                message = f"{quoted(path)} is not a file of this repository"
        except UnsafePath as unsafe:
            kind, message = "unsafe-path", f"{quoted(path)}: {unsafe.reason}"
        except SourceTooLarge as large:
            kind, message = "too-large", str(large).replace("; ", ": ", 1)
        return Finding(kind, Severity.ERROR, place.file, place.line, place.column, message)

    def directory(self, path: str, notes: Notes, *, asked: Place) -> list[str] | None:
        """Names in a directory, sorted; None and a finding when it is not one."""
        try:
            return [entry.name for entry in self.tree.entries(path)]
        except MissingPath:
            notes.error("missing-file", asked, f"there is no directory {quoted(path)}")
        except UnsafePath as unsafe:
            notes.error("unsafe-path", asked, f"{quoted(path)}: {unsafe.reason}")
        return None

    def names(self, path: str, *kinds: Kind) -> list[str]:
        """Names of the given kinds in a directory; nothing when there is none. UnsafePath."""
        try:
            return [e.name for e in self.tree.entries(path) if not kinds or e.kind in kinds]
        except MissingPath:
            return []

    def listing(self, path: str, *kinds: Kind) -> list[str]:
        """As `names`, remembered, and nothing for a directory that is not safe to list."""
        key = (path, *kinds)
        if key not in self._listings:
            try:
                self._listings[key] = self.names(path, *kinds)
            except UnsafePath:
                self._listings[key] = []
        return self._listings[key]


def _sheet(path: str, raw: bytes) -> tuple[Sheet | None, tuple[Finding, ...]]:
    try:
        text = positions.decode(path, raw, limit=MAX_TEXT)
    except positions.Refused as refused:
        return None, (refused.finding,)
    secret = secret_offset(text)
    if secret:
        line = text.count("\n", 0, secret[0]) + 1
        column = secret[0] - (text.rfind("\n", 0, secret[0]) + 1) + 1
        message = f"this looks like {secret[1]}"
        fix = "never commit a key: revoke it and remove it"
        return None, (Finding("secret", Severity.ERROR, path, line, column, message, fix),)
    front, body, _ = positions.split_front_matter(text)
    header = positions.parse_text(path, front, first_line=2) if front is not None else None
    return Sheet(header, body), ()
