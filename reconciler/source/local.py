"""A repository on this machine, read where it is: a person's clone, or a bare one.

Nothing is fetched and nothing is written. For `interlock plan`, which compares what somebody has at
hand; the reconciler works on a `Mirror`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pygit2

from reconciler.source.history import Line
from reconciler.source.mirror import GitTree
from reconciler.source.objects import CommitId, ObjectId, TreeId

USUAL = ("main", "master")


class LocalRepository:
    """See the module. Made by `open`; for one thread."""

    def __init__(self, repository: pygit2.Repository) -> None:
        self._repository = repository

    @classmethod
    def open(cls, directory: Path) -> LocalRepository | None:
        """The repository whose top, or whose bare directory, this is; None when it is none."""
        if not (directory / ".git").exists() and not (directory / "objects").is_dir():
            return None
        try:
            return cls(pygit2.Repository(os.fspath(directory)))
        except pygit2.GitError:
            return None

    @property
    def bare(self) -> bool:
        """Whether it has no work tree."""
        return bool(self._repository.is_bare)

    def resolve(self, ref: str) -> CommitId | None:
        """The commit that a branch, tag, remote branch, id or expression (`HEAD~2`) names."""
        try:
            found, _ = self._repository.resolve_refish(ref)
        except (KeyError, ValueError, pygit2.GitError):
            try:
                commit = self._repository.revparse_single(ref).peel(pygit2.Commit)
            except (KeyError, ValueError, pygit2.GitError):
                return None
            return CommitId(ObjectId(str(commit.id)))
        return CommitId(ObjectId(str(found.id)))

    def tree(self, commit: CommitId) -> GitTree:
        """The files of a commit."""
        found = self._repository[commit].peel(pygit2.Commit)
        return GitTree(lambda: self._repository, TreeId(ObjectId(str(found.tree_id))))

    def line(self, commit: CommitId) -> Line | None:
        """The first-parent history that ends in a commit; None where it is cut off (shallow)."""
        if self._repository.is_shallow:
            return None
        return Line(lambda: self._repository, commit)

    def default_branch(self) -> str | None:
        """What is compared with when nothing is said: the branch the remote calls its default,
        else `main` or `master`, else what HEAD names. None without a commit."""
        try:
            target = self._repository.references["refs/remotes/origin/HEAD"].target
        except KeyError:
            target = ""
        named = str(target).removeprefix("refs/remotes/")
        for name in (named, *USUAL, "HEAD"):
            if name and self.resolve(name) is not None:
                return name
        return None
