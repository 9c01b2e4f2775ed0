"""A bare copy of the config repo: read, write and push from here, with no worktree.

The mirror's branches are the remote's as of the last fetch; nothing else moves them but a push of
our own that was seen to arrive. It is a cache: deleting it costs a clone. Reading needs no
network; whatever does goes through a child process (see `remote`).

Threads: a Mirror may be shared, its libgit2 `Repository` may not, so each thread opens its own.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pygit2

from gateway.values import Millis
from reconciler.source import signing, writing
from reconciler.source.committed import GitTree as GitTree
from reconciler.source.committed import object_of
from reconciler.source.errors import HistoryRewritten, MirrorMismatch, ShallowHistory, SourceError
from reconciler.source.objects import (
    BlobId,
    CommitId,
    ObjectId,
    TreeId,
    is_object_id,
)
from reconciler.source.push import PushOutcome, PushResult, Updates, judge, seen
from reconciler.source.remote import Auth, Remote, Timeouts, ask, converse
from reconciler.source.tree import (
    changed_paths,
)
from reconciler.source.writing import INTERLOCK, Changes, Identity, PayloadSigner

HEADS = "refs/heads/"
_URL = "interlock.url"


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """What a commit says of itself. `time_ms` is the committer's, in whole seconds."""

    id: CommitId
    tree: TreeId
    parents: tuple[CommitId, ...]
    author: Identity
    committer: Identity
    time_ms: Millis
    message: str
    signature: str | None

    @property
    def own(self) -> bool:
        """Whether Interlock says it wrote this one. Not a proof: `Mirror.verify_commit` is."""
        return writing.is_own_commit(self.committer)


class Mirror:
    """See the module. Made by `open_or_clone`."""

    def __init__(self, path: Path, remote: Remote) -> None:
        self.path = path
        self._remote = remote
        self._mine = threading.local()

    @classmethod
    def open_or_clone(
        cls,
        url: str,
        path: Path | str,
        *,
        auth: Auth | None = None,
        timeouts: Timeouts | None = None,
    ) -> Mirror:
        """The mirror of `url` at `path`; cloned, with its full history, if there is none.

        An existing one is opened without a network call, so that a tick can start while the
        remote is down. Raises RemoteUnavailable (nothing is left at `path`), ShallowHistory, and
        MirrorMismatch when `path` holds something else.
        """
        mirror = cls(Path(path), Remote.of(url, auth=auth, timeouts=timeouts))
        if mirror.path.exists() and any(mirror.path.iterdir()):
            mirror._check()
        else:
            mirror._clone()
        return mirror

    @property
    def url(self) -> str:
        """The remote's address, without credentials."""
        return self._remote.url

    def _check(self) -> None:
        try:
            known = self._repository().config[_URL]
        except (pygit2.GitError, KeyError):
            raise MirrorMismatch(str(self.path), "is not a mirror made by interlock") from None
        if known != self.url:
            raise MirrorMismatch(str(self.path), f"is a mirror of {known}, not of {self.url}")
        if self._repository().is_shallow:
            raise ShallowHistory(str(self.path))

    def _clone(self) -> None:
        # Beside its place and then renamed: a clone that is killed leaves no half mirror.
        half = self.path.with_name(f".{self.path.name}.cloning")
        if half.exists():
            shutil.rmtree(half)
        half.parent.mkdir(parents=True, exist_ok=True)
        try:
            repository = pygit2.init_repository(half, bare=True)
            repository.config[_URL] = self.url
            repository.free()
            self._fetch_into(half, first=True)
            half.replace(self.path)
        finally:
            shutil.rmtree(half, ignore_errors=True)

    def _fetch_into(self, path: Path, *, first: bool) -> dict[str, CommitId]:
        request = {"op": "fetch", "mirror": os.fspath(path), "refs": [HEADS], "first": first}
        answer = ask(self._remote, request)
        return {ref: CommitId(ObjectId(oid)) for ref, oid in answer["refs"].items()}

    def fetch(self) -> dict[str, CommitId]:
        """Bring every branch up to date; {`refs/heads/…`: commit}. RemoteUnavailable if not.

        Branches that are gone there are gone here. A branch may have been rewritten: callers
        that rely on the past ask `is_ancestor` or `first_parent_history(since=…)`.
        """
        refs = self._fetch_into(self.path, first=False)
        self._repository().free()  # descriptors of packs that are now stale
        return refs

    def heads(self) -> dict[str, CommitId]:
        """The branches as of the last fetch, without asking the remote."""
        references = self._repository().references
        return {
            ref: CommitId(ObjectId(str(references[ref].target)))
            for ref in references
            if ref.startswith(HEADS)
        }

    def default_branch(self) -> str | None:
        """Name of the remote's default branch; None while it has no commit."""
        repository = self._repository()
        return None if repository.head_is_unborn else repository.head.shorthand

    def resolve(self, ref: str) -> CommitId | None:
        """The commit of a branch (`main`, `refs/heads/main`) or of a full commit id, else None.

        Abbreviated ids are not resolved: they are not identities.
        """
        repository = self._repository()
        if is_object_id(ref):
            found: object = repository.get(ref)  # the stub forgets that it may be any object
            return CommitId(ObjectId(ref)) if isinstance(found, pygit2.Commit) else None
        name = full_ref(ref)
        try:
            reference = repository.references[name]
        except (KeyError, ValueError):
            return None  # there is no such ref, or there cannot be one of that name
        return CommitId(ObjectId(str(reference.peel(pygit2.Commit).id)))

    def tree(self, commit: CommitId) -> GitTree:
        """The files of a commit."""
        return GitTree(self._repository, self.commit_info(commit).tree)

    def tree_at(self, tree: TreeId) -> GitTree:
        """The files of a tree known by its OID (a version's content, kept in `state/`)."""
        object_of(self._repository(), tree).peel(pygit2.Tree)
        return GitTree(self._repository, tree)

    def blob(self, oid: BlobId) -> bytes:
        """Content of a blob known by its OID."""
        return object_of(self._repository(), oid).peel(pygit2.Blob).data

    def changed_paths(self, old: TreeId | None, new: TreeId | None) -> tuple[str, ...]:
        """Paths that differ between two trees, sorted; cost follows the change."""
        return changed_paths(self.tree_at(old) if old else None, self.tree_at(new) if new else None)

    def commit_info(self, commit: CommitId) -> CommitInfo:
        """Author, time, message, parents, signature. SourceError if the mirror lacks it."""
        found = object_of(self._repository(), commit).peel(pygit2.Commit)
        signature, _ = found.gpg_signature
        return CommitInfo(
            id=CommitId(ObjectId(str(found.id))),
            tree=TreeId(ObjectId(str(found.tree_id))),
            parents=tuple(CommitId(ObjectId(str(oid))) for oid in found.parent_ids),
            author=Identity(found.author.name, found.author.email),
            committer=Identity(found.committer.name, found.committer.email),
            time_ms=Millis(found.commit_time * 1000),
            message=found.message,
            signature=signature.decode(errors="replace") if signature else None,
        )

    def first_parent_history(self, ref: str, since: CommitId | None = None) -> tuple[CommitId, ...]:
        """Commits of a branch along first parents, oldest first, those after `since` only.

        HistoryRewritten when `since` is not on that line; SourceError when there is no `ref`.
        """
        commit: CommitId | None = self.resolve(ref)
        if commit is None:
            raise SourceError(f"there is no branch or commit {ref!r} in {self.url}")
        repository = self._repository()
        found: list[CommitId] = []
        while commit is not None and commit != since:
            found.append(commit)
            parents = object_of(repository, commit).peel(pygit2.Commit).parent_ids
            commit = CommitId(ObjectId(str(parents[0]))) if parents else None
        if commit != since:
            raise HistoryRewritten(ref, since or "")
        return tuple(reversed(found))

    def is_ancestor(self, old: CommitId, new: CommitId) -> bool:
        """Whether `new` is `old` or has it in its history: a fast-forward leads there."""
        repository = self._repository()
        if old not in repository or new not in repository:
            return False
        return old == new or repository.descendant_of(new, old)

    def verify_commit(self, commit: CommitId, allowed: Sequence[str]) -> signing.Verification:
        """Judge a commit's SSH signature against the allowed public keys."""
        found = object_of(self._repository(), commit).peel(pygit2.Commit)
        signature, payload = found.gpg_signature
        text = signature.decode(errors="replace") if signature else None
        return signing.verify(payload or b"", text, allowed)

    def write_commit(
        self,
        parent: CommitId | None,
        changes: Changes,
        *,
        message: str,
        author: Identity = INTERLOCK,
        committer: Identity = INTERLOCK,
        when_ms: Millis,
        signer: PayloadSigner | None,
    ) -> CommitId:
        """Write a commit into the mirror; no ref moves. See `writing.write_commit`."""
        return writing.write_commit(
            self._repository(),
            parent,
            changes,
            message=message,
            author=author,
            committer=committer,
            when_ms=when_ms,
            signer=signer,
        )

    def push(self, updates: Updates) -> PushResult:
        """Compare-and-swap on the remote, fast-forward only, believed only when seen there.

        {ref: (what it must hold now or None, new commit)}. Never raises for the remote's faults:
        the result says `pushed`, `rejected` (why, and whether a retry can help) or `unknown`.
        Over HTTP and SSH several refs are not one transaction; `remote` then tells which arrived.
        """
        updates = {full_ref(ref): update for ref, update in updates.items()}
        for ref, (old, new) in updates.items():
            if self.resolve(new) is None:
                raise SourceError(f"commit {new[:12]} is not in the mirror {self.path}")
            if old is not None and not self.is_ancestor(old, new):
                reason = f"{ref}: {new[:12]} is not a fast-forward of {old[:12]}"
                return PushResult(PushOutcome.REJECTED, reason)
        wanted = {ref: {"old": old or "", "new": new} for ref, (old, new) in updates.items()}
        request = {"op": "push", "mirror": os.fspath(self.path), "updates": wanted}
        result = judge(
            updates,
            converse(self._remote, request),
            lambda: self._look(updates),
            self._remote_contains,
        )
        if result.pushed:
            for ref, (_, new) in updates.items():
                # Not when somebody has built on ours: then the fetch has brought theirs.
                if result.remote.get(ref) == new:
                    self._repository().references.create(ref, new, force=True)
        return result

    def _look(self, updates: Updates) -> dict[str, CommitId | None] | None:
        said = converse(self._remote, {"op": "heads", "mirror": os.fspath(self.path)})
        return None if said.answer is None else seen(said.answer["refs"], updates)

    def _remote_contains(self, ref: str, commit: CommitId) -> bool:
        try:
            now = self.fetch().get(ref)
        except SourceError:
            return False
        return now is not None and self.is_ancestor(commit, now)

    def _repository(self) -> pygit2.Repository:
        mine: pygit2.Repository | None = getattr(self._mine, "repository", None)
        if mine is None:
            mine = self._mine.repository = pygit2.Repository(os.fspath(self.path))
        return mine


def full_ref(name: str) -> str:
    """`main` → `refs/heads/main`; a full name stays."""
    return name if name.startswith("refs/") else HEADS + name
