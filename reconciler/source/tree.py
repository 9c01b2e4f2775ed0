"""A read-only view of one directory tree, wherever it comes from.

`compile` reads a config repo through this and nothing else. It never learns whether the bytes
come from a commit, a work directory (`interlock validate DIR`) or a test's dict, so that all
three give the same answer. It imports neither pygit2 nor anything else that takes time.

Paths are repo-relative, `/`-separated, with no leading slash; the root is `""`. A config repo is
input from people we may not trust, so paths are checked in both directions: what a caller asks
for and what a tree contains. A path with `..`, an empty or `.git` segment, or a control
character is refused with `UnsafePath`, and so is a symbolic link that leaves the tree.

Links inside the tree are followed by `read`, `exists`, `oid` and `entries`: the OID is then that
of the content that `read` would give. `entries` and `walk` report links as links. Beware: the
OID of a *directory* covers the text of the links in it, not what they point to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Protocol

from reconciler.source.objects import (
    MODE_BLOB,
    MODE_EXECUTABLE,
    MODE_LINK,
    MODE_TREE,
    ObjectId,
    blob_id,
    tree_id,
)
from reconciler.source.paths import (
    MissingPath,
    SourceTooLarge,
    UnsafePath,
    check_name,
    join_path,
    split_path,
)

__all__ = [
    "DirectoryTree",
    "Entry",
    "Kind",
    "LinkedTree",
    "MemoryTree",
    "MissingPath",
    "SourceTooLarge",
    "Tree",
    "UnsafePath",
    "changed_paths",
    "join_path",
]

MAX_LINKS = 40
"""As Linux: more links than this on one path is a loop."""
MOST_LEVELS = 100
MOST_DIRECTORIES = 100_000
"""Of one `walk`: a few tree objects that hold each other are more paths than anyone can list."""
MAX_TARGET = 4096
"""Bytes of a link's text; as Linux."""
MAX_BYTES = 16 * 1024 * 1024
"""A text of a config repo that is larger is a mistake; `read` says so instead of loading it."""


class Kind(StrEnum):
    """What an entry is, in git's words; `link` is a symbolic link, `commit` a submodule."""

    BLOB = "blob"
    TREE = "tree"
    LINK = "link"
    COMMIT = "commit"


@dataclass(frozen=True, eq=False)
class Entry:
    """One name in a directory. `oid` may be computed when first asked for (work directories)."""

    name: str
    kind: Kind
    mode: int
    oid_of: Callable[[], ObjectId] = field(repr=False)

    @property
    def oid(self) -> ObjectId:
        """Git's name of the content: blob, tree, link text or submodule commit."""
        return self.oid_of()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        same_face = (self.name, self.kind, self.mode) == (other.name, other.kind, other.mode)
        return same_face and self.oid == other.oid

    def __hash__(self) -> int:
        return hash((self.name, self.kind, self.mode))


class Tree(Protocol):
    """What `compile` may do with a config repo at one commit. Immutable; safe to keep."""

    def read(self, path: str, *, limit: int = MAX_BYTES) -> bytes:
        """Content of a file. MissingPath, UnsafePath, SourceTooLarge (over `limit` bytes)."""
        ...

    def exists(self, path: str) -> bool:
        """Whether anything is at `path`. UnsafePath; a dangling link does not exist."""
        ...

    def oid(self, path: str) -> ObjectId:
        """Git's OID of the file or directory at `path`; `""` gives the tree's own."""
        ...

    def file_oid(self, path: str) -> ObjectId:
        """As `oid`, of what `read` would give, and of nothing else. MissingPath, UnsafePath."""
        ...

    def entries(self, path: str = "", *, lenient: bool = False) -> tuple[Entry, ...]:
        """What a directory holds, by name. MissingPath if it is not a directory.

        UnsafePath for a name that must not be used; `lenient` leaves such names out.
        """
        ...

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """Every file, link and submodule below a directory: (path, entry), by path.

        Directories are not reported, links not followed. Nothing if there is no such directory.
        """
        ...


class LinkedTree:
    """The rules above, for every backing. A backing gives only what is at *physical* paths.

    Physical: no segment but the last is a link. All three raise MissingPath when not there.
    """

    def _children(self, path: str) -> Mapping[str, Entry]:
        """Entries of a real directory, by name."""
        raise MissingPath(path)

    def _child(self, directory: str, name: str) -> Entry | None:
        """One entry of a real directory; for backings that find one without listing all."""
        return self._children(directory).get(name)

    def _content(self, path: str, entry: Entry, limit: int) -> bytes:
        """Bytes of a real file, or text of a link."""
        raise MissingPath(path)

    def _root(self) -> ObjectId:
        """OID of the whole tree."""
        raise MissingPath("")

    def _changed_since(self, old: Tree) -> set[str] | None:
        """As `changed_paths`, where a backing has a faster way; else None."""
        return None

    def _find(self, path: str) -> tuple[str, Entry | None]:
        """Follow links to (physical path, entry); entry is None for the root."""
        todo = list(reversed(split_path(path)))
        done: list[str] = []
        entry: Entry | None = None
        links = 0
        while todo:
            name = todo.pop()
            if name == "..":  # only ever from a link's text, where it is legitimate
                if not done:
                    raise UnsafePath(path, "a symbolic link leads out of the repository")
                done.pop()
                entry = None
                continue
            if entry is not None and entry.kind is not Kind.TREE:
                raise MissingPath(path, f"{'/'.join(done)} is not a directory")
            entry = self._child("/".join(done), name)
            if entry is None:
                raise MissingPath(path)
            if entry.kind is not Kind.LINK:
                done.append(name)
                continue
            links += 1
            if links > MAX_LINKS:
                raise UnsafePath(path, "symbolic links form a loop")
            here = "/".join([*done, name])
            todo.extend(reversed(self._link_segments(here, entry)))
            entry = None
        if entry is None and done:  # the last step was a link's `..`
            entry = self._child("/".join(done[:-1]), done[-1])
        return "/".join(done), entry

    def _link_segments(self, path: str, entry: Entry) -> list[str]:
        try:
            raw = self._content(path, entry, MAX_TARGET)
        except SourceTooLarge:
            raise UnsafePath(path, "a symbolic link leads to a path that is too long") from None
        target = raw.decode("utf-8", "surrogateescape")
        if target.startswith("/"):
            raise UnsafePath(path, "a symbolic link to an absolute path leads out of the tree")
        segments = [part for part in target.split("/") if part not in ("", ".")]
        for part in segments:
            if part != "..":
                check_name(part, path)
        return segments

    def read(self, path: str, *, limit: int = MAX_BYTES) -> bytes:
        physical, entry = self._file(path)
        return self._content(physical, entry, limit)

    def file_oid(self, path: str) -> ObjectId:
        return self._file(path)[1].oid

    def _file(self, path: str) -> tuple[str, Entry]:
        physical, entry = self._find(path)
        if entry is None or entry.kind is Kind.TREE:
            raise MissingPath(path, "is a directory, not a file")
        if entry.kind is Kind.COMMIT:
            raise MissingPath(path, "is a submodule; its files are not part of this repository")
        return physical, entry

    def exists(self, path: str) -> bool:
        try:
            self._find(path)
        except MissingPath:
            return False
        return True

    def oid(self, path: str) -> ObjectId:
        _, entry = self._find(path)
        return self._root() if entry is None else entry.oid

    def entries(self, path: str = "", *, lenient: bool = False) -> tuple[Entry, ...]:
        physical, entry = self._find(path)
        if entry is not None and entry.kind is not Kind.TREE:
            raise MissingPath(path, "is a file, not a directory")
        return self._sorted(physical, lenient=lenient)

    def _sorted(self, physical: str, *, lenient: bool = False) -> tuple[Entry, ...]:
        children = self._children(physical)
        found = []
        for name in sorted(children):
            try:
                check_name(name, f"{physical}/{name}" if physical else name)
            except UnsafePath:
                if not lenient:
                    raise
            else:
                found.append(children[name])
        return tuple(found)

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        try:
            physical, entry = self._find(prefix)
        except MissingPath:
            return
        if entry is None or entry.kind is Kind.TREE:
            yield from self._walk(prefix, physical)

    def _walk(self, shown: str, physical: str) -> Iterator[tuple[str, Entry]]:
        todo = [(shown, physical, iter(self._sorted(physical)))]
        directories = 0
        while todo:
            shown, physical, entries = todo[-1]
            entry = next(entries, None)
            if entry is None:
                todo.pop()
                continue
            path = f"{shown}/{entry.name}" if shown else entry.name
            if entry.kind is not Kind.TREE:
                yield path, entry
                continue
            directories += 1
            if directories > MOST_DIRECTORIES or len(todo) > MOST_LEVELS:
                raise UnsafePath(path, "there are too many directories, or they are too deep")
            below = f"{physical}/{entry.name}" if physical else entry.name
            todo.append((path, below, iter(self._sorted(below))))


class MemoryTree(LinkedTree):
    """A tree from a dict of path → content, with the OIDs git would give. For tests and demos.

    `links` adds symbolic links: path → target text.
    """

    def __init__(self, files: Mapping[str, bytes], *, links: Mapping[str, str] | None = None):
        self._contents: dict[str, bytes] = {}
        self._directories: dict[str, dict[str, Entry]] = {"": {}}
        for path, content in files.items():
            self._add(path, content, Kind.BLOB, MODE_BLOB)
        for path, target in (links or {}).items():
            self._add(path, target.encode(), Kind.LINK, MODE_LINK)

    def _add(self, path: str, content: bytes, kind: Kind, mode: int) -> None:
        segments = split_path(path)
        parent = ""
        for name in segments[:-1]:
            child = f"{parent}/{name}" if parent else name
            if child in self._contents:
                raise UnsafePath(path, f"{child} is a file, not a directory")
            if child not in self._directories:
                self._directories[child] = {}
                self._directories[parent][name] = Entry(
                    name, Kind.TREE, MODE_TREE, partial(self._tree_oid, child)
                )
            parent = child
        if path in self._directories:
            raise UnsafePath(path, "is a directory and a file")
        oid = blob_id(content)
        self._contents[path] = content
        self._directories[parent][segments[-1]] = Entry(segments[-1], kind, mode, lambda: oid)

    def _tree_oid(self, path: str) -> ObjectId:
        return tree_id((e.name, e.mode, e.oid) for e in self._directories[path].values())

    def _children(self, path: str) -> Mapping[str, Entry]:
        try:
            return self._directories[path]
        except KeyError:
            raise MissingPath(path) from None

    def _content(self, path: str, entry: Entry, limit: int) -> bytes:
        content = self._contents[path]
        if len(content) > limit:
            raise SourceTooLarge(path, len(content), limit)
        return content

    def _root(self) -> ObjectId:
        return self._tree_oid("")


class DirectoryTree(LinkedTree):
    """A work directory as git would commit it, read lazily and never beyond its root.

    Every file counts except `.git`; ignore rules, attributes and filters are not applied, empty
    directories, sockets and devices are left out, as git does. OIDs are computed when asked for.
    A file that changes while being validated may be seen in either state.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise MissingPath(str(root), "is not a directory")
        self._listed: dict[str, dict[str, Entry]] = {}
        self._oids: dict[str, ObjectId] = {}

    def _children(self, path: str) -> Mapping[str, Entry]:
        listed = self._listed.get(path)
        if listed is None:
            listed = self._listed[path] = self._list(path)
        return listed

    def _list(self, path: str) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        if path:  # a link here, or above, may lead anywhere: the file system must not follow it
            parent, _, name = path.rpartition("/")
            entry = self._child(parent, name)
            if entry is None or entry.kind is not Kind.TREE:
                raise MissingPath(path)
        try:
            with os.scandir(self.root / path) as scan:
                rows = list(scan)
        except (FileNotFoundError, NotADirectoryError):
            raise MissingPath(path) from None
        for row in rows:
            if row.name == ".git":
                continue
            here = f"{path}/{row.name}" if path else row.name
            mode = row.stat(follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                kind, git_mode = Kind.LINK, MODE_LINK
            elif stat.S_ISREG(mode):
                kind, git_mode = Kind.BLOB, MODE_EXECUTABLE if mode & 0o100 else MODE_BLOB
            elif stat.S_ISDIR(mode):
                if not self._holds_anything(Path(row.path)):
                    continue
                kind, git_mode = Kind.TREE, MODE_TREE
            else:
                continue
            found[row.name] = Entry(row.name, kind, git_mode, partial(self._hash, here, kind))
        return found

    @staticmethod
    def _holds_anything(directory: Path) -> bool:
        for _, folders, files in os.walk(directory):
            if files or any((directory / name).is_symlink() for name in folders):
                return True
        return False

    def _hash(self, path: str, kind: Kind) -> ObjectId:
        known = self._oids.get(path)
        if known is None:
            if kind is Kind.TREE:
                known = tree_id((e.name, e.mode, e.oid) for e in self._children(path).values())
            else:
                known = blob_id(self._bytes(path, kind))
            self._oids[path] = known
        return known

    def _bytes(self, path: str, kind: Kind) -> bytes:
        place = self.root / path
        if kind is Kind.LINK:
            return os.fsencode(place.readlink())
        # O_NOFOLLOW: the file must not have become a link since it was listed.
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            return file.read()

    def _content(self, path: str, entry: Entry, limit: int) -> bytes:
        size = (self.root / path).lstat().st_size
        if size > limit:
            raise SourceTooLarge(path, size, limit)
        return self._bytes(path, entry.kind)

    def _root(self) -> ObjectId:
        return tree_id((e.name, e.mode, e.oid) for e in self._children("").values())


def changed_paths(old: Tree | None, new: Tree | None) -> tuple[str, ...]:
    """Files, links and submodules that differ, sorted; None is the empty tree.

    Goes down only where two OIDs differ, so the cost follows the change and not the repository.
    A change of mode alone counts.
    """
    known = new._changed_since(old) if isinstance(new, LinkedTree) and old is not None else None
    return tuple(sorted(_changed(old, new, "") if known is None else known))


def _changed(old: Tree | None, new: Tree | None, path: str) -> Iterator[str]:
    before = {e.name: e for e in old.entries(path)} if old else {}
    after = {e.name: e for e in new.entries(path)} if new else {}
    for name in before.keys() | after.keys():
        one, two = before.get(name), after.get(name)
        if one is not None and two is not None and one.mode == two.mode and one.oid == two.oid:
            continue
        here = f"{path}/{name}" if path else name
        one_tree = one is not None and one.kind is Kind.TREE
        two_tree = two is not None and two.kind is Kind.TREE
        if one_tree or two_tree:
            yield from _changed(old if one_tree else None, new if two_tree else None, here)
        if (one is not None and not one_tree) or (two is not None and not two_tree):
            yield here
