"""How a role's loop ends and what others read of it; texts between models, tools and roles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.loop import Stop
from runner.tools import shorten


@dataclass(frozen=True, slots=True)
class Ended:
    """How a role's loop ended. `said` are the arguments of its `finish`, if it came to that."""

    stop: Stop
    said: Mapping[str, Any] | None = None
    fatal: bool = False
    """True: the run cannot go on either."""


def hand_back(ended: Ended) -> str:
    """What the agent reads of its sub-agent: its words at finish, or why there are none."""
    if ended.said is None:
        return f"error: the sub-agent ended without an answer: {ended.stop.reason}" + (
            f" ({ended.stop.detail})" if ended.stop.detail else ""
        )
    return shorten(said_text(ended.said), 4_000)


def said_text(said: Mapping[str, Any]) -> str:
    """The arguments of a `finish` as lines, what was concluded before what shows it."""
    order = ("verdict", "outcome", "reasons", "evidence")
    return "\n".join(f"{name}: {said[name]}" for name in order if said.get(name))


def mcp_text(body: Mapping[str, Any]) -> str:
    """The text of an MCP tool result; what is not text is shown as JSON."""
    parts = []
    for item in body.get("content") or ():
        text = item.get("text")
        parts.append(text if isinstance(text, str) else json.dumps(item, sort_keys=True))
    if not parts and "structuredContent" in body:
        parts.append(json.dumps(body["structuredContent"], sort_keys=True))
    return "\n".join(parts)


def number(text: str) -> Any:
    """A parameter's number, or the text itself."""
    try:
        return float(text)
    except ValueError:
        return text
