"""Which files differ between two trees, from git's raw tree objects.

libgit2's own diff builds an object for every name of each directory it opens: 10 ms a commit in a
repository of ten thousand agents, where 1 ms is what reading the directory takes. A walk over
thousands of commits cannot afford that. Here a directory is a set of rows, two of which are
compared in C, and that of the commit before is still at hand.
The format: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects#_tree_objects
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator

import pygit2

from reconciler.source.objects import ObjectId

_ROW = re.compile(rb"[0-7]+ [^\0]+\0.{20}", re.DOTALL)
_TREE = b"40000"
KEPT = 32
"""Directories whose rows are remembered, as they were last: those on the way to what changes."""


class Differences:
    """Compares trees of one repository, one after the other along a history."""

    def __init__(self, repository: Callable[[], pygit2.Repository]) -> None:
        self._repository = repository
        self._rows: OrderedDict[bytes, tuple[ObjectId, frozenset[bytes]]] = OrderedDict()

    def between(self, old: ObjectId | None, new: ObjectId) -> Iterator[bytes]:
        """Paths of files, links and submodules that were added, changed or removed, in no order;
        None is the empty tree. A change of mode alone counts. KeyError for a missing object."""
        todo: list[tuple[bytes, ObjectId | None, ObjectId | None]] = [(b"", old, new)]
        while todo:
            folder, one, two = todo.pop()
            before, after = self._of(folder, one), self._of(folder, two)
            gone = dict(map(_parsed, before - after))
            come = dict(map(_parsed, after - before))
            for name in gone.keys() | come.keys():
                path = folder + name
                rows = (gone.get(name), come.get(name))
                if any(row is not None and row[0] != _TREE for row in rows):
                    yield path
                was, now = (
                    ObjectId(row[1].hex()) if row is not None and row[0] == _TREE else None
                    for row in rows
                )
                if was is not None or now is not None:
                    todo.append((path + b"/", was, now))

    def _of(self, folder: bytes, tree: ObjectId | None) -> frozenset[bytes]:
        if tree is None:
            return frozenset()
        known = self._rows.pop(folder, None)
        if known is None or known[0] != tree:
            known = tree, frozenset(_ROW.findall(self._repository().read(tree)[1]))
        self._rows[folder] = known
        if len(self._rows) > KEPT:
            self._rows.popitem(last=False)
        return known[1]


def _parsed(row: bytes) -> tuple[bytes, tuple[bytes, bytes]]:
    """name → (mode, raw OID)"""
    head, raw = row[:-21], row[-20:]
    mode, _, name = head.partition(b" ")
    return name, (mode.lstrip(b"0"), raw)  # some tools pad it: 040000 is a directory too
