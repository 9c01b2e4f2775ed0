"""Recorded answers: the whole outside world of an eval.

The first entry whose tool and arguments match answers. Nothing matching is an error result, so
that an eval never touches a real system, whatever the agent under test tries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any


def answer(
    recorded: Sequence[Mapping[str, Any]], tool: str, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """An MCP tool result for `server.tool`.

    Entries are {tool, args, result, error}; `args` are globs over the arguments in string form
    (strings as they are, everything else as JSON).
    """
    for entry in recorded:
        if not fnmatchcase(tool, entry["tool"]):
            continue
        if all(
            name in arguments and fnmatchcase(as_text(arguments[name]), pattern)
            for name, pattern in entry.get("args", {}).items()
        ):
            return result(entry["result"], error=bool(entry.get("error")))
    return result(
        f"no recorded answer for {tool} with {json.dumps(dict(arguments), ensure_ascii=False)}",
        error=True,
    )


def as_text(value: Any) -> str:
    """An argument as globs see it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def result(text: str, *, error: bool) -> dict[str, Any]:
    """An MCP tool result with one text."""
    return {"content": [{"type": "text", "text": text}], "isError": error}
