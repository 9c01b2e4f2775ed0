"""The mirror against a real git server over HTTP, and against what goes wrong there."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import pytest

from gateway.values import Millis
from reconciler.source import (
    Auth,
    CommitId,
    Mirror,
    PushOutcome,
    RemoteUnavailable,
    ShallowHistory,
    SignatureStatus,
    Timeouts,
    generate_key,
    integrate_and_push,
    public_key,
)
from tests.support.git_http import Fault, GitServer, git_server

pytestmark = pytest.mark.system

WHEN = Millis(1_700_000_000_000)
REPORTS = "interlock/reports"
REF = f"refs/heads/{REPORTS}"
HASTY = Timeouts(total_ms=1_500)
TOKEN = "tok-3f9a1c-not-for-eyes"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    (tmp_path / "served").mkdir()
    with git_server(tmp_path / "served") as running:
        yield running


@pytest.fixture
def url(server: GitServer) -> str:
    return server.create("fleet.git")


@pytest.fixture
def mirror(url: str, tmp_path: Path) -> Mirror:
    return Mirror.open_or_clone(url, tmp_path / "mirror")


def hasty(mirror: Mirror) -> Mirror:
    """The same mirror with little patience."""
    return Mirror.open_or_clone(mirror.url, mirror.path, timeouts=HASTY)


def write(mirror: Mirror, parent: CommitId | None, content: bytes) -> CommitId:
    return mirror.write_commit(
        parent, {"state/x": content}, message="state", when_ms=WHEN, signer=None
    )


def begin(mirror: Mirror) -> CommitId:
    first = write(mirror, None, b"1")
    assert mirror.push({REPORTS: (None, first)}).pushed
    return first


def at_server(server: GitServer, ref: str = REF) -> str:
    run = ["git", "-C", str(server.root / "fleet.git"), "rev-parse", "--verify", "-q", ref]
    return subprocess.run(run, capture_output=True, text=True, check=False).stdout.strip()


def children() -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            found.append(int(stat.parent.name))
    return found


def test_clone_fetch_and_push(server: GitServer, url: str, mirror: Mirror, tmp_path: Path) -> None:
    assert mirror.heads() == {}
    first = begin(mirror)
    main = write(mirror, None, b"main")
    assert mirror.push({"main": (None, main)}).pushed
    other = Mirror.open_or_clone(url, tmp_path / "other")
    assert other.heads() == {"refs/heads/main": main, REF: first}
    assert other.default_branch() == "main"
    assert other.tree(first).read("state/x") == b"1"
    second = write(other, first, b"2")
    assert other.push({REPORTS: (first, second)}).pushed
    assert mirror.fetch()[REF] == second
    assert mirror.first_parent_history(REPORTS) == (first, second)
    assert at_server(server) == second


@pytest.mark.parametrize("hook", ["pre-receive", "update"])
def test_a_push_that_a_hook_rejects_is_reported_as_rejected(
    server: GitServer, mirror: Mirror, hook: str
) -> None:
    first = begin(mirror)
    server.hook("fleet.git", hook, "echo 'reports are closed' >&2; exit 1")
    refused = mirror.push({REPORTS: (first, write(mirror, first, b"2"))})
    assert (refused.outcome, refused.retryable) == (PushOutcome.REJECTED, False)
    assert "hook declined" in refused.reason
    assert refused.remote == {REF: first}
    assert mirror.resolve(REPORTS) == first == at_server(server)


def test_of_several_refs_those_that_arrived_are_told(server: GitServer, mirror: Mirror) -> None:
    first = begin(mirror)
    server.hook("fleet.git", "update", f'test "$1" != {REF}')
    new = write(mirror, first, b"2")
    result = mirror.push({REPORTS: (first, new), "side": (None, new)})
    assert result.outcome is PushOutcome.REJECTED
    assert result.remote == {REF: first, "refs/heads/side": new}


def test_a_remote_that_is_down_is_said_to_be_and_comes_back(
    server: GitServer, url: str, mirror: Mirror, tmp_path: Path
) -> None:
    first = begin(mirror)
    second = write(mirror, first, b"2")
    server.down()
    with pytest.raises(RemoteUnavailable, match="look whether the host is up") as caught:
        mirror.fetch()
    assert caught.value.retryable
    with pytest.raises(RemoteUnavailable):
        Mirror.open_or_clone(url, tmp_path / "never")
    assert not (tmp_path / "never").exists()
    refused = mirror.push({REPORTS: (first, second)})
    assert (refused.outcome, refused.retryable) == (PushOutcome.REJECTED, True)
    assert mirror.resolve(REPORTS) == first
    server.up()
    assert mirror.push({REPORTS: (first, second)}).pushed


def test_an_error_of_the_server_is_worth_a_retry(server: GitServer, mirror: Mirror) -> None:
    server.fault = Fault.ERROR_500
    with pytest.raises(RemoteUnavailable, match="500; the server failed") as caught:
        mirror.fetch()
    assert caught.value.retryable


def test_an_address_that_does_not_exist_is_not_worth_a_retry(
    server: GitServer, tmp_path: Path
) -> None:
    with pytest.raises(RemoteUnavailable, match="check the address") as caught:
        Mirror.open_or_clone(f"{server.url}/absent.git", tmp_path / "absent")
    assert not caught.value.retryable


def test_a_remote_that_hangs_is_given_up_and_its_child_is_gone(
    server: GitServer, mirror: Mirror
) -> None:
    first = begin(mirror)
    before = set(children())
    server.fault = Fault.HANG
    impatient = hasty(mirror)
    with pytest.raises(RemoteUnavailable, match=r"no answer within 1\.5 s") as caught:
        impatient.fetch()
    assert caught.value.retryable
    refused = impatient.push({REPORTS: (first, write(mirror, first, b"2"))})
    assert refused.outcome is PushOutcome.REJECTED, "nothing had been sent yet"
    assert set(children()) <= before


def test_silence_on_an_open_connection_ends_before_the_whole_operation_does(
    server: GitServer, mirror: Mirror
) -> None:
    server.fault = Fault.HANG
    watchful = Mirror.open_or_clone(
        mirror.url, mirror.path, timeouts=Timeouts(silence_ms=300, total_ms=60_000)
    )
    with pytest.raises(RemoteUnavailable, match="the remote went silent") as caught:
        watchful.fetch()
    assert caught.value.retryable


def test_a_push_cut_off_while_sending_is_unknown_until_seen(
    server: GitServer, mirror: Mirror
) -> None:
    first = begin(mirror)
    new = write(mirror, first, b"2")
    server.fault = Fault.HANG_ON_PUSH
    cut = hasty(mirror).push({REPORTS: (first, new)})
    assert (cut.outcome, cut.retryable) == (PushOutcome.UNKNOWN, True)
    assert cut.remote == {REF: first}
    server.fault = Fault.DROP_ON_PUSH
    assert mirror.push({REPORTS: (first, new)}).outcome is PushOutcome.UNKNOWN
    server.fault = Fault.NONE
    assert mirror.push({REPORTS: (first, new)}).pushed
    assert at_server(server) == new


def test_a_push_whose_answer_was_lost_is_found_on_the_remote(
    server: GitServer, mirror: Mirror
) -> None:
    first = begin(mirror)
    new = write(mirror, first, b"2")
    server.fault = Fault.LOSE_REPLY_OF_PUSH
    assert mirror.push({REPORTS: (first, new)}).pushed
    assert mirror.resolve(REPORTS) == new == at_server(server)


def test_an_unknown_push_is_offered_again_and_not_written_twice(
    server: GitServer, mirror: Mirror
) -> None:
    first = begin(mirror)
    server.fault = Fault.DROP_ON_PUSH
    built: list[CommitId] = []

    def build(head: CommitId | None) -> CommitId:
        built.append(write(mirror, head, b"claim"))
        return built[-1]

    def repair(_: float) -> None:
        server.fault = Fault.NONE

    result, commit = integrate_and_push(mirror, REPORTS, build, delays=repeat(0.0), sleep=repair)
    assert result.pushed
    assert built == [commit]
    assert mirror.first_parent_history(REPORTS) == (first, commit)


def test_integrate_and_push_waits_for_a_remote_that_is_down(
    server: GitServer, mirror: Mirror
) -> None:
    first = begin(mirror)
    server.down()
    result, commit = integrate_and_push(
        mirror,
        REPORTS,
        lambda head: write(mirror, head, b"2"),
        delays=repeat(0.0),
        sleep=lambda _: server.up(),
    )
    assert result.pushed
    assert commit is not None
    assert mirror.commit_info(commit).parents == (first,)


def test_of_two_racing_pushers_exactly_one_wins_and_the_other_is_told(
    server: GitServer, url: str, mirror: Mirror, tmp_path: Path
) -> None:
    first = begin(mirror)
    rival = Mirror.open_or_clone(url, tmp_path / "rival")
    # Both have seen the same head and are let through together by the first one's hook.
    server.hook("fleet.git", "pre-receive", "touch $GIT_DIR/arrived.$$; cd $GIT_DIR; "
                "n=0; while [ $(ls -d arrived.* | wc -l) -lt 2 ] && [ $n -lt 200 ]; "
                "do sleep 0.02; n=$((n+1)); done")  # fmt: skip
    claims = {m: write(m, first, b"claim by %d" % n) for n, m in enumerate((mirror, rival))}
    results = {}

    def claim(me: Mirror) -> None:
        results[me] = me.push({REPORTS: (first, claims[me])})

    threads = [threading.Thread(target=claim, args=(m,)) for m in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list((server.root / "fleet.git").glob("arrived.*"))) == 2, "they did not race"
    outcomes = sorted(result.outcome for result in results.values())
    assert outcomes == [PushOutcome.PUSHED, PushOutcome.REJECTED]
    loser = next(m for m, result in results.items() if not result.pushed)
    winner = next(m for m, result in results.items() if result.pushed)
    assert results[loser].retryable
    assert at_server(server) == claims[winner]


def test_a_forged_commit_on_the_reports_branch_is_found_out(
    server: GitServer, url: str, mirror: Mirror, tmp_path: Path
) -> None:
    ours, forger = generate_key(tmp_path / "ours"), generate_key(tmp_path / "forger")
    allowed = [public_key(ours.key_path)]
    good = mirror.write_commit(None, {"state/a": b"1"}, message="s", when_ms=WHEN, signer=ours)
    assert mirror.push({REPORTS: (None, good)}).pushed
    intruder = Mirror.open_or_clone(url, tmp_path / "intruder")
    forged = intruder.write_commit(
        good, {"state/a": b"666"}, message="s", when_ms=WHEN, signer=forger
    )
    assert intruder.push({REPORTS: (good, forged)}).pushed
    mirror.fetch()
    judged = [
        mirror.verify_commit(commit, allowed).status
        for commit in mirror.first_parent_history(REPORTS)
    ]
    assert judged == [SignatureStatus.GOOD, SignatureStatus.UNKNOWN_SIGNER]
    assert mirror.commit_info(forged).own, "the committer alone proves nothing"


def test_a_shallow_repository_behind_http_is_refused(
    server: GitServer, mirror: Mirror, tmp_path: Path
) -> None:
    first = begin(mirror)
    assert mirror.push({REPORTS: (first, write(mirror, first, b"2"))}).pushed
    source = (server.root / "fleet.git").as_uri()
    clone = ["git", "clone", "-q", "--bare", "--depth=1", f"--branch={REPORTS}", source]
    subprocess.run([*clone, str(server.root / "shallow.git")], check=True)
    with pytest.raises((ShallowHistory, RemoteUnavailable), match="unshallow"):
        Mirror.open_or_clone(f"{server.url}/shallow.git", tmp_path / "of-shallow")
    assert not (tmp_path / "of-shallow").exists()


def test_a_token_is_used_fresh_each_time_and_shown_nowhere(
    server: GitServer, url: str, tmp_path: Path
) -> None:
    server.password = TOKEN
    asked: list[int] = []

    def token() -> str:
        asked.append(1)
        return TOKEN

    mirror = Mirror.open_or_clone(url, tmp_path / "m", auth=Auth(token=token))
    first = begin(mirror)
    assert at_server(server) == first
    assert len(asked) == 2
    kept = [p.read_bytes() for p in (tmp_path / "m").rglob("*") if p.is_file()]
    assert not any(TOKEN.encode() in content for content in kept)
    assert TOKEN not in repr(Auth(token=token))
    server.fault = Fault.HANG
    looked: list[bytes] = []
    caught: list[RemoteUnavailable] = []

    def fetch() -> None:
        try:
            mirror.fetch()
        except RemoteUnavailable as error:
            caught.append(error)

    before, requests = set(children()), len(server.seen)
    thread = threading.Thread(target=fetch)
    thread.start()
    while len(server.seen) == requests:
        thread.join(0.01)
    for pid in set(children()) - before:
        looked += [Path(f"/proc/{pid}/{part}").read_bytes() for part in ("cmdline", "environ")]
    server.release()
    thread.join()
    assert any(b"reconciler.source.transfer" in text for text in looked)
    assert not any(TOKEN.encode() in text for text in looked)
    assert caught


@pytest.mark.parametrize("known", [None, "wrong-" + TOKEN])
def test_refused_credentials_are_an_error_without_the_credential(
    server: GitServer, url: str, tmp_path: Path, known: str | None
) -> None:
    server.password = TOKEN
    auth = Auth(token=lambda: known) if known else None
    with pytest.raises(RemoteUnavailable, match="check the token") as caught:
        Mirror.open_or_clone(url, tmp_path / "m", auth=auth)
    assert not caught.value.retryable
    assert TOKEN not in str(caught.value)
    assert len(server.seen) <= 4, "a refused credential is not offered for ever"


def test_a_token_pasted_into_the_address_works_and_is_cut_off_it(
    server: GitServer, url: str, tmp_path: Path
) -> None:
    server.password = TOKEN
    pasted = url.replace("http://", f"http://x-access-token:{TOKEN}@")
    mirror = Mirror.open_or_clone(pasted, tmp_path / "m")
    assert mirror.url == url
    assert TOKEN not in (tmp_path / "m" / "config").read_text()
    server.down()
    with pytest.raises(RemoteUnavailable) as caught:
        mirror.fetch()
    assert TOKEN not in str(caught.value)
