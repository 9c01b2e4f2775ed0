from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.workspace import (
    Entry,
    Files,
    SizeLimits,
    WorkspaceError,
    changed_paths,
    diff,
    matches,
    pack,
    read_tree,
    restore,
    unpack,
)

NAMES = st.sampled_from(["a", "b.txt", "src/a.py", "src/deep/b", "tests/t.py", "ü/x"])
TREES = st.dictionaries(NAMES, st.builds(Entry, st.binary(max_size=60), st.booleans()))
TEXTS = st.lists(st.sampled_from(["one\n", "two\n", "three\n", "four"]), max_size=12).map("".join)


def archive(rows: list[object], data: bytes = b"") -> bytes:
    manifest = json.dumps(rows).encode()
    return b"%08x" % len(manifest) + manifest + data


@given(TREES)
def test_what_is_packed_is_unpacked(files: Files) -> None:
    assert unpack(pack(files)) == files
    assert pack(dict(reversed(list(files.items())))) == pack(files)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "a/../../x", "a//b", "./a", "", "a/", "a\0b", "x\ny", "n" * 300]
)
def test_an_archive_with_a_path_that_leaves_the_workspace_is_refused(path: str) -> None:
    with pytest.raises(WorkspaceError, match="plain relative path"):
        unpack(archive([[path, 0, 0]]))


@pytest.mark.parametrize(
    "hostile, why",
    [
        (archive([["a", 0, 10**15]], b"x"), "limit"),
        (archive([["a", 0, 2]], b"x"), "promised"),
        (archive([["a", 0, 0]], b"x"), "no file claims"),
        (archive([["a", 0, 0], ["a", 0, 0]]), "twice"),
        (archive([["a", 0, 0], ["a/b", 0, 0]]), "lies under"),
        (archive([["a", 0, -1]]), "not \\[path"),
        (archive([["a", 0, True]]), "not \\[path"),
        (archive([["a", "link", 0]]), "not \\[path"),
        (archive([{"a": 1}]), "not \\[path"),
        (archive([[f"f{n}", 0, 0] for n in range(11)]), "limit 10"),
        (b"zzzzzzzz", "no manifest"),
        (b"", "no manifest"),
        (b"ffffffff[]", "no manifest"),
        (b"00000002{}", "not a list"),
        (b"00000002[[", "not JSON"),
    ],
)
def test_a_hostile_archive_is_refused_with_its_reason(hostile: bytes, why: str) -> None:
    with pytest.raises(WorkspaceError, match=why):
        unpack(hostile, limits=SizeLimits(files=10))


@given(st.binary(max_size=200))
def test_random_bytes_are_an_archive_or_a_workspace_error(data: bytes) -> None:
    with contextlib.suppress(WorkspaceError):
        assert pack(unpack(data))


def test_a_tree_is_read_with_its_executables_and_without_git(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / ".git" / "hooks").mkdir(parents=True)
    (tmp_path / ".git" / "hooks" / "pre-commit").write_text("evil")
    (tmp_path / "src" / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "src" / "run.sh").chmod(0o755)
    (tmp_path / "link").symlink_to("src/run.sh")
    files = read_tree(tmp_path)
    assert files == {
        "link": Entry(b"#!/bin/sh\n", True),
        "src/run.sh": Entry(b"#!/bin/sh\n", True),
    }


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "nowhere", "folder", "loop"])
def test_a_link_that_leaves_the_tree_or_is_no_file_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "outside").write_text("secret")
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "loop").symlink_to(target)
    with pytest.raises(WorkspaceError, match=r"^loop: a link"):
        read_tree(root)


def test_a_pipe_in_the_tree_is_refused_without_waiting_on_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WorkspaceError, match=r"neither a file nor a directory"):
        read_tree(tmp_path)


@pytest.mark.parametrize(
    "limits", [SizeLimits(files=1), SizeLimits(total_bytes=5), SizeLimits(file_bytes=3)]
)
def test_a_tree_over_a_limit_is_refused(tmp_path: Path, limits: SizeLimits) -> None:
    (tmp_path / "a").write_text("four")
    (tmp_path / "b").write_text("more")
    with pytest.raises(WorkspaceError, match=r"limit|more than"):
        read_tree(tmp_path, limits=limits)


@pytest.mark.parametrize(
    "path, glob, expected",
    [
        ("tests/a/b.py", "tests/**", True),
        ("tests/a/b.py", "tests/", True),
        ("tests/a/b.py", "tests/*", False),
        ("conftest.py", "**/conftest.py", True),
        ("a/b/conftest.py", "**/conftest.py", True),
        ("a/xconftest.py", "**/conftest.py", False),
        ("tests2/a", "tests/**", False),
        ("a.py", "./a.py", True),
        ("a+py", "a.py", False),
        ("src/x1.py", "src/x?.py", True),
    ],
)
def test_globs_match_whole_paths(path: str, glob: str, expected: bool) -> None:
    assert matches(path, [glob]) is expected


def test_protected_files_come_back_and_added_ones_go() -> None:
    pristine = {"tests/t.py": Entry(b"assert f()"), "tests/gone.py": Entry(b"x"), "a": Entry(b"1")}
    result = {
        "tests/t.py": Entry(b"pass"),
        "tests/conftest.py": Entry(b"import os; os._exit(0)"),
        "a": Entry(b"2"),
        "new": Entry(b"n"),
    }
    assert restore(result, pristine, ["tests/**"]) == {
        "tests/t.py": Entry(b"assert f()"),
        "tests/gone.py": Entry(b"x"),
        "a": Entry(b"2"),
        "new": Entry(b"n"),
    }


@pytest.mark.parametrize("squatter", ["tests", "check.py/evil"])
def test_a_protected_path_cannot_be_hidden_by_a_file_or_folder_in_its_place(squatter: str) -> None:
    pristine = {"tests/t.py": Entry(b"t"), "check.py": Entry(b"c")}
    assert restore({squatter: Entry(b"x")}, pristine, ["tests/**", "check.py"]) == pristine


@given(TREES, TREES)
def test_a_diff_names_exactly_the_paths_that_changed(before: Files, after: Files) -> None:
    change = diff(before, after)
    assert change.changed == changed_paths(before, after)
    for path in {*before, *after}:
        named = f"diff --git a/{path} b/{path}\n" in change.diff
        assert named == (before.get(path) != after.get(path))


@given(TEXTS, TEXTS)
def test_patch_applies_the_diff(
    tmp_path_factory: pytest.TempPathFactory, old: str, new: str
) -> None:
    if old == new:
        return
    folder = tmp_path_factory.mktemp("patch")
    (folder / "f").write_text(old)
    change = diff({"f": Entry(old.encode())}, {"f": Entry(new.encode())})
    subprocess.run(
        ["git", "apply", "-"], cwd=folder, input=change.diff.encode(), check=True, timeout=20
    )
    assert (folder / "f").read_text() == new


def test_binary_and_mode_changes_are_named() -> None:
    before = {"b": Entry(b"\0\1"), "s": Entry(b"x\n"), "u": Entry(b"\xff")}
    after = {"b": Entry(b"\0\1\2"), "s": Entry(b"x\n", True), "u": Entry(b"ok\n")}
    change = diff(before, after)
    assert change.changed == ("b", "s", "u")
    assert "Binary files differ (2 bytes -> 3 bytes)" in change.diff
    assert "old mode 100644\nnew mode 100755\n" in change.diff


def test_a_long_diff_is_cut_but_every_path_is_told() -> None:
    after = {f"f{n:03}": Entry(b"line\n" * 100) for n in range(100)}
    change = diff({}, after, limit_bytes=10_000)
    assert change.truncated
    assert len(change.changed) == 100
    assert len(change.diff) < 10_200
    assert "of 100 files left" in change.diff


def test_texts_chosen_to_be_slow_are_still_diffed_correctly(tmp_path: Path) -> None:
    old = "".join(f"{n % 97}\n" for n in range(4000))
    new = "".join(f"{n % 89}\n" for n in range(4000))
    (tmp_path / "f").write_text(old)
    text = diff({"f": Entry(old.encode())}, {"f": Entry(new.encode())}).diff
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=text.encode(), check=True)
    assert (tmp_path / "f").read_text() == new
