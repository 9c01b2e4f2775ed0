"""The fast way through YAML that is as it should be: PyYAML's C composer, and plain data from it.

Nearly every document has no tag, no anchor, no merge key, no key twice. For those the nodes that C
has made are enough, and positions are looked up in them when somebody asks. Whatever is not plain
is not judged here: `plain` says None, and the strict builder in `positions` reads the text again
and says what is wrong and where. So this may refuse too much, and never too little.
"""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import yaml
from yaml._yaml import CParser

from reconciler.config.secrets import secret_kind

MAX_DEPTH = 40
MOST_TEXT = 50_000
"""Characters. A document that is larger may hold more values than are allowed: see `positions`."""

MOST_INDICATORS = 400
"""Levels that C takes without harm."""

SHARED = 64
"""Texts of at most so many characters are one object however many documents have them: thousands
of agents name the same teams, models and tools."""

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)?\.[0-9]+(_[0-9]+)*")


class _Unusual(Exception):
    """Something the strict builder has to look at."""


class _Composer(yaml.CSafeLoader):
    """Composes in C. The hooks that C calls for each node bound the depth, before C's own stack
    is at risk, and keep an explicit tag (a text) apart from what is implied."""

    depth = 0

    def __init__(self, text: str) -> None:
        # Not CSafeLoader's: that prepares a constructor and a resolver, which nobody asks here.
        CParser.__init__(self, text)

    def descend_resolver(self, parent: Any, index: Any) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Unusual

    def ascend_resolver(self) -> None:
        self.depth -= 1

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        return implicit


class _Shallow(_Composer):
    """As `_Composer`, of a text that cannot be deep enough to harm C: no Python for each node."""

    descend_resolver = staticmethod(operator.is_)  # type: ignore[assignment]
    ascend_resolver = staticmethod(tuple)  # type: ignore[assignment]


def _composer(text: str) -> _Composer:
    # Each level needs an indicator of its own, so there are at most so many levels as those.
    shallow = sum(map(text.count, "[{-:?")) <= MOST_INDICATORS
    return _Shallow(text) if shallow else _Composer(text)


class Plain:
    """A document's data, and where each part of it is written (counted from 0)."""

    __slots__ = ("_node", "data")

    def __init__(self, data: Any, node: yaml.Node) -> None:
        self.data = data
        self._node = node

    def find(self, path: Sequence[str | int], *, key: bool = False) -> tuple[int, int]:
        """(line, column) of the value at `path`, or of its key; as far as the path exists."""
        node = self._node
        mark = node.start_mark
        for step in path:
            found = _child(node, step)
            if found is None:
                continue  # a part of the path that is not in the text, such as a union's tag
            name, node = found
            mark = (name if key and name is not None else node).start_mark
        return mark.line, mark.column

    def has(self, path: Sequence[str | int]) -> bool:
        """Whether a value is written at exactly this path."""
        node = self._node
        for step in path:
            found = _child(node, step)
            if found is None:
                return False
            node = found[1]
        return True


def _child(node: yaml.Node, step: str | int) -> tuple[yaml.Node | None, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == step:
                return name, value
    elif (
        isinstance(node, yaml.SequenceNode)
        and isinstance(step, int)
        and step in range(len(node.value))
    ):
        return None, node.value[step]
    return None


def plain(text: str) -> Plain | None:
    """The document, when nothing in it is unusual."""
    # An anchor or an alias needs this character; a C1 or a tag is seen later.
    if len(text) > MOST_TEXT or "&" in text:
        return None
    loader = _composer(text)
    texts: list[str] = []
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        data = _data(node, texts)
    except (_Unusual, yaml.YAMLError):
        return None
    finally:
        loader.dispose()
    # All at once; a hit across two of them is looked at again by the strict builder.
    return None if secret_kind("\n".join(texts)) else Plain(data, node)


def _data(node: yaml.Node, texts: list[str], depth: int = 1) -> Any:
    if type(node.tag) is str or depth > MAX_DEPTH:
        raise _Unusual
    value = node.value
    if isinstance(node, yaml.ScalarNode):
        texts.append(value)
        if len(value) <= SHARED:
            value = sys.intern(value)
        return resolve(value) if node.tag[0] and not node.style else value
    if isinstance(node, yaml.SequenceNode):
        return [_data(item, texts, depth + 1) for item in value]
    found: dict[str, Any] = {}
    for name, item in value:
        key = name.value
        if type(key) is not str or not key or key in found or key == "<<":
            raise _Unusual
        found[key] = _data(item, texts, depth + 1)
    return found


def resolve(text: str) -> str | int | bool | Decimal | None:
    """The value of an unquoted scalar: null, true, false, an integer, a decimal, else text."""
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if len(text) <= 30 and (text[0] in "-+." or text[0].isdecimal()):
        if _INT.fullmatch(text):
            return int(text)
        if _DECIMAL.fullmatch(text):
            return Decimal(text)
    return text
