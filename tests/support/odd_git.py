"""Tree objects as no work directory and no `git add` makes them, written into a real repository."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pygit2

from reconciler.source.mirror import GitTree
from reconciler.source.objects import ObjectId, TreeId
from tests.support.mutations import Repository

Rows = list[tuple[bytes, bytes, bytes]]
"""(mode, name, object id) of a tree object, in the order in which they are written."""


class Odd:
    """A bare repository into which objects are written as they are given."""

    def __init__(self, bare: Path) -> None:
        self.bare = bare
        self.repository = pygit2.init_repository(bare, bare=True, initial_head="main")
        self.known: dict[bytes, bytes] = {}

    def tree(self, rows: Rows) -> bytes:
        raw = b"".join(mode + b" " + name + b"\0" + oid for mode, name, oid in rows)
        made = self.repository.write(pygit2.enums.ObjectType.TREE, raw)
        return bytes.fromhex(str(made))

    def blob(self, content: bytes) -> bytes:
        if content not in self.known:
            self.known[content] = bytes.fromhex(str(self.repository.create_blob(content)))
        return self.known[content]

    def rows(self, things: Repository) -> Rows:
        """The entries of a tree that is as it should be."""
        here: dict[str, dict[str, object]] = {}
        found: Rows = []
        for path, thing in things.items():
            name, _, rest = path.partition("/")
            if rest:
                here.setdefault(name, {})[rest] = thing
            else:
                found.append((b"%o" % thing.mode, name.encode(), self.blob(thing.content)))
        for name, below in here.items():
            found.append((b"40000", name.encode(), self.tree(self.rows(below))))  # type: ignore[arg-type]
        return sorted(found, key=lambda row: row[1] + b"/" * (row[0] == b"40000"))

    def commit(self, rows: Rows, branch: str = "main", *, base: str | None = None) -> None:
        """A commit on a branch: after its last one, or the first after that of another branch."""
        tree = pygit2.Oid(raw=self.tree(rows))
        who = pygit2.Signature("a", "a@b", 1_700_000_000, 0)
        name = f"refs/heads/{branch}"
        heads = self.repository.references
        before = next((n for n in (name, f"refs/heads/{base}") if n in heads), None)
        parents = [heads[before].target] if before is not None else []
        self.repository.create_commit(name, who, who, "x", tree, parents)

    def of(self, rows: Rows) -> GitTree:
        return GitTree(lambda: self.repository, TreeId(ObjectId(self.tree(rows).hex())))


Change = Callable[[Odd, Rows], Rows]


def _more(mode: bytes, name: bytes, content: bytes = b"x: 1\n") -> Change:
    def change(odd: Odd, rows: Rows) -> Rows:
        if mode in (b"40000", b"040000"):
            oid = odd.tree([(b"100644", b"agent.yaml", odd.blob(content))])
        elif mode == b"160000":
            oid = b"\x11" * 20
        else:
            oid = odd.blob(content)
        return sorted([*rows, (mode, name, oid)], key=lambda row: row[1])

    return change


def _other(odd: Odd, mode: bytes, name: bytes) -> tuple[bytes, bytes, bytes]:
    return mode, name, odd.tree([]) if mode == b"40000" else odd.blob(b"other\n")


def _modes(mode: bytes, *, of: bytes | None = None) -> Change:
    """Every entry, or those of one mode, gets a mode."""
    return lambda _, rows: [(mode if of in (None, row[0]) else row[0], *row[1:]) for row in rows]


ROWS: Mapping[str, Change] = {
    "twice": lambda _, rows: sorted([*rows, *rows], key=lambda row: row[1]),
    "twice with other content": lambda odd, rows: sorted(
        [*rows, *(_other(odd, mode, name) for mode, name, _ in rows)], key=lambda row: row[1]
    ),
    "backwards": lambda _, rows: rows[::-1],
    "nothing": lambda _, __: [],
    "folders with a padded mode": _modes(b"040000", of=b"40000"),
    "mode 0": _modes(b"0"),
    "mode 777": _modes(b"100777", of=b"100644"),
    "group writable": _modes(b"100664", of=b"100644"),
    "all links": _modes(b"120000", of=b"100644"),
    "all submodules": _modes(b"160000"),
    "folders called files": _modes(b"100644"),
    "files called folders": _modes(b"40000"),
    "folders called links": _modes(b"120000"),
    ".git": _more(b"40000", b".git"),
    ".GIT": _more(b"40000", b".GIT"),
    ".git file": _more(b"100644", b".git"),
    "..": _more(b"40000", b".."),
    ".": _more(b"40000", b"."),
    "slash": _more(b"100644", b"agents/evil.yaml"),
    "absolute": _more(b"100644", b"/etc/passwd"),
    "line feed": _more(b"100644", b"a\nb.yaml"),
    "not utf-8": _more(b"100644", b"caf\xe9.yaml"),
    "folder not utf-8": _more(b"40000", b"caf\xe9"),
    "long": _more(b"40000", b"n" * 5000),
    "submodule": _more(b"160000", b"module"),
    "link out": _more(b"120000", b"out", b"../../../../etc/passwd"),
    "link not utf-8": _more(b"120000", b"out", b"\xff\xfe"),
    "empty link": _more(b"120000", b"out", b""),
    "long link": _more(b"120000", b"out", b"a/" * 5000),
    "link of five megabytes": _more(b"120000", b"out", b"a" * 5_000_000),
    "composed and decomposed": _more(b"40000", "cafe\u0301".encode()),
}  # fmt: skip


def spoiled(odd: Odd, whole: Repository, place: str, change: Change) -> Rows:
    """A repository, with the entries of one of its folders changed."""

    def at(things: Repository, left: str) -> Rows:
        rows = odd.rows(things)
        if not left:
            return change(odd, rows)
        name, _, rest = left.partition("/")
        below = {
            p.removeprefix(f"{name}/"): t for p, t in things.items() if p.startswith(f"{name}/")
        }
        made = odd.tree(at(below, rest))
        return [(m, n, made if n == name.encode() else oid) for m, n, oid in rows]

    return at(whole, place)
