"""Tool servers over HTTP, on a clock that a test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import schema
from gateway.database import Database, GroupCommit
from gateway.keys import Keyring
from gateway.mcp.oauth import Vault
from gateway.mcp.upstream import Servers
from gateway.policy import ToolServer
from gateway.providers.upstream import Upstream, build_client
from gateway.refusals import Refusal
from gateway.routing import Failure
from gateway.values import Millis
from tests.support.mcp_fake import FakeServer

SECRETS = {"KEY": "key-SECRET-1", "CLIENT": "client:SECRET/2", "REFRESH": "refresh-SECRET-3"}


class Hands:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.time = 1_000_000

    def now(self) -> Millis:
        return Millis(self.time)


class World:
    """`Servers` around one fake server."""

    def __init__(self, fake: FakeServer, directory: Path) -> None:
        self.fake = fake
        self.clock = Hands()
        self.found: list[str] = []
        """Every secret that writers of logs were told of."""
        self.drifts: list[tuple[str, str, str, str]] = []
        self.database = Database(directory / "db.sqlite")
        self.database.migrate(schema.MIGRATIONS)
        self.server = ToolServer(url=f"{fake.address}/mcp", timeout_seconds=5)
        self.user: str | None = None
        self.servers: Any = None

    def set(self, **changes: Any) -> None:
        self.server = self.server.model_copy(update=changes)

    def run(self, play: Callable[[], Awaitable[Any]]) -> Any:
        async def whole() -> Any:
            client = build_client()
            commits = GroupCommit(self.database)
            self.servers = Servers(
                Upstream(client, Keyring(SECRETS, self.found.append)),
                self.clock,
                vault=Vault(self.database, commits, self.clock),
                on_drift=lambda *drift: self.drifts.append(drift),
            )
            try:
                return await play()
            finally:
                await self.servers.close()
                await client.close()
                commits.close()

        return asyncio.run(whole())

    async def call(self, name: str = "open", key: str | None = None, **arguments: Any) -> Any:
        return await self.servers.call(
            "hub", self.server, name, arguments, effect_key=key, user=self.user
        )

    async def text(self, name: str = "open", **arguments: Any) -> str:
        return str((await self.call(name, **arguments))["content"][0]["text"])

    async def refusal(self, name: str = "open") -> Refusal:
        with pytest.raises(Refusal) as caught:
            await self.call(name)
        return caught.value

    async def failure(self, name: str = "open") -> Failure:
        with pytest.raises(Failure) as caught:
            await self.call(name)
        return caught.value
