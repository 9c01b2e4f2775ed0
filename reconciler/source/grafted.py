"""One tree with some top-level folders of another: a pull request's agents on the base's platform.

What a pull request's head may bring to a gate are agents and skills. Where secrets go, which
images run and what runs on the host come from the base branch, whatever else the head changes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from reconciler.source.objects import ObjectId, tree_id
from reconciler.source.tree import Entry, LinkedTree


class GraftedTree(LinkedTree):
    """`base`, with the top-level entries named in `folders` taken from `head` instead.

    A symbolic link is followed in the result: one in `agents/` that points into `gateway/` finds
    the base's file.
    """

    def __init__(self, base: LinkedTree, head: LinkedTree, folders: Collection[str]) -> None:
        self._base = base
        self._head = head
        self._folders = frozenset(folders)

    def _side(self, path: str) -> LinkedTree:
        return self._head if path.partition("/")[0] in self._folders else self._base

    def _children(self, path: str) -> Mapping[str, Entry]:
        if path:
            return self._side(path)._children(path)
        ours, theirs = self._base._children(""), self._head._children("")
        return {
            **{name: entry for name, entry in ours.items() if name not in self._folders},
            **{name: entry for name, entry in theirs.items() if name in self._folders},
        }

    def _content(self, path: str, entry: Entry, limit: int) -> bytes:
        return self._side(path)._content(path, entry, limit)

    def _root(self) -> ObjectId:
        return tree_id((e.name, e.mode, e.oid) for e in self._children("").values())
