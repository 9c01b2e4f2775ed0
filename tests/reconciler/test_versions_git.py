"""The index of versions over real git: grown per commit, kept in the database and in `state/`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.database import Database
from gateway.values import Millis
from reconciler.config.history import GitHistory, additions, history_of
from reconciler.config.pins import Pin, pinned_skill, pinned_text
from reconciler.config.reader import Memo, Notes, Reader
from reconciler.findings import Place
from reconciler.record import state
from reconciler.source import CommitId, Identity, Mirror, ObjectId
from reconciler.source.history import Line
from reconciler.source.tree import DirectoryTree, MemoryTree, UnsafePath, changed_paths
from reconciler.tick.versions import Growth, grow
from tests.support.record import NOW, new_database

ANNA = Identity("Anna", "anna@example.org")
START = 1_772_323_200_000  # 2026-03-01T00:00:00Z
PATH = "agents/ci/triage.md"


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


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return new_database(tmp_path / "database")


def text(number: int, body: str) -> bytes:
    return f"---\nversion: {number}\n---\n{body}\n".encode()


def commit(mirror: Mirror, parent: CommitId | None, day: int, **changes: bytes | None) -> CommitId:
    """Commit `agents/ci/<name>.md` for each given name."""
    paths = {f"agents/ci/{name}.md": content for name, content in changes.items()}
    return write(mirror, parent, day, paths)


def write(
    mirror: Mirror, parent: CommitId | None, day: int, paths: dict[str, bytes | None]
) -> CommitId:
    when = Millis(START + day * 86_400_000)
    return mirror.write_commit(
        parent, paths, message="change", author=ANNA, committer=ANNA, when_ms=when, signer=None
    )


def to(
    database: Database, mirror: Mirror, head: CommitId, previous: GitHistory | None = None
) -> Growth:
    return grow(database, mirror, branch="main", head=head, now=NOW, previous=previous)


def body(history: GitHistory, number: int, path: str = PATH) -> str:
    released = history.released(path, number)
    assert released is not None
    tree = history.content(released)
    assert tree is not None
    return tree.read(path).decode().split("---\n")[2].strip()


def test_a_commit_releases_what_it_declares_first(mirror: Mirror, database: Database) -> None:
    one = commit(mirror, None, 0, triage=text(1, "one"), other=b"no version\n")
    two = commit(mirror, one, 1, triage=text(1, "one, changed"))
    three = commit(mirror, two, 2, triage=text(2, "two"))
    growth = to(database, mirror, three)
    assert [(r.number, r.commit, r.at) for r in growth.added] == [
        (1, one, START),
        (2, three, START + 2 * 86_400_000),
    ]
    assert growth.problems == ()
    assert body(growth.history, 1) == "one"
    assert growth.history.numbers(PATH) == (1, 2)


def test_growing_step_by_step_gives_what_growing_at_once_gives(
    mirror: Mirror, database: Database, tmp_path: Path
) -> None:
    heads: list[CommitId] = []
    contents = (text(1, "a"), text(1, "b"), text(2, "b"), None, text(2, "c"), text(3, "c"))
    for day, content in enumerate(contents):
        heads.append(commit(mirror, heads[-1] if heads else None, day, triage=content))
    history: GitHistory | None = None
    for head in heads:
        history = to(database, mirror, head, history).history
    assert history is not None
    at_once = to(new_database(tmp_path / "other"), mirror, heads[-1]).history
    assert dict(history.index) == dict(at_once.index)
    after_a_restart = to(database, mirror, heads[-1])
    assert after_a_restart.added == ()
    assert dict(after_a_restart.history.index) == dict(at_once.index)


def test_growing_again_from_nothing_takes_no_number_away(
    mirror: Mirror, database: Database
) -> None:
    one = commit(mirror, None, 0, triage=text(1, "one"))
    two = commit(mirror, one, 1, triage=text(2, "two"))
    before = dict(to(database, mirror, two).history.index)
    with database.transaction() as tx:
        tx.execute("DELETE FROM versions_until")
    growth = to(database, mirror, two)
    assert growth.added == ()
    assert dict(growth.history.index) == before


def test_only_what_the_branch_itself_said_counts(mirror: Mirror, database: Database) -> None:
    base = commit(mirror, None, 0, other=b"x\n")
    draft = commit(mirror, base, 1, triage=text(1, "draft"))
    final = commit(mirror, draft, 2, triage=text(1, "final"))
    merge = merged(mirror, base, final)
    growth = to(database, mirror, merge)
    assert body(growth.history, 1) == "final"
    assert growth.history.at(draft) is None
    assert growth.history.at(base) is not None


def merged(mirror: Mirror, base: CommitId, side: CommitId) -> CommitId:
    tree = git(mirror.path, "rev-parse", f"{side}^{{tree}}")
    made = git(
        mirror.path, "-c", "user.name=a", "-c", "user.email=a@b", "commit-tree", tree,
        "-p", base, "-p", side, "-m", "merge",
    )  # fmt: skip
    return CommitId(ObjectId(made))


def test_a_rewritten_branch_takes_nothing_back_and_is_reported_once(
    mirror: Mirror, database: Database
) -> None:
    base = commit(mirror, None, 0, triage=text(1, "one"))
    old = commit(mirror, base, 1, triage=text(2, "two"))
    history = to(database, mirror, old).history
    new = commit(mirror, base, 2, triage=text(2, "another two"), other=text(1, "new"))
    growth = to(database, mirror, new, history)
    assert "rewritten" in growth.problems[0]
    assert [r.path for r in growth.added] == ["agents/ci/other.md"]
    assert body(growth.history, 2) == "two"
    newer = commit(mirror, new, 3, triage=text(3, "three"))
    growth = to(database, mirror, newer, growth.history)
    assert growth.problems == ()
    assert body(growth.history, 3) == "three"
    rows = database.read("SELECT subject FROM audit WHERE action = 'history.rewritten'")
    assert [row["subject"] for row in rows] == [new]


def test_a_branch_whose_old_head_is_gone_is_walked_anew(mirror: Mirror, database: Database) -> None:
    with database.transaction() as tx:
        tx.execute("INSERT INTO versions_until VALUES ('main', :commit)", commit="0" * 40)
    growth = to(database, mirror, commit(mirror, None, 0, triage=text(1, "one")))
    assert "rewritten" in growth.problems[0]
    assert body(growth.history, 1) == "one"


def test_a_merge_that_swaps_the_parents_is_no_rewrite(mirror: Mirror, database: Database) -> None:
    base = commit(mirror, None, 0, other=b"x\n")
    main = commit(mirror, base, 1, triage=text(1, "one"))
    history = to(database, mirror, main).history
    side = commit(mirror, base, 2, second=text(1, "side"))
    growth = to(database, mirror, merged(mirror, side, main), history)
    assert growth.problems == ()
    assert body(growth.history, 1) == "one"


def test_a_skill_is_released_with_its_folder(mirror: Mirror, database: Database) -> None:
    head = "---\nname: runbook\ndescription: How to.\nversion: {}\n---\n{}\n"
    skill = "skills/runbook/SKILL.md"
    one = write(
        mirror, None, 0, {skill: head.format(1, "Do.").encode(), "skills/runbook/steps.md": b"1"}
    )
    two = write(mirror, one, 1, {"skills/runbook/steps.md": b"2"})
    three = write(mirror, two, 2, {skill: head.format(2, "Do.").encode()})
    history = to(database, mirror, three).history
    notes = Notes()
    for number, steps in ((1, "1"), (2, "2")):
        found = pinned_skill(
            Reader(mirror.tree(three), Memo(), history),
            "runbook",
            Pin(number=number),
            notes,
            asked=Place("x"),
        )
        assert found is not None
        assert found.value.files["steps.md"] == steps
        assert found.value.pin == f"v{number}"


def test_names_that_are_no_paths_and_huge_files_stop_nothing(
    mirror: Mirror, database: Database, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    git(tmp_path, "init", "-q", str(work))
    (work / "a").mkdir()
    (work / "a" / "huge.md").write_bytes(text(1, "x" * 600_000))
    (work / "a" / "good.md").write_bytes(text(1, "good"))
    (work / "a" / "binary.md").write_bytes(b"---\nversion: 1\n---\n\xff\xfe")
    for name in (b"nl\n.md", b"utf\xff.md", b"back\\slash.md"):
        (Path(str(work)) / "a").joinpath(name.decode("utf-8", "surrogateescape")).write_bytes(
            text(1, "odd")
        )
    git(work, "add", ".")
    git(work, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "odd")
    git(work, "push", "-q", mirror.url, "HEAD:main")
    mirror.fetch()
    head = mirror.resolve("main")
    assert head is not None
    assert [r.path for r in to(database, mirror, head).added] == ["a/good.md"]


def test_the_index_comes_back_from_state(
    mirror: Mirror, database: Database, tmp_path: Path
) -> None:
    one = commit(mirror, None, 0, triage=text(1, "one"), other=text(7, "seven"))
    before = dict(to(database, mirror, one).history.index)
    with database.snapshot() as tx:
        files = state.export(tx, now=NOW, tick=1, clean=True, machine="m")
    fresh = new_database(tmp_path / "fresh")
    with fresh.transaction() as tx:
        state.restore(tx, files)
    two = commit(mirror, one, 1, triage=text(1, "one, changed"))
    growth = to(fresh, mirror, two)
    assert (growth.added, growth.problems) == ((), ())
    assert dict(growth.history.index) == before


# --- work directories


@pytest.fixture
def work(remote: Path, tmp_path: Path) -> Path:
    """A clone with v1 released on main, and a branch on which v2 is being written."""
    path = tmp_path / "work"
    git(tmp_path, "clone", "-q", str(remote), str(path))
    git(path, "config", "user.name", "anna")
    git(path, "config", "user.email", "anna@example.org")
    save(path, text(1, "one"))
    git(path, "push", "-q", "origin", "HEAD:main")
    git(path, "checkout", "-qb", "better")
    save(path, text(2, "draft"))
    save(path, text(2, "second draft"))
    return path


def save(work: Path, content: bytes) -> None:
    file = work / PATH
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    git(work, "add", ".")
    git(work, "commit", "-qm", "change")


def judged(work: Path, pin: Pin | None) -> str:
    history, findings = history_of(work, branch="main")
    notes = Notes()
    notes.findings += findings
    reader = Reader(DirectoryTree(work), Memo(), history)
    found = pinned_text(reader, PATH, pin, notes, asked=Place("agents/ci/agent.yaml"))
    return found.value.body if found else "\n".join(map(str, notes.findings))


def test_a_draft_on_ones_own_branch_is_not_released_yet(work: Path) -> None:
    assert judged(work, Pin(number=2)) == "second draft\n"
    assert judged(work, Pin(number=1)) == "one\n"
    (work / PATH).write_bytes(text(1, "one, changed"))
    assert "v1 of" in judged(work, None)
    assert "bump to v2" in judged(work, None)


def test_without_the_watched_branch_the_checked_out_one_counts(work: Path) -> None:
    git(work, "branch", "-D", "-q", "main")
    git(work, "update-ref", "-d", "refs/remotes/origin/main")
    assert "v2 of" in judged(work, None), "the second draft is not what v2 was first"


def test_a_shallow_clone_is_not_believed_and_says_so(remote: Path, work: Path) -> None:
    git(work, "push", "-q", "origin", "better")
    shallow = work.with_name("shallow")
    git(work.parent, "clone", "-q", "--depth=1", "-b", "better", remote.as_uri(), str(shallow))
    history, (finding,) = history_of(shallow, branch="main")
    assert "fetch-depth: 0" in finding.fix
    assert finding.severity == "warning"
    assert history.released(PATH, 2) is None
    assert "shallow" in judged(shallow, Pin(commit="0" * 40))


@pytest.mark.parametrize("where", ["", "agents"])
def test_a_folder_that_is_no_top_of_a_work_tree_has_no_history(
    work: Path, tmp_path: Path, where: str
) -> None:
    folder = work / where if where else tmp_path
    history, findings = history_of(folder, branch="main")
    assert findings == ()
    assert history.absent


def test_a_repository_without_a_commit_has_no_history(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "new")
    history, findings = history_of(tmp_path / "new", branch="main")
    assert (history.absent is not None, findings) == (True, ())


def test_a_line_knows_its_commits(mirror: Mirror) -> None:
    one = commit(mirror, None, 0, triage=text(1, "one"))
    two = commit(mirror, one, 1, triage=text(2, "two"))
    line = Line.of_mirror(mirror, one)
    assert line.tree(one) is not None
    assert line.tree(two) is None, "a commit after the head is not its history"
    assert line.tree(one[:12]) is None
    assert [r.number for r in additions(Line.of_mirror(mirror, two), {}, known={one})] == [2]


# --- what a commit changed

NAMES = ("a", "a.md", "b/c", "b/c/d", "b-c", "b/c.md", "deep/er/and/deeper/x.md")


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.dictionaries(st.sampled_from(NAMES), st.binary(max_size=2)), max_size=4))
def test_a_step_lists_exactly_the_files_that_differ(
    mirror: Mirror, contents: list[dict[str, bytes]]
) -> None:
    head: CommitId | None = None
    before: MemoryTree | None = None
    expected: list[tuple[str, ...]] = []

    def step(changes: dict[str, bytes | None], tree: MemoryTree) -> None:
        nonlocal head, before
        changed = changed_paths(before, tree)
        if changed:  # the writer makes no empty commits
            head = write(mirror, head, 0, changes)
            expected.append(changed)
        before = tree

    for tree in filter(None, map(_memory_tree, contents)):
        files = {path: tree.read(path) for path, _ in tree.walk()}
        if before is not None:  # the writer turns no directory into a file in one go
            kept = {path: before.read(path) for path, _ in before.walk() if path in files}
            gone = [path for path, _ in before.walk() if path not in files]
            step(dict.fromkeys(gone), MemoryTree(kept))
        step(dict(files), tree)
    if head is not None:
        assert [s.changed for s in Line.of_mirror(mirror, head).steps()] == expected


def _memory_tree(files: dict[str, bytes]) -> MemoryTree | None:
    try:
        return MemoryTree(files)
    except UnsafePath:  # a file and a directory of one name
        return None


def test_links_modes_and_kinds_are_changes_too(tmp_path: Path, mirror: Mirror) -> None:
    work = tmp_path / "work"
    git(tmp_path, "init", "-q", str(work))
    git(work, "config", "user.name", "anna")
    git(work, "config", "user.email", "anna@example.org")
    for name in ("file", "link", "mode", "same"):
        (work / name).write_text("x")
    git(work, "add", ".")
    git(work, "commit", "-qm", "one")
    (work / "file").unlink()
    (work / "file").mkdir()
    (work / "file" / "inside").write_text("x")
    (work / "link").unlink()
    (work / "link").symlink_to("same")
    (work / "mode").chmod(0o755)
    git(work, "add", ".")
    git(work, "commit", "-qm", "two")
    git(work, "push", "-q", mirror.url, "HEAD:main")
    mirror.fetch()
    head = mirror.resolve("main")
    assert head is not None
    assert [step.changed for step in Line.of_mirror(mirror, head).steps()] == [
        ("file", "link", "mode", "same"),
        ("file", "file/inside", "link", "mode"),
    ]
