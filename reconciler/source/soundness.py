"""Whether the directories of a commit are such as git itself would write.

A server stores what is pushed, and checks it only when told to (`transfer.fsckObjects`). libgit2
trusts what is stored: of a directory whose entries are out of order or there twice, its merge reads
memory that is not its own, and a few small objects that name each other ten times on twelve levels
are more paths than anyone can list (a "git bomb"). So whoever merges asks here first.
The format: gitformat-pack(5), "tree".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from reconciler.source.paths import UnsafePath, check_name

MOST_PATHS = 2_000_000
"""Files and directories of one tree, each counted as often as it is reached."""
MOST_LEVELS = 100

_ROW = re.compile(rb"([0-7]{1,6}) ([^\0]+)\0(.{20})", re.DOTALL)
_TREE = b"40000"

_MODES = frozenset((_TREE, b"100644", b"100664", b"100755", b"120000", b"160000"))
"""The second was written by git before 1.5."""

Read = Callable[[bytes], bytes]
"""The content of a tree object by its id of 20 bytes. Raises for what is none."""


def check_tree(read: Read, root: bytes, *, trusted: frozenset[bytes] = frozenset()) -> None:
    """UnsafePath, with the reason, unless everything below `root` is as git would write it.

    Every object is read once. `trusted` are directories that are not looked into.
    """
    _Check(read, trusted).weight(root, "", 0)


def directories(read: Read, root: bytes) -> frozenset[bytes]:
    """The ids of the directories at the top of a tree and of those right below them."""
    top = {oid for mode, _, oid in _ROW.findall(read(root)) if mode.lstrip(b"0") == _TREE}
    below = {
        oid for one in top for mode, _, oid in _ROW.findall(read(one)) if mode.lstrip(b"0") == _TREE
    }
    return frozenset(top | below)


class _Check:
    def __init__(self, read: Read, trusted: frozenset[bytes]) -> None:
        self.read = read
        self.known: dict[bytes, int] = dict.fromkeys(trusted, 1)

    def weight(self, tree: bytes, path: str, level: int) -> int:
        """Number of paths in a directory. UnsafePath."""
        known = self.known.get(tree)
        if known is not None:
            return known
        if level > MOST_LEVELS:
            raise UnsafePath(path, f"directories are nested more than {MOST_LEVELS} levels deep")
        raw = self.read(tree)
        rows = _ROW.findall(raw)
        if sum(len(mode) + len(name) + 22 for mode, name, _ in rows) != len(raw):
            raise UnsafePath(path, "the directory cannot be read")
        names = [name for _, name, _ in rows]
        keys = [name + b"/" * (mode.lstrip(b"0") == _TREE) for mode, name, _ in rows]
        if len(set(names)) != len(names):
            raise UnsafePath(path, "two entries of the directory have one name")
        if any(one > other for one, other in pairwise(keys)):
            raise UnsafePath(path, "the directory's entries are not in git's order")
        total = 1
        for mode, raw_name, oid in rows:
            name = raw_name.decode("utf-8", "surrogateescape")
            here = f"{path}/{name}" if path else name
            check_name(name, here)
            if mode.lstrip(b"0") not in _MODES:
                raise UnsafePath(here, f"mode {mode.decode()} is not one of git's")
            total += self.weight(oid, here, level + 1) if mode.lstrip(b"0") == _TREE else 1
            if total > MOST_PATHS:
                raise UnsafePath(here, f"there are more than {MOST_PATHS:,} paths")
        self.known[tree] = total
        return total
