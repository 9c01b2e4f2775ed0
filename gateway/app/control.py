"""The control socket: how the runner opens and closes run sockets, and how whoever revoked or
stopped something has it looked at now. Mode 0600, same user only."""

from __future__ import annotations

import re
from typing import Any

from gateway import access
from gateway.app.exchange import Exchange, as_json
from gateway.app.sockets import RunSockets
from gateway.database import GroupCommit
from gateway.door import Door
from gateway.mcp.fingerprints import Observed
from gateway.providers.dialects import fields, openai
from gateway.refusals import Code, Refusal
from gateway.values import Clock, RunId

HASH = re.compile(r"[0-9a-f]{64}")


class ControlApp:
    """Application of the control socket."""

    def __init__(self, sockets: RunSockets, commits: GroupCommit, door: Door, clock: Clock) -> None:
        self._door = door
        self._sockets = sockets
        self._commits = commits
        self._clock = clock

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        try:
            status, document = await self._route(exchange)
        except Refusal as refusal:
            status = {Code.UNAUTHENTICATED: 404, Code.NOT_GRANTED: 409}.get(
                refusal.code, refusal.status
            )
            document = openai.error(refusal)
        exchange.respond(status, b"" if document is None else as_json(document))

    async def _route(self, exchange: Exchange) -> tuple[int, dict[str, Any] | None]:
        if exchange.refused is not None:
            raise exchange.refused
        method, path = exchange.method, exchange.path
        if path == "/runs" and method == "GET":
            return 200, {"runs": self._sockets.listing()}
        if path == "/revocations" and method == "POST":
            self._door.live.cut_barred()
            return 204, None
        if path.startswith("/runs/") and method == "PUT":
            run = RunId(path.removeprefix("/runs/"))
            self._sockets.directory(run)
            token_hash = fields.text(fields.document(exchange.body), "token_hash")
            if not HASH.fullmatch(token_hash):
                raise fields.invalid("`token_hash` must be 64 hex digits")
            now = self._clock.now()
            await self._commits.write(lambda tx: access.open_socket(tx, run, token_hash, now=now))
            return 200, dict(await self._sockets.open(run, token_hash))
        if path.startswith("/runs/") and method == "DELETE":
            run = RunId(path.removeprefix("/runs/"))
            self._sockets.close(run)
            await self._commits.write(lambda tx: access.close_socket(tx, run))
            return 204, None
        if path == "/catalogue" and method == "POST":
            name = fields.text(fields.document(exchange.body), "server")
            return 200, {"tools": [_described(each) for each in await self._door.catalogue(name)]}
        raise Refusal(Code.NOT_FOUND, f"no endpoint {method} {path}")


def _described(seen: Observed) -> dict[str, Any]:
    """A tool as its server describes it, with the fingerprint that `interlock.lock` keeps."""
    return {
        "name": seen.name,
        "description": seen.description,
        "input_schema": seen.input_schema,
        "fingerprint": seen.fingerprint,
    }
