"""One MCP message over HTTP: reading it in its era, and the form of whatever is answered. Pure.

Protocol rules: specification/2026-07-28/basic/transports/streamable-http and basic/versioning;
for the legacy era specification/2025-11-25/basic/transports.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.mcp import finder
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

_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")
_STATUS: Final = {METHOD_NOT_FOUND: 404, REFUSED: 200}


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

    @property
    def lists(self) -> bool:
        """Will `respond` need the listing, and so what servers say of their tools?"""
        named = self.message.params.get("name")
        return self.message.method == "tools/list" or (
            self.message.method == "tools/call" and named == finder.FIND
        )

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


def unauthenticated(refusal: Refusal, identity: int | str | None = None) -> Reply:
    """No, or wrong, credentials: the one refusal that HTTP itself has a status for."""
    reply = _json(401, refused(identity, refusal))
    return Reply(401, {**reply.headers, "www-authenticate": "Bearer"}, reply.body)


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
