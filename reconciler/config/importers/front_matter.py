"""Front matter as people write it, which is often no YAML.

A description with a colon and no quotes, or with lines of dialogue at the left margin, is usual in
agent files; the tools that read them take the text up to the next key they know. So does this,
when the YAML reader has nothing but a complaint.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from reconciler.config.positions import parse_text

_FENCE = re.compile(r"---[ \t]*")
_KEY = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)[ \t]*:(?:[ \t]+(.*)|[ \t]*)")
_BLOCK = re.compile(r"[|>][+-]?\d?")


@dataclass(frozen=True, slots=True)
class Page:
    """A Markdown text taken apart. `header` is None where there is no front matter."""

    header: dict[str, Any] | None
    body: str
    guessed: bool = False
    """Whether the front matter was no YAML, and was read line by line."""


def read_page(text: str, known: Sequence[str]) -> Page:
    """Front matter and body of `text` (with `\\n` line ends). Never raises.

    `known` are the keys that end a text before them when the front matter is no YAML.
    """
    lines = text.lstrip("\n").split("\n")
    if not _FENCE.fullmatch(lines[0]):
        return Page(None, text)
    end = next((n for n, line in enumerate(lines[1:], 1) if _FENCE.fullmatch(line)), None)
    if end is None:
        return Page(None, text)
    front, body = lines[1:end], "\n".join(lines[end + 1 :]).lstrip("\n")
    document = parse_text("", "\n".join(front) + "\n")
    if not document.findings and isinstance(document.data, dict):
        return Page(_plain(document.data), body)
    if not any(line.strip() for line in front):
        return Page({}, body)
    return Page(_by_line(front, known), body, guessed=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Decimal) else value


def _by_line(lines: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    """Each known key at the left margin with the text up to the next one."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines:
        match = _KEY.fullmatch(line)
        if match and match[1] in known and match[1] not in found:
            current = found[match[1]] = [match[2] or ""]
        elif current is not None:
            current.append(line)
    return {key: _value(parts) for key, parts in found.items()}


def _value(parts: Sequence[str]) -> Any:
    first, rest = parts[0].strip(), [part.strip() for part in parts[1:]]
    items = [part for part in rest if part]
    if not first and items and all(part.startswith("- ") for part in items):
        return [_unquoted(part[2:].strip()) for part in items]
    if first.startswith("[") and first.endswith("]") and not items:
        return [_unquoted(part.strip()) for part in first[1:-1].split(",") if part.strip()]
    if _BLOCK.fullmatch(first):
        first = ""
    return _unquoted("\n".join([first, *rest]).strip())


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        inner = text[1:-1]
        return inner.replace('\\"', '"').replace("\\n", "\n") if text[0] == '"' else inner
    return text


def words(value: Any) -> list[str]:
    """A list as people write one: `[A, B]`, `A, B` or `A B`. `Bash(git add *)` is one word."""
    if value is None or isinstance(value, bool):
        return []
    if isinstance(value, list):
        return [part for item in value for part in words(item)]
    if isinstance(value, dict):
        return [str(key) for key in value]
    found = re.findall(r"[^\s,(]+(?:\([^)]*\))?", str(value))
    return [word.strip("\"'") for word in found if word.strip("\"'")]
