"""Trees: the same content has the same identity wherever it comes from, and nothing leaks out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.source.objects import blob_id
from reconciler.source.tree import (
    DirectoryTree,
    Kind,
    MemoryTree,
    MissingPath,
    SourceTooLarge,
    UnsafePath,
    changed_paths,
    join_path,
)

FLEET = {
    "interlock.yaml": b"fleet: {}\n",
    "agents/ci/agent.yaml": b"agent: {name: ci}\n",
    "agents/ci/evals/case.yaml": b"case: 1\n",
    "agents.md": b"sorts between agents and agents/\n",
    "skills/run/SKILL.md": b"# run\n",
}


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def on_disk(root: Path, files: dict[str, bytes]) -> DirectoryTree:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return DirectoryTree(root)


def test_memory_and_directory_give_the_oids_that_git_gives(tmp_path: Path) -> None:
    tree = on_disk(tmp_path, FLEET)
    (tmp_path / "run.sh").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "link").symlink_to("agents.md")
    (tmp_path / "empty").mkdir()
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "-A")
    assert tree.oid("") == git(tmp_path, "write-tree")
    assert tree.oid("agents/ci") == git(tmp_path, "write-tree", "--prefix=agents/ci/")
    memory = MemoryTree(FLEET)
    assert memory.oid("agents") == tree.oid("agents")
    assert memory.oid("agents.md") == blob_id(FLEET["agents.md"])


def test_reading_listing_and_walking(tmp_path: Path) -> None:
    for tree in (MemoryTree(FLEET), on_disk(tmp_path, FLEET)):
        assert tree.read("agents/ci/agent.yaml") == FLEET["agents/ci/agent.yaml"]
        assert [(e.name, e.kind) for e in tree.entries("agents/ci")] == [
            ("agent.yaml", Kind.BLOB),
            ("evals", Kind.TREE),
        ]
        assert [path for path, _ in tree.walk("agents")] == [
            "agents/ci/agent.yaml",
            "agents/ci/evals/case.yaml",
        ]
        assert {path for path, _ in tree.walk()} == set(FLEET)
        assert list(tree.walk("nowhere")) == []
        assert tree.exists("agents")
        assert tree.exists("")
        assert not tree.exists("agents/ci/agent.yaml/below")


@pytest.mark.parametrize(
    "path, why",
    [
        ("absent.md", "no such file"),
        ("agents", "is a directory"),
        ("agents.md/x", "not a directory"),
    ],
)
def test_what_is_not_a_file_is_missing_with_a_reason(path: str, why: str) -> None:
    with pytest.raises(MissingPath, match=why) as caught:
        MemoryTree(FLEET).read(path)
    assert isinstance(caught.value, KeyError)


@pytest.mark.parametrize(
    "path",
    ["../x", "agents/../agents.md", "/etc/passwd", "agents//ci", "./agents", "agents/ci/", "a\nb",
     ".git/config", "agents/.GIT/x", "a\\b", "a\x7fb"],
)  # fmt: skip
def test_an_unsafe_path_is_refused_even_where_something_is(path: str) -> None:
    with pytest.raises(UnsafePath):
        MemoryTree(FLEET).exists(path)


def test_links_inside_the_tree_are_followed_and_reported_as_links(tmp_path: Path) -> None:
    links = {"skills/alias": "run", "agents/ci/doc": "../../agents.md"}
    on_disk(tmp_path, FLEET)
    for path, target in links.items():
        (tmp_path / path).symlink_to(target)
    for tree in (MemoryTree(FLEET, links=links), DirectoryTree(tmp_path)):
        assert tree.read("skills/alias/SKILL.md") == b"# run\n"
        assert tree.read("agents/ci/doc") == FLEET["agents.md"]
        assert tree.oid("agents/ci/doc") == blob_id(FLEET["agents.md"])
        assert tree.oid("skills/alias") == tree.oid("skills/run")
        assert ("skills/alias", Kind.LINK) in [(p, e.kind) for p, e in tree.walk()]
        assert [path for path, _ in tree.walk("skills/alias")] == ["skills/alias/SKILL.md"]


@pytest.mark.parametrize(
    "target", ["../secret", "/etc/passwd", "a/../../../secret", "loop", ".git/config"]
)
def test_a_link_that_leaves_the_tree_or_loops_is_never_followed(
    tmp_path: Path, target: str
) -> None:
    (tmp_path / "secret").write_text("not for the fleet")
    root = tmp_path / "repo"
    root.mkdir()
    (root / "a").mkdir()
    (root / "a" / "f").write_text("x")
    (root / "loop").symlink_to(target)
    for tree in (DirectoryTree(root), MemoryTree({"a/f": b"x"}, links={"loop": target})):
        with pytest.raises(UnsafePath):
            tree.read("loop")
        with pytest.raises(UnsafePath):
            tree.exists("loop/deeper")


def test_a_dangling_link_does_not_exist() -> None:
    assert not MemoryTree({"a": b""}, links={"b": "c"}).exists("b")


def test_a_name_that_could_fool_a_terminal_is_refused_when_listed(tmp_path: Path) -> None:
    (tmp_path / "a\x1b[2Jb").write_text("x")
    with pytest.raises(UnsafePath, match="control"):
        DirectoryTree(tmp_path).entries()
    (tmp_path / "a\x1b[2Jb").unlink()
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff")).write_text("x")
    with pytest.raises(UnsafePath, match="UTF-8"):
        list(DirectoryTree(tmp_path).walk())


def test_a_work_directory_ignores_git_s_own_folder_and_what_git_cannot_store(
    tmp_path: Path,
) -> None:
    tree = on_disk(tmp_path, {"a": b"1"})
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("[core]")
    os.mkfifo(tmp_path / "pipe")
    assert [e.name for e in tree.entries()] == ["a"]


def test_a_file_over_the_limit_is_not_loaded(tmp_path: Path) -> None:
    for tree in (MemoryTree({"big": b"x" * 11}), on_disk(tmp_path, {"big": b"x" * 11})):
        with pytest.raises(SourceTooLarge, match="11 bytes"):
            tree.read("big", limit=10)
        assert len(tree.read("big", limit=11)) == 11


@pytest.mark.parametrize(
    "directory, reference, path",
    [
        ("agents/ci", "./triage.md", "agents/ci/triage.md"),
        ("agents/ci", "../../skills/run", "skills/run"),
        ("", "a/./b//c/..", "a/b"),
        ("agents", "..", ""),
    ],
)
def test_references_are_resolved_from_their_directory(
    directory: str, reference: str, path: str
) -> None:
    assert join_path(directory, reference) == path


@pytest.mark.parametrize("reference", ["../../x", "/x", "a\tb", ".git/hooks"])
def test_a_reference_cannot_climb_out(reference: str) -> None:
    with pytest.raises(UnsafePath):
        join_path("agents", reference)


_NAMES = st.sampled_from(["a", "b", "a.b", "ab", "a-"])
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)


def _without_conflicts(files: dict[str, bytes]) -> dict[str, bytes]:
    return {
        path: content
        for path, content in files.items()
        if not any(other.startswith(f"{path}/") for other in files)
    }


_FILES = st.dictionaries(_PATHS, st.sampled_from([b"1", b"2"]), max_size=8).map(_without_conflicts)


@given(_FILES, _FILES)
def test_changed_paths_are_exactly_those_whose_content_differs(
    old: dict[str, bytes], new: dict[str, bytes]
) -> None:
    expected = {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}
    assert changed_paths(MemoryTree(old), MemoryTree(new)) == tuple(sorted(expected))
    assert changed_paths(None, MemoryTree(new)) == tuple(sorted(new))
    assert (MemoryTree(old).oid("") == MemoryTree(new).oid("")) == (old == new)


def test_comparing_goes_down_only_where_something_differs() -> None:
    class Counted(MemoryTree):
        asked: list[str]

        def entries(self, path: str = ""):  # type: ignore[no-untyped-def]
            self.asked.append(path)
            return super().entries(path)

    one, two = Counted(FLEET), Counted({**FLEET, "skills/run/SKILL.md": b"new"})
    one.asked, two.asked = [], []
    assert changed_paths(one, two) == ("skills/run/SKILL.md",)
    assert one.asked == ["", "skills", "skills/run"]


def test_importing_the_tree_loads_no_pygit2_and_nothing_slow() -> None:
    code = "import sys, reconciler.source.tree; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "reconciler.source.tree" in loaded
    assert not loaded & {"pygit2", "cffi", "subprocess", "asyncio", "tempfile", "socket"}
