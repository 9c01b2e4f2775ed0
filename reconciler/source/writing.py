"""Commits without a worktree: reports and state are written straight into git's objects.

Only the directories on the way to a changed file are rebuilt; all else is kept by OID, so a
commit costs what it changes and not what the branch has piled up. Writing moves no ref: a commit
is nobody's until it is pushed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import pygit2

from gateway.values import Millis
from reconciler.source.objects import MODE_BLOB, MODE_EXECUTABLE, MODE_TREE, CommitId, ObjectId
from reconciler.source.paths import UnsafePath, split_path

Changes = Mapping[str, bytes | None]
"""Path → new content; None removes a file, or a directory with all that is in it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A name and an address, as git writes them."""

    name: str
    email: str


INTERLOCK = Identity("Interlock", "reconciler@interlock.invalid")
"""The committer of every commit of our own, by which the next tick recognises it.

A convenience, not a proof: the signature is the proof. `.invalid` is reserved (RFC 2606)."""


class PayloadSigner(Protocol):
    """Signs the bytes of a commit; `signing.Signer` in production."""

    def sign(self, payload: bytes) -> str: ...


@dataclass
class _Folder:
    """The changes below one directory."""

    folders: dict[str, _Folder] = field(default_factory=dict)
    files: dict[str, bytes | None] = field(default_factory=dict)


def write_commit(
    repository: pygit2.Repository,
    parent: CommitId | None,
    changes: Changes,
    *,
    message: str,
    author: Identity,
    committer: Identity = INTERLOCK,
    when_ms: Millis,
    signer: PayloadSigner | None,
) -> CommitId:
    """Commit `changes` on top of `parent` (None starts a history); returns the commit.

    No empty commits: when nothing differs from the parent, the parent itself is returned. Git
    stores whole seconds, UTC. UnsafePath for a path that the readers would refuse, or one that
    is asked to be a file and a directory; ValueError for an empty first commit.
    """
    base = repository[parent].peel(pygit2.Tree) if parent else None
    tree = _write_folder(repository, base, _sorted_into_folders(changes), "")
    if parent is not None and base is not None and tree == base.id:
        return parent
    if tree is None:
        if parent is None:
            raise ValueError("the first commit of a branch needs at least one file")
        tree = repository.TreeBuilder().write()
    return write_tree_commit(
        repository,
        tree,
        [parent] if parent else [],
        message=message,
        author=author,
        committer=committer,
        when_ms=when_ms,
        signer=signer,
    )


def write_tree_commit(
    repository: pygit2.Repository,
    tree: pygit2.Oid,
    parents: Sequence[CommitId],
    *,
    message: str,
    author: Identity,
    committer: Identity,
    when_ms: Millis,
    signer: PayloadSigner | None,
) -> CommitId:
    """Commit a tree that is written already. Git stores whole seconds, UTC."""
    seconds = when_ms // 1000
    content = cast(  # the stub says Oid; it is the text
        "str",
        repository.create_commit_string(
            pygit2.Signature(author.name, author.email, seconds, 0, "utf-8"),
            pygit2.Signature(committer.name, committer.email, seconds, 0, "utf-8"),
            message if message.endswith("\n") else message + "\n",
            tree,
            [pygit2.Oid(hex=parent) for parent in parents],
        ),
    )
    if signer is None:
        oid = repository.write(pygit2.enums.ObjectType.COMMIT, content.encode())
    else:
        # libgit2 indents the signature's lines itself, and wants no newline at its end.
        signature = signer.sign(content.encode()).rstrip("\n")
        oid = repository.create_commit_with_signature(content, signature, "gpgsig")
    return CommitId(ObjectId(str(oid)))


def is_own_commit(committer: Identity) -> bool:
    """Whether a commit says that Interlock wrote it (so that no tick reacts to its own work)."""
    return committer.email == INTERLOCK.email


def _sorted_into_folders(changes: Changes) -> _Folder:
    root = _Folder()
    for path, content in changes.items():
        *parents, name = split_path(path) or ("",)
        if not name:
            raise UnsafePath(path, "the root itself cannot be written")
        folder = root
        for segment in parents:
            folder = folder.folders.setdefault(segment, _Folder())
        folder.files[name] = content
    return root


def _write_folder(
    repository: pygit2.Repository, base: pygit2.Tree | None, folder: _Folder, path: str
) -> pygit2.Oid | None:
    """OID of the changed directory, or None when nothing is left in it (git has no empty ones)."""
    builder = repository.TreeBuilder(base) if base is not None else repository.TreeBuilder()
    for name, content in folder.files.items():
        here = f"{path}{name}"
        old = _entry(builder, name)
        if content is None:
            if old is not None:
                builder.remove(name)
            continue
        if name in folder.folders or (old is not None and old.filemode == MODE_TREE):
            raise UnsafePath(here, "is a directory; remove it in an earlier commit")
        # A file keeps its mode, a link does not: writing through one could land anywhere.
        plain = old is not None and old.filemode in (MODE_BLOB, MODE_EXECUTABLE)
        mode = old.filemode if old is not None and plain else MODE_BLOB
        builder.insert(name, repository.create_blob(content), mode)
    for name, below in folder.folders.items():
        here = f"{path}{name}"
        old = _entry(builder, name)
        if old is not None and old.filemode != MODE_TREE:
            if all(content is None for content in _contents(below)):
                continue  # what should go is not there
            raise UnsafePath(here, "is a file; remove it in an earlier commit")
        subtree = repository[old.id].peel(pygit2.Tree) if old is not None else None
        written = _write_folder(repository, subtree, below, f"{here}/")
        if written is not None:
            builder.insert(name, written, MODE_TREE)
        elif old is not None:
            builder.remove(name)
    return builder.write() if len(builder) else None


def _entry(builder: pygit2.TreeBuilder, name: str) -> pygit2.Object | None:
    return cast("pygit2.Object | None", builder.get(name))  # the stub forgets the None


def _contents(folder: _Folder) -> list[bytes | None]:
    found = list(folder.files.values())
    for below in folder.folders.values():
        found += _contents(below)
    return found
