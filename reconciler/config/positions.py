"""YAML with positions: text in, plain data that knows where each part of it was written, out.

Built on the events of PyYAML's C parser rather than on its loader, for three reasons. Every node
keeps its line and column. The types are those of YAML 1.2 and few (`on` and `12:30` stay text,
`0.10` becomes a Decimal; floats would make digests depend on their writer). And each way to make
a reader hang or die is closed here once: size, depth, number of nodes, what aliases expand to,
tags, encodings, control characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from reconciler.config.document import Document as Document
from reconciler.config.document import Node as Node
from reconciler.config.plain import MAX_DEPTH, plain, resolve
from reconciler.config.secrets import named_secret, secret_kind
from reconciler.findings import Finding, Place, Severity, quoted

MAX_BYTES = 1024 * 1024
"""A document of the config repo that is larger is a mistake (or an attack)."""
MAX_NODES = 100_000
"""Counted after aliases are expanded: an alias bomb is refused before anything walks it."""

# C0 and C1 controls but tab and newlines, and characters that reorder the text on screen: a
# reviewer must see what the parser sees. To YAML U+0085, U+2028 and U+2029 end a line and so a
# comment, which most editors do not show; a model reads tag characters, which nobody sees at all.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufffe\uffff"
    "\U000e0000-\U000e007f]"
)
_SHOWN = bytes([*b"\t\n", *range(0x20, 0x7F)])
"""ASCII that needs no second look: it is on the screen, or the end of a line."""


class Refused(Exception):
    """The text cannot be read at all; carries the finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


def decode(file: str, raw: bytes, *, limit: int = MAX_BYTES) -> str:
    """UTF-8 text with `\\n` line ends, nothing invisible in it. Raises Refused."""
    if len(raw) > limit:
        raise _refused(
            "too-large",
            Place(file),
            f"the file has {len(raw):,} bytes, and at most {limit:,} are read",
            "split it, or keep data out of the config repo",
        )
    try:
        if raw.isascii() and not raw.translate(None, _SHOWN):
            return raw.decode("ascii")  # nearly every file: nothing in it to be looked for
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = 3 if raw.startswith(b"\xef\xbb\xbf") else 0
        before = _with_line_feeds(raw[start : start + error.start].decode("utf-8", "replace"))
        raise _refused(
            "encoding",
            _position(file, before, len(before)),
            f"byte 0x{raw[start + error.start]:02x} is not UTF-8",
            "save the file as UTF-8",
        ) from None
    text = _with_line_feeds(text)
    bad = _FORBIDDEN.search(text)
    if bad:
        raise _refused(
            "control-character",
            _position(file, text, bad.start()),
            f"character U+{ord(bad.group()):04X} is not allowed (it does not show on a screen)",
            "remove it",
        )
    return text


def _with_line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse(file: str, raw: bytes) -> Document:
    """Parse one YAML document. Never raises: what is wrong is in the document's findings."""
    try:
        text = decode(file, raw)
    except Refused as refused:
        return Document(file, None, (refused.finding,))
    return parse_text(file, text)


def parse_text(file: str, text: str, *, first_line: int = 1) -> Document:
    """As `parse`, of text that starts at `first_line` of its file (front matter)."""
    found = None if named_secret(text) else plain(text)
    if found is not None:
        return Document(
            file,
            text=text,
            first_line=first_line,
            plain=found,
            nodes=lambda: _strict(file, text, first_line).root,
        )
    return _strict(file, text, first_line)


def _strict(file: str, text: str, first_line: int) -> Document:
    builder = _Builder(file, first_line, text)
    named = named_secret(text)
    if named:
        place = _position(file, text, named[0])
        builder.complain(
            "secret",
            Place(file, place.line + first_line - 1, place.column),
            f"this looks like {named[1]}",
            "never commit a key: revoke it, and refer to it as {env: NAME} or {file: PATH}",
        )
    try:
        root = builder.document(yaml.parse(text, Loader=yaml.CSafeLoader))
    except Refused as refused:
        return Document(file, None, (*builder.findings, refused.finding))
    except yaml.MarkedYAMLError as error:
        return Document(file, None, (*builder.findings, builder.syntax(error)))
    except yaml.YAMLError as error:
        finding = Finding("yaml", Severity.ERROR, file, first_line, 1, f"not YAML: {error}")
        return Document(file, None, (*builder.findings, finding))
    return Document(file, root, tuple(builder.findings), text=text, first_line=first_line)


def split_front_matter(text: str) -> tuple[str | None, str, int]:
    """(front matter or None, body, line at which the body starts) of a Markdown text."""
    if not text.startswith("---\n"):
        return None, text, 1
    end = text.find("\n---\n", 3)
    if end < 0:
        if not text.endswith("\n---"):
            return None, text, 1
        return text[4 : len(text) - 3], "", text.count("\n") + 2
    front = text[4 : end + 1]
    body = text[end + 5 :]
    return front, body, text.count("\n", 0, end + 5) + 1


def _refused(kind: str, place: Place, message: str, fix: str = "") -> Refused:
    return Refused(
        Finding(kind, Severity.ERROR, place.file, place.line, place.column, message, fix)
    )


def _position(file: str, text: str, offset: int) -> Place:
    line = text.count("\n", 0, offset) + 1
    return Place(file, line, offset - (text.rfind("\n", 0, offset) + 1) + 1)


class _Builder:
    """Turns events into nodes. One use."""

    def __init__(self, file: str, first_line: int, text: str) -> None:
        self.file = file
        self.offset = first_line
        self.text = text
        self.findings: list[Finding] = []
        self.anchors: dict[str, Node] = {}
        self.total = 0

    def place(self, event: Any) -> Place:
        return Place(self.file, event.start_mark.line + self.offset, event.start_mark.column + 1)

    def complain(self, kind: str, place: Place, message: str, fix: str = "") -> None:
        self.findings.append(
            Finding(kind, Severity.ERROR, place.file, place.line, place.column, message, fix)
        )

    def syntax(self, error: yaml.MarkedYAMLError) -> Finding:
        mark = error.problem_mark or error.context_mark
        line = mark.line + self.offset if mark else self.offset
        column = mark.column + 1 if mark else 1
        problem = error.problem or "not YAML"
        if error.context and error.context not in problem:
            problem = f"{problem} {error.context}"
        at_tab = mark is not None and self.text[mark.index : mark.index + 1] == "\t"
        fix = "indent with spaces, not with tabs" if at_tab else ""
        message = f"not valid YAML: {problem}"
        return Finding("yaml", Severity.ERROR, self.file, line, column, message, fix)

    def document(self, events: Iterator[Any]) -> Node | None:
        root: Node | None = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _refused(
                        "yaml",
                        self.place(event),
                        "a second document starts here",
                        "put each document into a file of its own",
                    )
            elif isinstance(event, yaml.NodeEvent):
                root = self.node(event, events, 1)
        return root

    def node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        place = self.place(event)
        if depth > MAX_DEPTH:
            raise _refused("too-deep", place, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, place)
        self.count(1, place)
        if event.tag not in (None, "!"):
            self.complain(
                "yaml-tag",
                place,
                f"tag {quoted(event.tag)} is not part of the language",
                "write the plain value; put text in quotes",
            )
        if isinstance(event, yaml.ScalarEvent):
            node = self.scalar(event, place)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self.sequence(place, events, depth)
        else:
            node = self.mapping(place, events, depth)
        if event.anchor:
            # Registered after the node is complete: an alias inside its own anchor is unknown.
            self.anchors[event.anchor] = node
        return node

    def alias(self, event: Any, place: Place) -> Node:
        target = self.anchors.get(event.anchor)
        if target is None:
            raise _refused(
                "yaml-alias", place, f"alias *{event.anchor} refers to no anchor before it"
            )
        self.count(target.weight, place)
        # Positions inside are those of the anchor, where the text is; its own is the alias's.
        return Node(
            target.value, place.line, place.column, target.children, target.keys, target.weight
        )

    def count(self, weight: int, place: Place) -> None:
        self.total += weight
        if self.total > MAX_NODES:
            raise _refused(
                "too-large",
                place,
                f"the document has more than {MAX_NODES:,} values once its aliases are expanded",
                "write it without aliases, or split it",
            )

    def scalar(self, event: Any, place: Place) -> Node:
        text: str = event.value
        kind = secret_kind(text)
        if kind:
            self.complain(
                "secret",
                place,
                f"this looks like {kind}",
                "never commit a key: revoke it, and refer to it as {env: NAME} or {file: PATH}",
            )
        plain = event.implicit[0] and event.style in (None, "")
        value = resolve(text) if plain else text
        return Node(value, place.line, place.column)

    def sequence(self, place: Place, events: Iterator[Any], depth: int) -> Node:
        items: list[Node] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self.node(event, events, depth + 1))
        return Node(
            [item.value for item in items],
            place.line,
            place.column,
            dict(enumerate(items)),
            weight=1 + sum(item.weight for item in items),
        )

    def mapping(self, place: Place, events: Iterator[Any], depth: int) -> Node:
        children: dict[str | int, Node] = {}
        keys: dict[str, tuple[int, int]] = {}
        weight = 1
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self.key(event, events, depth)
            where = self.place(event)
            child = self.node(next(events), events, depth + 1)
            weight += child.weight
            if key is None:
                continue
            if key in keys:
                first = Place(self.file, *keys[key])
                self.complain(
                    "duplicate-key",
                    where,
                    f"key {quoted(key)} is given twice (first at {first})",
                    "remove one of them",
                )
                continue
            keys[key] = (where.line, where.column)
            children[key] = child
        return Node(
            {key: child.value for key, child in children.items()},
            place.line,
            place.column,
            children,
            keys,
            weight,
        )

    def key(self, event: Any, events: Iterator[Any], depth: int) -> str | None:
        place = self.place(event)
        if isinstance(event, yaml.ScalarEvent) and event.value:
            self.count(1, place)
            if event.value == "<<" and event.style in (None, ""):
                self.complain(
                    "yaml-merge",
                    place,
                    "merge keys (<<) are not part of the language",
                    "write the values out, or put them into fleet.defaults",
                )
                return None
            return str(event.value)  # the text as written: `on`, `1` and `null` are names here
        if not isinstance(event, yaml.ScalarEvent):
            self.node(event, events, depth + 1)
        self.complain("yaml-key", place, "a key must be a name")
        return None
