"""One file or folder of a tree, at its own path, and nothing else.

A version is an OID, and must mean the same for ever: reading it must not be able to reach what
the OID does not cover. In an excerpt a symbolic link that stays in the folder works, and one that
leads anywhere else finds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.source.objects import MODE_TREE, ObjectId, tree_id
from reconciler.source.paths import MissingPath, UnsafePath, split_path
from reconciler.source.tree import Entry, Kind, LinkedTree


class Excerpt(LinkedTree):
    """`entry`, which stands at `inside` in `tree`, shown at `path`."""

    def __init__(self, tree: LinkedTree, path: str, entry: Entry, *, inside: str) -> None:
        self._tree = tree
        self._path = path
        self._entry = entry
        self._inside = inside

    @classmethod
    def of(cls, tree: LinkedTree, path: str) -> Excerpt:
        """What is at `path` of a tree. MissingPath; UnsafePath when a symbolic link, a submodule
        or the root is what is there: none of them is content that an OID stands for."""
        here, entry = "", None
        for name in split_path(path):
            entry = tree._child(here, name)  # MissingPath when `here` is a file
            if entry is None:
                raise MissingPath(path)
            if entry.kind is Kind.LINK:
                raise UnsafePath(path, "a symbolic link cannot have versions of its own")
            here = f"{here}/{name}" if here else name
        if entry is None or entry.kind is Kind.COMMIT:
            raise UnsafePath(path, "the root and submodules cannot have versions of their own")
        return cls(tree, path, entry, inside=path)

    @property
    def entry(self) -> Entry:
        """What is shown: kind and OID."""
        return self._entry

    def _children(self, path: str) -> Mapping[str, Entry]:
        if path == self._path or path.startswith(f"{self._path}/"):
            if self._entry.kind is not Kind.TREE:
                raise MissingPath(path)
            return self._tree._children(self._there(path))
        if path and not self._path.startswith(f"{path}/"):
            raise MissingPath(path)
        name, _, rest = self._path[len(path) + 1 if path else 0 :].partition("/")
        if not rest:
            return {name: self._entry}
        below = f"{path}/{name}" if path else name
        return {name: Entry(name, Kind.TREE, MODE_TREE, lambda: self._oid(below))}

    def _child(self, directory: str, name: str) -> Entry | None:
        if directory == self._path or directory.startswith(f"{self._path}/"):
            if self._entry.kind is not Kind.TREE:
                raise MissingPath(directory)
            return self._tree._child(self._there(directory), name)
        return self._children(directory).get(name)

    def _content(self, path: str, entry: Entry, limit: int) -> bytes:
        return self._tree._content(self._there(path), entry, limit)

    def _root(self) -> ObjectId:
        return self._oid("")

    def _oid(self, path: str) -> ObjectId:
        return tree_id((e.name, e.mode, e.oid) for e in self._children(path).values())

    def _there(self, path: str) -> str:
        rest = path[len(self._path) + 1 :]
        return f"{self._inside}/{rest}" if self._inside and rest else self._inside or rest
