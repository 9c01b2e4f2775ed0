"""What every forge has in common, as values, and the protocol behind which each of them stands.

A tick reads pulls and comments and asks for actions; it never learns which forge it talks to. All
text here was written by people and programs that may be hostile: titles, bodies, logins and branch
names are data, escaped by whoever shows them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType, Protocol

from gateway.values import Millis
from reconciler.findings import Finding
from reconciler.source.objects import CommitId

Login = NewType("Login", str)
"""A person's or a bot's name on a forge. Compared without regard to case."""
INTERLOCK_LOGIN = Login("interlock")
"""Who the reconciler is on the local forge; `interlock pr` lets no person take it."""
PullNumber = NewType("PullNumber", int)
"""Counts a repository's pull requests from 1; never given out twice."""

MARKER = re.compile(r"[a-z0-9-]{1,40}")
BODY_LIMIT = 65_536
"""Characters of a body or a comment: GitHub's limit, kept everywhere."""
TITLE_LIMIT = 256
DESCRIPTION_LIMIT = 140
"""Characters of a status's description: GitHub's limit."""


class PullState(StrEnum):
    """`merged` and `closed` are ends: a pull is not opened again."""

    OPEN = "open"
    MERGED = "merged"
    CLOSED = "closed"


class StatusState(StrEnum):
    """What a check says of one commit. `pending`: not decided; `error`: it could not look."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"


class Permission(StrEnum):
    """What a login may do in the repository, least first."""

    NONE = "none"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Pull:
    """One pull request: merge the branch `source` into the branch `target`.

    `head` is the commit of the source branch now; once closed or merged, the one it had then. None:
    the branch is gone. `merged` is the commit that brought it into the target; None for a pull
    whose commits got there by a push of somebody's own.
    """

    number: PullNumber
    title: str
    body: str
    source: str
    target: str
    opener: Login
    opened_at: Millis
    state: PullState
    head: CommitId | None
    merged: CommitId | None = None
    closer: Login | None = None
    closed_at: Millis | None = None

    @property
    def open(self) -> bool:
        """Whether it waits to be merged or closed."""
        return self.state is PullState.OPEN


@dataclass(frozen=True, slots=True)
class Comment:
    """What somebody said to a pull.

    `head` is the commit of the source branch when it was written (None: unknown, or the branch was
    gone): what a command in it is about. `edited_at` is set once its text is no longer the first.
    """

    id: int
    author: Login
    body: str
    at: Millis
    head: CommitId | None
    bot: bool = False
    edited_at: Millis | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """What one check (`context`) says of one commit."""

    head: CommitId
    context: str
    state: StatusState
    description: str
    at: Millis


@dataclass(frozen=True, slots=True)
class Pulls:
    """All pulls, by number, and what is wrong with those that cannot be read.

    `mark` is equal for two listings exactly when nothing about any pull has changed in between: no
    head, comment, status or target. Compare it to know whether there is anything to look at.
    """

    pulls: tuple[Pull, ...]
    mark: str
    broken: Mapping[PullNumber, tuple[Finding, ...]] = field(default_factory=dict)

    @property
    def open(self) -> tuple[Pull, ...]:
        """Those that wait to be merged or closed."""
        return tuple(pull for pull in self.pulls if pull.open)


@dataclass(frozen=True, slots=True)
class OpenPull:
    """Ask for `source` to be merged. One that is open already for both branches is given back."""

    source: str
    target: str
    title: str
    body: str = ""


@dataclass(frozen=True, slots=True)
class AddComment:
    """Say something. With `head`, only if that is still the pull's head: for words that decide."""

    pull: PullNumber
    body: str
    head: CommitId | None = None


@dataclass(frozen=True, slots=True)
class UpsertComment:
    """Our one comment of this `marker` (`[a-z0-9-]`, at most 40): written, or brought up to date.

    Nothing is written when its text is that already.
    """

    pull: PullNumber
    marker: str
    body: str


@dataclass(frozen=True, slots=True)
class SetStatus:
    """What the check `context` says of the commit `head`. Nothing is written when it says so."""

    pull: PullNumber
    head: CommitId
    context: str
    state: StatusState
    description: str


@dataclass(frozen=True, slots=True)
class Merge:
    """Bring `head` into the target, if it is still the pull's head. Merging it again is nothing."""

    pull: PullNumber
    head: CommitId
    squash: bool = False


@dataclass(frozen=True, slots=True)
class Close:
    """Close without merging. Closing a closed one is nothing."""

    pull: PullNumber


Action = OpenPull | AddComment | UpsertComment | SetStatus | Merge | Close


@dataclass(frozen=True, slots=True)
class Performed:
    """What an action did: `changed` is False when everything was so already.

    `comment` is the comment's id, `commit` what now holds a merged pull in its target.
    """

    changed: bool
    pull: PullNumber
    text: str
    comment: int | None = None
    commit: CommitId | None = None


class Forge(Protocol):
    """One repository's pull requests.

    Reading tells what the forge last said; nothing here remembers decisions. Everything may raise
    ForgeUnavailable, which says whether trying again can help.
    """

    @property
    def login(self) -> Login:
        """Who we are there: comments by this login are our own."""
        ...

    def pulls(self) -> Pulls:
        """Every pull. Cheap when nothing has changed since the last call."""
        ...

    def pull(self, number: PullNumber) -> Pull:
        """One pull. ForgeRefused when there is none, MalformedPull."""
        ...

    def comments(self, number: PullNumber) -> tuple[Comment, ...]:
        """What was said to it, oldest first. As `pull`."""
        ...

    def statuses(self, number: PullNumber, head: CommitId) -> tuple[Status, ...]:
        """What checks say of that commit, by context. As `pull`."""
        ...

    def permission(self, login: Login) -> Permission:
        """What somebody may do, asked now: an answer is never kept. Unknown is NONE."""
        ...

    def perform(self, action: Action) -> Performed:
        """Carry out one action as `login`; what is so already is not done again.

        ForgeRefused says why it makes no sense now (the head moved, conflicts, not open).
        """
        ...


class ForgeError(Exception):
    """Base of what a forge may answer instead."""


class ForgeRefused(ForgeError):
    """The action makes no sense, or no longer; the text says why and what would."""


class MalformedPull(ForgeError):
    """What is stored of this pull cannot be read; other pulls are not concerned."""

    def __init__(self, number: PullNumber, findings: tuple[Finding, ...]) -> None:
        super().__init__("\n".join(str(finding) for finding in findings))
        self.number = number
        self.findings = findings


class ForgeUnavailable(ForgeError):
    """The forge could not be reached, or did not take the write. `retryable`: try later."""

    def __init__(self, reason: str, *, retryable: bool) -> None:
        super().__init__(reason)
        self.retryable = retryable


def marked(marker: str, body: str) -> str:
    """A body that is found again by its marker: a first line that no forge shows. Cut to fit."""
    return fitted(f"{marker_line(marker)}\n{body}")


def marker_line(marker: str) -> str:
    """The first line of a comment that `UpsertComment` writes. ValueError for a strange marker."""
    if not MARKER.fullmatch(marker):
        raise ValueError(f"a marker is 1 to 40 of a-z, 0-9 and '-', not {marker!r}")
    return f"<!-- interlock:{marker} -->"


def fitted(body: str) -> str:
    """The body within BODY_LIMIT; what is cut off is said at its end."""
    if len(body) <= BODY_LIMIT:
        return body
    note = "\n\n… cut here: the whole text is too long for one comment."
    return body[: BODY_LIMIT - len(note)] + note
