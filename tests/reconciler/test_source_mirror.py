"""The mirror: reading history, writing commits and pushing, against bare repositories on disk."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import pytest

from gateway.values import Millis
from reconciler.source import (
    INTERLOCK,
    CommitId,
    HistoryRewritten,
    Identity,
    MemoryTree,
    Mirror,
    MirrorMismatch,
    PushOutcome,
    RemoteUnavailable,
    ShallowHistory,
    SourceError,
    Timeouts,
    UnsafePath,
    backoff_delays,
    integrate_and_push,
)
from tests.support.git_http import install_hook

WHEN = Millis(1_700_000_000_000)
ANNA = Identity("Anna", "anna@example.org")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    path = tmp_path / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True)
    return path


@pytest.fixture
def mirror(remote: Path, tmp_path: Path) -> Mirror:
    return Mirror.open_or_clone(str(remote), tmp_path / "mirror")


def write(
    mirror: Mirror, parent: CommitId | None, changes: dict[str, bytes | None], text: str = "change"
) -> CommitId:
    return mirror.write_commit(
        parent, changes, message=text, author=ANNA, when_ms=WHEN, signer=None
    )


def grow(mirror: Mirror, branch: str, *contents: bytes) -> list[CommitId]:
    """Push one commit per content onto `branch`."""
    made: list[CommitId] = []
    head = mirror.resolve(branch)
    for content in contents:
        new = write(mirror, head, {"file": content})
        assert mirror.push({branch: (head, new)}).pushed
        made.append(new)
        head = new
    return made


# --- cloning and fetching


def test_a_clone_holds_every_branch_and_knows_the_default_one(
    remote: Path, mirror: Mirror, tmp_path: Path
) -> None:
    (main,) = grow(mirror, "main", b"1")
    (reports,) = grow(mirror, "interlock/reports", b"2")
    for url in (str(remote), remote.as_uri()):
        other = Mirror.open_or_clone(url, tmp_path / f"other-{len(url)}")
        assert other.heads() == {
            "refs/heads/main": main,
            "refs/heads/interlock/reports": reports,
        }
        assert other.default_branch() == "main"
        assert other.resolve("interlock/reports") == reports
        assert other.resolve("no-such") is None
        assert other.resolve(main[:12]) is None


def test_fetch_follows_new_rewritten_deleted_and_conflicting_branches(
    remote: Path, mirror: Mirror, tmp_path: Path
) -> None:
    first, second = grow(mirror, "main", b"1", b"2")
    grow(mirror, "a", b"x")
    other = Mirror.open_or_clone(str(remote), tmp_path / "other")
    git(remote, "update-ref", "refs/heads/main", first)
    git(remote, "update-ref", "-d", "refs/heads/a")
    git(remote, "update-ref", "refs/heads/a/b", second)
    expected = {"refs/heads/main": first, "refs/heads/a/b": second}
    assert other.fetch() == expected
    assert other.heads() == expected


def test_an_existing_mirror_opens_while_the_remote_is_gone(
    remote: Path, mirror: Mirror, tmp_path: Path
) -> None:
    (main,) = grow(mirror, "main", b"1")
    remote.rename(tmp_path / "moved.git")
    again = Mirror.open_or_clone(str(remote), tmp_path / "mirror")
    assert again.resolve("main") == main
    with pytest.raises(RemoteUnavailable, match="check the address") as caught:
        again.fetch()
    assert not caught.value.retryable


def test_a_failed_clone_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RemoteUnavailable):
        Mirror.open_or_clone(str(tmp_path / "nowhere.git"), tmp_path / "mirror")
    assert list(tmp_path.iterdir()) == []


def test_a_clone_that_was_killed_half_way_is_started_afresh(remote: Path, tmp_path: Path) -> None:
    half = tmp_path / ".mirror.cloning"
    half.mkdir()
    (half / "HEAD").write_text("garbage")
    assert Mirror.open_or_clone(str(remote), tmp_path / "mirror").heads() == {}
    assert not half.exists()


def test_a_directory_with_something_else_in_it_is_refused(
    remote: Path, mirror: Mirror, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("mine")
    with pytest.raises(MirrorMismatch, match="not a mirror made by interlock"):
        Mirror.open_or_clone(str(remote), tmp_path / "work")
    with pytest.raises(MirrorMismatch, match=r"remote\.git, not of"):
        Mirror.open_or_clone(str(tmp_path / "else.git"), tmp_path / "mirror")
    with pytest.raises(MirrorMismatch):
        Mirror.open_or_clone(str(remote), remote)


def test_a_shallow_remote_is_refused_with_the_cure(
    remote: Path, mirror: Mirror, tmp_path: Path
) -> None:
    grow(mirror, "main", b"1", b"2", b"3")
    shallow = tmp_path / "shallow.git"
    source = remote.as_uri()
    subprocess.run(["git", "clone", "-q", "--bare", "--depth=1", source, str(shallow)], check=True)
    with pytest.raises(ShallowHistory, match="fetch-depth: 0"):
        Mirror.open_or_clone(str(shallow), tmp_path / "of-shallow")
    assert not (tmp_path / "of-shallow").exists()


# --- reading


def test_a_commit_s_tree_equals_the_same_files_in_memory(mirror: Mirror) -> None:
    files = {"a/b/c.md": b"1", "a.md": b"2", "a/x": b"3"}
    commit = write(mirror, None, dict(files))
    tree, memory = mirror.tree(commit), MemoryTree(files)
    assert tree.oid("") == memory.oid("") == mirror.commit_info(commit).tree
    assert tree.entries("a") == memory.entries("a")
    assert list(tree.walk()) == list(memory.walk())
    assert tree.read("a/b/c.md") == b"1"
    assert not tree.exists("a/b/d.md")


def test_links_and_hostile_names_in_a_commit_are_contained(mirror: Mirror, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "-q", "-b", "main")
    (work / "ok").write_text("fine")
    (work / "good").symlink_to("ok")
    (work / "out").symlink_to("../../etc/passwd")
    (work / "bad").mkdir()
    (work / "bad" / "a\nb").write_text("x")
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "hostile")
    git(work, "push", "-q", mirror.url, "main")
    tree = mirror.tree(mirror.fetch()["refs/heads/main"])
    assert tree.read("good") == b"fine"
    with pytest.raises(UnsafePath, match="out of the"):
        tree.read("out")
    assert {e.name for e in tree.entries()} == {"ok", "good", "out", "bad"}
    with pytest.raises(UnsafePath, match="control"):
        tree.entries("bad")


def test_changed_paths_between_two_commits(mirror: Mirror) -> None:
    old = write(mirror, None, {"a/1": b"1", "a/2": b"2", "b/1": b"1"})
    new = write(mirror, old, {"a/2": b"two", "b": None, "c/d": b"4"})
    one, two = mirror.commit_info(old).tree, mirror.commit_info(new).tree
    assert mirror.changed_paths(one, two) == ("a/2", "b/1", "c/d")
    assert mirror.changed_paths(None, one) == ("a/1", "a/2", "b/1")


def test_first_parent_history_is_oldest_first_and_leaves_out_side_branches(
    remote: Path, mirror: Mirror, tmp_path: Path
) -> None:
    first, second = grow(mirror, "main", b"1", b"2")
    work = tmp_path / "work"
    subprocess.run(["git", "clone", "-q", str(remote), str(work)], check=True)
    git(work, "checkout", "-q", "-b", "side", first)
    (work / "side").write_text("x")
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "side")
    git(work, "checkout", "-q", "main")
    git(work, "merge", "-q", "--no-ff", "-m", "merge", "side")
    merge = git(work, "rev-parse", "HEAD")
    git(work, "push", "-q", "origin", "main")
    mirror.fetch()
    assert mirror.first_parent_history("main") == (first, second, merge)
    assert mirror.first_parent_history("main", since=first) == (second, merge)
    assert mirror.first_parent_history("main", since=CommitId(merge)) == ()
    with pytest.raises(HistoryRewritten, match="rewritten"):
        mirror.first_parent_history("main", since=CommitId(git(work, "rev-parse", "side")))
    with pytest.raises(SourceError, match="no branch"):
        mirror.first_parent_history("nope")


def test_a_commit_tells_who_when_and_whether_it_is_our_own(mirror: Mirror) -> None:
    ours = write(mirror, None, {"a": b"1"}, "Prüfung\n\nText")
    info = mirror.commit_info(ours)
    assert (info.author, info.committer, info.time_ms) == (ANNA, INTERLOCK, WHEN)
    assert (info.message, info.parents, info.signature) == ("Prüfung\n\nText\n", (), None)
    assert info.own
    theirs = mirror.write_commit(
        ours, {"a": b"2"}, message="m", author=ANNA, committer=ANNA, when_ms=WHEN, signer=None
    )
    assert not mirror.commit_info(theirs).own
    assert mirror.commit_info(theirs).parents == (ours,)


def test_a_missing_object_is_a_damaged_mirror_not_a_missing_path(mirror: Mirror) -> None:
    with pytest.raises(MirrorMismatch, match="lacks the object"):
        mirror.commit_info(CommitId("0" * 39 + "1"))


def test_threads_may_share_a_mirror(mirror: Mirror) -> None:
    commit = write(mirror, None, {f"d{i}/f": bytes([i]) for i in range(40)})
    tree = mirror.tree(commit)
    wrong: list[str] = []

    def read() -> None:
        own = mirror.tree(commit)
        wrong.extend(
            p for t in (tree, own) for p, e in t.walk() if t.read(p) != bytes([int(p[1:-2])])
        )

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- writing


def test_nothing_to_change_makes_no_commit(mirror: Mirror) -> None:
    first = write(mirror, None, {"a": b"1"})
    assert write(mirror, first, {"a": b"1", "gone": None, "no/such/dir": None}) == first
    with pytest.raises(ValueError, match="at least one file"):
        write(mirror, None, {"a": None})


def test_removing_the_last_file_removes_its_directories(mirror: Mirror) -> None:
    first = write(mirror, None, {"a/b/c": b"1", "keep": b"2", "d/1": b"", "d/2": b""})
    second = write(mirror, first, {"a/b/c": None, "d": None})
    assert [e.name for e in mirror.tree(second).entries()] == ["keep"]
    empty = write(mirror, second, {"keep": None})
    assert mirror.tree(empty).entries() == ()


def test_a_file_that_git_marked_executable_stays_so(mirror: Mirror, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "-q", "-b", "main")
    (work / "run").write_text("1")
    (work / "run").chmod(0o755)
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "x")
    git(work, "push", "-q", mirror.url, "main")
    new = write(mirror, mirror.fetch()["refs/heads/main"], {"run": b"2", "other": b"3"})
    modes = {e.name: e.mode for e in mirror.tree(new).entries()}
    assert modes == {"run": 0o100755, "other": 0o100644}


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"../x": b""}, "not allowed"),
        ({"a/.git/config": b""}, "not allowed"),
        ({"": b""}, "root"),
        ({"dir": b"now a file"}, "is a directory"),
        ({"file/below": b"now a directory"}, "is a file"),
        ({"n": b"", "n/m": b""}, "is a directory"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused(
    mirror: Mirror, changes: dict[str, bytes | None], why: str
) -> None:
    first = write(mirror, None, {"dir/x": b"1", "file": b"2"})
    with pytest.raises(UnsafePath, match=why):
        write(mirror, first, changes)


def test_git_itself_finds_nothing_wrong_with_what_is_written(remote: Path, mirror: Mirror) -> None:
    grow(mirror, "main", *(b"%d" % i for i in range(3)))
    assert git(remote, "fsck", "--strict", "--full") == ""
    assert git(remote, "show", "main:file") == "2"


# --- pushing


def test_a_push_is_a_compare_and_swap(remote: Path, mirror: Mirror, tmp_path: Path) -> None:
    (first,) = grow(mirror, "main", b"1")
    rival = Mirror.open_or_clone(str(remote), tmp_path / "rival")
    mine, theirs = write(mirror, first, {"x": b"mine"}), write(rival, first, {"x": b"theirs"})
    assert rival.push({"main": (first, theirs)}).pushed
    lost = mirror.push({"main": (first, mine)})
    assert (lost.outcome, lost.retryable) == (PushOutcome.REJECTED, True)
    assert "somebody else pushed first" in lost.reason
    assert lost.remote == {"refs/heads/main": theirs}
    assert git(remote, "rev-parse", "main") == theirs
    assert mirror.resolve("main") == first
    created = mirror.push({"main": (None, mine)})
    assert created.outcome is PushOutcome.REJECTED


def test_offering_the_same_commit_again_is_not_an_error(mirror: Mirror) -> None:
    commit = write(mirror, None, {"a": b"1"})
    assert mirror.push({"main": (None, commit)}).pushed
    assert mirror.push({"main": (None, commit)}).pushed


def test_history_is_never_rewritten(remote: Path, mirror: Mirror) -> None:
    first, second = grow(mirror, "main", b"1", b"2")
    sideways = write(mirror, first, {"other": b"x"})
    refused = mirror.push({"main": (second, sideways)})
    assert (refused.outcome, refused.retryable) == (PushOutcome.REJECTED, False)
    assert "fast-forward" in refused.reason
    assert git(remote, "rev-parse", "main") == second


def test_a_hook_s_refusal_on_a_local_remote_is_reported(remote: Path, mirror: Mirror) -> None:
    (first,) = grow(mirror, "main", b"1")
    install_hook(remote, "update", "exit 1")
    refused = mirror.push({"main": (first, write(mirror, first, {"a": b"2"}))})
    assert (refused.outcome, refused.retryable) == (PushOutcome.REJECTED, False)
    assert "hook declined" in refused.reason
    assert mirror.resolve("main") == first


def test_a_hook_that_lies_about_success_is_not_believed(remote: Path, mirror: Mirror) -> None:
    (first,) = grow(mirror, "main", b"1")
    install_hook(remote, "post-receive", f"git update-ref refs/heads/main {first}")
    new = write(mirror, first, {"a": b"2"})
    result = mirror.push({"main": (first, new)})
    assert result.outcome is PushOutcome.UNKNOWN
    assert result.remote == {"refs/heads/main": first}
    assert mirror.resolve("main") == first


def test_a_push_on_which_somebody_built_at_once_counts_as_pushed(
    remote: Path, mirror: Mirror
) -> None:
    (first,) = grow(mirror, "main", b"1")
    install_hook(
        remote,
        "post-receive",
        "git update-ref refs/heads/main "
        "$(git commit-tree -p refs/heads/main -m more refs/heads/main^{tree})",
    )
    new = write(mirror, first, {"a": b"2"})
    result = mirror.push({"main": (first, new)})
    assert result.pushed
    head = mirror.resolve("main")
    assert head is not None
    assert mirror.commit_info(head).parents == (new,)


def test_a_hanging_hook_is_cut_off_and_the_outcome_is_unknown(
    remote: Path, mirror: Mirror, tmp_path: Path
) -> None:
    (first,) = grow(mirror, "main", b"1")
    pid = tmp_path / "hook.pid"
    install_hook(remote, "pre-receive", f"echo $$ > {pid}; exec sleep 1000")
    hasty = Mirror.open_or_clone(
        str(remote), tmp_path / "mirror", timeouts=Timeouts(total_ms=1_500)
    )
    result = hasty.push({"main": (first, write(hasty, first, {"a": b"2"}))})
    assert (result.outcome, result.retryable) == (PushOutcome.UNKNOWN, True)
    state = Path(f"/proc/{pid.read_text().strip()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_several_refs_of_a_local_remote_move_together_or_not_at_all(
    remote: Path, mirror: Mirror
) -> None:
    (first,) = grow(mirror, "main", b"1")
    install_hook(remote, "update", 'test "$1" != refs/heads/two')
    new = write(mirror, first, {"a": b"2"})
    refused = mirror.push({"main": (first, new), "two": (None, new)})
    assert refused.outcome is PushOutcome.REJECTED
    assert refused.remote == {"refs/heads/main": first, "refs/heads/two": None}


def test_a_commit_that_the_mirror_lacks_cannot_be_pushed(mirror: Mirror) -> None:
    with pytest.raises(SourceError, match="not in the mirror"):
        mirror.push({"main": (None, CommitId("1" * 40))})


# --- integrate and retry


def no_sleep(_: float) -> None:
    """Time does not pass in these tests."""


def endless() -> Iterator[float]:
    return repeat(0.0)


def test_a_late_writer_rebuilds_on_what_the_other_wrote(
    remote: Path, mirror: Mirror, tmp_path: Path
) -> None:
    rival = Mirror.open_or_clone(str(remote), tmp_path / "rival")
    built_on: list[CommitId | None] = []

    def build(head: CommitId | None) -> CommitId:
        if not built_on:  # the rival is faster, once
            assert rival.push({"reports": (None, write(rival, None, {"theirs": b"1"}))}).pushed
        built_on.append(head)
        return write(mirror, head, {"mine": b"2"})

    slept: list[float] = []
    result, commit = integrate_and_push(
        mirror, "reports", build, delays=iter([0.25]), sleep=slept.append
    )
    assert result.pushed
    assert commit == git(remote, "rev-parse", "reports")
    assert built_on == [None, rival.resolve("reports")]
    assert slept == [0.25]
    assert git(remote, "ls-tree", "--name-only", "reports").split() == ["mine", "theirs"]


def test_nothing_to_write_pushes_nothing(remote: Path, mirror: Mirror) -> None:
    (first,) = grow(mirror, "reports", b"1")
    install_hook(remote, "pre-receive", "exit 1")
    result, commit = integrate_and_push(
        mirror, "reports", lambda head: write(mirror, head, {}), delays=endless(), sleep=no_sleep
    )
    assert (result.pushed, commit) == (True, first)


def test_a_refusal_that_no_retry_can_cure_is_tried_once(remote: Path, mirror: Mirror) -> None:
    install_hook(remote, "pre-receive", "exit 1")
    tries: list[CommitId | None] = []

    def build(head: CommitId | None) -> CommitId:
        tries.append(head)
        return write(mirror, head, {"a": b"1"})

    result, _ = integrate_and_push(mirror, "reports", build, delays=endless(), sleep=no_sleep)
    assert result.outcome is PushOutcome.REJECTED
    assert len(tries) == 1


def test_giving_up_after_the_attempts_says_why(
    remote: Path, mirror: Mirror, tmp_path: Path
) -> None:
    rival = Mirror.open_or_clone(str(remote), tmp_path / "rival")
    count = 0

    def build(head: CommitId | None) -> CommitId:
        nonlocal count
        count += 1
        assert rival.push({"r": (head, write(rival, head, {"n": b"%d" % count}))}).pushed
        return write(mirror, head, {"mine": b"1"})

    result, _ = integrate_and_push(mirror, "r", build, delays=endless(), sleep=no_sleep, attempts=3)
    assert (result.outcome, result.retryable, count) == (PushOutcome.REJECTED, True, 3)
    assert "somebody else pushed first" in result.reason


def test_back_off_grows_by_half_is_jittered_and_capped() -> None:
    middle = backoff_delays(lambda: 0.5)
    assert [round(next(middle), 4) for _ in range(4)] == [1.0, 1.5, 2.25, 3.375]
    low, high = backoff_delays(lambda: 0.0), backoff_delays(lambda: 0.999)
    assert next(low) == 0.5
    assert max(next(high) for _ in range(30)) == 30.0
