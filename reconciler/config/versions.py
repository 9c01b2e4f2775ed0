"""Versions of texts and skills: which content a number names, decided once and for ever.

`triage.md@v4` must mean the same text next year. So the first content that declares (path, number)
on the first-parent history of the watched branch owns the number: later content that claims it is
in error, and deleting the file or rewriting the branch does not free it. The index of who owns what
grows commit by commit and is kept (`tick.versions`, in `state/`); the loader asks it through
`History` and reads the pinned content by its OID. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gateway.values import Millis
from reconciler.source.objects import CommitId, ObjectId
from reconciler.source.tree import Tree


class VersionKind(StrEnum):
    """What a version is of: one Markdown file, or a whole skill folder."""

    TEXT = "text"
    SKILL = "skill"


@dataclass(frozen=True, slots=True)
class Declaration:
    """Content that says it is version `number` of `path`.

    `path` is the Markdown file, or the skill's folder; `oid` that of the blob, or of the folder.
    """

    path: str
    number: int
    oid: ObjectId
    kind: VersionKind


@dataclass(frozen=True, slots=True)
class Released:
    """The content that owns (path, number), and the commit of the branch that brought it first.

    `at` is when the committer says that was: for people, nothing is decided by it.
    """

    path: str
    number: int
    oid: ObjectId
    kind: VersionKind
    commit: CommitId
    at: Millis


Key = tuple[str, int]
"""(path, number)"""


class History(Protocol):
    """What the loader may ask about the past of the watched branch.

    Every answer but None stays as it is for as long as the branch is not rewritten; None may turn
    into an answer at any later commit. So whoever keeps something that was loaded under None must
    ask again, and whoever keeps something that was loaded under an answer need not.
    """

    @property
    def absent(self) -> str | None:
        """Why there is no history to ask, for people; None when there is one. Without one the
        answers below mean nothing, and the loader can only believe what the files say."""
        ...

    def released(self, path: str, number: int) -> Released | None:
        """Who owns (path, number); None while nobody has declared it."""
        ...

    def numbers(self, path: str) -> tuple[int, ...]:
        """The versions there are of a path, ascending."""
        ...

    def content(self, released: Released) -> Tree | None:
        """A tree with `released.path` in it and nothing else, so that what is read there cannot
        depend on anything the OID does not cover. None when the repository has lost the object
        (its branch was rewritten)."""
        ...

    def at(self, commit: str) -> Tree | None:
        """The files of a commit (40 hex digits) at which the branch has stood, else None."""
        ...


@dataclass(frozen=True, slots=True)
class NoHistory:
    """A tree whose past cannot be asked: no git repository, or one that is cut off."""

    absent: str | None = "this is not a git repository with the history of the watched branch"

    def released(self, path: str, number: int) -> Released | None:
        return None

    def numbers(self, path: str) -> tuple[int, ...]:
        return ()

    def content(self, released: Released) -> Tree | None:
        return None

    def at(self, commit: str) -> Tree | None:
        return None


NO_HISTORY: History = NoHistory()


def grown(
    index: Mapping[Key, Released],
    declared: Iterable[Declaration],
    *,
    commit: CommitId,
    at: Millis,
) -> tuple[Released, ...]:
    """What one more commit of the branch adds to the index: the numbers nobody owns yet.

    `declared` is what the files that the commit changed say of themselves. By path and number.
    """
    new: dict[Key, Released] = {}
    for one in declared:
        key = (one.path, one.number)
        if key not in index and key not in new:
            new[key] = Released(one.path, one.number, one.oid, one.kind, commit, at)
    return tuple(new[key] for key in sorted(new))


def numbers_by_path(index: Iterable[Key]) -> dict[str, tuple[int, ...]]:
    """{path: its versions, ascending}"""
    found: dict[str, list[int]] = {}
    for path, number in sorted(index):
        found.setdefault(path, []).append(number)
    return {path: tuple(numbers) for path, numbers in found.items()}
