"""A pull's way into its target: one commit, one compare-and-swap push.

The commit says in its last lines which pull and which head it brings in. That is how a merge is
known to have happened when the process ended between the push and the note about it: a squash
cannot be told from history otherwise, and would be made twice.
"""

from __future__ import annotations

from gateway.values import Millis
from reconciler.forge.model import ForgeRefused, ForgeUnavailable, Pull
from reconciler.source.errors import SourceError
from reconciler.source.merging import MergeResult, commits_between, merge_result, write_merge
from reconciler.source.mirror import Mirror
from reconciler.source.objects import CommitId
from reconciler.source.push import PushOutcome
from reconciler.source.writing import Identity

COMMITTER = Identity("Interlock forge", "forge@interlock.invalid")
"""Not the reconciler's identity: what is merged is a change to look at, no work of its own."""

LOOK_BACK = 1_000
"""Commits of the target that are searched for a merge that happened already."""


def identity_of(login: str) -> Identity:
    """How a login is written as a commit's author. `.invalid` is reserved (RFC 2606)."""
    return Identity(login, f"{login.removesuffix('[bot]')}@users.interlock.invalid")


def land(mirror: Mirror, pull: Pull, *, squash: bool, login: str, when_ms: Millis) -> CommitId:
    """Push the merge of an open pull's head; returns the commit that now holds it.

    The mirror must have been fetched just now. ForgeRefused for conflicts (lists the paths) and
    for what cannot be merged; `TargetMoved` when somebody else pushed first: fetch and try again.
    """
    assert pull.head is not None
    target = mirror.resolve(pull.target)
    if target is None:
        raise ForgeRefused(f"the target branch {pull.target} is gone")
    before = landed(mirror, pull, target)
    if before is not None:
        return before
    result = merge_result(mirror, target, pull.head)
    _check(pull, result)
    if squash and result.tree == mirror.commit_info(target).tree:
        raise ForgeRefused(
            f"{pull.target} has all of #{pull.number} already; close it: `interlock pr close "
            f"{pull.number}`"
        )
    commit = write_merge(
        mirror,
        result,
        squash=squash,
        message=_message(mirror, pull, target, squash=squash),
        author=_author(mirror, pull, target) if squash else identity_of(login),
        committer=COMMITTER,
        when_ms=when_ms,
    )
    pushed = mirror.push({pull.target: (target, commit)})
    if pushed.pushed:
        return commit
    if pushed.outcome is PushOutcome.REJECTED and pushed.retryable:
        raise TargetMoved(pushed.reason)
    raise ForgeUnavailable(
        f"#{pull.number} is not known to be merged: {pushed.reason}", retryable=pushed.retryable
    )


class TargetMoved(Exception):
    """Somebody pushed to the target since the fetch; nothing was merged."""


def landed(mirror: Mirror, pull: Pull, target: CommitId) -> CommitId | None:
    """The commit of ours on the target that brought in this pull's head, if there is one."""
    wanted = _trailers(pull)
    commit: CommitId | None = target
    for _ in range(LOOK_BACK):
        if commit is None:
            return None
        info = mirror.commit_info(commit)
        if info.committer == COMMITTER and info.message.rstrip("\n").endswith(f"\n\n{wanted}"):
            return commit
        if info.time_ms < pull.opened_at - 86_400_000:
            return None  # from before the pull, clocks a day apart allowed
        commit = info.parents[0] if info.parents else None
    return None


def obstacle(pull: Pull, result: MergeResult) -> str | None:
    """Why the result cannot be merged, and what would help; None when it can."""
    if result.conflicts:
        shown = ", ".join(result.conflicts[:10])
        more = f" and {len(result.conflicts) - 10} more" if len(result.conflicts) > 10 else ""
        return (
            f"#{pull.number} conflicts with {pull.target} in {shown}{more}; merge {pull.target} "
            f"into {pull.source}, settle the conflicts and push"
        )
    if result.base is None:
        return f"{pull.source} and {pull.target} have no history in common"
    return None


def _check(pull: Pull, result: MergeResult) -> None:
    reason = obstacle(pull, result)
    if reason is not None:
        raise ForgeRefused(reason)


def _message(mirror: Mirror, pull: Pull, target: CommitId, *, squash: bool) -> str:
    if not squash:
        return (
            f"Merge pull request #{pull.number} from {pull.source}\n\n{pull.title}\n\n"
            f"{_trailers(pull)}\n"
        )
    body = f"\n\n{pull.body.strip()}" if pull.body.strip() else ""
    together = _together(mirror, pull, target)
    return f"{pull.title} (#{pull.number}){body}{together}\n\n{_trailers(pull)}\n"


def _trailers(pull: Pull) -> str:
    return f"Interlock-Pull: {pull.number}\nInterlock-Head: {pull.head}"


def _author(mirror: Mirror, pull: Pull, target: CommitId) -> Identity:
    """Who wrote it, when it was one person; else who opened it."""
    authors = _authors(mirror, pull, target)
    return authors[0] if len(authors) == 1 else identity_of(pull.opener)


def _together(mirror: Mirror, pull: Pull, target: CommitId) -> str:
    authors = _authors(mirror, pull, target)
    if len(authors) < 2:
        return ""
    return "\n\n" + "\n".join(f"Co-authored-by: {a.name} <{a.email}>" for a in authors)


def _authors(mirror: Mirror, pull: Pull, target: CommitId) -> tuple[Identity, ...]:
    assert pull.head is not None
    try:
        commits = commits_between(mirror, target, pull.head)
    except SourceError as error:
        raise ForgeRefused(str(error)) from None
    return tuple(
        dict.fromkeys(info.author for info in commits if info.author.name and info.author.email)
    )
