"""The MCP face, without its I/O: what an HTTP request to `/mcp` asks, and what to answer.

Streamable HTTP in both eras (`revisions`), one JSON object for each request, no session and no
stream of our own. The caller reads the request with `read`, finds out who is asking, and hands
what they were granted to `respond`, which answers by itself or says what has to be done:

    exchange = server.read(method, headers, body)          # Reply: already answered
    todo = server.respond(exchange, listing)               # Reply | ToolCall | ArtifactRead | …
    reply = todo.exchange.result(await door.tool(…))       # or exchange.refuse(refusal)

Protocol rules: specification/2026-07-28/basic/transports/streamable-http and basic/versioning;
for the legacy era specification/2025-11-25/basic/transports and basic/lifecycle.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs

from gateway.mcp import finder
from gateway.mcp.catalogue import canonical
from gateway.mcp.finder import Listing
from gateway.mcp.messages import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    REFUSED,
    RESOURCE_NOT_FOUND,
    UNSUPPORTED_VERSION,
    Malformed,
    Message,
    failure,
    parse,
    refused,
    success,
)
from gateway.mcp.recorded import result as text_result
from gateway.mcp.revisions import (
    INFO,
    LEGACY,
    META_CAPABILITIES,
    META_SERVER,
    META_VERSION,
    METHOD_HEADER,
    MODERN,
    NAME_HEADER,
    NAMED,
    VERSION_HEADER,
    VERSIONS,
    decode,
)
from gateway.refusals import Code, Refusal

__all__ = [
    "INVALID_PARAMS",
    "METHOD_NOT_FOUND",
    "VERSIONS",
    "ArtifactList",
    "ArtifactRead",
    "Exchange",
    "Malformed",
    "Message",
    "Reply",
    "ToolCall",
    "failure",
    "initialize",
    "parse",
    "read",
    "refused",
    "respond",
    "success",
]

PAGE = 100
"""Tools, or artifacts, of one page of a list."""
TTL_MS = 60_000
"""How long a modern client may keep a list: grants change at any time, and calls are checked."""
ARTIFACT_URI = "interlock://artifacts/"
READ_LIMIT = 262_144
"""Bytes of an artifact that one `resources/read` gives; the answer says where the rest begins."""

_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")
_ARTIFACT = re.compile(r"art-[0-9a-f]{32}")
_STATUS: Final = {METHOD_NOT_FOUND: 404, REFUSED: 200}
_CAPABILITIES: Final = {"tools": {"listChanged": False}, "resources": {}}
_CACHED: Final = {"ttlMs": TTL_MS, "cacheScope": "private"}


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Exchange:
    """A message that was read, and how its sender wants to be answered."""

    message: Message
    version: str
    stream: bool
    """The client takes event streams only: the answer is a stream of one event."""

    @property
    def modern(self) -> bool:
        """Is it of the stateless era?"""
        return self.version in MODERN

    def result(self, result: Mapping[str, Any]) -> Reply:
        """The answer to a request."""
        whole = dict(result)
        if self.modern:
            # An older revision's client may refuse keys that it does not know.
            whole["resultType"] = "complete"
            whole["_meta"] = {**whole.get("_meta", {}), META_SERVER: INFO}
        return self._reply(200, success(self.message.id, whole))

    def fail(self, code: int, text: str, data: Mapping[str, Any] | None = None) -> Reply:
        """A protocol error. A modern client hears of some by the HTTP status too."""
        status = _STATUS.get(code, 400) if self.modern else 200
        return self._reply(status, failure(self.message.id, code, text, data))

    def refuse(self, refusal: Refusal) -> Reply:
        """A refusal. Wrong arguments are the tool's answer, so that a model sees them and tries
        again (server/tools, error handling); everything else is an error, with `data.code`."""
        if self.message.method == "tools/call" and refusal.code is Code.INVALID_REQUEST:
            told = text_result(refusal.message, error=True)
            return self.result({**told, "_meta": {"interlock/refusal": refusal.body()}})
        code = REFUSED
        if refusal.code is Code.UNKNOWN_TOOL:
            code = INVALID_PARAMS
        elif refusal.code is Code.NOT_FOUND and self.message.method == "resources/read":
            code = INVALID_PARAMS if self.modern else RESOURCE_NOT_FOUND
        if refusal.code is Code.UNAUTHENTICATED:
            return unauthenticated(refusal, self.message.id)
        return self._reply(200, refused(self.message.id, refusal, code))

    def _reply(self, status: int, document: Mapping[str, Any]) -> Reply:
        if not self.stream:
            return _json(status, document)
        body = f"event: message\ndata: {json.dumps(document, ensure_ascii=False)}\n\n"
        headers = {
            "content-type": "text/event-stream",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
        }
        return Reply(status, headers, body.encode())


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
    """To do: read `limit` bytes of an artifact from `offset` on; then `contents`."""

    exchange: Exchange
    uri: str
    id: str
    offset: int
    limit: int

    def contents(self, text: str, *, media: str, total: int, next_offset: int | None) -> Reply:
        """`total` bytes in all; `next_offset` is where the next piece begins, None at the end."""
        meta = {"interlock/total-bytes": total}
        if next_offset is not None:
            meta["interlock/next-offset"] = next_offset
        contents = [{"uri": self.uri, "mimeType": media, "text": text, "_meta": meta}]
        cached = _CACHED if self.exchange.modern else {}
        return self.exchange.result({"contents": contents, **cached})


Todo: TypeAlias = ToolCall | ArtifactList | ArtifactRead


def read(
    method: str,
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
    *,
    origins: Collection[str] = (),
) -> Exchange | Reply:
    """What was asked; a Reply when there is nothing to ask anybody any more.

    `headers` as ASGI gives them. `origins` are web pages that may call besides those of this
    machine, as `https://host:port`: any other page has been pointed here by a rebound name.
    """
    got = _Headers(headers)
    origin = got.first("origin")
    if origin is not None and not _welcome(origin, origins):
        return _json(403, failure(None, INVALID_REQUEST, "this Origin may not call this server"))
    if method != "POST":
        # The stream of server messages and the end of a session: this server has neither.
        return Reply(405, {"allow": "POST"}, b"")
    kind = (got.first("content-type") or "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        return _json(415, failure(None, INVALID_REQUEST, "send application/json"))
    takes = (got.first("accept") or "*/*").lower()
    json_too = "application/json" in takes or "*/*" in takes or "application/*" in takes
    if not json_too and "text/event-stream" not in takes:
        return _json(406, failure(None, INVALID_REQUEST, "accept application/json"))
    try:
        message = parse(body)
    except Malformed as malformed:
        return _json(400, malformed.answer)
    stream = not json_too
    meta = message.params.get("_meta")
    enveloped = isinstance(meta, dict) and META_VERSION in meta
    header = got.first(VERSION_HEADER)
    if enveloped or header in MODERN:
        return _modern(message, got, stream)
    if message.notification:
        return Reply(202, {}, b"")
    if header is not None and header not in LEGACY and message.method != "initialize":
        return _json(400, _unsupported(message.id, header))
    return Exchange(message, header or LEGACY[2], stream)


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


def unauthenticated(refusal: Refusal, identity: int | str | None = None) -> Reply:
    """No, or wrong, credentials: the one refusal that HTTP itself has a status for."""
    reply = _json(401, refused(identity, refusal))
    return Reply(401, {**reply.headers, "www-authenticate": "Bearer"}, reply.body)


# --- reading ----------------------------------------------------------------------------------


class _Headers:
    """Header fields by lower-case name."""

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in pairs:
            key = bytes(name).decode("latin-1").lower()
            self._fields.setdefault(key, []).append(bytes(value).decode("latin-1").strip())

    def first(self, name: str) -> str | None:
        values = self._fields.get(name)
        return values[0] if values else None

    def only(self, name: str) -> str | None:
        """None when it is missing, and when it is there twice: readers would disagree."""
        values = self._fields.get(name, [])
        return values[0] if len(values) == 1 else None


def _welcome(origin: str, origins: Collection[str]) -> bool:
    if origin in origins:
        return True
    scheme, _, host = origin.partition("://")
    return scheme in ("http", "https") and _LOOPBACK.fullmatch(host) is not None


def _modern(message: Message, headers: _Headers, stream: bool) -> Exchange | Reply:
    """The checks of 2026-07-28, in the order of its reference implementation."""
    if message.notification:
        known = bool(message.method) and headers.first(VERSION_HEADER) in (None, *MODERN)
        # A posted response is not of this revision: its clients never get a request.
        text = "send one request or notification"
        return Reply(202, {}, b"") if known else _json(400, failure(None, INVALID_REQUEST, text))
    identity = message.id
    meta = message.params.get("_meta")
    missing = [
        key
        for key in (META_VERSION, META_CAPABILITIES)
        if not isinstance(meta, dict) or key not in meta
    ]
    if missing or not isinstance(meta, dict):
        text = f"`params._meta` must have {' and '.join(missing)}"
        return _json(400, failure(identity, INVALID_PARAMS, text))
    version = meta[META_VERSION]
    wrong = None
    if headers.only(VERSION_HEADER) != version:
        wrong = f"{VERSION_HEADER} is missing, or is not the version of the body"
    elif headers.only(METHOD_HEADER) != message.method:
        wrong = f"{METHOD_HEADER} is missing, or is not the method of the body"
    elif message.method in NAMED:
        named, given = headers.only(NAME_HEADER), message.params.get(NAMED[message.method])
        if named is None or decode(named) != given:
            wrong = f"{NAME_HEADER} is missing, or is not params.{NAMED[message.method]}"
    if wrong is not None:
        return _json(400, failure(identity, HEADER_MISMATCH, f"Header mismatch: {wrong}"))
    if version not in MODERN:
        return _json(400, _unsupported(identity, version))
    return Exchange(message, version, stream)


def _unsupported(identity: int | str | None, version: str) -> dict[str, Any]:
    data = {"supported": list(VERSIONS), "requested": version}
    return failure(identity, UNSUPPORTED_VERSION, "Unsupported protocol version", data)


def _json(status: int, document: Mapping[str, Any]) -> Reply:
    body = json.dumps(document, ensure_ascii=False).encode()
    return Reply(status, {"content-type": "application/json"}, body)


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
