"""Which paths differ between two trees of git objects, at the cost of what differs.

A folder of fifty thousand agents is one tree object of two megabytes, and a commit changes twenty
bytes of it. So the two objects are compared as bytes first, and only what lies between their equal
beginnings and their equal ends is taken apart. The format is git's own: mode, space, name, NUL and
20 bytes of object id for each entry (gitformat-pack(5), "tree"). libgit2's own comparison steps
through every entry of both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from reconciler.source.paths import UnsafePath
from reconciler.source.soundness import MOST_LEVELS, check_tree

Read = Callable[[bytes], bytes]
"""The content of a tree object by its id of 20 bytes."""

_ROW = re.compile(rb"([0-7]+) ([^\0]+)\0(.{20})", re.DOTALL)
_TREE = b"40000"
_OID = 20
MOST_DIRECTORIES = 500_000
"""That differ, each counted as often as it is reached."""


class Disordered(Exception):
    """Not as git writes directories, or too many of them: not to be compared so."""


Row = tuple[bytes, bytes]
"""(mode, object id)"""


def changed_paths(read: Read, old: bytes, new: bytes) -> Iterator[bytes]:
    """Paths of files, links and submodules that differ, in any order. Disordered."""
    yield from _between(read, old, new, b"", [MOST_DIRECTORIES])


def _between(read: Read, old: bytes, new: bytes, prefix: bytes, left: list[int]) -> Iterator[bytes]:
    if old == new:
        return
    left[0] -= 1
    if left[0] < 0 or prefix.count(b"/") > MOST_LEVELS:
        raise Disordered
    before, after = differing(read(old), read(new))
    for name in before.keys() | after.keys():
        one, two = before.get(name), after.get(name)
        if one == two:
            continue
        path = prefix + name
        if one and two and one[0] == two[0] == _TREE:
            yield from _between(read, one[1], two[1], path + b"/", left)
            continue
        for row in (one, two):
            if row is not None and row[0] == _TREE:
                yield from _whole(read, row[1], path)
            elif row is not None:
                yield path


def _whole(read: Read, tree: bytes, path: bytes) -> Iterator[bytes]:
    try:
        check_tree(read, tree)
    except UnsafePath:
        raise Disordered from None
    yield from _all(read, tree, path)


def _all(read: Read, tree: bytes, path: bytes) -> Iterator[bytes]:
    for mode, name, oid in _ROW.findall(read(tree)):
        here = path + b"/" + name
        if mode.lstrip(b"0") == _TREE:
            yield from _all(read, oid, here)
        else:
            yield here


def differing(old: bytes, new: bytes) -> tuple[dict[bytes, Row], dict[bytes, Row]]:
    """Entries by name of two tree objects, without most of those that both have."""
    equal = _common(old, new)
    last = start = 0
    while start < len(old) and (end := _end(old, start)) <= equal:
        last, start = start, end
    after = _common(old[start:][::-1], new[start:][::-1])
    stop = start
    while stop < len(old) - after:
        stop = _end(old, stop)
    halt = start
    while halt < len(new) - after:
        halt = _end(new, halt)
    # The equal ends may begin inside an entry: go on to where both have the same left.
    while len(old) - stop != len(new) - halt:
        if len(old) - stop > len(new) - halt:
            stop = _end(old, stop)
        else:
            halt = _end(new, halt)
    for raw, end in ((old, stop), (new, halt)):
        if not _in_order(raw[last : _end(raw, end)]):
            raise Disordered
    return _rows(old, start, stop), _rows(new, start, halt)


def _in_order(raw: bytes) -> bool:
    rows = _ROW.findall(raw)
    names = [name + b"/" * (mode.lstrip(b"0") == _TREE) for mode, name, _ in rows]
    sound = not any(b"/" in name for _, name, _ in rows)
    return sound and all(one < other for one, other in pairwise(names))


def _rows(raw: bytes, start: int, end: int) -> dict[bytes, Row]:
    # Some tools pad a mode: 040000 is a directory too.
    found = [(name, (mode.lstrip(b"0"), oid)) for mode, name, oid in _ROW.findall(raw, start, end)]
    return dict(found)


def _end(raw: bytes, start: int) -> int:
    """Where the entry that begins at `start` ends."""
    nul = raw.find(b"\0", start)
    return len(raw) if nul < 0 else nul + 1 + _OID


def _common(one: bytes, other: bytes) -> int:
    """Length of the common beginning, by halving: comparing slices is done in C."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
