"""The line of commits that the watched branch has stood at, and what each of them changed.

First parents only: a merged pull request counts as one step, and what its own commits held in
between has never been what the branch said. Each step is compared with the one before by OID, so
that a walk costs what was changed and not what there is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pygit2
from pygit2.enums import SortMode

from gateway.values import Millis
from reconciler.source.differing import Differences
from reconciler.source.errors import ShallowHistory
from reconciler.source.excerpt import Excerpt
from reconciler.source.mirror import GitTree, Mirror
from reconciler.source.objects import (
    MODE_BLOB,
    MODE_TREE,
    CommitId,
    ObjectId,
    TreeId,
    is_object_id,
)
from reconciler.source.tree import Entry, Kind


@dataclass(frozen=True, slots=True)
class Step:
    """One commit of the line. `changed`: files that differ from its first parent, any kind of
    change, sorted; names that are not UTF-8 are left out, since nothing can refer to them."""

    commit: CommitId
    at: Millis
    """When it was committed, in whole seconds."""
    tree: GitTree
    changed: tuple[str, ...]


class Line:
    """The first-parent history that ends in `head`, in a repository on this machine."""

    def __init__(
        self,
        repository: Callable[[], pygit2.Repository],
        head: CommitId,
        differences: Differences | None = None,
    ) -> None:
        self._repository = repository
        self.head = head
        self._differences = differences or Differences(repository)

    @classmethod
    def of_mirror(cls, mirror: Mirror, head: CommitId, *, before: Line | None = None) -> Line:
        """That of a commit of the mirror. `before` is a line of this mirror that was walked to an
        earlier head: what it has read of it need not be read again."""
        return cls(mirror._repository, head, before._differences if before else None)

    @classmethod
    def of_directory(cls, directory: Path, branches: Sequence[str]) -> Line | None:
        """That of the first of `branches` (full names of refs) there is, else of HEAD.

        None when `directory` is not the top of a git work tree, or has no commit yet. Raises
        ShallowHistory.
        """
        if not (directory / ".git").exists():
            return None
        try:
            repository = pygit2.Repository(os.fspath(directory))
        except pygit2.GitError:
            return None
        if repository.is_shallow:
            raise ShallowHistory(str(directory))
        for name in (*branches, "HEAD"):
            try:
                found = repository.references[name].peel(pygit2.Commit)
            except (KeyError, ValueError, pygit2.GitError):
                continue
            return cls(lambda: repository, CommitId(ObjectId(str(found.id))))
        return None

    def steps(self, known: Container[CommitId] = ()) -> Iterator[Step]:
        """What came after the newest commit in `known`, oldest first; all of it for none."""
        repository = self._repository()
        new: list[pygit2.Commit] = []
        for commit in self._walk():
            if str(commit.id) in known:
                break
            new.append(commit)
        for commit in reversed(new):
            tree = TreeId(ObjectId(str(commit.tree_id)))
            before = ObjectId(str(commit.parents[0].tree_id)) if commit.parents else None
            paths: list[str] = []
            for raw in self._differences.between(before, tree):
                try:
                    paths.append(raw.decode())
                except UnicodeDecodeError:
                    continue
            yield Step(
                CommitId(ObjectId(str(commit.id))),
                Millis(commit.commit_time * 1000),
                GitTree(lambda: repository, tree),
                tuple(sorted(paths)),
            )

    def _walk(self) -> Iterator[pygit2.Commit]:
        walker = self._repository().walk(self.head, SortMode.TOPOLOGICAL)
        walker.simplify_first_parent()
        yield from walker

    @cached_property
    def commits(self) -> frozenset[CommitId]:
        """Every commit of the line. Reads all of it once."""
        return frozenset(CommitId(ObjectId(str(commit.id))) for commit in self._walk())

    def tree(self, commit: str) -> GitTree | None:
        """The files of a commit of the line, by its full id; None when it is not on it."""
        if not is_object_id(commit) or commit not in self.commits:
            return None
        tree = self._repository()[commit].peel(pygit2.Tree)
        return GitTree(self._repository, TreeId(ObjectId(str(tree.id))))

    def content(self, path: str, oid: ObjectId) -> Excerpt | None:
        """The file or folder `oid`, shown at `path`; None when the repository lacks it."""
        found: object = self._repository().get(oid)
        tree = GitTree(self._repository, TreeId(oid))
        name = path.rpartition("/")[2]
        if isinstance(found, pygit2.Tree):
            return Excerpt(tree, path, Entry(name, Kind.TREE, MODE_TREE, lambda: oid), inside="")
        if isinstance(found, pygit2.Blob):
            return Excerpt(tree, path, Entry(name, Kind.BLOB, MODE_BLOB, lambda: oid), inside="")
        return None

    def contains(self, commit: CommitId) -> bool:
        """Whether the branch's history has the commit, on whatever line: false after a rewrite."""
        repository = self._repository()
        if commit not in repository:
            return False
        return commit == self.head or repository.descendant_of(self.head, commit)
