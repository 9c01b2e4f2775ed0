"""Merges in memory: what a pull request would make of its target, without a worktree.

A plan is of the merge result, for every open pull, whenever the target moves; so the cost has to
follow the change and not the fleet. libgit2 merges through an index of all files (half a second
for 10,000 agents). Here the changed paths come from two tree comparisons, a path that only one
side has changed is taken over by its OID, and libgit2 is asked for what is left: the lines of a
file both have edited, or, where a file may have been renamed, the whole merge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pygit2
from pygit2.enums import SortMode

from gateway.values import Millis
from reconciler.source import writing
from reconciler.source.errors import SourceError
from reconciler.source.mirror import CommitInfo, Mirror
from reconciler.source.objects import (
    MODE_BLOB,
    MODE_EXECUTABLE,
    MODE_TREE,
    CommitId,
    ObjectId,
    TreeId,
)
from reconciler.source.paths import UnsafePath
from reconciler.source.soundness import check_tree, directories
from reconciler.source.writing import Identity, PayloadSigner

MOST_COMMITS = 10_000
"""Commits of a branch that `commits_between` is prepared to list."""

_FILES = (MODE_BLOB, MODE_EXECUTABLE)
_Cell = tuple[int, pygit2.Oid] | None  # mode and content of a path; None: nothing is there


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What merging `head` into `target` gives; both are commits.

    `tree` is None when it cannot be merged: `conflicts` then lists the paths, sorted. It is empty
    for histories that have nothing in common (`base` is None), which are never merged.
    """

    target: CommitId
    head: CommitId
    base: CommitId | None
    tree: TreeId | None
    conflicts: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether there is a result."""
        return self.tree is not None

    @property
    def contained(self) -> bool:
        """Whether the target has all of the head's history already."""
        return self.base == self.head


def merge_base(mirror: Mirror, one: CommitId, two: CommitId) -> CommitId | None:
    """The best common ancestor of two commits; None when they share no history."""
    found: pygit2.Oid | None = _repository(mirror).merge_base(_oid(one), _oid(two))
    return CommitId(ObjectId(str(found))) if found is not None else None


def merge_result(mirror: Mirror, target: CommitId, head: CommitId) -> MergeResult:
    """Merge `head` into `target` in memory. The same commits always give the same tree.

    Read the result with `mirror.tree_at(result.tree)`. SourceError when the mirror lacks a commit.
    """
    repository = _repository(mirror)
    trees = {commit: mirror.commit_info(commit).tree for commit in (target, head)}
    base = merge_base(mirror, target, head)
    if base is None:
        return MergeResult(target, head, None, None)
    if base == head or trees[target] == trees[head]:
        return MergeResult(target, head, base, trees[target])
    if base == target:
        return MergeResult(target, head, base, trees[head])
    found: pygit2.Oid | tuple[str, ...]
    try:
        for side in (trees[target], trees[head]):
            _check_sound(repository, side, beside=mirror.commit_info(base).tree)
        try:
            if _crossed(repository, target, head, base):
                raise _Involved
            found = _merge_changed(
                repository,
                _tree(repository, mirror.commit_info(base).tree),
                _tree(repository, trees[target]),
                _tree(repository, trees[head]),
            )
        except _Involved:
            _check_sound(repository, mirror.commit_info(base).tree)
            found = _merge_all(repository, target, head)
    except (pygit2.GitError, ValueError, LookupError) as error:
        raise SourceError(f"{head[:12]} cannot be merged: {error}") from error
    if isinstance(found, tuple):
        return MergeResult(target, head, base, None, found)
    return MergeResult(target, head, base, TreeId(ObjectId(str(found))))


def write_merge(
    mirror: Mirror,
    result: MergeResult,
    *,
    squash: bool,
    message: str,
    author: Identity,
    committer: Identity,
    when_ms: Millis,
    signer: PayloadSigner | None = None,
) -> CommitId:
    """The commit of a clean result: with both as parents, or (`squash`) the target alone.

    No ref moves. ValueError when there is nothing to commit: conflicts.
    """
    if result.tree is None:
        raise ValueError("a merge with conflicts cannot be committed")
    return writing.write_tree_commit(
        _repository(mirror),
        pygit2.Oid(hex=result.tree),
        [result.target] if squash else [result.target, result.head],
        message=message,
        author=author,
        committer=committer,
        when_ms=when_ms,
        signer=signer,
    )


def commits_between(
    mirror: Mirror, target: CommitId, head: CommitId, *, most: int = MOST_COMMITS
) -> tuple[CommitInfo, ...]:
    """Commits that `head` has and `target` has not, oldest first.

    SourceError when there are more than `most`: to leave some out would leave out their authors.
    """
    walker = _repository(mirror).walk(_oid(head), SortMode.TOPOLOGICAL | SortMode.REVERSE)
    walker.hide(_oid(target))
    found: list[CommitInfo] = []
    for commit in walker:
        if len(found) == most:
            raise SourceError(
                f"{head[:12]} has more than {most:,} commits that {target[:12]} has not; "
                "rebase the branch, or merge it in parts"
            )
        found.append(mirror.commit_info(CommitId(ObjectId(str(commit.id)))))
    return tuple(found)


def _check_sound(
    repository: pygit2.Repository, tree: TreeId, *, beside: TreeId | None = None
) -> None:
    """UnsafePath for a tree that libgit2 must not be given; what `beside` has is trusted."""

    def read(oid: bytes) -> bytes:
        found = repository[oid.hex()]
        if not isinstance(found, pygit2.Tree):
            raise UnsafePath(oid.hex(), "is called a directory, and is none")
        return found.read_raw()

    trusted = directories(read, bytes.fromhex(beside)) if beside else frozenset()
    check_tree(read, bytes.fromhex(tree), trusted=trusted)


class _Involved(Exception):
    """Conflicts, perhaps renames, files against directories, criss-cross histories: libgit2
    merges the whole."""


def _crossed(
    repository: pygit2.Repository, target: CommitId, head: CommitId, base: CommitId
) -> bool:
    """Whether there is a second merge base: then one of them alone would give a wrong merge."""
    ours = {str(commit.id) for commit in _beyond(repository, target, base)}
    return any(str(commit.id) in ours for commit in _beyond(repository, head, base))


def _beyond(repository: pygit2.Repository, commit: CommitId, base: CommitId) -> pygit2.Walker:
    walker = repository.walk(_oid(commit))
    walker.hide(_oid(base))
    return walker


def _merge_changed(
    repository: pygit2.Repository, base: pygit2.Tree, ours: pygit2.Tree, theirs: pygit2.Tree
) -> pygit2.Oid:
    """The merged tree; looks only at what `theirs` has changed. _Involved also for conflicts."""
    changes = _Folder()
    for path in _changed(base, theirs):
        was, our, their = (_cell(tree, path) for tree in (base, ours, theirs))
        if our is None and was is not None:
            raise _Involved  # gone on our side: perhaps under another name, perhaps on both
        if our == their:
            continue
        if our == was:
            changes.put(path, their)
            continue
        if not all(cell is not None and cell[0] in _FILES for cell in (was, our, their)):
            raise _Involved
        changes.put(path, _merge_file(repository, was, our, their))
    return _apply(repository, ours, changes) or repository.TreeBuilder().write()


def _changed(base: pygit2.Tree, theirs: pygit2.Tree) -> list[str]:
    found: set[str] = set()
    for delta in base.diff_to_tree(theirs).deltas:
        for side in (delta.old_file, delta.new_file):
            try:
                found.add(side.raw_path.decode())
            except UnicodeDecodeError:
                raise _Involved from None
    return sorted(found)


def _cell(tree: pygit2.Tree, path: str) -> _Cell:
    try:
        found = tree[path]
    except KeyError:
        return None
    return int(found.filemode), found.id


def _merge_file(repository: pygit2.Repository, was: _Cell, our: _Cell, their: _Cell) -> _Cell:
    """Base, ours and theirs of one file, merged by its lines."""
    base, ours, theirs = (_alone(repository, cell) for cell in (was, our, their))
    index = repository.merge_trees(base, ours, theirs)
    if index.conflicts is not None:
        raise _Involved  # the whole merge lists every conflict, this is perhaps not the only one
    entry = index["file"]
    return int(entry.mode), entry.id


def _alone(repository: pygit2.Repository, cell: _Cell) -> pygit2.Oid:
    """A tree with this one file in it."""
    assert cell is not None
    builder = repository.TreeBuilder()
    builder.insert("file", cell[1], cell[0])
    return builder.write()


def _merge_all(
    repository: pygit2.Repository, target: CommitId, head: CommitId
) -> pygit2.Oid | tuple[str, ...]:
    index = repository.merge_commits(_oid(target), _oid(head))
    if index.conflicts is None:
        return index.write_tree(repository)
    sides = (side for conflict in index.conflicts for side in conflict)
    return tuple(sorted({side.path for side in sides if side is not None}))


@dataclass
class _Folder:
    """What changes below one directory."""

    folders: dict[str, _Folder] = field(default_factory=dict)
    cells: dict[str, _Cell] = field(default_factory=dict)

    def put(self, path: str, cell: _Cell) -> None:
        *parents, name = path.split("/")
        folder = self
        for parent in parents:
            folder = folder.folders.setdefault(parent, _Folder())
        folder.cells[name] = cell


def _apply(
    repository: pygit2.Repository, tree: pygit2.Tree | None, folder: _Folder
) -> pygit2.Oid | None:
    """The directory with the changes in it; None when nothing is left (git has no empty ones)."""
    builder = repository.TreeBuilder(tree) if tree is not None else repository.TreeBuilder()
    # What goes makes room first: a file may become a directory of the same name, or the reverse.
    for name, cell in folder.cells.items():
        if cell is None and _entry(builder, name) is not None:
            builder.remove(name)
    for name, below in folder.folders.items():
        old = _entry(builder, name)
        if old is not None and old.filemode != MODE_TREE:
            raise _Involved
        written = _apply(repository, _tree(repository, old.id) if old is not None else None, below)
        if written is not None:
            builder.insert(name, written, MODE_TREE)
        elif old is not None:
            builder.remove(name)
    for name, cell in folder.cells.items():
        if cell is not None:
            old = _entry(builder, name)
            if old is not None and old.filemode == MODE_TREE:
                raise _Involved
            builder.insert(name, cell[1], cell[0])
    return builder.write() if len(builder) else None


def _entry(builder: pygit2.TreeBuilder, name: str) -> pygit2.Object | None:
    return cast("pygit2.Object | None", builder.get(name))  # the stub forgets the None


def _tree(repository: pygit2.Repository, oid: TreeId | pygit2.Oid) -> pygit2.Tree:
    return repository[oid].peel(pygit2.Tree)


def _oid(commit: CommitId) -> pygit2.Oid:
    return pygit2.Oid(hex=commit)


def _repository(mirror: Mirror) -> pygit2.Repository:
    return mirror._repository()  # the mirror's own room: each thread has its own
