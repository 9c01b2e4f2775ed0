"""What a server says of a tool, and the fingerprint by which a change of it is seen. Pure.

Format `interlock.tool/1`, docs/formats/tool-fingerprint.md. A person reviewed what a tool said of
itself when `interlock.lock` was written; whatever it says later is somebody else's text in the
prompts of all agents until a person has looked again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.mcp.revisions import mirrored
from gateway.values import Json, content_hash

FORMAT: Final = "interlock.tool/1"
TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]{1,128}")
"""What a tool may be called (specification, server/tools, tool names)."""
HINTS: Final = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")


@dataclass(frozen=True, slots=True)
class Observed:
    """A tool as its server describes it now. `annotations` holds the four hints, where given."""

    name: str
    description: str
    input_schema: Mapping[str, Any]
    annotations: Mapping[str, bool]
    fingerprint: str


def observed(entry: object) -> Observed:
    """One entry of a `tools/list`. Raises ValueError (what is wrong) when it cannot be used."""
    if not isinstance(entry, Mapping):
        raise ValueError("not an object")
    name, schema = entry.get("name"), entry.get("inputSchema")
    description = entry.get("description")
    description = "" if description is None else description
    if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
        raise ValueError("a name that is not 1 to 128 letters, digits, `_`, `-` or `.`")
    if not isinstance(description, str) or not isinstance(schema, Mapping):
        raise ValueError("a description that is not a text, or a schema that is not an object")
    mirrored(schema)
    given = entry.get("annotations")
    hints = given if isinstance(given, Mapping) else {}
    return Observed(
        name,
        description,
        schema,
        {hint: hints[hint] for hint in HINTS if isinstance(hints.get(hint), bool)},
        fingerprint(name, description, schema),
    )


def fingerprint(name: str, description: str, input_schema: Mapping[str, Any]) -> str:
    """64 hex digits: SHA-256 of the canonical JSON of {format, name, description, input_schema}.

    Equal numbers are equal (1, 1.0 and 1e0); see `_exact` for those that are not whole.
    """
    return content_hash(
        {
            "format": FORMAT,
            "name": name,
            "description": description,
            "input_schema": _exact(input_schema),
        }
    )


def changed(locked: str, seen: Observed | None, before: Observed | None, described: str) -> str:
    """In words, what of a tool is not as it was locked.

    A fingerprint does not tell by itself. `before` is the tool as this process saw it when it
    still matched, `described` the config repo's own description: one of them often tells.
    """
    if seen is None:
        return "the server does not offer it any more"
    texts = [before.description] if before else [described] if described else []
    schemas = [before.input_schema] if before else []
    if any(fingerprint(seen.name, text, seen.input_schema) == locked for text in texts):
        return "its description has changed"
    if any(fingerprint(seen.name, seen.description, schema) == locked for schema in schemas):
        return "its input schema has changed"
    return (
        "its description and its input schema have changed"
        if before
        else "its description or its input schema has changed"
    )


def _exact(value: Any) -> Json:
    """A schema without floats: a whole one is its integer, any other the object
    `{"$number": "0.1"}` with the shortest digits that read back as the same double."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else {"$number": repr(value)}
    if isinstance(value, Mapping):
        return {key: _exact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(item) for item in value]
    return value  # type: ignore[no-any-return]
