"""The files of one commit, by git's own lookups.

What is asked for is read, and little is kept: a repository may have fifty thousand agents, and
most commits touch one. Directories are listed from git's own bytes (gitformat-pack(5), "tree"),
because an object of libgit2's for each row costs many times that.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial

import pygit2
from pygit2.enums import ObjectType

from reconciler.source import difference
from reconciler.source.errors import MirrorMismatch
from reconciler.source.objects import (
    MODE_BLOB,
    MODE_COMMIT,
    MODE_EXECUTABLE,
    MODE_LINK,
    MODE_TREE,
    ObjectId,
    TreeId,
)
from reconciler.source.tree import (
    Entry,
    Kind,
    LinkedTree,
    MissingPath,
    SourceTooLarge,
    Tree,
    UnsafePath,
)

KEPT_TREES = 64
"""Directories that a tree keeps open: those on the way to what is read, such as `agents`."""
_KINDS = {MODE_TREE: Kind.TREE, MODE_LINK: Kind.LINK, MODE_COMMIT: Kind.COMMIT}


class GitTree(LinkedTree):
    """The tree of one commit. What is asked for is read, by git's own lookups, and little is kept:
    a repository may have fifty thousand agents, and most commits touch one."""

    def __init__(self, repository: Callable[[], pygit2.Repository], root: TreeId) -> None:
        self._repository = repository
        self.root = root
        self._trees: OrderedDict[str, pygit2.Tree] = OrderedDict()

    def _children(self, path: str) -> Mapping[str, Entry]:
        # From git's own bytes (gitformat-pack(5), "tree"): an object for each row costs far more.
        tree = self._tree(path)
        rows = _ROW.findall(tree.read_raw())
        found = dict(_listed(*row) for row in rows)
        if not len(found) == len(rows) == len(tree):
            raise UnsafePath(path, "two entries of the directory have one name")
        if (keys := [_key(mode, name) for mode, name, _ in rows]) != sorted(keys):
            raise UnsafePath(path, "the directory's entries are not in git's order")
        return found

    def _child(self, directory: str, name: str) -> Entry | None:
        try:
            return _entry(self._tree(directory)[name])[1]
        except (KeyError, UnicodeEncodeError):
            # A name that is not UTF-8 can only come from a listing, where it is refused.
            return None

    def _tree(self, path: str) -> pygit2.Tree:
        found = self._trees.get(path)
        if found is not None:
            self._trees.move_to_end(path)
            return found
        oid: ObjectId = self.root
        if path:
            parent, _, name = path.rpartition("/")
            entry = self._child(parent, name)
            if entry is None or entry.kind is not Kind.TREE:
                raise MissingPath(path)
            oid = entry.oid
        named = object_of(self._repository(), oid)
        if not isinstance(named, pygit2.Tree):
            raise UnsafePath(path, "is called a directory by git, and is none")
        found = self._trees[path] = named
        if len(self._trees) > KEPT_TREES:
            self._trees.popitem(last=False)
        return found

    def _content(self, path: str, entry: Entry, limit: int) -> bytes:
        kind, content = _raw(self._repository(), entry.oid)
        if kind != ObjectType.BLOB:
            raise UnsafePath(path, "is called a file by git, and is none")
        if len(content) > limit:
            raise SourceTooLarge(path, len(content), limit)
        return content

    def _root(self) -> ObjectId:
        return self.root

    def _changed_since(self, old: Tree) -> set[str] | None:
        if not isinstance(old, GitTree):
            return None
        if old._repository().path != self._repository().path:
            return None
        read = partial(_tree_bytes, self._repository())
        roots = (bytes.fromhex(old.root), bytes.fromhex(self.root))
        try:
            found = set(difference.changed_paths(read, *roots))
        except difference.Disordered as wrong:
            raise UnsafePath("", "its directories are not as git writes them") from wrong
        return {path.decode("utf-8", "surrogateescape") for path in found}


def object_of(repository: pygit2.Repository, oid: ObjectId) -> pygit2.Object:
    """The object. MirrorMismatch when it is missing."""
    # pygit2's KeyError must not pass for a MissingPath: a damaged mirror is not an empty one.
    try:
        return repository[oid]
    except (KeyError, ValueError):
        raise MirrorMismatch(repository.path, f"lacks the object {oid}") from None


def _entry(row: pygit2.Object) -> tuple[str, Entry]:
    mode = int(row.filemode)
    # Bytes, because a name need not be UTF-8; such a one is refused when it is listed.
    name = (row.raw_name or b"").decode("utf-8", "surrogateescape")
    kind = _KINDS.get(mode, Kind.BLOB)
    return name, Entry(name, kind, mode, partial(_as_is, ObjectId(str(row.id))))


def _listed(mode: bytes, raw_name: bytes, oid: bytes) -> tuple[str, Entry]:
    """As `_entry`, of a row of a tree object."""
    name = raw_name.decode("utf-8", "surrogateescape")
    known = _WRITTEN.get(mode)
    kind, bits = _normal(int(mode, 8)) if known is None else known
    return name, Entry(name, kind, bits, partial(_as_is, ObjectId(oid.hex())))


def _normal(mode: int) -> tuple[Kind, int]:
    """The kind, and the mode as git means it today: old ones have other rights for a group."""
    named = {MODE_TREE: Kind.TREE, MODE_LINK: Kind.LINK, MODE_COMMIT: Kind.COMMIT}
    for high, kind in named.items():
        if mode & 0o170000 == high & 0o170000:
            return kind, high
    return Kind.BLOB, MODE_EXECUTABLE if mode & 0o100 else MODE_BLOB


_WRITTEN = {
    b"%o" % mode: _normal(mode)
    for mode in (MODE_TREE, MODE_LINK, MODE_COMMIT, MODE_BLOB, MODE_EXECUTABLE)
}
_ROW = re.compile(rb"([0-7]+) ([^\0]+)\0(.{20})", re.DOTALL)


def _key(mode: bytes, name: bytes) -> bytes:
    """What git sorts a directory by."""
    return name + b"/" * (int(mode, 8) == MODE_TREE)


def _as_is(oid: ObjectId) -> ObjectId:
    return oid


def _tree_bytes(repository: pygit2.Repository, oid: bytes) -> bytes:
    kind, content = _raw(repository, ObjectId(oid.hex()))
    if kind != ObjectType.TREE:
        raise difference.Disordered
    return content


def _raw(repository: pygit2.Repository, oid: ObjectId) -> tuple[int, bytes]:
    """Kind and content of an object. libgit2 then neither parses it nor keeps it."""
    try:
        return repository.read(oid)
    except (KeyError, ValueError):
        raise MirrorMismatch(repository.path, f"lacks the object {oid}") from None
