"""A tree with files laid over it: what a work directory would be, before a byte is written.

`interlock new` and `interlock import` load the result first and write only what loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from reconciler.source.objects import ObjectId, tree_id
from reconciler.source.tree import Entry, Kind, LinkedTree, MemoryTree, MissingPath


class OverlayTree(LinkedTree):
    """`base` with `files` (path → content) added; a file of the same path is replaced."""

    def __init__(self, base: LinkedTree, files: Mapping[str, bytes]) -> None:
        self._base = base
        self._over = MemoryTree(files)

    def _children(self, path: str) -> Mapping[str, Entry]:
        below = _children(self._base, path)
        above = _children(self._over, path)
        if below is None and above is None:
            raise MissingPath(path)
        merged = dict(below or {})
        for name, entry in (above or {}).items():
            old = merged.get(name)
            if old is not None and old.kind is Kind.TREE and entry.kind is Kind.TREE:
                here = f"{path}/{name}" if path else name
                entry = replace(entry, oid_of=partial(self._tree_oid, here))
            merged[name] = entry
        return merged

    def _content(self, path: str, entry: Entry, limit: int) -> bytes:
        over = _children(self._over, path.rpartition("/")[0]) or {}
        source = self._over if path.rpartition("/")[2] in over else self._base
        return source._content(path, entry, limit)

    def _tree_oid(self, path: str) -> ObjectId:
        return tree_id((e.name, e.mode, e.oid) for e in self._children(path).values())

    def _root(self) -> ObjectId:
        return self._tree_oid("")


def _children(tree: LinkedTree, path: str) -> Mapping[str, Entry] | None:
    try:
        return tree._children(path)
    except MissingPath:
        return None
