"""What a result was made from: collecting that while it is made.

Files are watched through the tree (`source.watched`). Here is what is not a file of a tree: the
names in a folder, one by one, and the values that all agents share. A need is a small tuple; a
result keeps the set of its needs, and holds until a commit hits one of them. What is watched
behaves as it does unwatched, so that those who read and resolve need not know.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from reconciler.source.watched import Of

K = TypeVar("K")
V = TypeVar("V")

Need = tuple[Any, ...]
"""A tree's (Of, path); ("shared", attribute[, key]); ("once", …); ("history", question, …)."""
Note = Callable[[Need], None]
EVERY = object()
"""Stands for the key when a mapping was looked through."""


class Trace:
    """Collects the needs of what is being made now."""

    def __init__(self) -> None:
        self._now: set[Need] = set()

    def note(self, need: Need) -> None:
        """What is being made depends on this."""
        self._now.add(need)

    def add(self, needs: Collection[Need]) -> None:
        """It depends on all of these."""
        self._now.update(needs)

    @contextmanager
    def of(self) -> Iterator[set[Need]]:
        """The needs of what is made inside, which are not those of what is around it."""
        outer, self._now = self._now, set()
        try:
            yield self._now
        finally:
            self._now = outer


class Names(list[str]):
    """Names in a directory. Whoever asks for one depends on that one; who lists, on all.

    `directory` is its physical path; None when there is nothing to note.
    """

    def __init__(self, names: Collection[str], directory: str | None, note: Note) -> None:
        super().__init__(names)
        self._set = frozenset(names)
        self._directory = directory
        self._note = note

    def _all(self) -> None:
        if self._directory is not None:
            self._note((Of.NAMES, self._directory))

    def __contains__(self, name: object) -> bool:
        if self._directory is not None:
            self._note((Of.KIND, f"{self._directory}/{name}" if self._directory else name))
        return name in self._set

    def __iter__(self) -> Iterator[str]:
        self._all()
        return super().__iter__()

    def __len__(self) -> int:
        self._all()
        return super().__len__()

    def __getitem__(self, index: Any) -> Any:
        self._all()
        return super().__getitem__(index)

    def __eq__(self, other: object) -> bool:
        self._all()
        return super().__eq__(other)

    __hash__ = None


class Keyed(dict[K, V]):
    """A mapping that tells which of its keys were asked for."""

    def __init__(self, of: Mapping[K, V], attribute: str, note: Note) -> None:
        super().__init__(of)
        self._attribute = attribute
        self._note = note

    def _one(self, key: object) -> None:
        self._note(("shared", self._attribute, key))

    def _all(self) -> None:
        self._note(("shared", self._attribute, EVERY))

    def __contains__(self, key: object) -> bool:
        self._note(("shared", self._attribute, key, "is there"))
        return super().__contains__(key)

    def __getitem__(self, key: K) -> V:
        self._one(key)
        return super().__getitem__(key)

    def get(self, key: K, default: Any = None) -> Any:
        self._one(key)
        return super().get(key, default)

    def __iter__(self) -> Iterator[K]:
        self._all()
        return super().__iter__()

    def __len__(self) -> int:
        self._all()
        return super().__len__()

    def __eq__(self, other: object) -> bool:
        self._all()
        return super().__eq__(other)

    __hash__ = None

    def keys(self) -> Any:
        self._all()
        return super().keys()

    def values(self) -> Any:
        self._all()
        return super().values()

    def items(self) -> Any:
        self._all()
        return super().items()

    def copy(self) -> dict[K, V]:
        self._all()
        return dict(super().items())

    def __or__(self, other: Any) -> Any:
        return self.copy() | other


class Listed(tuple[V, ...]):
    """A list of shared values that tells when it is looked at."""

    _attribute: str
    _note: Note

    @classmethod
    def of(cls, values: Collection[V], attribute: str, note: Note) -> Listed[V]:
        """The values, watched."""
        made = cls(values)
        made._attribute, made._note = attribute, note
        return made

    def _all(self) -> None:
        self._note(("shared", self._attribute))

    def __iter__(self) -> Iterator[V]:
        self._all()
        return super().__iter__()

    def __len__(self) -> int:
        self._all()
        return super().__len__()

    def __getitem__(self, index: Any) -> Any:
        self._all()
        return super().__getitem__(index)

    def __contains__(self, value: object) -> bool:
        self._all()
        return super().__contains__(value)
