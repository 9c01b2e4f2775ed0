"""The texts in a document, and the document with other texts in it.

A walk gives every text to `change` and puts back what it returns. What no text changed in is the
very object that came in, so that a caller can forward the bytes it was parsed from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Final

from gateway.refusals import Code, Refusal

Change = Callable[[str], str]
Walk = Callable[[Any, Change], Any]

DEPTH: Final = 100
ROOTS: Final = (
    *("system", "instructions", "messages", "input", "prompt", "prediction"),
    *("content", "output", "choices"),
)
"""Members of a request or an answer that hold texts, in whichever dialect."""

SKIPPED: Final = frozenset(
    {
        *("id", "type", "role", "name", "model", "object", "status", "phase", "index", "version"),
        *("call_id", "tool_call_id", "tool_use_id", "item_id", "file_id", "container_id"),
        *("approval_request_id", "server_label", "server_name", "finish_reason", "stop_reason"),
        *("signature", "encrypted_content", "encrypted_index", "logprobs", "cache_control"),
        *("image_url", "file_url", "file_data", "url", "uri", "blob", "data", "audio"),
        *("media_type", "mimeType", "format", "detail", "tools", "schema"),
    }
)
"""Members that are no texts: names, kinds, addresses of pictures, base64, and what is signed."""

UNSPOKEN: Final = SKIPPED | {
    *("tool_calls", "function_call", "arguments", "input", "reasoning_content", "summary"),
}
"""What is no part of what an answer says: its tool calls and its reasoning."""

SIGNED: Final = frozenset({"thinking", "redacted_thinking"})
"""Blocks that a provider refuses when a character in them was changed."""


def said(document: Any, change: Change) -> Any:
    """The texts of a model's request or answer: Chat Completions, Responses, Anthropic Messages.

    Unknown kinds of blocks are walked too: a text that nobody foresaw is a text. Arguments of tool
    calls are walked by their values, be they JSON or JSON text. Tools' definitions are not.
    """
    return _roots(document, change, SKIPPED)


def spoken(document: Any, change: Change) -> Any:
    """The texts that a model's answer says, without its tool calls and its reasoning."""
    return _roots(document, change, UNSPOKEN)


def every(document: Any, walk: Walk) -> tuple[str, ...]:
    """The texts that a walk finds, in order."""
    found: list[str] = []

    def take(text: str) -> str:
        found.append(text)
        return text

    walk(document, take)
    return tuple(found)


def everything(document: Any, change: Change) -> Any:
    """Every text in a JSON value, such as a tool's arguments: values, keys that are no plain
    names, and numbers long enough to be those of a card."""
    return _everything(document, change, DEPTH)


def result(document: Any, change: Change) -> Any:
    """The texts of an MCP tool result: its content, and all of its structured content."""
    if not isinstance(document, Mapping):
        return document
    changed = dict(document)
    for key, walk in (("content", _said), ("structuredContent", _everything)):
        if key in document:
            changed[key] = walk(document[key], change, DEPTH)
    return changed if any(changed[key] is not document[key] for key in changed) else document


def json_text(text: str, change: Change) -> str:
    """The texts in a JSON text; one that is no JSON is a text itself."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return change(text)
    changed = everything(value, change)
    return text if changed is value else json.dumps(changed, ensure_ascii=False)


def _roots(document: Any, change: Change, skipped: Set[str]) -> Any:
    if not isinstance(document, dict):
        return document
    changed: dict[str, Any] | None = None
    for root in ROOTS:
        if root in document:
            new = _said(document[root], change, DEPTH, skipped)
            if new is not document[root]:
                changed = changed if changed is not None else dict(document)
                changed[root] = new
    return document if changed is None else changed


def _said(value: Any, change: Change, depth: int, skipped: Set[str] = SKIPPED) -> Any:
    if isinstance(value, str):
        return change(value)
    _deep(depth)
    if isinstance(value, list):
        return _items(value, lambda item: _said(item, change, depth - 1, skipped))
    if not isinstance(value, dict) or value.get("type") in SIGNED:
        return value
    kind = value.get("type")
    changed: dict[str, Any] | None = None
    for key, item in value.items():
        # Anthropic's documents of plain text have it where others have base64.
        if key in skipped and not (key == "data" and kind == "text"):
            continue
        new: Any
        if key == "arguments" and isinstance(item, str):
            new = json_text(item, change)
        elif key == "input" and isinstance(item, dict | list):
            new = _everything(item, change, depth - 1)
        else:
            new = _said(item, change, depth - 1, skipped)
        if new is not item:
            changed = changed if changed is not None else dict(value)
            changed[key] = new
    return value if changed is None else changed


def _everything(value: Any, change: Change, depth: int) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, int) and abs(value) >= 10**8:
        digits = str(value)
        new = change(digits)
        return value if new == digits else new
    _deep(depth)
    if isinstance(value, list | tuple):
        return _items(value, lambda item: _everything(item, change, depth - 1))
    if not isinstance(value, Mapping):
        return value
    pairs = [
        (
            change(key) if len(key) >= 15 or not key.isidentifier() else key,
            _everything(item, change, depth - 1),
        )
        for key, item in value.items()
    ]
    same = all(
        new[0] is old[0] and new[1] is old[1] for new, old in zip(pairs, value.items(), strict=True)
    )
    return value if same else dict(pairs)


def _items(value: Sequence[Any], walk: Callable[[Any], Any]) -> Sequence[Any]:
    new = [walk(item) for item in value]
    return value if all(map(_same, new, value)) else new


def _same(one: Any, other: Any) -> bool:
    return one is other


def _deep(depth: int) -> None:
    if depth <= 0:
        raise Refusal(Code.INVALID_REQUEST, f"the document is nested deeper than {DEPTH} levels")
