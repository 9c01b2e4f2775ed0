"""Pull requests of the built-in forge, as a person handles them: `interlock pr …`."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.findings import Finding
from reconciler.forge import commands, landing
from reconciler.forge.local import LocalForge
from reconciler.forge.model import (
    AddComment,
    Close,
    Comment,
    Merge,
    OpenPull,
    Performed,
    Pull,
    PullNumber,
    Status,
)
from reconciler.operations import Refused
from reconciler.source.merging import commits_between, merge_result
from reconciler.source.mirror import Mirror
from reconciler.source.objects import CommitId

SHORTEST = 7
"""Digits of a commit id that a person has to give."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Where somebody works on pulls: the forge as them, its mirror, the usual target branch."""

    forge: LocalForge
    mirror: Mirror
    target: str


@dataclass(frozen=True, slots=True)
class Listed:
    """The pulls asked for, newest first, and what is wrong with others."""

    pulls: tuple[Pull, ...]
    closed: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """One pull with all that belongs to it.

    `obstacle`: why an open one cannot be merged, None when it can (or is no longer open).
    `commits`: how many it brings; None when its branches are gone.
    """

    pull: Pull
    comments: tuple[Comment, ...]
    statuses: tuple[Status, ...]
    obstacle: str | None
    commits: int | None


@dataclass(frozen=True, slots=True)
class Commented:
    """What was written, and what the reconciler will read in it."""

    done: Performed
    head: CommitId | None
    asked: tuple[str, ...]
    mistakes: tuple[str, ...]


def listing(desk: Desk, *, everything: bool) -> Listed:
    """Open pulls; `everything`: merged and closed ones too."""
    found = desk.forge.pulls()
    wanted = found.pulls if everything else found.open
    return Listed(
        pulls=tuple(reversed(wanted)),
        closed=len(found.pulls) - len(found.open),
        findings=tuple(finding for each in found.broken.values() for finding in each),
    )


def show(desk: Desk, number: int) -> Shown:
    """One pull. ForgeRefused, MalformedPull."""
    pull = desk.forge.pull(PullNumber(number))
    target = desk.mirror.resolve(pull.target)
    obstacle: str | None = None
    commits: int | None = None
    if pull.open and pull.head is None:
        obstacle = f"the branch {pull.source} is gone"
    elif pull.open and target is None:
        obstacle = f"the branch {pull.target} is gone"
    elif pull.open and pull.head is not None and target is not None:
        obstacle = landing.obstacle(pull, merge_result(desk.mirror, target, pull.head))
        commits = len(commits_between(desk.mirror, target, pull.head))
    return Shown(
        pull=pull,
        comments=desk.forge.comments(pull.number),
        statuses=desk.forge.statuses(pull.number, pull.head) if pull.head is not None else (),
        obstacle=obstacle,
        commits=commits,
    )


def open_pull(
    desk: Desk, *, source: str, target: str | None, title: str | None, body: str
) -> Performed:
    """Open one. Without a title, the last commit's first line is it. ForgeRefused."""
    head = desk.mirror.resolve(source)
    if title is None:
        if head is None:
            raise Refused(f"there is no branch {source} in {desk.mirror.url}; push it first")
        lines = desk.mirror.commit_info(head).message.strip().splitlines()
        title = lines[0].strip() if lines else source
    return desk.forge.perform(OpenPull(source, target or desk.target, title, body))


def comment(desk: Desk, number: int, text: str, *, head: str | None) -> Commented:
    """Say something to a pull; with `head`, only if that is still its head. ForgeRefused."""
    pull = PullNumber(number)
    must_be = _head(desk, pull, head) if head is not None else None
    done = desk.forge.perform(AddComment(pull, text, must_be))
    said = next(c for c in desk.forge.comments(pull) if c.id == done.comment)
    read = commands.commands_in(said, ourselves=())
    return Commented(
        done=done,
        head=said.head,
        asked=tuple(_told(one) for one in read if not isinstance(one, commands.Mistake)),
        mistakes=tuple(one.answer for one in read if isinstance(one, commands.Mistake)),
    )


def merge(desk: Desk, number: int, *, head: str | None, squash: bool) -> Performed:
    """Merge it: the head given, else the one it has now. ForgeRefused."""
    pull = PullNumber(number)
    return desk.forge.perform(Merge(pull, _head(desk, pull, head), squash))


def close(desk: Desk, number: int) -> Performed:
    """Close it without merging. ForgeRefused."""
    return desk.forge.perform(Close(PullNumber(number)))


def _head(desk: Desk, number: PullNumber, given: str | None) -> CommitId:
    now = desk.forge.pull(number).head
    if now is None:
        raise Refused(f"the branch of #{number} is gone: there is nothing to merge or to speak of")
    if given is None:
        return now
    if len(given) < SHORTEST:
        raise Refused(f"give at least {SHORTEST} digits of the head, not {given!r}")
    if not now.startswith(given.lower()):
        raise Refused(
            f"the head of #{number} is at {now[:12]}, not {given[:12]}; look at what is there now "
            f"(`interlock pr show {number}`)"
        )
    return now


def _told(command: commands.Command) -> str:
    match command:
        case commands.Approve(scopes):
            return f"approve {' '.join(scopes) or 'all you may'}"
        case commands.Reject(reason):
            return f"reject: {reason}"
        case _:
            return type(command).__name__.lower()
