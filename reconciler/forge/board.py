"""What stands on the branch `interlock/pulls`, as of the mirror's last fetch.

Reading it is on the path of every tick, so only what has changed is read: a pull's file again when
the OID of its folder is another, a listing again when a branch that some open pull is about moved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from gateway.values import content_hash
from reconciler.findings import Finding
from reconciler.forge import documents
from reconciler.forge.documents import BRANCH, Malformed, PullDocument
from reconciler.forge.model import (
    ForgeRefused,
    MalformedPull,
    Pull,
    PullNumber,
    Pulls,
    PullState,
)
from reconciler.source.mirror import Mirror
from reconciler.source.objects import CommitId, ObjectId
from reconciler.source.tree import Entry, MemoryTree, Tree

T = TypeVar("T")
MOST_REMEMBERED = 10_000
Read = PullDocument | tuple[Finding, ...]
"""A pull's file, or what is wrong with it."""


class Board:
    """The pulls in a mirror. An instance belongs to one thread."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._documents: dict[PullNumber, tuple[ObjectId, Read]] = {}
        self._read_at: CommitId | None = None
        self._contained: dict[tuple[CommitId, CommitId], bool] = {}
        self._listing: Pulls | None = None

    def pulls(self) -> Pulls:
        """Every pull as of the last fetch; files that did not change are not read again."""
        found = self._all()
        heads: dict[str, str] = {}
        for document in found.values():
            if isinstance(document, PullDocument) and document.state is PullState.OPEN:
                for branch in (document.source, document.target):
                    heads[branch] = self._mirror.resolve(branch) or ""
        mark = content_hash({"pulls": self._read_at or "", "heads": dict(heads)})
        if self._listing is None or self._listing.mark != mark:
            self._listing = Pulls(
                pulls=tuple(self.value(d) for d in found.values() if isinstance(d, PullDocument)),
                mark=mark,
                broken={n: d for n, d in found.items() if not isinstance(d, PullDocument)},
            )
        return self._listing

    def pull(self, number: PullNumber) -> Pull:
        """One pull. ForgeRefused when there is none, MalformedPull."""
        return self.value(self.document(self.now(), number))

    def of_pull(self, number: PullNumber, read: Callable[[Tree, PullNumber], T]) -> T:
        """Something that belongs to a pull, read by `read`. As `pull`."""
        tree = self.now()
        self.document(tree, number)
        return checked(number, lambda: read(tree, number))

    def document(self, tree: Tree, number: PullNumber) -> PullDocument:
        """A pull's own file in a state of the branch. As `pull`."""
        if number not in numbers_in(tree):
            raise ForgeRefused(f"there is no pull #{number}; `interlock pr list --all` lists them")
        return checked(number, lambda: documents.read_pull(tree, number))

    def value(self, document: PullDocument) -> Pull:
        """The pull with its head. Open, but all of it in the target: somebody merged by hand."""
        pull = document.value(self._mirror.resolve(document.source))
        if not pull.open or pull.head is None:
            return pull
        target = self._mirror.resolve(pull.target)
        if target is None or not self.is_contained(pull.head, target):
            return pull
        return replace(pull, state=PullState.MERGED)

    def is_contained(self, head: CommitId, target: CommitId) -> bool:
        """Whether the target has all of the head; asked of git once."""
        if len(self._contained) > MOST_REMEMBERED:
            self._contained.clear()
        known = self._contained.get((head, target))
        if known is None:
            known = self._contained[head, target] = self._mirror.is_ancestor(head, target)
        return known

    def tree(self, head: CommitId | None) -> Tree:
        """The branch at a commit of its; None: there is no such branch yet."""
        return self._mirror.tree(head) if head is not None else MemoryTree({})

    def now(self) -> Tree:
        """The branch as of the last fetch."""
        return self.tree(self._mirror.resolve(BRANCH))

    def _all(self) -> Mapping[PullNumber, Read]:
        head = self._mirror.resolve(BRANCH)
        if head != self._read_at:
            tree = self.tree(head)
            fresh: dict[PullNumber, tuple[ObjectId, Read]] = {}
            for number, entry in sorted(numbers_in(tree).items()):
                known = self._documents.get(number)
                if known is None or known[0] != entry.oid:
                    known = (entry.oid, read_or_findings(tree, number))
                fresh[number] = known
            self._documents, self._read_at = fresh, head
        return {number: document for number, (_, document) in self._documents.items()}


def numbers_in(tree: Tree) -> Mapping[PullNumber, Entry]:
    """The pulls there are. ForgeRefused when the branch holds names that cannot be listed."""
    try:
        return documents.numbers(tree)
    except Malformed as wrong:
        raise ForgeRefused(str(wrong)) from None


def read_or_findings(tree: Tree, number: PullNumber) -> Read:
    """A pull's own file, or what is wrong with it."""
    try:
        return documents.read_pull(tree, number)
    except Malformed as wrong:
        return wrong.findings


def checked(number: PullNumber, read: Callable[[], T]) -> T:
    """What `read` gives; MalformedPull when a file cannot be used."""
    try:
        return read()
    except Malformed as wrong:
        raise MalformedPull(number, wrong.findings) from None
