"""Merging in memory: the same answer as git's own merge, at the cost of what changed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pygit2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.values import Millis
from reconciler.source import CommitId, Identity, Mirror, ObjectId, SourceError
from reconciler.source.merging import (
    MergeResult,
    commits_between,
    merge_result,
    write_merge,
)

WHEN = Millis(1_700_000_000_000)
ANNA = Identity("Anna", "anna@example.org")
Files = Mapping[str, str]
Commit = Callable[..., CommitId]
LINES = "".join(f"{number}\n" for number in range(1, 10))


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    folder = tmp_path_factory.mktemp("merging")
    subprocess.run(["git", "init", "-q", "--bare", str(folder / "remote.git")], check=True)
    return Mirror.open_or_clone(str(folder / "remote.git"), folder / "mirror")


@pytest.fixture(scope="module")
def commit(mirror: Mirror) -> Commit:
    """Writes a commit that holds exactly the given files, on any parents."""
    repository = pygit2.Repository(str(mirror.path))
    signature = pygit2.Signature("Anna", "anna@example.org", 1_700_000_000, 0)

    def write(files: Files, *parents: CommitId) -> CommitId:
        index = pygit2.Index()
        for path, text in files.items():
            blob = repository.create_blob(text.encode())
            index.add(pygit2.IndexEntry(path, blob, pygit2.enums.FileMode.BLOB))
        tree = index.write_tree(repository)
        made = repository.create_commit(None, signature, signature, "x", tree, [*parents])
        return CommitId(ObjectId(str(made)))

    return write


def files_of(mirror: Mirror, result: MergeResult) -> dict[str, str]:
    assert result.tree is not None
    tree = mirror.tree_at(result.tree)
    return {path: tree.read(path).decode() for path, _ in tree.walk()}


def test_both_sides_changes_are_in_the_result(mirror: Mirror, commit: Commit) -> None:
    base = commit({"a/x": "1", "a/y": "1", "b/z": "1"})
    target = commit({"a/x": "2", "a/y": "1", "b/z": "1", "new": "t"}, base)
    head = commit({"a/x": "1", "a/y": "3"}, base)
    result = merge_result(mirror, target, head)
    assert result.base == base
    assert not result.contained
    assert files_of(mirror, result) == {"a/x": "2", "a/y": "3", "new": "t"}


def test_lines_apart_in_one_file_are_merged(mirror: Mirror, commit: Commit) -> None:
    base = commit({"f": LINES})
    target = commit({"f": LINES.replace("1\n", "one\n")}, base)
    head = commit({"f": LINES.replace("9\n", "nine\n")}, base)
    merged = files_of(mirror, merge_result(mirror, target, head))
    assert merged == {"f": LINES.replace("1\n", "one\n").replace("9\n", "nine\n")}


def test_conflicts_are_listed_by_path_and_nothing_is_merged(mirror: Mirror, commit: Commit) -> None:
    base = commit({"b/x": "1", "a/y": "1", "fine": "1"})
    target = commit({"b/x": "2", "a/y": "2", "fine": "1"}, base)
    head = commit({"b/x": "3", "a/y": "3", "fine": "2"}, base)
    result = merge_result(mirror, target, head)
    assert result.conflicts == ("a/y", "b/x")
    assert not result.clean
    with pytest.raises(ValueError, match="conflicts"):
        write_merge(
            mirror,
            result,
            squash=False,
            message="m",
            author=ANNA,
            committer=ANNA,
            when_ms=WHEN,
        )


def test_a_file_one_side_renamed_keeps_the_other_side_s_edit(
    mirror: Mirror, commit: Commit
) -> None:
    base = commit({"old": LINES})
    target = commit({"new": LINES}, base)
    head = commit({"old": LINES.replace("9\n", "nine\n")}, base)
    assert files_of(mirror, merge_result(mirror, target, head)) == {
        "new": LINES.replace("9\n", "nine\n")
    }


def test_a_removed_file_that_the_other_side_edited_is_a_conflict(
    mirror: Mirror, commit: Commit
) -> None:
    base = commit({"f": "1", "g": "1"})
    result = merge_result(mirror, commit({"g": "1"}, base), commit({"f": "2", "g": "1"}, base))
    assert result.conflicts == ("f",)


def test_a_head_that_is_contained_changes_nothing(mirror: Mirror, commit: Commit) -> None:
    base = commit({"f": "1"})
    target = commit({"f": "2"}, base)
    result = merge_result(mirror, target, base)
    assert result.contained
    assert result.tree == mirror.commit_info(target).tree


def test_a_target_that_did_not_move_gives_the_head_s_files(mirror: Mirror, commit: Commit) -> None:
    target = commit({"f": "1"})
    head = commit({"f": "2"}, target)
    result = merge_result(mirror, target, head)
    assert result.tree == mirror.commit_info(head).tree
    assert not result.contained


def test_unrelated_histories_are_not_merged(mirror: Mirror, commit: Commit) -> None:
    result = merge_result(mirror, commit({"f": "1"}), commit({"g": "1"}))
    assert (result.base, result.tree, result.conflicts) == (None, None, ())


def test_with_two_merge_bases_a_reverted_change_stays_reverted(
    mirror: Mirror, commit: Commit
) -> None:
    root = commit({"f": "1", "g": "1"})
    left, right = commit({"f": "2", "g": "1"}, root), commit({"f": "1", "g": "2"}, root)
    ours = commit({"f": "2", "g": "2"}, left, right)
    theirs = commit({"f": "2", "g": "2"}, right, left)
    # Ours reverts what one base has and the other has not: from that other base alone it would
    # look as if ours had never touched it.
    ours, theirs = commit({"f": "1", "g": "2"}, ours), commit({"f": "2", "g": "2", "n": ""}, theirs)
    merged = files_of(mirror, merge_result(mirror, ours, theirs))
    assert merged == {"f": "1", "g": "2", "n": ""}


def test_a_merge_has_two_parents_and_a_squash_one(mirror: Mirror, commit: Commit) -> None:
    base = commit({"f": "1", "g": "1"})
    target, head = commit({"f": "2", "g": "1"}, base), commit({"f": "1", "g": "2"}, base)
    result = merge_result(mirror, target, head)
    for squash, parents in ((False, (target, head)), (True, (target,))):
        made = write_merge(
            mirror,
            result,
            squash=squash,
            message="Merge",
            author=ANNA,
            committer=ANNA,
            when_ms=WHEN,
        )
        info = mirror.commit_info(made)
        assert (info.parents, info.tree) == (parents, result.tree)
        assert not info.own, "a merge into the watched branch must not look like a report"


def test_commits_between_are_those_the_target_lacks_oldest_first(
    mirror: Mirror, commit: Commit
) -> None:
    base = commit({"f": "1"})
    other = commit({"f": "1", "o": ""}, base)
    first = commit({"f": "2"}, base)
    merged = commit({"f": "2", "o": ""}, first, other)
    assert [info.id for info in commits_between(mirror, other, merged)] == [first, merged]
    with pytest.raises(SourceError, match="more than 1 commits"):
        commits_between(mirror, other, merged, most=1)


# --- against libgit2's own merge, on random trees

PATHS = ("a", "a/x", "b/x", "b/y", "b/c/z", "d")
CONTENT = st.sampled_from(["1\n", "2\n", LINES, LINES + "end\n", "start\n" + LINES])


@st.composite
def trees(draw: st.DrawFn) -> dict[str, str]:
    files = draw(st.dictionaries(st.sampled_from(PATHS), CONTENT, min_size=1))
    if "a" in files:
        files.pop("a/x", None)
    return files


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees(), trees(), trees())
@example({"a": "1\n"}, {"a": "1\n", "d": "2\n"}, {"a/x": "1\n"})
@example({"a/x": "1\n"}, {"a/x": "1\n", "a/y": "1\n"}, {"a": "1\n"})
def test_the_result_is_that_of_a_whole_merge(
    mirror: Mirror, commit: Commit, base: Files, ours: Files, theirs: Files
) -> None:
    root = commit(base)
    target, head = commit(ours, root), commit({**theirs, "head": ""}, root)
    repository = pygit2.Repository(str(mirror.path))
    index = repository.merge_commits(target, head)
    result = merge_result(mirror, target, head)
    if index.conflicts is None:
        assert result.tree == str(index.write_tree(repository))
    elif result.clean:
        # libgit2 takes a file that both have added alike for a rename by one against an addition
        # by the other. No path was changed by both in different ways, so the plain rule decides.
        theirs = {**theirs, "head": ""}
        merged = files_of(mirror, result)
        for path in {*base, *ours, *theirs}:
            was, our, their = base.get(path), ours.get(path), theirs.get(path)
            assert our == their or was in (our, their)
            assert merged.get(path) == (their if was == our else our)
    else:
        sides = [side for conflict in index.conflicts for side in conflict if side]
        assert result.conflicts == tuple(sorted({side.path for side in sides}))


def test_a_merge_in_a_large_repository_writes_only_what_changed(
    mirror: Mirror, commit: Commit, tmp_path: Path
) -> None:
    files = {f"agents/a{n}/agent.yaml": str(n) for n in range(500)}
    base = commit(files)
    target = commit({**files, "agents/a1/agent.yaml": "t"}, base)
    head = commit({**files, "agents/a2/agent.yaml": "h"}, base)
    objects = mirror.path / "objects"
    before = sum(1 for _ in objects.rglob("*"))
    result = merge_result(mirror, target, head)
    after = sum(1 for _ in objects.rglob("*"))
    assert result.clean
    # Two directories and nothing else; each may add one fan-out folder.
    assert after - before <= 4
