"""One request, and the way to answer it: what the endpoints know of HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol

from gateway.refusals import Refusal

MAX_UNSENT = 8 * 1024 * 1024
"""Bytes of a stream that may wait for its client. One that is further behind loses its connection,
not its call: that goes on, and its answer can be fetched by its key."""
_STATUS = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
Headers = Mapping[bytes, bytes]


class Line(Protocol):
    """What an exchange needs of the connection it came by."""

    @property
    def principal(self) -> str | None:
        """Who calls, when the listener stands for one principal."""
        ...

    def send(self, data: bytes) -> None:
        """Give bytes to the client."""
        ...

    @property
    def unsent(self) -> int:
        """Bytes that the client has not taken yet."""
        ...

    def drop(self) -> None:
        """Close at once."""
        ...

    def answered(self, *, close: bool) -> None:
        """The current response is complete."""
        ...


class Exchange:
    """One request, and the way to answer it. Belongs to its event loop."""

    __slots__ = ("_begun", "_chunked", "_close", "_connection", "_ended", "body", "gone", "headers",
                 "method", "path", "principal", "query", "refused")  # fmt: skip

    def __init__(
        self,
        connection: Line,
        *,
        method: str,
        path: str,
        query: str,
        headers: dict[bytes, bytes],
        body: bytes,
        close: bool,
        chunked: bool = True,
        refused: Refusal | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        """Names in lower case."""
        self.body = body
        self.principal = connection.principal
        """Who calls, when the listener stands for one principal."""
        self.gone = False
        """The client has closed the connection."""
        self.refused = refused
        """Why the request could not be taken; then it is not whole."""
        self._connection = connection
        self._close = close
        self._chunked = chunked
        self._begun = False
        self._ended = False

    @property
    def begun(self) -> bool:
        """Has the head of the response been sent?"""
        return self._begun

    def header(self, name: bytes) -> str | None:
        """A request header (`name` in lower case)."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def respond(
        self,
        status: int,
        body: bytes,
        headers: Headers | None = None,
        *,
        content_type: bytes = b"application/json",
    ) -> None:
        """Send a whole response."""
        if self._begun:
            return
        self._begun = True
        parts = self._head(status, content_type, headers)
        if status != 204:
            parts += (b"content-length: ", str(len(body)).encode(), b"\r\n")
        parts.append(b"\r\n")
        if self.method != "HEAD":
            parts.append(body)
        self._send(b"".join(parts))
        self._finish()

    def begin(self, status: int, headers: Headers, *, content_type: bytes) -> None:
        """Send the head of a response whose length is not known yet."""
        self._begun = True
        parts = self._head(status, content_type, headers)
        parts.append(b"transfer-encoding: chunked\r\n\r\n" if self._chunked else b"\r\n")
        self._send(b"".join(parts))

    def write(self, data: bytes) -> None:
        """Send a piece of the body; nothing for nothing, as an empty chunk would end it. A client
        that is too far behind is dropped."""
        if self.gone or not data:
            return
        if self._connection.unsent > MAX_UNSENT:
            self._connection.drop()
        else:
            self._piece(data)

    def end(self, data: bytes = b"") -> None:
        """Send the last piece."""
        if data:
            self._piece(data)
        if self._chunked:
            self._send(b"0\r\n\r\n")
        self._finish()

    def abort(self) -> None:
        """Close the connection: a response that has begun cannot be ended in good order."""
        self._close = True
        self._finish()

    def _head(self, status: int, content_type: bytes, headers: Headers | None) -> list[bytes]:
        parts = [_STATUS[status], b"content-type: ", content_type, b"\r\n"]
        for name, value in (headers or {}).items():
            # A name out of a policy or a row must not be able to write headers of its own.
            parts += (name, b": ", b" ".join(value.splitlines()), b"\r\n")
        if self._close:
            parts.append(b"connection: close\r\n")
        return parts

    def _piece(self, data: bytes) -> None:
        self._send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def _send(self, data: bytes) -> None:
        if not self.gone:
            self._connection.send(data)

    def _finish(self) -> None:
        if not self._ended:
            self._ended = True
            self._connection.answered(close=self._close)


def as_json(document: Any) -> bytes:
    """A JSON document as the body of a response, whatever texts are in it."""
    try:
        return json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(document).encode()  # half a surrogate pair has no UTF-8, but an escape
