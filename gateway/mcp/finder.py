"""What `tools/list` shows, and how the rest of a large catalogue is found. Pure.

A model that is given two hundred tool descriptions pays for them at every step and chooses worse.
So a large catalogue is *deferred*: two tools stand for it, one that searches and one that calls.
This is presentation only. What may be called is decided by the door, for the real tool's name,
whichever way it comes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import Any, Final

from gateway.mcp.recorded import result

FIND: Final = "interlock__find_tools"
CALL: Final = "interlock__call_tool"
READ: Final = "interlock__read_artifact"
READ_BYTES, MOST_READ_BYTES = 16_384, 65_536
"""What one reading by a model gives, unless it asks for more."""
DEFER_ABOVE = 40
"""Granted tools over all servers; more are deferred where a server's `listing` is `auto`."""
MOST_FOUND, MOST_BYTES = 20, 49_152
"""Tools, and bytes of their descriptions, that one search gives."""

_K1, _B = 1.2, 0.75
"""BM25's usual constants (Robertson and Zaragoza 2009): saturation, and weight of length."""
_NAME_WEIGHT = 3
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")

Tool = Mapping[str, Any]


@dataclass(frozen=True)
class Listing:
    """MCP descriptions of every granted tool, by name, and which of them are only found."""

    tools: tuple[Tool, ...]
    deferred: frozenset[str] = frozenset()
    artifacts: bool = False
    """Models get a tool to read the rest of large results with: most can use no resources."""

    @cached_property
    def shown(self) -> tuple[Tool, ...]:
        """What `tools/list` lists, in the order of names."""
        shown = [tool for tool in self.tools if tool["name"] not in self.deferred]
        if self.deferred:
            shown += _doors(len(self.deferred))
        if self.artifacts:
            shown.append(_READER)
        return tuple(sorted(shown, key=lambda tool: str(tool["name"])))

    @cached_property
    def hidden(self) -> tuple[Tool, ...]:
        """What `find` searches."""
        return tuple(tool for tool in self.tools if tool["name"] in self.deferred)


def find(listing: Listing, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of the searching tool: an MCP tool result with {tools: [name, description,
    inputSchema]}, the best first."""
    query, limit = arguments.get("query"), arguments.get("limit", 5)
    if not isinstance(query, str) or isinstance(limit, bool) or not isinstance(limit, int):
        return result(f"{FIND} takes `query`, a string, and `limit`, an integer", error=True)
    found = rank(listing.hidden, query[:1000])[: max(1, min(limit, MOST_FOUND))]
    if not found:
        begins = sorted({tool["name"].partition("__")[0] for tool in listing.hidden})
        told = f"no tool matches. There are {len(listing.hidden)} tools, of: {', '.join(begins)}"
        return result(told, error=False)
    kept: list[dict[str, Any]] = []
    size = 0
    for tool in found:
        entry = {key: tool[key] for key in ("name", "description", "inputSchema")}
        size += len(json.dumps(entry, ensure_ascii=False).encode())
        if kept and size > MOST_BYTES:
            break
        kept.append(entry)
    told = json.dumps({"tools": kept}, ensure_ascii=False)
    return {**result(told, error=False), "structuredContent": {"tools": kept}}


def rank(tools: Sequence[Tool], query: str) -> list[Tool]:
    """The tools that share a word with the query, best first (BM25 over names, descriptions and
    parameters; a word of the name counts three times). The very name comes before everything."""
    wanted = set(_words(query))
    bags = [_bag(tool) for tool in tools]
    lengths = [bag.total() for bag in bags]
    average = sum(lengths) / len(lengths) if lengths else 0.0
    holders = {word: sum(word in bag for bag in bags) for word in wanted}
    scored = []
    for tool, bag, length in zip(tools, bags, lengths, strict=True):
        score = 0.0
        for word in wanted:
            times = bag[word]
            if times:
                rarity = log(1 + (len(tools) - holders[word] + 0.5) / (holders[word] + 0.5))
                damped = times + _K1 * (1 - _B + _B * length / average)
                score += rarity * times * (_K1 + 1) / damped
        exact = query.strip() in (tool["name"], tool["name"].replace("__", ".", 1))
        if score or exact:
            scored.append((not exact, -score, str(tool["name"]), tool))
    return [entry[3] for entry in sorted(scored, key=lambda entry: entry[:3])]


def _bag(tool: Tool) -> Counter[str]:
    bag = Counter(_words(tool["name"]) * _NAME_WEIGHT)
    bag.update(_words(tool["description"]))
    properties = tool["inputSchema"].get("properties")
    for name, schema in properties.items() if isinstance(properties, Mapping) else ():
        bag.update(_words(name))
        told = schema.get("description") if isinstance(schema, Mapping) else None
        bag.update(_words(told) if isinstance(told, str) else ())
    return bag


def _words(text: str) -> list[str]:
    """Lower-case words; `createIssue` and `create_issues` are both `create`, `issue`."""
    words = (match.lower() for match in _WORD.findall(text))
    return [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words]


_READER: Final = {
    "name": READ,
    "description": "Read more of a large tool result that was shortened: `limit` bytes from "
    "`offset` on.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "art-…, as the shortened result names it"},
            "offset": {"type": "integer", "minimum": 0, "default": 0},
            "limit": {
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_READ_BYTES,
                "default": READ_BYTES,
            },
        },
        "required": ["id"],
    },
    "annotations": {"readOnlyHint": True, "openWorldHint": False},
}


def _doors(count: int) -> list[dict[str, Any]]:
    query = {"type": "string", "description": "what the tool should do, in a few words"}
    limit = {"type": "integer", "minimum": 1, "maximum": MOST_FOUND, "default": 5}
    return [
        {
            "name": FIND,
            "description": f"Search {count} more tools. Answers their names, descriptions and "
            f"input schemas; call one with {CALL}.",
            "inputSchema": {
                "type": "object",
                "properties": {"query": query, "limit": limit},
                "required": ["query"],
            },
            "annotations": {"readOnlyHint": True, "openWorldHint": False},
        },
        {
            "name": CALL,
            "description": f"Call a tool that {FIND} found.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "description": f"a name that {FIND} gave"},
                    "arguments": {"type": "object", "description": "as its inputSchema says"},
                },
                "required": ["name"],
            },
            # It can be any of them: the hints that promise least.
            "annotations": {"readOnlyHint": False, "destructiveHint": True},
        },
    ]
