"""The control socket: how the runner opens and closes run sockets, and how whoever revoked or
stopped something has it looked at now. Mode 0600, same user only."""

from __future__ import annotations

import re

from gateway import access
from gateway.app import exchange
from gateway.app.exchange import Receive, Scope, Send
from gateway.app.sockets import RunSockets
from gateway.database import GroupCommit
from gateway.live import LiveCalls
from gateway.providers.dialects import fields, openai
from gateway.refusals import Code, Refusal
from gateway.values import Clock, RunId

HASH = re.compile(r"[0-9a-f]{64}")


class ControlApp:
    """ASGI application of the control socket."""

    def __init__(
        self, sockets: RunSockets, commits: GroupCommit, live: LiveCalls, clock: Clock
    ) -> None:
        self._sockets = sockets
        self._commits = commits
        self._live = live
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            await self._route(scope, receive, send)
        except Refusal as refusal:
            status = {Code.UNAUTHENTICATED: 404, Code.NOT_GRANTED: 409}.get(
                refusal.code, refusal.status
            )
            await exchange.respond(send, status, openai.error(refusal))
        except ConnectionResetError:
            return

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if path == "/runs" and method == "GET":
            await exchange.respond(send, 200, {"runs": self._sockets.listing()})
        elif path == "/revocations" and method == "POST":
            self._live.cut_barred()
            await exchange.respond(send, 204, None)
        elif path.startswith("/runs/") and method == "PUT":
            run = RunId(path.removeprefix("/runs/"))
            self._sockets.directory(run)
            body = fields.document(await exchange.read_body(receive))
            token_hash = fields.text(body, "token_hash")
            if not HASH.fullmatch(token_hash):
                raise fields.invalid("`token_hash` must be 64 hex digits")
            now = self._clock.now()
            await self._commits.write(lambda tx: access.open_socket(tx, run, token_hash, now=now))
            await exchange.respond(send, 200, await self._sockets.open(run, token_hash))
        elif path.startswith("/runs/") and method == "DELETE":
            run = RunId(path.removeprefix("/runs/"))
            self._sockets.close(run)
            await self._commits.write(lambda tx: access.close_socket(tx, run))
            await exchange.respond(send, 204, None)
        else:
            raise Refusal(Code.NOT_FOUND, f"no endpoint {method} {path}")
