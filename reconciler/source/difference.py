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

Read = Callable[[bytes], bytes]
"""The content of a tree object by its id of 20 bytes."""

_ROW = re.compile(rb"([0-7]+) ([^\0]+)\0(.{20})", re.DOTALL)
_TREE = b"40000"
_OID = 20

Row = tuple[bytes, bytes]
"""(mode, object id)"""


def changed_paths(read: Read, old: bytes, new: bytes) -> Iterator[bytes]:
    """Paths of files, links and submodules that differ, in any order."""
    yield from _between(read, old, new, b"")


def _between(read: Read, old: bytes, new: bytes, prefix: bytes) -> Iterator[bytes]:
    if old == new:
        return
    before, after = differing(read(old), read(new))
    for name in before.keys() | after.keys():
        one, two = before.get(name), after.get(name)
        if one == two:
            continue
        path = prefix + name
        if one and two and one[0] == two[0] == _TREE:
            yield from _between(read, one[1], two[1], path + b"/")
            continue
        for row in (one, two):
            if row is not None:
                yield from _all(read, row, path)


def _all(read: Read, row: Row, path: bytes) -> Iterator[bytes]:
    if row[0] != _TREE:
        yield path
        return
    for mode, name, oid in _ROW.findall(read(row[1])):
        yield from _all(read, (mode, oid), path + b"/" + name)


def differing(old: bytes, new: bytes) -> tuple[dict[bytes, Row], dict[bytes, Row]]:
    """Entries by name of two tree objects, without most of those that both have."""
    equal = _common(old, new)
    start = 0
    while start < len(old) and (end := _end(old, start)) <= equal:
        start = end
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
    return _rows(old, start, stop), _rows(new, start, halt)


def _rows(raw: bytes, start: int, end: int) -> dict[bytes, Row]:
    return {name: (mode, oid) for mode, name, oid in _ROW.findall(raw, start, end)}


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
