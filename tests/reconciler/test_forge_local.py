"""The built-in forge, against bare repositories that other people push to as well."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pygit2
import pytest

from gateway.values import Json, Millis, canonical_json
from reconciler.forge.documents import (
    BRANCH,
    MOST_HEADS,
    Malformed,
    StatusDocument,
    StatusEntry,
    read_comments,
    read_pull,
)
from reconciler.forge.landing import COMMITTER, identity_of
from reconciler.forge.local import LocalForge
from reconciler.forge.model import (
    BODY_LIMIT,
    AddComment,
    Close,
    ForgeRefused,
    ForgeUnavailable,
    Login,
    MalformedPull,
    Merge,
    OpenPull,
    PullNumber,
    PullState,
    SetStatus,
    StatusState,
    UpsertComment,
)
from reconciler.forge.people import authors_of, is_author
from reconciler.source import CommitId, Identity, MemoryTree, Mirror, ObjectId, writing
from reconciler.source.merging import commits_between
from reconciler.source.remote import Remote
from tests.support.git_http import git_server, install_hook

ANNA, BOB, BOT = Login("anna"), Login("bob"), Login("interlock")
ONE = PullNumber(1)
SMITH = Identity("Anna Smith", "anna@example.org")
LINES = "".join(f"{number}\n" for number in range(1, 10))
Open = Callable[..., LocalForge]


class Ticking:
    """A clock that is one second later at every look."""

    def __init__(self) -> None:
        self._seconds = count(1_700_000_000)

    def now(self) -> Millis:
        return Millis(next(self._seconds) * 1000)


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def write(
    remote: Path,
    branch: str,
    changes: dict[str, bytes | None],
    *,
    author: Identity = SMITH,
) -> CommitId:
    """One commit more on a branch (a new one starts from main), as a colleague would push it."""
    repository = pygit2.Repository(str(remote))
    heads = [f"refs/heads/{name}" for name in (branch, "main")]
    known = [repository.references[ref].target for ref in heads if ref in repository.references]
    commit = writing.write_commit(
        repository,
        CommitId(ObjectId(str(known[0]))) if known else None,
        changes,
        message="change",
        author=author,
        committer=author,
        when_ms=Millis(1_700_000_000_000),
        signer=None,
    )
    repository.references.create(heads[0], commit, force=True)
    return commit


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config repo with main and `idea`, anna's pull 1 between them, and a mirror of it."""
    folder = tmp_path_factory.mktemp("template")
    remote = folder / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(remote)], check=True)
    write(remote, "main", {"file": LINES.encode(), "other": b"1"})
    write(remote, "idea", {"file": LINES.replace("9", "nine").encode()})
    mirror = Mirror.open_or_clone(str(remote), folder / "mirror")
    forge_on(mirror, ANNA).perform(OpenPull("idea", "main", "An idea", "Why not?"))
    return folder


def forge_on(mirror: Mirror, login: Login, *, bot: bool = False) -> LocalForge:
    return LocalForge(
        mirror,
        clock=Ticking(),
        login=login,
        bot=bot,
        sleep=lambda seconds: None,
        draw=lambda: 0.5,
    )


@pytest.fixture
def remote(tmp_path: Path, template: Path) -> Path:
    shutil.copytree(template / "remote.git", tmp_path / "remote.git")
    return tmp_path / "remote.git"


@pytest.fixture
def seat(remote: Path, tmp_path: Path, template: Path) -> Open:
    """A forge for somebody, each on a mirror of their own as of the template."""

    def sit(login: Login, *, bot: bool = False) -> LocalForge:
        path = tmp_path / f"{login}-mirror"
        shutil.copytree(template / "mirror", path)
        git(path, "config", "interlock.url", str(remote))
        return forge_on(Mirror.open_or_clone(str(remote), path), login, bot=bot)

    return sit


@pytest.fixture
def pulled(seat: Open) -> LocalForge:
    """Anna's forge, with pull 1 open from `idea`."""
    return seat(ANNA)


@pytest.fixture
def there(remote: Path) -> Mirror:
    """The remote itself, for looking at."""
    return Mirror(remote, Remote.of(str(remote), auth=None, timeouts=None))


def commits_of(remote: Path) -> int:
    return int(git(remote, "rev-list", "--count", BRANCH))


# --- opening


def test_an_opened_pull_is_seen_by_everybody(pulled: LocalForge, seat: Open, there: Mirror) -> None:
    (pull,) = seat(BOB).pulls().pulls
    assert (pull.number, pull.title, pull.body) == (1, "An idea", "Why not?")
    assert (pull.source, pull.target, pull.opener) == ("idea", "main", "anna")
    assert pull.state is PullState.OPEN
    assert pull.head == there.resolve("idea")


def test_pulls_opened_at_once_get_different_numbers(seat: Open, remote: Path) -> None:
    git(remote, "update-ref", "-d", f"refs/heads/{BRANCH}")  # whose first commit is raced for too
    people = [Login(f"person-{number}") for number in range(4)]
    for login in people:
        write(remote, f"by-{login}", {str(login): b"x"})
    forges = [seat(login) for login in people]
    together = threading.Barrier(len(people))
    given: list[int] = []

    def open_one(forge: LocalForge) -> None:
        together.wait()
        given.append(forge.perform(OpenPull(f"by-{forge.login}", "main", "Mine")).pull)

    threads = [threading.Thread(target=open_one, args=[forge]) for forge in forges]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == [1, 2, 3, 4]
    bob = seat(BOB)
    bob.refresh()
    found = bob.pulls().pulls
    assert {pull.opener for pull in found} == set(people)


def test_opening_the_same_branches_again_gives_the_open_pull(
    pulled: LocalForge, remote: Path
) -> None:
    before = commits_of(remote)
    again = pulled.perform(OpenPull("idea", "main", "Again"))
    assert (again.changed, again.pull) == (False, 1)
    assert commits_of(remote) == before


@pytest.mark.parametrize(
    "action, told",
    [
        (OpenPull("nowhere", "main", "T"), "there is no branch nowhere"),
        (OpenPull("idea", "nowhere", "T"), "there is no branch nowhere"),
        (OpenPull("idea", "idea", "T"), "same branch"),
        (OpenPull("same", "main", "T"), "nothing to merge"),
        (OpenPull(BRANCH, "main", "T"), "holds the pull requests themselves"),
        (OpenPull("refs/heads/idea", "main", "T"), "without refs/heads/"),
        (OpenPull("../idea", "main", "T"), "not the name of a branch"),
        (OpenPull("idea", "main", "   "), "title"),
        (OpenPull("idea", "main", "two\nlines"), "one line"),
        (OpenPull("idea", "main", "T", "x" * (BODY_LIMIT + 1)), "65536"),
        (AddComment(PullNumber(9), "hello"), "there is no pull #9"),
        (AddComment(ONE, "  \n"), "says nothing"),
        (AddComment(ONE, "x" * (BODY_LIMIT + 1)), "65,536"),
        (SetStatus(ONE, CommitId("abc"), "c", StatusState.ERROR, ""), "full commit id"),  # type: ignore[arg-type]
        (Merge(ONE, CommitId("0" * 40)), "it moved"),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_sense_is_refused_and_writes_nothing(
    pulled: LocalForge, action: object, told: str, remote: Path, there: Mirror
) -> None:
    write(remote, "same", {})
    before = commits_of(remote)
    with pytest.raises(ForgeRefused, match=told):
        pulled.perform(action)  # type: ignore[arg-type]
    assert commits_of(remote) == before


# --- comments and statuses


def test_a_comment_is_bound_to_the_head_it_was_made_at(
    pulled: LocalForge, seat: Open, remote: Path
) -> None:
    bob = seat(BOB)
    first = bob.pull(ONE).head
    bob.perform(AddComment(ONE, "/interlock approve", head=first))
    second = write(remote, "idea", {"file": b"rewritten"})
    with pytest.raises(ForgeRefused, match=f"is at {second[:12]}"):
        bob.perform(AddComment(ONE, "/interlock approve", head=first))
    bob.perform(AddComment(ONE, "hm"))
    said = bob.comments(ONE)
    assert [(c.id, c.author, c.body, c.head) for c in said] == [
        (1, "bob", "/interlock approve", first),
        (2, "bob", "hm", second),
    ]
    assert not any(c.bot or c.edited_at for c in said)


def test_comments_made_at_once_are_all_kept(pulled: LocalForge, seat: Open) -> None:
    forges = [pulled, seat(BOB), seat(BOT, bot=True)]
    threads = [
        threading.Thread(target=forge.perform, args=[AddComment(ONE, f"by {forge.login}")])
        for forge in forges
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pulled.refresh()
    said = pulled.comments(ONE)
    assert [c.id for c in said] == [1, 2, 3]
    assert {c.body for c in said} == {"by anna", "by bob", "by interlock"}


def test_an_upserted_comment_is_one_comment_written_only_when_it_changes(
    pulled: LocalForge, seat: Open, remote: Path
) -> None:
    bot = seat(BOT, bot=True)
    # Somebody else's comment that starts like ours is not ours.
    pulled.perform(AddComment(ONE, "<!-- interlock:plan -->\nmine now"))
    assert bot.perform(UpsertComment(ONE, "plan", "first")).changed
    written = commits_of(remote)
    assert not bot.perform(UpsertComment(ONE, "plan", "first")).changed
    assert commits_of(remote) == written
    changed = bot.perform(UpsertComment(ONE, "plan", "second"))
    other = bot.perform(UpsertComment(ONE, "gate", "another"))
    assert (changed.comment, other.comment) == (2, 3)
    said = bot.comments(ONE)
    assert [c.body.partition("\n")[2] for c in said] == ["mine now", "second", "another"]
    assert said[1].edited_at is not None
    assert said[1].bot


def test_saying_the_same_again_asks_no_network(pulled: LocalForge, remote: Path) -> None:
    head = pulled.pull(ONE).head
    assert head is not None
    plan = UpsertComment(ONE, "plan", "the plan")
    status = SetStatus(ONE, head, "interlock/plan", StatusState.SUCCESS, "nothing newly allowed")
    assert pulled.perform(plan).changed
    assert pulled.perform(status).changed
    remote.rename(remote.with_name("moved.git"))
    assert not pulled.perform(plan).changed
    assert not pulled.perform(status).changed
    with pytest.raises(ForgeUnavailable):
        pulled.perform(UpsertComment(ONE, "plan", "another"))


def test_a_text_that_is_too_long_for_one_comment_is_cut_and_says_so(
    pulled: LocalForge, seat: Open
) -> None:
    bot = seat(BOT, bot=True)
    bot.perform(UpsertComment(ONE, "plan", "x" * 100_000))
    assert not bot.perform(UpsertComment(ONE, "plan", "x" * 100_000)).changed
    (said,) = bot.comments(ONE)
    assert len(said.body) == BODY_LIMIT
    assert said.body.endswith("too long for one comment.")


def test_a_status_is_kept_per_head_and_context_and_not_repeated(
    pulled: LocalForge, remote: Path
) -> None:
    head = pulled.pull(ONE).head
    assert head is not None
    pending = SetStatus(ONE, head, "interlock/plan", StatusState.PENDING, "looking\n\tinto it")
    assert pulled.perform(pending).changed
    written = commits_of(remote)
    assert not pulled.perform(pending).changed
    assert commits_of(remote) == written
    pulled.perform(SetStatus(ONE, head, "interlock/gate", StatusState.SUCCESS, "y" * 500))
    pulled.perform(SetStatus(ONE, head, "interlock/plan", StatusState.FAILURE, "no"))
    gate, plan = pulled.statuses(ONE, head)
    assert (gate.context, gate.state, len(gate.description)) == ("interlock/gate", "success", 140)
    assert (plan.context, plan.state, plan.description) == ("interlock/plan", "failure", "no")
    assert pulled.statuses(ONE, CommitId(head[::-1])) == ()  # type: ignore[arg-type]


def test_statuses_of_heads_long_gone_make_room(pulled: LocalForge) -> None:
    document = StatusDocument()
    for number in range(MOST_HEADS + 5):
        entry = StatusEntry(state=StatusState.SUCCESS, at=number)
        document = document.with_entry(CommitId(f"{number:040x}"), "plan", entry)  # type: ignore[arg-type]
    assert len(document.heads) == MOST_HEADS
    assert f"{4:040x}" not in document.heads
    assert f"{5:040x}" in document.heads


def test_characters_that_could_steer_a_terminal_are_not_stored(pulled: LocalForge) -> None:
    pulled.perform(AddComment(ONE, "a\x1b[2Jb\n\tc"))
    assert pulled.comments(ONE)[0].body == "a\ufffd[2Jb\n\tc"


# --- listing


def test_the_listing_s_mark_changes_exactly_when_something_did(
    pulled: LocalForge, remote: Path
) -> None:
    marks = [pulled.pulls().mark]

    def look() -> bool:
        pulled.refresh()
        marks.append(pulled.pulls().mark)
        return marks[-1] != marks[-2]

    assert not look()
    pulled.perform(AddComment(ONE, "hello"))
    assert look()
    write(remote, "unrelated", {"x": b"1"})
    assert not look()
    write(remote, "idea", {"x": b"1"})
    assert look()
    write(remote, "main", {"y": b"1"})
    assert look()


def test_a_listing_reads_again_only_the_pulls_that_changed(
    pulled: LocalForge, monkeypatch: pytest.MonkeyPatch, remote: Path
) -> None:
    from reconciler.forge import documents

    write(remote, "second", {"z": b"1"})
    pulled.perform(OpenPull("second", "main", "Second"))
    pulled.pulls()
    read: list[int] = []
    original = documents.read_pull
    monkeypatch.setattr(
        documents, "read_pull", lambda tree, n: (read.append(n), original(tree, n))[1]
    )
    pulled.pulls()
    assert read == []
    pulled.perform(AddComment(PullNumber(2), "hello"))
    read.clear()
    assert len(pulled.pulls().open) == 2
    assert read == [2]


# --- merging


def test_a_merge_brings_both_sides_together_on_the_target(
    pulled: LocalForge, seat: Open, remote: Path, there: Mirror
) -> None:
    moved = write(remote, "main", {"other": b"2"})
    head = pulled.pull(ONE).head
    assert head is not None
    done = seat(BOB).perform(Merge(ONE, head))
    assert there.resolve("main") == done.commit
    assert done.commit is not None
    info = there.commit_info(done.commit)
    assert info.parents == (moved, head)
    assert info.message.startswith("Merge pull request #1 from idea\n\nAn idea\n")
    assert info.author.name == "bob"
    assert there.tree(done.commit).read("other") == b"2"
    pulled.refresh()
    pull = pulled.pull(ONE)
    assert (pull.state, pull.merged, pull.head) == (PullState.MERGED, done.commit, head)
    assert pull.closer == "bob"


def test_a_squash_is_one_commit_of_whoever_wrote_it(
    pulled: LocalForge, remote: Path, there: Mirror
) -> None:
    head = write(remote, "idea", {"more": b"1"})
    main = there.resolve("main")
    done = pulled.perform(Merge(ONE, head, squash=True))
    assert done.commit is not None
    info = there.commit_info(done.commit)
    assert info.parents == (main,)
    assert info.author == Identity("Anna Smith", "anna@example.org")
    assert info.message.startswith("An idea (#1)\n\nWhy not?\n")
    assert there.tree(done.commit).read("more") == b"1"


def test_a_squash_of_several_people_s_work_names_them_all(
    pulled: LocalForge, remote: Path, there: Mirror
) -> None:
    head = write(remote, "idea", {"more": b"1"}, author=Identity("Bob", "bob@example.org"))
    done = pulled.perform(Merge(ONE, head, squash=True))
    assert done.commit is not None
    message = there.commit_info(done.commit).message
    assert "Co-authored-by: Anna Smith <anna@example.org>\n" in message
    assert "Co-authored-by: Bob <bob@example.org>\n" in message


@pytest.mark.parametrize("squash", [False, True])
def test_merging_twice_is_merging_once(pulled: LocalForge, squash: bool, remote: Path) -> None:
    head = pulled.pull(ONE).head
    assert head is not None
    first = pulled.perform(Merge(ONE, head, squash=squash))
    commits = git(remote, "rev-parse", "main", BRANCH)
    again = pulled.perform(Merge(ONE, head, squash=squash))
    assert (again.changed, again.commit) == (False, first.commit)
    assert git(remote, "rev-parse", "main", BRANCH) == commits


@pytest.mark.parametrize("squash", [False, True])
def test_a_merge_that_was_cut_off_before_its_note_is_found_again(
    pulled: LocalForge, squash: bool, remote: Path
) -> None:
    head = pulled.pull(ONE).head
    assert head is not None
    install_hook(remote, "update", f'[ "$1" != refs/heads/{BRANCH} ]')
    with pytest.raises(ForgeUnavailable):
        pulled.perform(Merge(ONE, head, squash=squash))
    merged = git(remote, "rev-parse", "main")
    install_hook(remote, "update", "")
    write(remote, "main", {"other": b"later"})
    later = git(remote, "rev-parse", "main")
    done = pulled.perform(Merge(ONE, head, squash=squash))
    assert done.commit == merged
    assert git(remote, "rev-parse", "main") == later
    assert pulled.pull(ONE).state is PullState.MERGED


def test_conflicts_are_refused_with_their_paths(pulled: LocalForge, remote: Path) -> None:
    write(remote, "main", {"file": LINES.replace("9", "NINE").encode()})
    before = git(remote, "rev-parse", "main")
    head = pulled.pull(ONE).head
    assert head is not None
    with pytest.raises(ForgeRefused, match="conflicts with main in file; merge main into idea"):
        pulled.perform(Merge(ONE, head))
    assert git(remote, "rev-parse", "main") == before


def test_a_head_that_moved_is_not_merged(pulled: LocalForge, remote: Path) -> None:
    seen = pulled.pull(ONE).head
    assert seen is not None
    write(remote, "idea", {"surprise": b"1"})
    before = git(remote, "rev-parse", "main")
    with pytest.raises(ForgeRefused, match="it moved"):
        pulled.perform(Merge(ONE, seen))
    assert git(remote, "rev-parse", "main") == before


def racing(remote: Path, own: Mirror, times: int) -> Callable[..., object]:
    """A push that somebody else is faster than, the first `times` times."""
    original, left = own.push, iter(range(times))

    def push(updates: dict[str, object]) -> object:
        if "main" in updates and (number := next(left, None)) is not None:
            write(remote, "main", {f"race-{number}": b"x"})
        return original(updates)  # type: ignore[arg-type]

    return push


def test_a_target_that_moves_meanwhile_is_merged_with_once_more(
    pulled: LocalForge, monkeypatch: pytest.MonkeyPatch, remote: Path, there: Mirror
) -> None:
    head = pulled.pull(ONE).head
    assert head is not None
    own = pulled._mirror
    monkeypatch.setattr(own, "push", racing(remote, own, 1))
    done = pulled.perform(Merge(ONE, head))
    assert there.resolve("main") == done.commit
    assert any(name.startswith("race-") for name, _ in there.tree(done.commit).walk())  # type: ignore[arg-type]


def test_a_target_that_keeps_moving_is_left_alone(
    pulled: LocalForge, monkeypatch: pytest.MonkeyPatch, remote: Path
) -> None:
    head = pulled.pull(ONE).head
    assert head is not None
    own = pulled._mirror
    monkeypatch.setattr(own, "push", racing(remote, own, 2))
    with pytest.raises(ForgeRefused, match="keeps moving"):
        pulled.perform(Merge(ONE, head))
    assert pulled.pull(ONE).open


def test_a_protected_target_s_refusal_is_told(pulled: LocalForge, remote: Path) -> None:
    install_hook(remote, "update", '[ "$1" != refs/heads/main ] || { echo no >&2; exit 1; }')
    head = pulled.pull(ONE).head
    assert head is not None
    with pytest.raises(ForgeUnavailable, match="hook"):
        pulled.perform(Merge(ONE, head))
    assert pulled.pull(ONE).open


def test_a_pull_merged_by_somebody_s_own_push_is_merged(
    pulled: LocalForge, there: Mirror, remote: Path
) -> None:
    head = pulled.pull(ONE).head
    assert head is not None
    git(remote, "update-ref", "refs/heads/main", head)
    pulled.refresh()
    assert pulled.pull(ONE).state is PullState.MERGED
    assert pulled.pulls().open == ()
    assert pulled.perform(Merge(ONE, head)).changed
    assert pulled.pull(ONE).closer == "anna"


def test_a_closed_pull_is_not_merged_and_closing_it_again_is_nothing(
    pulled: LocalForge, remote: Path
) -> None:
    head = pulled.pull(ONE).head
    assert head is not None
    assert pulled.perform(Close(ONE)).changed
    assert not pulled.perform(Close(ONE)).changed
    write(remote, "idea", {"more": b"1"})
    pulled.refresh()
    pull = pulled.pull(ONE)
    assert (pull.state, pull.head, pull.closer) == (PullState.CLOSED, head, "anna")
    with pytest.raises(ForgeRefused, match="is closed"):
        pulled.perform(Merge(ONE, head))
    assert pulled.perform(OpenPull("idea", "main", "Once more")).pull == 2


def test_a_pull_whose_branch_is_gone_can_still_be_closed(pulled: LocalForge, remote: Path) -> None:
    head = pulled.pull(ONE).head
    assert head is not None
    git(remote, "update-ref", "-d", "refs/heads/idea")
    pulled.refresh()
    assert pulled.pull(ONE).head is None
    with pytest.raises(ForgeRefused, match="is gone"):
        pulled.perform(Merge(ONE, head))
    pulled.perform(Close(ONE))
    assert pulled.pull(ONE).state is PullState.CLOSED


# --- what strangers may have written there

GOOD: dict[str, Json] = {
    "format": "interlock.pulls/1",
    "number": 2,
    "title": "T",
    "body": "",
    "source": "idea",
    "target": "main",
    "opener": "mallory",
    "opened_at": 1,
    "state": "open",
    "head": None,
    "merged": None,
    "closer": None,
    "closed_at": None,
}


def changed(**fields: Json) -> bytes:
    return canonical_json({**GOOD, **fields})


@pytest.mark.parametrize(
    "content, told",
    [
        (b"", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (b" " * 600_000, "larger than"),
        (b"null", "object"),
        (changed(format="interlock.pulls/2"), '"format"'),
        (changed(number=3), "says it is number 3"),
        (changed(number="2"), '"number"'),
        (changed(number=True), '"number"'),
        (changed(extra=1), '"extra"'),
        (changed(title="a\nb"), "one line"),
        (changed(title="\u202egnp.exe"), "one line"),
        (changed(title="x" * 257), '"title"'),
        (changed(body="x" * (BODY_LIMIT + 1)), '"body"'),
        (changed(body="\x1b[2J"), "control characters"),
        (changed(source="refs/heads/main"), "without refs/heads/"),
        (changed(source="../../etc"), "not the name of a branch"),
        (changed(source="main"), "same branch"),
        (changed(source=BRANCH), "holds the pull requests"),
        (changed(opener="@everyone"), '"opener"'),
        (changed(opened_at=-1), '"opened_at"'),
        (changed(opened_at=2**70), '"opened_at"'),
        (changed(state="approved"), '"state"'),
        (changed(state="merged"), "closed_at"),
        (changed(merged="abc", state="merged", closed_at=2), "full commit id"),
        (changed(merged="a" * 40), "state merged"),
    ],
)
def test_a_malformed_pull_is_refused_with_the_reason(content: bytes, told: str) -> None:
    tree = MemoryTree({"pulls/2/pull.json": content})
    with pytest.raises(Malformed, match=told) as caught:
        read_pull(tree, PullNumber(2))
    for finding in caught.value.findings:
        assert str(finding).startswith("pulls/2/pull.json:1:1 ")
        assert len(str(finding)) < 500


def test_a_malformed_pull_is_an_error_of_that_pull_alone(pulled: LocalForge, remote: Path) -> None:
    write(remote, BRANCH, {"pulls/2/pull.json": b"{"})
    pulled.refresh()
    listing = pulled.pulls()
    assert [pull.number for pull in listing.pulls] == [1]
    assert list(listing.broken) == [2]
    with pytest.raises(MalformedPull) as caught:
        pulled.pull(PullNumber(2))
    assert caught.value.findings == listing.broken[PullNumber(2)]
    pulled.perform(AddComment(ONE, "still here"))
    write(remote, "third", {"t": b"1"})
    assert pulled.perform(OpenPull("third", "main", "Third")).pull == 3


def test_a_well_formed_file_of_somebody_s_own_making_is_a_pull(
    pulled: LocalForge, remote: Path
) -> None:
    write(remote, BRANCH, {"pulls/2/pull.json": json.dumps(GOOD, indent=2).encode()})
    pulled.refresh()
    assert pulled.pull(PullNumber(2)).opener == "mallory"


@pytest.mark.parametrize(
    "path, content",
    [
        ("pulls/1/comments/1.json", b"{}"),
        ("pulls/1/comments/1.json", b"not json"),
        ("pulls/1/comments/one.json", b"{}"),
        ("pulls/1/comments/1.json/deep", b"{}"),
        ("pulls/1/comments/0.json", b"{}"),
        (
            "pulls/1/comments/4.json",
            canonical_json(
                {"format": "interlock.pulls/1", "id": 5, "author": "m", "body": "b", "at": 1}
            ),
        ),
    ],
)
def test_a_malformed_comment_is_refused_with_its_place(path: str, content: bytes) -> None:
    with pytest.raises(Malformed, match="pulls/1/comments/"):
        read_comments(MemoryTree({path: content}), ONE)


def test_a_malformed_comment_is_an_error_of_its_pull(pulled: LocalForge, remote: Path) -> None:
    write(remote, BRANCH, {"pulls/1/comments/1.json": b"not json"})
    pulled.refresh()
    with pytest.raises(MalformedPull, match=r"pulls/1/comments/1\.json:1:1 Invalid JSON"):
        pulled.comments(ONE)
    assert pulled.pull(ONE).open


def test_malformed_statuses_are_an_error_of_their_pull(pulled: LocalForge, remote: Path) -> None:
    head = pulled.pull(ONE).head
    assert head is not None
    write(
        remote,
        BRANCH,
        {"pulls/1/statuses.json": b'{"format":"interlock.pulls/1","heads":{"x":{}}}'},
    )
    pulled.refresh()
    with pytest.raises(MalformedPull, match="full commit id"):
        pulled.statuses(ONE, head)


def test_files_that_are_no_pulls_are_nobody_s_pulls(pulled: LocalForge, remote: Path) -> None:
    for path in (
        "README.md",
        "pulls/notes.txt",
        "pulls/01/pull.json",
        "pulls/-1/x",
        "pulls/9999999999/x",
    ):
        write(remote, BRANCH, {path: b"x"})
    pulled.refresh()
    listing = pulled.pulls()
    assert [pull.number for pull in listing.pulls] == [1]
    assert listing.broken == {}


def test_a_link_in_place_of_a_file_is_not_followed(
    pulled: LocalForge, tmp_path: Path, remote: Path
) -> None:
    work = tmp_path / "work"
    subprocess.run(["git", "clone", "-q", "-b", BRANCH, str(remote), str(work)], check=True)
    (work / "pulls" / "2").mkdir()
    (work / "pulls" / "2" / "pull.json").symlink_to("../1/pull.json")
    git(work, "add", "-A")
    git(work, "-c", "user.name=m", "-c", "user.email=m@x", "commit", "-qm", "link")
    git(work, "push", "-q")
    pulled.refresh()
    assert "is a link" in str(pulled.pulls().broken[PullNumber(2)][0])


def test_a_login_that_could_not_be_written_is_refused(seat: Open) -> None:
    for login in ("", "a b", "../x", "x" * 80, "@anna"):
        with pytest.raises(ForgeRefused, match="author"):
            seat(Login(login))


# --- other remotes


def test_pulls_work_over_http(template: Path, tmp_path: Path, remote: Path) -> None:
    shutil.copytree(template / "remote.git", tmp_path / "served" / "config.git")
    git(tmp_path / "served" / "config.git", "config", "http.receivepack", "true")
    with git_server(tmp_path / "served") as server:
        url = f"{server.url}/config.git"
        anna, bob = (
            forge_on(Mirror.open_or_clone(url, tmp_path / login), login) for login in (ANNA, BOB)
        )
        write(tmp_path / "served" / "config.git", "second", {"x": b"1"})
        number = anna.perform(OpenPull("second", "main", "Over HTTP")).pull
        bob.refresh()
        head = bob.pull(number).head
        assert head is not None
        bob.perform(AddComment(number, "fine", head=head))
        done = bob.perform(Merge(number, head))
        assert git(tmp_path / "served" / "config.git", "rev-parse", "main") == done.commit
        server.down()
        with pytest.raises(ForgeUnavailable) as caught:
            anna.perform(AddComment(number, "anyone?"))
        assert caught.value.retryable


# --- who made it


def test_authors_are_opener_pushers_and_requester(
    pulled: LocalForge, remote: Path, there: Mirror
) -> None:
    person = Identity("Carol Jones", "12345+caz@users.noreply.github.com")
    head = write(remote, "idea", {"x": b"1"}, author=person)
    target = there.resolve("main")
    assert target is not None
    authors = authors_of(ANNA, commits_between(there, target, head), requester=Login("dave"))
    assert authors[0] == "anna"
    assert {"Carol Jones", "caz", "dave", "Anna Smith"} <= set(authors)
    for login in ("ANNA", "anna-smith", "annasmith", "carol.jones", "Caz", "dave"):
        assert is_author(login, authors), login
    for login in ("bob", "carol", "noreply", "12345"):
        assert not is_author(login, authors), login


def test_co_authors_are_authors_and_the_forge_s_own_button_is_not() -> None:
    from dataclasses import replace

    from reconciler.source import CommitInfo, TreeId

    commit = CommitInfo(
        id=CommitId("a" * 40),  # type: ignore[arg-type]
        tree=TreeId("b" * 40),  # type: ignore[arg-type]
        parents=(),
        author=Identity("Erin", "erin+git@example.org"),
        committer=Identity("GitHub", "noreply@github.com"),
        time_ms=Millis(0),
        message="x\n\nCo-authored-by: Frank <frank@example.org>\nco-authored-by: G <>\n",
        signature=None,
    )
    assert authors_of(ANNA, [commit]) == ("anna", "Erin", "Frank", "G", "erin", "frank")
    ours = replace(commit, author=Identity("Interlock", "reconciler@interlock.invalid"), message="")
    assert authors_of(ANNA, [ours]) == ("anna",)
    merged = replace(ours, author=identity_of("bob"), committer=COMMITTER)
    assert authors_of(ANNA, [merged]) == ("anna", "bob")
