"""A parsed file: its data, where each part of it is written, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.config.plain import Plain
from reconciler.findings import Finding, Place


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it is. `children` by key or index; `keys` says where each key is."""

    value: Any
    line: int
    column: int
    children: Mapping[str | int, Node] = field(default_factory=dict)
    keys: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    weight: int = 1
    """Number of nodes in it, aliases counted as often as they are used."""


class Document:
    """One parsed file. `root` is None when nothing of it could be understood.

    Documents of the same file with the same text are equal.
    """

    __slots__ = ("_first_line", "_nodes", "_plain", "_root", "_text", "file", "findings", "shaped")

    def __init__(
        self,
        file: str,
        root: Node | None = None,
        findings: tuple[Finding, ...] = (),
        *,
        text: str | None = None,
        first_line: int = 1,
        plain: Plain | None = None,
        nodes: Callable[[], Node | None] | None = None,
    ) -> None:
        self.file = file
        self.findings = findings
        self.shaped: dict[type, Any] = {}
        """What `shapes.expect` found, by model: a document kept between loads is checked once."""
        self._root = root
        self._text = text
        self._first_line = first_line
        self._plain = plain
        self._nodes = nodes

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Document):
            return NotImplemented
        return self is other or self._identity() == other._identity()

    def _identity(self) -> tuple[object, ...]:
        return self.file, self._first_line, self._text, self.findings

    __hash__ = None  # type: ignore[assignment]

    @property
    def understood(self) -> bool:
        """Whether there is anything in it that could be read."""
        return self._plain is not None or self._root is not None

    @property
    def root(self) -> Node | None:
        """The nodes, made when asked for: data and positions can be had without."""
        if self._root is None and self._nodes is not None:
            self._root = self._nodes()
        return self._root

    @property
    def data(self) -> Any:
        """The plain data: dict, list, str, int, bool, Decimal, None."""
        if self._plain is not None:
            return self._plain.data
        return self._root.value if self._root else None

    def at(self, path: Sequence[str | int], *, key: bool = False) -> Place:
        """Where the value at `path` is, or its key; as far as the path exists."""
        if self._plain is not None:
            line, column = self._plain.find(path, key=key)
            return Place(self.file, line + self._first_line, column + 1)
        node = self._root
        if node is None:
            return Place(self.file)
        place = (node.line, node.column)
        for step in path:
            child = node.children.get(step)
            if child is None:
                continue  # a part of the path that is not in the text, such as a union's tag
            place = (child.line, child.column)
            if key and isinstance(step, str) and step in node.keys:
                place = node.keys[step]
            node = child
        return Place(self.file, *place)

    def has(self, path: Sequence[str | int]) -> bool:
        """Whether a value is written at exactly this path."""
        if self._plain is not None:
            return self._plain.has(path)
        node = self._root
        for step in path:
            node = node.children.get(step) if node else None
        return node is not None
