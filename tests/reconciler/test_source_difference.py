"""Comparing tree objects as bytes finds what comparing every entry finds."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pygit2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.source.difference import differing
from reconciler.source.mirror import GitTree
from reconciler.source.objects import ObjectId, TreeId
from reconciler.source.tree import MemoryTree, changed_paths

# Few names and object ids of few bytes: equal beginnings that end inside an entry, NULs and digits
# in ids, ids that look like entries.
NAMES = st.sampled_from([b"a", b"aa", b"ab", b"b", b"ba", b"100644 a", b"z"])
OIDS = st.lists(st.sampled_from([b"\0", b"1", b"4", b" ", b"a"]), min_size=20, max_size=20).map(
    b"".join
)
MODES = st.sampled_from([b"100644", b"40000", b"120000"])
TREES = st.dictionaries(NAMES, st.tuples(MODES, OIDS), max_size=7)


def raw(tree: dict[bytes, tuple[bytes, bytes]]) -> bytes:
    """As git writes it."""
    return b"".join(mode + b" " + name + b"\0" + oid for name, (mode, oid) in sorted(tree.items()))


@settings(max_examples=500)
@given(TREES, TREES, st.booleans())
def test_what_is_left_out_is_in_both(
    old: dict[bytes, tuple[bytes, bytes]], more: dict[bytes, tuple[bytes, bytes]], onto: bool
) -> None:
    new = {**old, **more} if onto else more
    before, after = differing(raw(old), raw(new))
    for tree, found in ((old, before), (new, after)):
        assert all(tree[name] == row for name, row in found.items())
    for name in old.keys() | new.keys():
        if old.get(name) != new.get(name):
            assert before.get(name) == old.get(name)
            assert after.get(name) == new.get(name)
        elif name in before or name in after:
            assert before.get(name) == after.get(name)


FILES = st.dictionaries(
    st.sampled_from(["a", "b/c", "b/d", "b/e/f", "b-c", "g/h", "x/y/z"]),
    st.sampled_from([b"1", b"2", b"-> a"]),
    max_size=7,
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> pygit2.Repository:
    path: Path = tmp_path_factory.mktemp("difference") / "repo.git"
    subprocess.run(["git", "init", "-q", "--bare", str(path)], check=True)
    return pygit2.Repository(str(path))


@settings(max_examples=60, deadline=None)
@given(FILES, FILES)
def test_git_trees_differ_where_trees_in_memory_do(
    repository: pygit2.Repository, old: dict[str, bytes], new: dict[str, bytes]
) -> None:
    trees = [(written(repository, files), memory(files)) for files in (old, new)]
    (git_old, memory_old), (git_new, memory_new) = trees
    assert changed_paths(git_old, git_new) == changed_paths(memory_old, memory_new)


def memory(files: dict[str, bytes]) -> MemoryTree:
    """The files as a tree in memory."""
    return MemoryTree(
        {path: content for path, content in files.items() if not content.startswith(b"-> ")},
        links={p: c[3:].decode() for p, c in files.items() if c.startswith(b"-> ")},
    )


def written(repository: pygit2.Repository, files: dict[str, bytes]) -> GitTree:
    """The files as a tree of git."""
    index = pygit2.Index()
    for path, content in files.items():
        link = content.startswith(b"-> ")
        blob = repository.create_blob(content[3:] if link else content)
        mode = pygit2.enums.FileMode.LINK if link else pygit2.enums.FileMode.BLOB
        index.add(pygit2.IndexEntry(path, blob, mode))
    root = TreeId(ObjectId(str(index.write_tree(repository))))
    return GitTree(lambda: repository, root)
