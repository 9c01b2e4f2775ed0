"""A branch in memory: a tree per commit, and the `History` that the loader may ask about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gateway.values import Millis
from reconciler.config.declarations import declarations
from reconciler.config.versions import Key, Released, grown, numbers_by_path
from reconciler.source.excerpt import Excerpt
from reconciler.source.objects import CommitId, ObjectId
from reconciler.source.tree import MemoryTree, Tree, changed_paths

DAY = 86_400_000
START = Millis(1_772_323_200_000)  # 2026-03-01T00:00:00Z


def commit_id(number: int) -> CommitId:
    """The id of the commit with this number, counted from 0."""
    return CommitId(ObjectId(f"{number:040x}"))


def indexed(
    trees: Sequence[MemoryTree],
    index: Mapping[Key, Released] | None = None,
    *,
    first: int = 0,
    before: MemoryTree | None = None,
) -> dict[Key, Released]:
    """The index after these trees, one commit a day; `first` and `before` go on from others."""
    whole = dict(index or {})
    for number, tree in enumerate(trees, first):
        changed = changed_paths(before, tree)
        declared = declarations(tree, changed, known=whole)
        at = Millis(START + number * DAY)
        for one in grown(whole, declared, commit=commit_id(number), at=at):
            whole[one.path, one.number] = one
        before = tree
    return whole


class MemoryHistory:
    """`History` of a list of trees. `lost` are objects that the repository no longer has."""

    absent: str | None = None

    def __init__(self, trees: Iterable[MemoryTree], *, lost: Iterable[ObjectId] = ()) -> None:
        self.trees = list(trees)
        self.index = indexed(self.trees)
        self.lost = frozenset(lost)

    def released(self, path: str, number: int) -> Released | None:
        return self.index.get((path, number))

    def numbers(self, path: str) -> tuple[int, ...]:
        return numbers_by_path(self.index).get(path, ())

    def content(self, released: Released) -> Tree | None:
        if released.oid in self.lost:
            return None
        return Excerpt.of(self.trees[int(released.commit, 16)], released.path)

    def at(self, commit: str) -> Tree | None:
        number = int(commit, 16)
        return self.trees[number] if number < len(self.trees) else None
