"""Write the record: one signed commit on the reports branch, with all that happened since the last.

There is one writer per branch. That it is still the only one is seen before every commit: the
branch's head must be the commit that this database wrote or read last. Another head is never built
on: signed by an allowed key it is another reconciler's, whose state is newer than ours; otherwise
nobody can say whose it is, and a person has to look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gateway.database import Database
from gateway.values import Clock, RunId
from reconciler.record import mark as marks
from reconciler.record.draft import Draft, draft
from reconciler.source.integrate import backoff_delays, integrate_and_push
from reconciler.source.mirror import Mirror
from reconciler.source.objects import CommitId, ObjectId
from reconciler.source.push import PushOutcome
from reconciler.source.signing import SignatureStatus
from reconciler.source.writing import PayloadSigner

ATTEMPTS = 5
"""Pushes tried before the tick gives up: about eight seconds of waiting, then the next tick."""


@dataclass(frozen=True, slots=True)
class Published:
    """What became of it.

    pushed       the record is in git, at `commit`
    nothing_new  git holds all of it already, but for the time
    rejected     the remote refuses (a hook, a protected branch) or our key is not allowed
    superseded   another reconciler moved the state: restore (`rebuild`) and start again
    unreachable  the remote did not answer; a push may or may not have arrived, the next one tells
    foreign      somebody who is no reconciler wrote to the branch; nothing is built on that

    `claims`: runs whose claim is in git now, and which may therefore begin.
    """

    outcome: Literal["pushed", "nothing_new", "rejected", "superseded", "unreachable", "foreign"]
    commit: CommitId | None = None
    reason: str = ""
    claims: tuple[RunId, ...] = ()


class _Stop(Exception):
    """Found while building: this is the end of the attempt."""

    def __init__(self, published: Published) -> None:
        super().__init__(published.reason)
        self.published = published


def publish(
    database: Database,
    mirror: Mirror,
    *,
    branch: str,
    signer: PayloadSigner,
    clock: Clock,
    machine: str,
    tick: int,
    clean: bool,
    allowed: Sequence[str],
    sleep: Callable[[float], None],
    draw: Callable[[], float],
    force: bool = False,
) -> Published:
    """Commit and push reports and state. Never raises for the remote's faults.

    `clean`: nothing is open or undecided, so a fresh machine may go on from here without a hold.
    `force` renders everything anew and writes even when there is no news. `sleep` takes seconds,
    `draw` gives uniform numbers in [0, 1). Raises SigningFailed when nothing can be signed.
    """
    written: dict[CommitId, Draft] = {}
    quiet: list[Draft] = []

    def build(head: CommitId | None) -> CommitId:
        with database.snapshot() as tx:
            last = _expected(mirror, marks.last(tx), marks.pending(tx), head)
            if head is not None and (last is None or last.head != head):
                raise _Stop(_moved(mirror, head, allowed, branch))
            base = _base(mirror, last)
            found = draft(
                tx,
                mirror.tree(base) if base is not None else None,
                last,
                now=clock.now(),
                tick=tick,
                clean=clean,
                machine=machine,
                everything=force,
            )
        if head is not None and not (found.news or found.due or force):
            quiet.append(found)
            if last is not None:
                with database.transaction() as tx:
                    marks.remember(tx, last)  # a pending one may just have been found there
            return head
        commit = mirror.write_commit(
            base, found.changes, message=found.message, when_ms=found.mark.at, signer=signer
        )
        if not mirror.verify_commit(commit, allowed).good:
            raise _Stop(
                Published(
                    "rejected",
                    reason="the signing key is not among the signers in interlock.yaml "
                    "(fleet.reports.signers), so no machine could go on from what it signs; "
                    "add its public half there",
                )
            )
        with database.transaction() as tx:
            marks.intend(tx, replace(found.mark, head=commit))
        written[commit] = found
        return commit

    try:
        result, commit = integrate_and_push(
            mirror, branch, build, delays=backoff_delays(draw), sleep=sleep, attempts=ATTEMPTS
        )
    except _Stop as stop:
        return stop.published
    if not result.pushed:
        lost = result.outcome is PushOutcome.UNKNOWN or not result.remote
        return Published("unreachable" if lost else "rejected", commit, result.reason)
    if commit is None or commit not in written:
        return Published("nothing_new", commit, claims=quiet[-1].claims if quiet else ())
    with database.transaction() as tx:
        marks.remember(tx, replace(written[commit].mark, head=commit))
    return Published("pushed", commit, claims=written[commit].claims)


def _expected(
    mirror: Mirror, last: marks.Mark | None, pending: marks.Mark | None, head: CommitId | None
) -> marks.Mark | None:
    """The mark that the head should be of. A push nobody saw arrive may have arrived."""
    if head is None or pending is None:
        return last
    arrived = CommitId(ObjectId(pending.head))
    return pending if arrived == head else last


def _base(mirror: Mirror, last: marks.Mark | None) -> CommitId | None:
    """What to build on: our last commit, even when somebody removed the branch in between, so
    that its history is not cut. None when there is none, or when the mirror has lost it too."""
    return mirror.resolve(last.head) if last is not None else None


def _moved(mirror: Mirror, head: CommitId, allowed: Sequence[str], branch: str) -> Published:
    found = mirror.verify_commit(head, allowed)
    if found.good:
        return Published(
            "superseded",
            head,
            f"{branch} is at {head[:12]}, written by another reconciler: this database is behind; "
            "restore from the branch (`interlock rebuild`) and start again",
        )
    info = mirror.commit_info(head)
    what = {
        SignatureStatus.UNSIGNED: "is not signed",
        SignatureStatus.UNKNOWN_SIGNER: f"is signed by a key that is not allowed ({found.key})",
        SignatureStatus.BAD: "has a signature that does not hold",
    }[found.status]
    return Published(
        "foreign",
        head,
        f"commit {head} on {branch}, by {info.author.name} <{info.author.email}>, {what}. Nothing "
        "is built on it. Look at what it changes; then put the branch back (git push "
        f"--force-with-lease origin <last good commit>:{branch}), or, if the key is a "
        "reconciler's, add it to fleet.reports.signers in interlock.yaml",
    )
