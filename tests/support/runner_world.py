"""A small world around the engine: a clock that ticks, a gateway that keeps a ledger, a run.

The fake gateway answers by call key at most once, as the real one does, and writes the `calls`
rows that the runner reads its costs back from.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gateway import calls
from gateway.access import hash_token
from gateway.database import Database, GroupCommit, Transaction
from gateway.policy import Grants, Limits, ToolGrant
from gateway.values import (
    AgentName,
    CallKey,
    EffectKey,
    Label,
    Millis,
    NanoUSD,
    Occurrence,
    Purpose,
    ReleaseDigest,
    TeamName,
)
from runner import queue
from runner.client import CallRefused, Reply
from runner.engine import Engine
from runner.identity import Parts
from runner.queue import Queue
from runner.spec import Role, RunSpec, SandboxSpec, Workspace
from tests.support.memory_sandbox import MemorySandboxes

T = TypeVar("T")
Message = dict[str, Any]
Model = Callable[[str, list[Message]], Message]
"""(role, messages) → assistant message."""

ALL_TOOLS = (
    "shell", "read_file", "write_file", "edit_file", "list_files", "load_skill", "delegate", "note",
)  # fmt: skip


class TickingClock:
    """Every look at it is one millisecond later."""

    def __init__(self) -> None:
        self.time = 1_763_700_000_000

    def now(self) -> Millis:
        self.time += 1
        return Millis(self.time)


class Crash(BaseException):
    """Stands for SIGKILL: nothing catches it, nothing is tidied up."""


class FakeGateway:
    """`runner.client.Gateway` in process."""

    def __init__(self, database: Database, model: Model) -> None:
        self.database = database
        self.model = model
        self.ledger: dict[CallKey, Reply] = {}
        self.effects: list[str] = []
        """Effect keys, each time the outside world was really changed."""
        self.asked = 0
        """Times a model was really called."""
        self.requests: list[Mapping[str, Any]] = []
        self.refuse: Callable[[str, CallKey], CallRefused | None] = lambda kind, key: None
        self.tools: dict[str, Callable[[Mapping[str, Any]], str]] = {}

    def _role(self, token: str) -> Mapping[str, Any]:
        row = self.database.one(
            "SELECT * FROM tokens WHERE token_hash = :hash", hash=hash_token(token)
        )
        if row is None:
            raise CallRefused("unauthenticated", "unknown token")
        if row["revoked_at"] is not None:
            raise CallRefused("revoked", row["revoked_why"])
        return row

    async def chat(self, token: str, key: CallKey, request: Mapping[str, Any]) -> Reply:
        role = self._role(token)
        refused = self.refuse("model", key)
        if refused is not None:
            raise refused
        if key in self.ledger:
            return self._again(key)
        json.dumps(request)
        self.requests.append(request)
        self.asked += 1
        message = self.model(role["role"], [dict(m) for m in request["messages"]])
        body = {"choices": [{"message": message, "finish_reason": "stop"}]}
        reply = Reply(body, tokens=15, cost_nano=NanoUSD(1000), label=Label())
        self.settle(key, role, "model", reply)
        return reply

    async def call_tool(
        self, token: str, key: CallKey, name: str, arguments: Mapping[str, Any]
    ) -> Reply:
        role = self._role(token)
        refused = self.refuse("tool", key)
        if refused is not None:
            raise refused
        if key in self.ledger:
            return self._again(key)
        effect = str(EffectKey(role["agent"], role["occurrence"], f"{name}", 0))
        self.effects.append(effect)
        body = {"content": [{"type": "text", "text": self.tools[name](arguments)}]}
        reply = Reply(body, effect_key=effect)
        self.settle(key, role, "tool", reply, asked=name.replace("__", ".", 1))
        return reply

    async def list_tools(self, token: str) -> tuple[Mapping[str, Any], ...]:
        self._role(token)
        return tuple({"name": name, "inputSchema": {"type": "object"}} for name in self.tools)

    def _again(self, key: CallKey) -> Reply:
        known = self.ledger[key]
        return Reply(known.body, label=known.label, effect_key=known.effect_key, replayed=True)

    def settle(
        self, key: CallKey, role: Mapping[str, Any], kind: str, reply: Reply, asked: str = "t"
    ) -> None:
        """Write the ledger's row of a call that was answered."""
        self.ledger[key] = reply
        row: dict[str, object] = {
            "run": key.run, "step": key.step, "call": key.call, "attempt": 0, "kind": kind,
            "state": "settled", "agent": role["agent"], "team": role["team"],
            "role": role["role"], "release": role["release"], "purpose": role["purpose"],
            "occurrence": role["occurrence"], "target": "t", "asked": asked, "request_hash": "h",
            "reserved_nano": 0, "cost_nano": reply.cost_nano, "reserved_tokens": 0,
            "input_tokens": reply.tokens - 5 if reply.tokens else 0,
            "output_tokens": 5 if reply.tokens else 0,
            "label": "untrusted/internal", "policy": "p", "reserved_at": 0,
        }  # fmt: skip
        names = ", ".join(row)
        values = ", ".join(f":{name}" for name in row)
        with self.database.transaction() as tx:
            tx.execute(f"INSERT INTO calls ({names}) VALUES ({values})", **row)


@dataclass
class Fuse:
    """Blows at the n-th durable write: before it (`after` False) or after it."""

    at: int | None = None
    after: bool = False
    count: int = 0

    def burn(self) -> bool:
        self.count += 1
        return self.count == self.at


class FusedCommits:
    """Group commit that dies when its fuse says so."""

    def __init__(self, commits: GroupCommit, fuse: Fuse) -> None:
        self._commits = commits
        self._fuse = fuse

    async def write(self, work: Callable[[Transaction], T]) -> T:
        blown = self._fuse.burn()
        if blown and not self._fuse.after:
            raise Crash
        value = await self._commits.write(work)
        if blown:
            raise Crash
        return value


class FusedQueue(Queue):
    """Queue whose `finish` may be where the runner dies."""

    fuse: Fuse

    def finish(self, lease: Any, outcome: Any) -> None:
        blown = self.fuse.burn()
        if blown and not self.fuse.after:
            raise Crash
        super().finish(lease, outcome)
        if blown:
            raise Crash


@dataclass
class World:
    """One database, one gateway, one place for sandboxes; any number of engines."""

    directory: Path
    model: Model
    clock: TickingClock = field(default_factory=TickingClock)

    def __post_init__(self) -> None:
        self.database = Database(self.directory / "interlock.sqlite")
        self.database.migrate((*calls.MIGRATIONS, *queue.MIGRATIONS))
        self.commits = GroupCommit(self.database)
        self.gateway = FakeGateway(self.database, self.model)
        self.sandboxes = MemorySandboxes(self.directory / "boxes")
        self._drawn = 0
        self.waits: list[float] = []

    def close(self) -> None:
        self.commits.close()
        self.database.close()

    def draw(self) -> str:
        self._drawn += 1
        return f"ilk_test_token_{self._drawn:08d}"

    def queue(self, fuse: Fuse | None = None) -> FusedQueue:
        made = FusedQueue(self.database, self.clock, "test")
        made.fuse = fuse or Fuse()
        return made

    def engine(
        self,
        work: FusedQueue,
        *,
        sleep: Callable[[float], Awaitable[None]] | None = None,
    ) -> Engine:
        return Engine(
            Parts(
                database=self.database,
                commits=FusedCommits(self.commits, work.fuse),
                queue=work,
                clock=self.clock,
                sleep=sleep or _forever,
                gateway=self.gateway,
                sandboxes=self.sandboxes,
                draw=self.draw,
            )
        )

    def enqueue(self, spec: RunSpec) -> None:
        with self.database.transaction() as tx:
            queue.enqueue(tx, spec, now=self.clock.now())

    async def take(self, fuse: Fuse | None = None) -> Any:
        """Lease the next run and advance it once."""
        work = self.queue(fuse)
        lease = work.lease()
        assert lease is not None
        return await self.engine(work).advance(lease)


async def _forever(seconds: float) -> None:
    await asyncio.Event().wait()


def role(name: str = "main", **changes: Any) -> Role:
    """A role that may use every built-in tool."""
    values: dict[str, Any] = {
        "name": name,
        "model": "smart",
        "instructions": f"You are {name}.",
        "grants": Grants(models=("smart",)),
        "tools": ALL_TOOLS,
    }
    return Role(**{**values, **changes})


def run_spec(**changes: Any) -> RunSpec:
    """A small run; give what matters to the test."""
    values: dict[str, Any] = {
        "agent": AgentName("fixer"),
        "team": TeamName("platform"),
        "release": ReleaseDigest("rel-000000000001"),
        "purpose": Purpose.LIVE,
        "occurrence": Occurrence("manual:1"),
        "input": "Fix it.",
        "roles": {"main": role()},
        "limits": Limits(max_steps=60),
        "sandbox": SandboxSpec(image="sha256:" + "0" * 64),
        "workspace": Workspace(),
    }
    return RunSpec(**{**values, **changes})


def call(name: str, /, **arguments: Any) -> Message:
    """An assistant message with one tool call."""
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": f"c-{name}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
        ],
    }


def say(text: str) -> Message:
    """An assistant message without a call."""
    return {"role": "assistant", "content": text}


def script(**turns: list[Message]) -> Model:
    """A model that plays each role's turns in order, by how many it has taken in the
    conversation; the last turn repeats."""

    def model(name: str, messages: list[Message]) -> Message:
        taken = sum(m["role"] == "assistant" for m in messages)
        mine = turns[name]
        return mine[min(taken, len(mine) - 1)]

    return model


def tool_grants(*names: str) -> Grants:
    """Grants of the model `smart` and these external tools."""
    return Grants(models=("smart",), tools={name: ToolGrant() for name in names})
