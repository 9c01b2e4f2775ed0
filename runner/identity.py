"""Under which identities a run calls the gateway, and how they pass from runner to runner.

Each role is a principal with a token of its own. Whoever takes a run up issues new tokens and
takes the old ones back, but not before calls that are still under way have ended: a revocation
cuts them off, and a write that was cut off has an unknown outcome. Waiting is safe, because a
runner that lost its lease cannot begin another call: every call is preceded by an intent, and an
intent is refused under an old fence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gateway import access
from gateway.database import Database, Transaction
from gateway.values import CallKey, Clock, Millis, Principal, RunId
from runner.client import CallRefused, Gateway, Reply, Sleep
from runner.journal import Commits, Journal, Kind
from runner.queue import Lease, Queue, check_fence
from runner.redact import Redactor
from runner.sandbox.contract import Sandboxes

TOKEN_GRACE_MS = 24 * 3_600_000
"""How long a run token outlives the run's wall time: a lease renews it by issuing new ones."""


class Sockets(Protocol):
    """Opens a run's gateway socket (`runner.client.ControlSocket`)."""

    async def open(self, run: RunId, token_hash: str) -> Path: ...

    async def close(self, run: RunId) -> None: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What an engine works with; everything that reaches outside is passed in."""

    database: Database
    commits: Commits
    queue: Queue
    clock: Clock
    sleep: Sleep
    gateway: Gateway
    sandboxes: Sandboxes
    draw: Callable[[], str]
    """Draws a run token: a secret of at least 32 random bytes, as text."""
    sockets: Sockets | None = None
    """None: containers get no way to the gateway."""
    owner: str = "runner"
    renew_ms: int = 10_000


class Identity:
    """The tokens of one run's roles under one lease. `tokens` always holds the current ones."""

    def __init__(self, parts: Parts, lease: Lease, redactor: Redactor) -> None:
        self._parts = parts
        self._lease = lease
        self._redactor = redactor
        self._opened = False
        self.tokens: dict[str, str] = {}

    async def renew(self, *, revoke: bool) -> None:
        """Issue new tokens, and take back all earlier ones of the run where asked.

        Raises Fenced when another runner has the lease.
        """
        parts, lease, spec = self._parts, self._lease, self._lease.spec
        tokens = {role: parts.draw() for role in spec.roles}
        now = parts.clock.now()
        expires = Millis(now + (spec.limits.max_wall_ms or 0) + TOKEN_GRACE_MS)
        recorded = (
            None if spec.recorded is None else [r.model_dump(mode="json") for r in spec.recorded]
        )

        def issue(tx: Transaction) -> None:
            check_fence(tx, lease.run, lease.fence)
            if revoke:
                access.revoke(tx, run=lease.run, why="the run was taken up again", now=now)
            for name, role in spec.roles.items():
                principal = Principal(
                    run=lease.run,
                    agent=spec.agent,
                    team=spec.team,
                    role=name,
                    release=spec.release,
                    purpose=spec.purpose,
                    occurrence=spec.occurrence,
                    tags=spec.tags,
                )
                access.issue(
                    tx,
                    principal,
                    role.grants,
                    recorded,
                    token=tokens[name],
                    now=now,
                    expires_at=expires,
                )

        self._redactor.learn(tokens.values())
        await parts.commits.write(issue)
        self.tokens.update(tokens)
        if self._opened:
            await self.open_socket()

    async def open_socket(self) -> str | None:
        """Directory of the run's gateway socket, standing for `main`; None: there is none."""
        if self._parts.sockets is None:
            return None
        self._opened = True
        token_hash = access.hash_token(self.tokens["main"])
        return str(await self._parts.sockets.open(self._lease.run, token_hash))


def open_calls(journal: Journal) -> set[CallKey]:
    """Calls through the gateway that have an intent and no outcome."""
    return {
        entry.key
        for entry in journal.steps()
        if entry.event == "intent"
        and entry.kind in (Kind.MODEL, Kind.TOOL)
        and journal.find(entry.key, "outcome") is None
    }


class Successor:
    """The gateway, for a run with calls under way: once they have ended, tokens are renewed."""

    def __init__(self, gateway: Gateway, under_way: set[CallKey], identity: Identity) -> None:
        self._gateway = gateway
        self._under_way = set(under_way)
        self._identity = identity

    async def chat(self, token: str, key: CallKey, request: Mapping[str, Any]) -> Reply:
        try:
            reply = await self._gateway.chat(token, key, request)
        except CallRefused:
            await self._ended(key)
            raise
        await self._ended(key)
        return reply

    async def call_tool(
        self, token: str, key: CallKey, name: str, arguments: Mapping[str, Any]
    ) -> Reply:
        try:
            reply = await self._gateway.call_tool(token, key, name, arguments)
        except CallRefused:
            await self._ended(key)
            raise
        await self._ended(key)
        return reply

    async def list_tools(self, token: str) -> tuple[Mapping[str, Any], ...]:
        return await self._gateway.list_tools(token)

    async def _ended(self, key: CallKey) -> None:
        if key in self._under_way:
            self._under_way.discard(key)
            if not self._under_way:
                await self._identity.renew(revoke=True)
