"""The history of the watched branch, as the loader asks it: a line of commits and an index.

The index comes from where it is kept (`tick.versions`), or, for a work directory on somebody's
machine, from walking the line when the first question is asked: a repository that pins nothing is
never walked.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Container, Mapping
from functools import cached_property
from pathlib import Path

from reconciler.config.declarations import concerns, declarations
from reconciler.config.versions import (
    NO_HISTORY,
    History,
    Key,
    NoHistory,
    Released,
    grown,
    numbers_by_path,
)
from reconciler.findings import Finding, Severity
from reconciler.source.errors import ShallowHistory
from reconciler.source.history import Line
from reconciler.source.objects import CommitId
from reconciler.source.tree import Tree

SHALLOW = "its history is cut off (a shallow clone)"


class GitHistory:
    """`History` of a line of commits. Without an `index` it is made when first needed."""

    absent: str | None = None

    def __init__(self, line: Line, index: Mapping[Key, Released] | None = None) -> None:
        self.line = line
        self._given = index

    @cached_property
    def index(self) -> Mapping[Key, Released]:
        """Who owns which number."""
        if self._given is not None:
            return self._given
        return {(one.path, one.number): one for one in additions(self.line, {})}

    @cached_property
    def _numbers(self) -> dict[str, tuple[int, ...]]:
        return numbers_by_path(self.index)

    def released(self, path: str, number: int) -> Released | None:
        """See `History`."""
        return self.index.get((path, number))

    def numbers(self, path: str) -> tuple[int, ...]:
        """See `History`."""
        return self._numbers.get(path, ())

    def content(self, released: Released) -> Tree | None:
        """See `History`."""
        return self.line.content(released.path, released.oid)

    def at(self, commit: str) -> Tree | None:
        """See `History`."""
        return self.line.tree(commit)


def additions(
    line: Line, index: Mapping[Key, Released], *, known: Container[CommitId] = ()
) -> tuple[Released, ...]:
    """What the commits of the line add to an index, oldest first; those after `known` only.

    Walking again what is in the index already adds nothing: the first who declared a number
    keeps it.
    """
    new: dict[Key, Released] = {}
    whole: ChainMap[Key, Released] = ChainMap(new, dict(index))
    for step in line.steps(known):
        changed = [path for path in step.changed if concerns(path)]
        if not changed:
            continue
        declared = declarations(step.tree, changed, known=whole)
        for one in grown(whole, declared, commit=step.commit, at=step.at):
            new[one.path, one.number] = one
    return tuple(new.values())


def history_of(directory: Path, *, branch: str) -> tuple[History, tuple[Finding, ...]]:
    """The history to judge a work directory by, and what is wrong with it.

    That of the watched branch as this clone knows it (`origin/<branch>`, else `<branch>`), so
    that a text one is still working on is not taken for released; of HEAD where there is neither.
    A directory that is not the top of a work tree has none; a shallow clone has none, and a
    warning says so.
    """
    try:
        line = Line.of_directory(
            directory, [f"refs/remotes/origin/{branch}", f"refs/heads/{branch}"]
        )
    except ShallowHistory:
        found = Finding(
            "shallow-history",
            Severity.WARNING,
            ".git/shallow",
            1,
            1,
            f"versions are not checked: {SHALLOW}",
            "git fetch --unshallow; in a CI checkout, fetch-depth: 0",
        )
        return NoHistory(SHALLOW), (found,)
    return (NO_HISTORY if line is None else GitHistory(line)), ()
