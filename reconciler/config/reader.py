"""Reads files of a tree into documents and texts, each once, and collects findings.

A path that leaves the tree, by `..` or by a symbolic link, a missing file and an oversized one
all become a finding at the place that refers to the file.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from reconciler.config import positions, shapes
from reconciler.config.fleet import Text
from reconciler.config.models.agent import TextHeader
from reconciler.config.secrets import secret_finding
from reconciler.config.tracing import Names, Need, Trace
from reconciler.config.versions import NO_HISTORY, History
from reconciler.findings import Finding, Place, Severity, quoted
from reconciler.source.tree import (
    Kind,
    MissingPath,
    SourceTooLarge,
    Tree,
    UnsafePath,
    join_path,
)
from reconciler.source.watched import Of

MAX_TEXT = 512 * 1024
"""Bytes of one Markdown file."""

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)
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


@dataclass(frozen=True, slots=True)
class Once:
    """Something that several agents share, made once: its findings are everybody's."""

    value: Any
    findings: tuple[Finding, ...]
    needs: frozenset[Need]


class Reader:
    """A tree and a memo, and the history that says what a version names.

    `trace` collects what is depended upon; the tree and the history that are given note theirs
    in it. `kept` are the shared results of an earlier load that still hold.
    """

    def __init__(
        self,
        tree: Tree,
        memo: Memo,
        history: History = NO_HISTORY,
        *,
        trace: Trace | None = None,
        kept: dict[Need, Once] | None = None,
    ) -> None:
        self.tree = tree
        self.memo = memo
        self.history = history
        self.trace = trace or Trace()
        self.kept: dict[Need, Once] = {} if kept is None else kept
        self._listings: dict[tuple[str, ...], tuple[Names, frozenset[Need]]] = {}
        self._home = ""
        self._near: dict[tuple[str, ...], Any] = {}
        self._met: dict[Any, Any] = {}

    @contextmanager
    def at_home(self, folder: str) -> Iterator[set[Need]]:
        """Read one agent's folder; gives what is needed for it, from there and from elsewhere.

        What is read below the folder is nobody else's, and is forgotten at the end.
        """
        self._home = f"{folder}/"
        try:
            with self.trace.of() as needs:
                yield needs
        finally:
            self._home = ""
            self._near.clear()

    def same(self, value: H) -> H:
        """The value, or an equal one that was met before: thousands of agents have few limits."""
        known: H = self._met.setdefault(value, value)
        return known

    def once(self, what: Need, notes: Notes, make: Callable[[Notes], T]) -> T:
        """What `make` makes for all agents that need it; its findings go to each of them."""
        need = ("once", *what)
        known = self.kept.get(need)
        if known is None:
            own = Notes()
            with self.trace.of() as needs:
                value = make(own)
            known = self.kept[need] = Once(value, tuple(own.findings), frozenset(needs))
        self.trace.note(need)
        notes.findings += known.findings
        made: T = known.value
        return made

    def document(self, path: str, *, asked: Place | None = None) -> positions.Document:
        """The YAML document at `path`. What is wrong with it is in its findings."""
        made = self.made("document", path, positions.MAX_BYTES, asked, positions.parse)
        return positions.Document(path, None, (made,)) if isinstance(made, Finding) else made

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
        made = self.made("file", path, MAX_TEXT, asked, _sheet)
        if isinstance(made, Finding):
            notes.findings.append(made)
            return None
        sheet, findings = made
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

    def made(
        self,
        what: str,
        path: str,
        limit: int,
        asked: Place | None,
        make: Callable[[str, bytes], T],
    ) -> T | Finding:
        """What `make` makes of the bytes at `path`, once per content; a finding if not readable."""
        place = asked or Place(path)
        kind, message = "missing-file", ""
        try:
            if self._home and path.startswith(self._home):
                if (what, path) not in self._near:
                    self._near[what, path] = make(path, self.tree.read(path, limit=limit))
                near: T = self._near[what, path]
                return near
            key = (what, path, str(self.tree.file_oid(path)))
            return self.memo.get(key, lambda: make(path, self.tree.read(path, limit=limit)))
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

    def names(self, path: str, *kinds: Kind, lenient: bool = False) -> list[str]:
        """Names of the given kinds in a directory; nothing when there is none. UnsafePath."""
        try:
            found = self.tree.entries(path, lenient=lenient)
            return [e.name for e in found if not kinds or e.kind in kinds]
        except MissingPath:
            return []

    def listing(self, path: str, *kinds: Kind) -> list[str]:
        """As `names`, remembered; a name that must not be used is nobody's and left out."""
        key = (path, *kinds)
        known = self._listings.get(key)
        if known is None:
            with self.trace.of() as needs:
                try:
                    names = self.names(path, *kinds, lenient=True)
                except UnsafePath:
                    names = []
            known = self._listings[key] = self._watched(names, needs)
        self.trace.add(known[1])
        return known[0]

    def _watched(self, names: list[str], needs: set[Need]) -> tuple[Names, frozenset[Need]]:
        """The names, and what even one who asks for a single name depends on: the way there."""
        listed = next((need for need in needs if need[0] == Of.NAMES), None)
        if listed is None or not names:
            return Names(names, None, self.trace.note), frozenset(needs)
        return Names(names, listed[1], self.trace.note), frozenset(needs - {listed})


def _sheet(path: str, raw: bytes) -> tuple[Sheet | None, tuple[Finding, ...]]:
    try:
        text = positions.decode(path, raw, limit=MAX_TEXT)
    except positions.Refused as refused:
        return None, (refused.finding,)
    secret = secret_finding(path, text)
    if secret is not None:
        return None, (secret,)
    front, body, _ = positions.split_front_matter(text)
    header = positions.parse_text(path, front, first_line=2) if front is not None else None
    return Sheet(header, body), ()
