"""The room `gateway.mcp` behind a real HTTP port, with nothing of the door: for its own contract.

What `serve` does between reading a request and answering it is what the gateway's app does, less
identity, ledger and replay. Everything runs in one thread with one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from gateway import schema
from gateway.database import Database
from gateway.keys import Keyring
from gateway.mcp import artifacts, catalogue, results, server
from gateway.mcp.upstream import Servers
from gateway.policy import Grants, Policy
from gateway.providers.upstream import Upstream, build_client
from gateway.refusals import Refusal
from gateway.routing import Failure
from gateway.values import Label, Millis, RunId

RUN = RunId("run-1")


class McpGateway:
    """One principal's `/mcp`."""

    def __init__(self, policy: Policy, grants: Grants, state: Path) -> None:
        self.policy, self.grants = policy, grants
        self.database = Database(state / "interlock.sqlite")
        self.database.migrate(schema.MIGRATIONS)
        self.servers: Servers | None = None
        self.requests: list[dict[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if self.servers is None:
            self.client = build_client()
            self.servers = Servers(Upstream(self.client, Keyring(os.environ)))
        self.requests.append({k.decode(): v.decode() for k, v in scope["headers"]})
        body = b""
        more = True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        reply = await self._answer(scope["method"], scope["headers"], body)
        headers = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
        headers.append((b"content-length", str(len(reply.body)).encode()))
        start = {"type": "http.response.start", "status": reply.status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": reply.body})

    async def _answer(self, method: str, headers: Any, body: bytes) -> server.Reply:
        assert self.servers is not None
        exchange = server.read(method, headers, body)
        if isinstance(exchange, server.Reply):
            return exchange
        if exchange.lists:
            await self.servers.describe(catalogue.undescribed(self.grants, self.policy))
        seen = self.servers.seen()
        todo = server.respond(
            exchange, lambda: catalogue.offer(self.grants, self.policy, seen, artifacts=True)
        )
        if isinstance(todo, server.Reply):
            return todo
        try:
            return await self._do(todo)
        except Refusal as refusal:
            return exchange.refuse(refusal)
        except Failure as failure:
            return exchange.refuse(Refusal(failure.code, failure.message))

    async def _do(self, todo: server.Todo) -> server.Reply:
        assert self.servers is not None
        if isinstance(todo, server.ArtifactList):
            rows = artifacts.listed(self.database, RUN, skip=todo.skip, limit=server.PAGE)
            return todo.listed(rows)
        if isinstance(todo, server.ArtifactRead):
            piece = artifacts.read(self.database, todo.id, RUN, todo.offset, todo.limit)
            return todo.contents(
                piece.text, media=piece.media, total=piece.total, next_offset=piece.next_offset
            )
        asked = {"grants": self.grants, "sides": (self.grants,), "policy": self.policy}
        tool = catalogue.check(todo.name, todo.arguments, **asked)  # type: ignore[arg-type]
        name, _, short = todo.name.partition(".")
        upstream = self.policy.servers[name]
        seen = await self.servers.look(name, upstream, short)
        tool = catalogue.check(todo.name, todo.arguments, **asked, seen=seen)  # type: ignore[arg-type]
        answer = await self.servers.call(name, upstream, short, todo.arguments, effect_key=None)
        fitted = results.fit(answer, run=RUN, most=upstream.max_result_bytes)
        if fitted.artifact is not None:
            with self.database.transaction() as tx:
                artifacts.store(
                    tx, fitted.artifact, run=RUN, tool=tool.name, label=Label(), now=Millis(1)
                )
        return todo.exchange.result(fitted.result)

    async def close(self) -> None:
        if self.servers is not None:
            await self.servers.close()
            await self.client.close()


@contextlib.contextmanager
def serve(app: McpGateway) -> Iterator[str]:
    """The address of a running `/mcp`."""
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, ws="none")
    running = uvicorn.Server(config)
    listening = threading.Event()

    async def run() -> None:
        config.load()
        running.lifespan = config.lifespan_class(config)
        await running.startup()
        listening.set()
        await running.main_loop()
        await running.shutdown()
        await app.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert listening.wait(30)
    port = running.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        running.should_exit = True
        thread.join(30)
        app.database.close()
