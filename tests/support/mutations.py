"""Config repos made wrong: what people mistype, what tools mangle, what an attacker would send.

A repository is a dict of path → `Thing`, so that a tree can hold what no work directory can: names
with line feeds, `..` and `.git` folders, links to nowhere, submodules. `mutations` draws ways to
spoil one, at every level: bytes, YAML, references, the tree itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial

import yaml
from hypothesis import strategies as st

from reconciler.source.objects import (
    MODE_BLOB,
    MODE_COMMIT,
    MODE_EXECUTABLE,
    MODE_LINK,
    MODE_TREE,
    ObjectId,
    blob_id,
    tree_id,
)
from reconciler.source.tree import Entry, Kind, LinkedTree, MissingPath, SourceTooLarge

KINDS = {
    MODE_BLOB: Kind.BLOB,
    MODE_EXECUTABLE: Kind.BLOB,
    MODE_LINK: Kind.LINK,
    MODE_COMMIT: Kind.COMMIT,
}


@dataclass(frozen=True, slots=True)
class Thing:
    """What stands at a path: content (or a link's text), and git's mode."""

    content: bytes
    mode: int = MODE_BLOB


Repository = Mapping[str, Thing]
"""Path → what is there. Nothing is checked."""


def repository(files: Mapping[str, str | bytes]) -> dict[str, Thing]:
    """Plain files."""
    return {p: Thing(c.encode() if isinstance(c, str) else c) for p, c in files.items()}


class OddTree(LinkedTree):
    """A tree from a repository, whatever its names are. A file hides what would be below it."""

    def __init__(self, things: Repository) -> None:
        self._things: dict[str, Thing] = {}
        self._directories: dict[str, dict[str, Entry]] = {"": {}}
        for path in sorted(things):
            self._add(path, things[path])

    def _add(self, path: str, thing: Thing) -> None:
        *above, last = path.split("/")
        parent = ""
        for name in above:
            child = f"{parent}/{name}" if parent else name
            if child in self._things:
                return
            if child not in self._directories:
                self._directories[child] = {}
                oid = partial(self._tree_oid, child)
                self._directories[parent][name] = Entry(name, Kind.TREE, MODE_TREE, oid)
            parent = child
        if path in self._directories:
            return
        self._things[path] = thing
        name_of = cache(partial(_oid_of, thing))
        self._directories[parent][last] = Entry(last, KINDS[thing.mode], thing.mode, name_of)

    def _tree_oid(self, path: str) -> ObjectId:
        return tree_id((e.name, e.mode, e.oid) for e in self._directories[path].values())

    def _children(self, path: str) -> Mapping[str, Entry]:
        if path not in self._directories:
            raise MissingPath(path)
        return self._directories[path]

    def _content(self, path: str, entry: Entry, limit: int) -> bytes:
        content = self._things[path].content
        if len(content) > limit:
            raise SourceTooLarge(path, len(content), limit)
        return content

    def _root(self) -> ObjectId:
        return self._tree_oid("")


def _oid_of(thing: Thing) -> ObjectId:
    return ObjectId("1" * 40) if thing.mode == MODE_COMMIT else blob_id(thing.content)


# --- what is put where something else should be

NAMES = (
    "", " ", ".", "..", ".git", ".GIT", "-", "--help", "*", "main", "caf\u00e9", "cafe\u0301",
    "a\nb", "a\tb", "\x1b[2J\x1b[H", "\x7f", "\x9b31m", "a\u202eb", "a\u2066b", "a\u2028b",
    "a\x85b", "\u200b", "\ufeff", "\U000e0041", "<script>alert(1)</script>", "@everyone", "`rm`",
    "](javascript:alert(1))", "| a | b |", "${HOME}", "$(id)", "{{7*7}}", "%s%n", "a\\b", "a/b",
    "../../etc/passwd", "/etc/passwd", "n" * 300, "\U0001f6a6", "TRIAGE", "triage ", "null", "on",
)  # fmt: skip
REFERENCES = (
    "../../etc/passwd", "../../../../../../../../etc/passwd", "/etc/passwd", "./", ".", "..", "",
    "../..", "./triage.md@v0", "./triage.md@v2", "./triage.md@v999999999", "./triage.md@v1e3",
    "./triage.md@" + "ab" * 20, "./triage.md@" + "AB" * 20, "./triage.md@", "@v1", "@@", "./@v1",
    "python@v1", "python@v7", "python@" + "0" * 40, "../../.git/config", ".git/HEAD",
    "./evals", "./evals/cases/*.yaml", "**", "[", "./\x00", "./a\nb.md", "./agent.yaml",
    "../../interlock.lock", "../../skills/python", "file:///etc/passwd", "http://169.254.169.254/",
    "C:\\Windows\\win.ini", "~/.ssh/id_rsa", "${HOME}/x", "x" * 5000, "./" * 2000 + "triage.md",
    "./triage.md\n", " ./triage.md", "*/" * 200, "(a+)+$", "a" * 30 + "{1,9999}{1,9999}",
)  # fmt: skip
NUMBERS = (
    "0", "-0", "-1", "1_0", "9" * 25, "9" * 31, "9" * 400, "1e9", "1e999999999", "0.1", "-.5",
    "1" + "0" * 28, "." + "0" * 29 + "1", "0x7fffffffffffffff", "0o17", "017", ".inf", "-.inf",
    ".nan", "true", "no", "~", "12:30:45", "2026-11-21", "1h30m", "99999999999h", "-5m", "1.5g",
    "999999999999t", "0m", "\u0663", "\u00b2", "1__0",
)  # fmt: skip
SCALARS = (*NAMES, *REFERENCES, *NUMBERS)
LINKS = (
    "/etc/passwd", "../../../../../../etc", "..", ".", "../..", "", "triage.md", "agent.yaml",
    "../.git/config", ".git", "a\nb", "missing", "./../agents/../agents/triage", "\udcff", "/",
    "../../interlock.yaml", "../triage", "x" * 5000, "a/" * 3000,
)  # fmt: skip

_LAUGHS = "a0: &a0 [l, l, l, l, l, l, l, l, l, l]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
TEXTS: Mapping[str, bytes] = {
    "billion laughs": _LAUGHS.encode(),
    "quadratic aliases": (b"a: &a [" + b"1, " * 4000 + b"]\nb: [" + b"*a, " * 4000 + b"]\n"),
    "alias within itself": b"agent: &a {name: triage, more: *a}\n",
    "unknown alias": b"agent: *nobody\n",
    "anchors": b"agent: &x {name: &n triage, team: *n}\n",
    "merge": b"x: &x {name: triage}\nagent: {<<: *x}\n",
    "deep lists": b"agent: " + b"[" * 50_000,
    "deep maps": b"agent: " + b"{a: " * 20_000 + b"1" + b"}" * 20_000,
    "deep blocks": "".join(f"{' ' * n}a:\n" for n in range(1500)).encode(),
    "wide": b"agent:\n" + b"".join(b"  k%d: 1\n" % n for n in range(4_000)),
    "python tag": b"agent: !!python/object/apply:os.system [id]\n",
    "tags": b"%TAG ! tag:x,2000:\n---\nagent: !secret {name: !!binary aGk=}\n",
    "directive": b"%YAML 9.9\n---\nagent: {}\n",
    "two documents": b"agent: {name: a}\n---\nagent: {name: b}\n",
    "only separators": b"---\n---\n...\n",
    "tab": b"agent:\n\tname: triage\n",
    "nul": b"agent: {name: tri\x00age}\n",
    "nul escaped": b'agent: {name: "tri\\0age", team: "\\x1b[2J", model: "\\u202e"}\n',
    "surrogate escaped": b'agent: {name: "\\ud800"}\n',
    "utf-16": "agent: {name: triage}\n".encode("utf-16"),
    "utf-16 without a mark": "agent: {name: triage}\n".encode("utf-16-be"),
    "utf-32": "agent: {name: triage}\n".encode("utf-32"),
    "latin-1": "agent: {name: caf\u00e9}\n".encode("latin-1"),
    "overlong": b"agent: {name: \xc0\xaf}\n",
    "surrogate": b"agent: {name: \xed\xa0\x80}\n",
    "bidi": "agent: {name: a\u202egairt}\n".encode(),
    "hidden line": "# a comment\u2028agent: {name: triage}\n".encode(),
    "next line": "# a comment\x85agent: {name: triage}\n".encode(),
    "long line": b"agent: {name: " + b"n" * 900_000 + b"}\n",
    "long key": b"agent: {" + b"k" * 900_000 + b": 1}\n",
    "long unfinished": b'agent: {name: "' + b"n" * 900_000,
    "one megabyte": b"# " + b"x" * 1_048_574,
    "five megabytes": b"# " + b"x" * 5_000_000,
    "five megabytes of lists": b"- [a]\n" * 833_333,
    "empty": b"",
    "blank": b" \n\n",
    "question": b"? {a: b}\n: c\n? [x]\n",
    "percent": b"%",
    "number": b"42\n",
    "many quotes": b"'" * 999,
    "front matter without end": b"---\nname: python\n",
    "front matter bomb": b"---\n" + _LAUGHS.encode() + b"---\nText.\n",
    "front matter list": b"---\n- 1\n---\nText.\n",
    "front matter tag": b"---\nversion: !!python/name:os.system x\n---\nText.\n",
    "front matter number": b"---\nversion: " + b"9" * 4000 + b"\n---\nText.\n",
    "front matter of names": b'---\nname: "\\x1b[2J"\ndescription: "a\\u202eb"\n---\nText.\n',
    "every control": bytes(range(256)),
    "codeowners": b"* @everyone\n[x\n/agents/ @a/b \x1b[2J\n!x @i\n" + b"**/" * 2000 + b" @a\n",
}  # fmt: skip


PIECES = (
    b"\x00",
    b"\xff",
    b"{",
    b"]",
    b"&a ",
    b"*a",
    b"!",
    b"'",
    b": ",
    b"\n- ",
    b"\t",
    b"#",
    b"|\n",
)

# --- ways to spoil

Spoil = Callable[[dict[str, Thing]], None]


@dataclass(frozen=True)
class Mutation:
    """One way to spoil a repository. `said` describes it, for whoever reads a failure."""

    said: str
    spoil: Spoil = field(repr=False)

    def __repr__(self) -> str:
        return self.said

    def of(self, things: Repository) -> dict[str, Thing]:
        """The repository spoiled."""
        spoiled = dict(things)
        self.spoil(spoiled)
        return spoiled


def mutations(base: Repository) -> st.SearchStrategy[Mutation]:
    """One way to spoil this repository, or two at once."""
    one = _one(base)
    return st.one_of(one, one, one, st.builds(_both, one, one))


def _both(one: Mutation, other: Mutation) -> Mutation:
    def spoil(things: dict[str, Thing]) -> None:
        one.spoil(things)
        other.spoil(things)

    return Mutation(f"{one}, and {other}", spoil)


def _one(base: Repository) -> st.SearchStrategy[Mutation]:
    """Documents are spoiled more often than what they refer to."""
    documents = sorted(p for p in base if p.endswith((".yaml", ".lock")) and "/cases/" not in p)
    texts = sorted(p for p in base if p.endswith(".md"))
    everything = sorted(p for p in base if not p.endswith(".py") and "/cases/" not in p)
    everything += [p for p in sorted(base) if "/cases/" in p][:2]
    shape = st.sampled_from(documents)
    some = st.one_of(
        shape, shape, st.sampled_from(texts or everything), st.sampled_from(everything)
    )
    seeds = st.integers(0, 2**32)
    return st.one_of(
        st.builds(_of_yaml, shape, seeds),
        st.builds(_of_yaml, shape, seeds),
        st.builds(_of_bytes, some, seeds),
        st.builds(_of_text, some, st.sampled_from(sorted(TEXTS))),
        st.builds(_appended, some, st.sampled_from(sorted(TEXTS))),
        st.builds(_cut, some, st.integers(0, 700)),
        st.builds(_spliced, some, some, st.integers(0, 700), st.integers(0, 700)),
        st.builds(_rewritten, some, st.sampled_from(sorted(REWRITES))),
        st.builds(_turned, _places(base), st.sampled_from(sorted(TURNS)), seeds),
        st.builds(_named, _places(base), st.sampled_from(NAMES)),
    )


def _places(base: Repository) -> st.SearchStrategy[str]:
    folders = {path.rsplit("/", n)[0] for path in base for n in range(path.count("/") + 1)}
    found = [p for p in folders | base.keys() if "/cases/" not in p and not p.endswith(".py")]
    return st.sampled_from(sorted(found))


def _content(path: str, change: Callable[[bytes], bytes]) -> Spoil:
    def spoil(things: dict[str, Thing]) -> None:
        if path in things:
            things[path] = Thing(change(things[path].content), things[path].mode)

    return spoil


def _of_text(path: str, name: str) -> Mutation:
    return Mutation(f"{path} becomes {name!r}", _content(path, lambda _: TEXTS[name]))


def _appended(path: str, name: str) -> Mutation:
    return Mutation(f"{name!r} after {path}", _content(path, lambda old: old + TEXTS[name]))


def _cut(path: str, at: int) -> Mutation:
    return Mutation(f"{path} ends at byte {at}", _content(path, lambda old: old[:at]))


def _spliced(one: str, other: str, at: int, start: int) -> Mutation:
    def spoil(things: dict[str, Thing]) -> None:
        if one in things and other in things:
            made = things[one].content[:at] + things[other].content[start:]
            things[one] = Thing(made, things[one].mode)

    return Mutation(f"{one}[:{at}] + {other}[{start}:]", spoil)


REWRITES: Mapping[str, Callable[[bytes], bytes]] = {
    "crlf": lambda old: old.replace(b"\n", b"\r\n"),
    "cr": lambda old: old.replace(b"\n", b"\r"),
    "byte order mark": lambda old: b"\xef\xbb\xbf" + old,
    "two byte order marks": lambda old: b"\xef\xbb\xbf\xef\xbb\xbf" + old,
    "utf-16": lambda old: old.decode(errors="replace").encode("utf-16"),
    "latin-1": lambda old: old.decode(errors="replace").encode("latin-1", "replace") + b"# \xe9\n",
    "tabs": lambda old: old.replace(b"  ", b"\t"),
    "without line feeds": lambda old: old.replace(b"\n", b" "),
    "line separators": lambda old: old.replace(b"\n", "\u2028".encode()),
    "next lines": lambda old: old.replace(b"\n", "\x85".encode()),
    "twice": lambda old: old + old,
    "thousands of times": lambda old: old * (1_500_000 // max(1, len(old))),
    "backwards": lambda old: old[::-1],
    "in quotes": lambda old: b'"' + old + b'"',
    "indented": lambda old: b" " + old.replace(b"\n", b"\n "),
    "upper case": lambda old: old.upper(),
    "nul at the end": lambda old: old + b"\x00",
}


def _rewritten(path: str, name: str) -> Mutation:
    return Mutation(f"{path} {name}", _content(path, REWRITES[name]))


def _of_bytes(path: str, seed: int) -> Mutation:
    def change(old: bytes) -> bytes:
        draw = random.Random(seed)
        made = bytearray(old)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(made) + 1)
            kind = draw.randrange(4)
            if kind == 0:
                made[at:at] = draw.choice(PIECES)
            elif kind == 1:
                made[at : at + 1] = bytes([draw.randrange(256)])
            elif kind == 2:
                del made[at : at + draw.randint(1, 12)]
            else:
                start = draw.randrange(len(made) + 1)
                made[at:at] = made[start : start + draw.randint(1, 60)]
        return bytes(made)

    return Mutation(f"bytes of {path} (seed {seed})", _content(path, change))


def _of_yaml(path: str, seed: int) -> Mutation:
    def change(old: bytes) -> bytes:
        try:
            root = yaml.compose(old.decode(), Loader=yaml.CSafeLoader)
        except (yaml.YAMLError, UnicodeDecodeError):
            return old
        if root is None:
            return old
        draw = random.Random(seed)
        for _ in range(draw.choice([1, 1, 1, 2, 5])):
            _bend(root, draw)
        return _written(root)

    return Mutation(f"YAML of {path} (seed {seed})", _content(path, change))


def _written(root: yaml.Node) -> bytes:
    try:
        return yaml.serialize(root, Dumper=yaml.SafeDumper, allow_unicode=True).encode()
    except (yaml.YAMLError, UnicodeEncodeError):  # nothing that can be written as YAML
        return b"agent: [\n"


def _nodes(root: yaml.Node) -> list[yaml.Node]:
    found, todo, seen = [], [root], set()
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        found.append(node)
        if isinstance(node, yaml.SequenceNode):
            todo += node.value
        elif isinstance(node, yaml.MappingNode):
            todo += [part for pair in node.value for part in pair]
    return found


def _scalar(draw: random.Random) -> yaml.ScalarNode:
    style = draw.choice([None, '"', "'", "|"])
    return yaml.ScalarNode("tag:yaml.org,2002:str", draw.choice(SCALARS), style=style)


def _bend(root: yaml.Node, draw: random.Random) -> None:
    nodes = _nodes(root)
    node = draw.choice(nodes)
    if isinstance(node, yaml.ScalarNode):
        kind = draw.randrange(4)
        if kind < 2:
            node.value = draw.choice(SCALARS)
            node.style = draw.choice([None, '"'])
        elif kind == 2:
            node.value += draw.choice(NAMES)
        else:
            node.tag = draw.choice(["!secret", "tag:yaml.org,2002:python/name:os.system", "!!int"])
        return
    items: list[object] = node.value
    at = draw.randrange(len(items)) if items else 0
    kind = draw.randrange(7)
    if isinstance(node, yaml.MappingNode) and items:
        key, value = node.value[at]
        others: list[yaml.Node] = [
            _scalar(draw),
            yaml.SequenceNode("tag:yaml.org,2002:seq", [value], flow_style=True),
            yaml.MappingNode("tag:yaml.org,2002:map", [(_scalar(draw), value)], flow_style=True),
            draw.choice(nodes),  # written as an anchor and an alias; its own parent is a loop
            yaml.MappingNode("tag:yaml.org,2002:map", [], flow_style=True),
        ]
        if kind == 0:
            del node.value[at]
        elif kind == 1:
            node.value.append((key, value))
        elif kind == 2:
            node.value[at] = (_scalar(draw), value)
        elif kind == 3:
            node.value.append((_scalar(draw), draw.choice(others)))
        elif kind == 4:
            node.value.insert(0, (yaml.ScalarNode("tag:yaml.org,2002:merge", "<<"), value))
        else:
            node.value[at] = (key, draw.choice(others))
    elif isinstance(node, yaml.SequenceNode):
        if kind == 0 and items:
            del items[at]
        elif kind == 1 and items:
            items.append(items[at])
        elif kind == 2 and items:
            items[:] = items * 50
        else:
            items.insert(at, draw.choice([_scalar(draw), draw.choice(nodes)]))


# --- the tree


def _below(things: dict[str, Thing], place: str) -> list[str]:
    return [path for path in things if path == place or path.startswith(f"{place}/")]


def _gone(things: dict[str, Thing], place: str, _: random.Random) -> None:
    for path in _below(things, place):
        del things[path]


def _as_file(things: dict[str, Thing], place: str, draw: random.Random) -> None:
    _gone(things, place, draw)
    things[place] = Thing(b"agent: {name: triage}\n")


def _as_folder(things: dict[str, Thing], place: str, draw: random.Random) -> None:
    _gone(things, place, draw)
    things[f"{place}/{draw.choice(['agent.yaml', 'SKILL.md', 'x', 'models.yaml'])}"] = Thing(
        b"x: 1"
    )


def _as_link(things: dict[str, Thing], place: str, draw: random.Random) -> None:
    _gone(things, place, draw)
    target = draw.choice([*LINKS, place.rpartition("/")[2]])
    things[place] = Thing(target.encode("utf-8", "surrogateescape"), MODE_LINK)


def _moved_and_linked(things: dict[str, Thing], place: str, _: random.Random) -> None:
    for path in _below(things, place):
        things[f"elsewhere/{path}"] = things.pop(path)
    up = "../" * place.count("/")
    things[place] = Thing(f"{up}elsewhere/{place}".encode(), MODE_LINK)


def _as_submodule(things: dict[str, Thing], place: str, draw: random.Random) -> None:
    _gone(things, place, draw)
    things[place] = Thing(b"", MODE_COMMIT)


def _executable(things: dict[str, Thing], place: str, _: random.Random) -> None:
    for path in _below(things, place):
        things[path] = Thing(things[path].content, MODE_EXECUTABLE)


def _copied(things: dict[str, Thing], place: str, draw: random.Random) -> None:
    folder, _, name = place.rpartition("/")
    twin = draw.choice([name.upper(), name + "e\u0301", name + "\u00e9", f"{name}-copy"])
    for path in _below(things, place):
        new = f"{folder}/{twin}" if folder else twin
        things[new + path.removeprefix(place)] = things[path]


TURNS: Mapping[str, Callable[[dict[str, Thing], str, random.Random], None]] = {
    "gone": _gone,
    "a file": _as_file,
    "a folder": _as_folder,
    "a link": _as_link,
    "a link to where it went": _moved_and_linked,
    "a submodule": _as_submodule,
    "executable": _executable,
    "there twice": _copied,
}


def _turned(place: str, name: str, seed: int) -> Mutation:
    return Mutation(
        f"{place} is {name} (seed {seed})",
        lambda things: TURNS[name](things, place, random.Random(seed)),
    )


def _named(place: str, name: str) -> Mutation:
    def spoil(things: dict[str, Thing]) -> None:
        for path in _below(things, place):
            things[f"{place.rpartition('/')[0]}/{name}{path.removeprefix(place)}"] = things.pop(
                path
            )

    return Mutation(f"{place} is called {name!r}", spoil)
