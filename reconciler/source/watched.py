"""Which paths an answer depends on, and whether a later commit touches any of them.

Whoever loads a commit incrementally must know what each result was made from. Asking every reader
to say so would be forgotten in one place; so the tree itself is watched while it is read. What is
noted are *physical* paths: a file that is reached through a symbolic link depends on the link and
on the file, and one that is not there depends on the first part of its path that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from enum import IntEnum

from reconciler.source.objects import ObjectId
from reconciler.source.paths import MissingPath, check_name
from reconciler.source.tree import Entry, Kind, LinkedTree, Tree


class Of(IntEnum):
    """What of a path an answer depends on."""

    CONTENT = 0
    """The file or link there, or that nothing is there."""
    KIND = 1
    """Whether something is there, and of which kind."""
    NAMES = 2
    """Names and kinds in a directory."""
    ALL = 3
    """Everything in a directory, at any depth."""


Need = tuple[int, str]
"""(Of, physical path)"""


class Watched(LinkedTree):
    """A tree that tells `note` what each answer depended on. Answers as the tree itself does."""

    def __init__(self, tree: LinkedTree, note: Callable[[Need], None]) -> None:
        self.tree = tree
        self._note = note
        self._real: set[str] = set()
        """Directories that are reached through no link."""

    def _child(self, directory: str, name: str) -> Entry | None:
        entry = self.tree._child(directory, name)
        if entry is None or entry.kind is not Kind.TREE:
            self._note((Of.CONTENT, f"{directory}/{name}" if directory else name))
        return entry

    def _children(self, path: str) -> Mapping[str, Entry]:
        self._note((Of.ALL, path))  # whoever looks below the rules may look anywhere
        return self.tree._children(path)

    def _content(self, path: str, entry: Entry, limit: int) -> bytes:
        return self.tree._content(path, entry, limit)

    def _root(self) -> ObjectId:
        return self.tree._root()

    def _changed_since(self, old: Tree) -> set[str] | None:
        return self.tree._changed_since(old)

    def _find(self, path: str) -> tuple[str, Entry | None]:
        directory, _, name = path.rpartition("/")
        if directory in self._real:  # most paths: a file beside one that was just read
            check_name(name, path)
            entry = self._child(directory, name)
            if entry is None:
                raise MissingPath(path)
            if entry.kind is not Kind.LINK:
                return self._noted(path, entry)
        physical, found = super()._find(path)
        if physical == path:
            self._real.add(directory)
        return self._noted(physical, found)

    def _noted(self, physical: str, entry: Entry | None) -> tuple[str, Entry | None]:
        if entry is None or entry.kind is Kind.TREE:
            self._note((Of.KIND, physical))
        return physical, entry

    def oid(self, path: str) -> ObjectId:
        physical, entry = self._find(path)
        if entry is None or entry.kind is Kind.TREE:
            self._note((Of.ALL, physical))
        return self.tree._root() if entry is None else entry.oid

    def _sorted(self, physical: str, *, lenient: bool = False) -> tuple[Entry, ...]:
        self._note((Of.NAMES, physical))
        return self.tree._sorted(physical, lenient=lenient)

    def _walk(self, shown: str, physical: str) -> Iterator[tuple[str, Entry]]:
        self._note((Of.ALL, physical))
        return self.tree._walk(shown, physical)


class Touched:
    """What the change from one tree to another touches."""

    def __init__(self, old: LinkedTree, new: LinkedTree, paths: Collection[str]) -> None:
        self.paths = paths
        self.needs: set[Need] = {(Of.ALL, "")} if paths else set()
        """Needs whose answer may be another now, but those below `turned`."""
        self.turned: set[str] = set()
        """Directories that are none any more: what was looked for below is another question."""
        seen: set[str] = set()
        for path in paths:
            here = ""
            for name in path.split("/"):
                directory, here = here, f"{here}/{name}" if here else name
                if here in seen:
                    continue
                seen.add(here)
                # CONTENT of a directory above: what was missing there may be a directory now.
                self.needs |= {(Of.CONTENT, here), (Of.ALL, here)}
                before, after = _kind(old, directory, name), _kind(new, directory, name)
                if before is not after:
                    self.needs |= {(Of.KIND, here), (Of.NAMES, directory)}
                    if before is Kind.TREE:
                        self.turned.add(here)

    def is_turned(self, path: str) -> bool:
        """Whether a path is, or was below, a directory that is none any more."""
        while path:
            if path in self.turned:
                return True
            path = path.rpartition("/")[0]
        return False

    def below(self, directory: str) -> set[str]:
        """Names in a directory at or below which something changed."""
        prefix = f"{directory}/"
        return {
            path[len(prefix) :].partition("/")[0] for path in self.paths if path.startswith(prefix)
        }


def _kind(tree: LinkedTree, directory: str, name: str) -> Kind | None:
    try:
        entry = tree._child(directory, name)
    except MissingPath:
        return None
    return entry.kind if entry else None
