"""What a server answered: is it a tool result, and is it too large to hand on? Pure.

A result of a megabyte would fill a model's context and the ledger. It becomes an *artifact*: the
caller gets its beginning and its end, how large it is, and where to read the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.mcp.messages import load
from gateway.mcp.recorded import result as text_result
from gateway.routing import Failure
from gateway.values import RunId

TEXT, JSON = "text/plain; charset=utf-8", "application/json"
SMALLEST_PREVIEW = 512
"""Bytes; a preview is never asked to be shorter than its own explanation."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """The whole of a large result, as the run that made the call may read it."""

    id: str
    media: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Fitted:
    """What to answer, and what to keep for it."""

    result: dict[str, Any]
    artifact: Artifact | None


def checked(found: Any, where: str) -> dict[str, Any]:
    """An MCP tool result, as every revision would read it. Raises Failure (done): not a result.

    A server that asks for input gets none (the gateway declares no such ability): that is told
    as an error of the tool. `_meta` is dropped: it is for the client, and that is the gateway.
    """
    if not isinstance(found, Mapping):
        raise Failure(f"{where} answered without a result", done=True)
    kind = found.get("resultType", "complete")
    if kind == "input_required":
        told = "the tool asks for input from a person, which this gateway does not pass on"
        return text_result(told, error=True)
    content = found.get("content", [])
    fine = isinstance(content, list) and all(
        isinstance(block, Mapping) and isinstance(block.get("type"), str) for block in content
    )
    if kind != "complete" or not fine or not isinstance(found.get("isError", False), bool):
        raise Failure(f"{where} answered something that is not a tool result", done=True)
    if "content" not in found and "structuredContent" not in found:
        raise Failure(f"{where} answered something that is not a tool result", done=True)
    whole = {key: value for key, value in found.items() if key not in ("_meta", "resultType")}
    return {**whole, "content": content, "isError": found.get("isError", False)}


def fit(result: Mapping[str, Any], *, run: RunId, most: int) -> Fitted:
    """`result` if its JSON is at most `most` bytes, else a preview of it and the artifact.

    The artifact is the text itself where the result is one text, else the result's JSON. Its
    identity follows from run and content: the same call, settled twice, keeps one.
    """
    encoded = json.dumps(result, ensure_ascii=False).encode()
    if len(encoded) <= most:
        return Fitted(dict(result), None)
    content, media = encoded, JSON
    text = _one_text(result)
    if text is not None:
        content, media = text.encode(), TEXT
    identity = "art-" + hashlib.sha256(run.encode() + b"\0" + content).hexdigest()[:32]
    told = _preview(content, identity, max(most, SMALLEST_PREVIEW))
    preview = text_result(told, error=bool(result.get("isError")))
    preview["_meta"] = {"interlock/artifact": {"id": identity, "bytes": len(content)}}
    return Fitted(preview, Artifact(identity, media, content))


def _one_text(result: Mapping[str, Any]) -> str | None:
    """The text of a result that says nothing else; a structured form of the same is nothing else
    (servers send both, specification, server/tools, structured content)."""
    blocks = result.get("content", [])
    if len(blocks) != 1 or blocks[0].get("type") != "text":
        return None
    text, other = blocks[0].get("text"), result.get("structuredContent")
    if not isinstance(text, str):
        return None
    if other is None or other == {"result": text}:
        return text
    try:
        return text if load(text) == other else None
    except ValueError:
        return None


def _preview(content: bytes, identity: str, most: int) -> str:
    """Two thirds from the beginning, one from the end, cut between characters."""
    note = (
        f"[… the result has {len(content)} bytes; this is its beginning and its end. The rest: "
        f"interlock__read_artifact with id {identity}, MCP resource "
        f"interlock://artifacts/{identity}?offset=N&limit=N, or GET "
        f"/v1/artifacts/{identity}?offset=N&limit=N …]"
    )
    # The answer is JSON again: leave room for its frame, and for escapes, which can double it.
    room = max(0, most - len(note) - 256)
    head, tail = room * 2 // 3, room // 3
    while True:
        first = content[:head].decode(errors="ignore")
        last = content[len(content) - tail :].decode(errors="ignore") if tail else ""
        told = "\n".join(part for part in (first, note, last) if part)
        if head + tail == 0 or len(json.dumps(told, ensure_ascii=False).encode()) <= most - 200:
            return told
        head, tail = head * 3 // 4, tail * 3 // 4
