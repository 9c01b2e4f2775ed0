"""The MCP face, without its I/O: what an HTTP request to `/mcp` asks, and what to answer.

Streamable HTTP in both eras (`revisions`), one JSON object for each request, no session and no
stream of our own. The caller reads the request with `read`, finds out who is asking, and hands
what they were granted to `respond`, which answers by itself or says what has to be done:

    exchange = server.read(method, headers, body)          # Reply: already answered
    todo = server.respond(exchange, listing)               # Reply | ToolCall | ArtifactRead | …
    reply = todo.exchange.result(await door.tool(…))       # or exchange.refuse(refusal)
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs

from gateway.mcp import finder
from gateway.mcp.catalogue import canonical
from gateway.mcp.exchange import Exchange, Reply, read, unauthenticated
from gateway.mcp.finder import Listing
from gateway.mcp.messages import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    Malformed,
    Message,
    failure,
    parse,
    refused,
    success,
)
from gateway.mcp.recorded import result as text_result
from gateway.mcp.revisions import INFO, LEGACY, VERSIONS
from gateway.refusals import Code, Refusal

__all__ = [
    "INVALID_PARAMS",
    "METHOD_NOT_FOUND",
    "PAGE",
    "ArtifactList",
    "ArtifactRead",
    "Exchange",
    "Malformed",
    "Message",
    "Reply",
    "Todo",
    "ToolCall",
    "failure",
    "initialize",
    "parse",
    "read",
    "refused",
    "respond",
    "success",
    "unauthenticated",
]

PAGE = 100
"""Tools, or artifacts, of one page of a list."""
TTL_MS = 60_000
"""How long a modern client may keep a list: grants change at any time, and calls are checked."""
ARTIFACT_URI = "interlock://artifacts/"
READ_LIMIT = 262_144
"""Bytes of an artifact that one `resources/read` gives; the answer says where the rest begins."""

_ARTIFACT = re.compile(r"art-[0-9a-f]{32}")
_CAPABILITIES: Final = {"tools": {"listChanged": False}, "resources": {}}
_CACHED: Final = {"ttlMs": TTL_MS, "cacheScope": "private"}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """To do: call `name` (`server.tool`); the result is an MCP tool result."""

    exchange: Exchange
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ArtifactList:
    """To do: name the run's artifacts, at most PAGE after the first `skip`; then `listed`."""

    exchange: Exchange
    skip: int

    def listed(self, artifacts: Sequence[Mapping[str, Any]]) -> Reply:
        """`artifacts` are {id, tool, bytes, media}, oldest first; a full page has a next one."""
        found: dict[str, Any] = {
            "resources": [
                {
                    "uri": ARTIFACT_URI + entry["id"],
                    "name": entry["id"],
                    "description": f"a large result of {entry['tool']}",
                    "mimeType": entry["media"],
                    "size": entry["bytes"],
                }
                for entry in artifacts
            ]
        }
        if len(artifacts) == PAGE:
            found["nextCursor"] = _cursor(str(self.skip + PAGE))
        return self.exchange.result(found | (_CACHED if self.exchange.modern else {}))


@dataclass(frozen=True, slots=True)
class ArtifactRead:
    """To do: read `limit` bytes of an artifact from `offset` on; then `contents`. Asked for as a
    resource, or by a model with `finder.READ`."""

    exchange: Exchange
    uri: str
    id: str
    offset: int
    limit: int

    def contents(self, text: str, *, media: str, total: int, next_offset: int | None) -> Reply:
        """`total` bytes in all; `next_offset` is where the next piece begins, None at the end."""
        if self.exchange.message.method == "tools/call":
            rest = "this is its end" if next_offset is None else f"go on at offset {next_offset}"
            told = f"{text}\n[… of {total} bytes; {rest}]"
            return self.exchange.result(text_result(told, error=False))
        meta = {"interlock/total-bytes": total}
        if next_offset is not None:
            meta["interlock/next-offset"] = next_offset
        contents = [{"uri": self.uri, "mimeType": media, "text": text, "_meta": meta}]
        cached = _CACHED if self.exchange.modern else {}
        return self.exchange.result({"contents": contents, **cached})


Todo: TypeAlias = ToolCall | ArtifactList | ArtifactRead


def respond(exchange: Exchange, listing: Listing | Callable[[], Listing]) -> Reply | Todo:
    """The answer, or what has to be done for it. `listing` is what the caller was granted; a
    function is called only when it is needed."""
    answer = _METHODS.get(exchange.message.method)
    known = answer is not None and (
        exchange.message.method not in (_LEGACY_ONLY if exchange.modern else _MODERN_ONLY)
    )
    if answer is None or not known:
        return exchange.fail(METHOD_NOT_FOUND, f"unknown method {exchange.message.method[:100]!r}")
    return answer(exchange, listing if callable(listing) else lambda: listing)


def initialize(message: Message) -> dict[str, Any]:
    """Answer to `initialize`: the client's version if we know it, else our newest."""
    asked = message.params.get("protocolVersion")
    return success(
        message.id,
        {
            "protocolVersion": asked if asked in LEGACY else LEGACY[0],
            "capabilities": _CAPABILITIES,
            "serverInfo": INFO,
        },
    )


# --- answering --------------------------------------------------------------------------------

Granted: TypeAlias = Callable[[], Listing]


def _initialize(exchange: Exchange, _: Granted) -> Reply:
    return exchange.result(initialize(exchange.message)["result"])


def _discover(exchange: Exchange, _: Granted) -> Reply:
    known = {"supportedVersions": list(VERSIONS), "capabilities": _CAPABILITIES}
    return exchange.result({**known, **_CACHED})


def _ping(exchange: Exchange, _: Granted) -> Reply:
    return exchange.result({})


def _tools(exchange: Exchange, granted: Granted) -> Reply:
    after = _position(exchange)
    if after is None:
        return exchange.fail(INVALID_PARAMS, "this cursor is not one of ours: list from the start")
    listing = granted()
    rest = [tool for tool in listing.shown if tool["name"] > after]
    page: dict[str, Any] = {"tools": rest[:PAGE]}
    if len(rest) > PAGE:
        page["nextCursor"] = _cursor(rest[PAGE - 1]["name"])
    return exchange.result(page | (_CACHED if exchange.modern else {}))


def _call(exchange: Exchange, granted: Granted) -> Reply | Todo:
    params = exchange.message.params
    name, arguments = params.get("name"), params.get("arguments")
    arguments = {} if arguments is None else arguments
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return exchange.fail(INVALID_PARAMS, "`name` is a string, `arguments` an object")
    if name == finder.FIND:
        return exchange.result(finder.find(granted(), arguments))
    if name == finder.READ:
        return _read_as_tool(exchange, arguments)
    if name == finder.CALL:
        name, arguments = arguments.get("name"), arguments.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict):
            told = f"{finder.CALL} takes `name`, a string, and `arguments`, an object"
            return exchange.result(text_result(told, error=True))
    return ToolCall(exchange, canonical(name), arguments)


def _resources(exchange: Exchange, _: Granted) -> Reply | Todo:
    after = _position(exchange)
    if after is None or not (after == "" or (after.isascii() and after.isdigit())):
        return exchange.fail(INVALID_PARAMS, "this cursor is not one of ours: list from the start")
    return ArtifactList(exchange, int(after[:9] or "0"))


def _templates(exchange: Exchange, _: Granted) -> Reply:
    template = {
        "uriTemplate": ARTIFACT_URI + "{id}{?offset,limit}",
        "name": "artifact",
        "description": "a piece of a large tool result: `limit` bytes from `offset` on",
    }
    cached = _CACHED if exchange.modern else {}
    return exchange.result({"resourceTemplates": [template], **cached})


def _read(exchange: Exchange, _: Granted) -> Reply | Todo:
    uri = exchange.message.params.get("uri")
    if not isinstance(uri, str):
        return exchange.fail(INVALID_PARAMS, "`uri` is a string")
    found = artifact_of(uri)
    if found is None:
        return exchange.refuse(Refusal(Code.NOT_FOUND, "no such resource"))
    return ArtifactRead(exchange, uri, *found)


def _read_as_tool(exchange: Exchange, arguments: Mapping[str, Any]) -> Reply | Todo:
    identity = arguments.get("id")
    offset, limit = arguments.get("offset", 0), arguments.get("limit", finder.READ_BYTES)
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in (offset, limit))
    named = isinstance(identity, str) and _ARTIFACT.fullmatch(identity)
    if not named or not whole or not 0 <= offset < 2**40:
        told = f"{finder.READ} takes `id`, as a shortened result names it, `offset` and `limit`"
        return exchange.result(text_result(told, error=True))
    limit = max(1, min(limit, finder.MOST_READ_BYTES))
    return ArtifactRead(exchange, f"{ARTIFACT_URI}{identity}", str(identity), offset, limit)


def artifact_of(uri: str) -> tuple[str, int, int] | None:
    """Identity, offset and limit of an artifact's address; None for any other address."""
    if not uri.startswith(ARTIFACT_URI):
        return None
    identity, _, query = uri.removeprefix(ARTIFACT_URI).partition("?")
    if not _ARTIFACT.fullmatch(identity):
        return None
    numbers = {"offset": 0, "limit": READ_LIMIT}
    try:
        asked = parse_qs(query, max_num_fields=2)
    except ValueError:
        return None
    for name, values in asked.items():
        value = values[-1]
        if name not in numbers or not (value.isascii() and value.isdigit() and len(value) < 12):
            return None
        numbers[name] = int(value)
    return identity, numbers["offset"], max(1, min(numbers["limit"], READ_LIMIT))


def _cursor(position: str) -> str:
    return base64.urlsafe_b64encode(position.encode()).decode()


def _position(exchange: Exchange) -> str | None:
    """Where the page begins: "" for the first one, None for a cursor that is not ours."""
    cursor = exchange.message.params.get("cursor")
    if cursor is None:
        return ""
    if not isinstance(cursor, str) or len(cursor) > 400:
        return None
    try:
        return base64.b64decode(cursor, altchars=b"-_", validate=True).decode() or None
    except (binascii.Error, ValueError):
        return None


_METHODS: Final[Mapping[str, Callable[[Exchange, Granted], Reply | Todo]]] = {
    "initialize": _initialize,
    "ping": _ping,
    "server/discover": _discover,
    "tools/list": _tools,
    "tools/call": _call,
    "resources/list": _resources,
    "resources/templates/list": _templates,
    "resources/read": _read,
}
_LEGACY_ONLY: Final = ("initialize", "ping")
_MODERN_ONLY: Final = ("server/discover",)
