"""The whole door as a state machine, over a real database and a real writer thread: calls of two
agents, with keys and without, while others revoke, stop, publish, take away, while commits fail and
the process is replaced (design, section 13: invariants 3, 4 and 5).

Each step is carried through until every call waits for its provider or has ended, so that what a
step began can be held against what was in force when it began.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway import access, budgets, calls, door, schema
from gateway.budgets import Rules
from gateway.database import Database, GroupCommit, Transaction
from gateway.door import Door, Head, Memory
from gateway.keys import Keyring
from gateway.policy import (
    AgentPolicy,
    BudgetRule,
    Grants,
    Limits,
    Model,
    Policy,
    Price,
    Provider,
    Retry,
    VirtualModel,
    Window,
)
from gateway.providers.asked import Asked
from gateway.providers.upstream import Answer, Upstream
from gateway.refusals import Code, Refusal
from gateway.routing import Failure
from gateway.telemetry import Telemetry
from gateway.values import AgentName, Millis, NanoUSD, RunId
from tests.gateway.stage import principal, sse

HOUR = 3_600_000
START = Millis(1_763_000_000_000)
RUNS = {"run-a": "agent-a", "run-b": "agent-b"}
MODELS = ("first", "second", "both")
PRICE = Price(input=NanoUSD(1), output=NanoUSD(100))
PROVIDER = Provider(kind="openai", base_url="http://fake/v1")


class Failing(Database):
    """A database whose next commit by the writer thread fails, when it is told to."""

    fails = False

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with super().transaction() as tx:
            yield tx
            if self.fails and threading.current_thread().name == "group-commit":
                self.fails = False
                raise sqlite3.OperationalError("database or disk is full")


@dataclass
class Time:
    """A clock that stands still."""

    at: Millis = START

    def now(self) -> Millis:
        return self.at


@dataclass(eq=False)
class Sent:
    """One request that has reached the provider and waits there."""

    run: str
    stream: bool
    pieces: asyncio.Queue[bytes | Failure | None] = field(default_factory=asyncio.Queue)


class _Body:
    def __init__(self, sent: Sent) -> None:
        self._sent = sent

    async def read_chunk(self) -> bytes | None:
        piece = await self._sent.pieces.get()
        if isinstance(piece, Failure):
            raise piece
        return piece


class _Response:
    status = 200

    def __init__(self, sent: Sent) -> None:
        self.body_reader = _Body(sent)
        self._kind = "text/event-stream" if sent.stream else "application/json"

    def get_header(self, name: str) -> str | None:
        return self._kind if name == "content-type" else None


class FakeUpstream(Upstream):
    """A provider within the process. `reached` is told of every request."""

    def __init__(self, reached: Any) -> None:
        super().__init__(None, Keyring({}))  # type: ignore[arg-type]
        self._reached = reached
        self.waiting: list[Sent] = []

    async def ask(self, url: str, body: bytes, **more: Any) -> Answer:
        async with self.post(url, body, **more) as answer:
            answer.body = await answer.raw()
            return answer

    @asynccontextmanager
    async def post(self, url: str, body: Any, **more: Any) -> AsyncIterator[Answer]:
        asked = json.loads(body)
        sent = Sent(asked["messages"][0]["content"].split()[0], bool(asked.get("stream")))
        self._reached(sent)
        self.waiting.append(sent)
        try:
            yield Answer(_Response(sent), more["where"], None, None)
        finally:
            if sent in self.waiting:
                self.waiting.remove(sent)


@dataclass
class Asking:
    """A client that waits."""

    run: str
    key: str | None
    task: asyncio.Task[str]


class Gateway(RuleBasedStateMachine):
    """One process after the other on one database."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.directory = Path(tempfile.mkdtemp())
        self.other = Database(self.directory / "interlock.sqlite")
        self.other.migrate(schema.MIGRATIONS)
        self.clock = Time()
        self.clients: list[Asking] = []
        self.begun: list[str] = []
        self.broken: list[AssertionError] = []
        self.revoked: set[str] = set()
        self.stopped: set[str] = set()
        self.ceilings = dict.fromkeys(RUNS.values(), MODELS)
        self.expires = {run: Millis(START + 40 * HOUR) for run in RUNS}
        self.issued = 0
        self.tokens: dict[str, str] = {}
        self.rules: tuple[BudgetRule, ...] = (
            BudgetRule(name="day", limit=NanoUSD(40_000), window=Window.DAY),
            BudgetRule(name="each", limit=NanoUSD(25_000), window=Window.WEEK, each_agent=True),
            BudgetRule(name="count", requests=9, window=Window.DAY),
        )
        self.publish()
        for agent in RUNS.values():
            self.ceil(agent, MODELS)
        for run in RUNS:
            self.issue(run)
        self.up()

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.down()
            self.other.close()
            self.loop.close()
            shutil.rmtree(self.directory)

    # --- the process

    def up(self) -> None:
        self.database = Failing(self.directory / "interlock.sqlite")
        self.memory = Memory()
        door.recover(self.database, self.memory, self.clock.now())
        self.commits = GroupCommit(self.database, self.memory)
        self.upstream = FakeUpstream(self.reached)
        self.door = Door(
            self.database,
            self.commits,
            self.memory,
            self.clock,
            self.upstream,
            Telemetry(),
        )

    def down(self) -> None:
        """Nothing that this process would still write is written."""
        self.commits.close()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks))
        self.clients.clear()
        self.database.close()

    def reached(self, sent: Sent) -> None:
        """Something is sent. What is wrong about it is kept: the door would take it for a fault."""
        try:
            self.must_be_allowed(sent)
        except AssertionError as error:
            self.broken.append(error)

    def must_be_allowed(self, sent: Sent) -> None:
        """It was allowed at that moment, and is reserved within every limit."""
        self.begun.append(sent.run)
        assert sent.run not in self.revoked, "sent after its revocation had been committed"
        assert RUNS[sent.run] not in self.stopped, "sent after its stop had been committed"
        assert self.ceilings[RUNS[sent.run]], "sent although nothing is granted any more"
        assert self.clock.now() < self.expires[sent.run], "sent with a token that has expired"
        # From the ledger alone: the reservation is durable, and every limit holds it.
        rows = self.other.read("SELECT * FROM calls")
        assert any(row["run"] == sent.run and row["state"] == "reserved" for row in rows)
        truth = budgets.recount(self.rules, rows)
        newest = max(
            (row for row in rows if row["run"] == sent.run), key=lambda r: r["reserved_at"]
        )
        for ceiling in Rules(self.rules).ceilings(Limits(), budgets.charge_of(newest)):
            total = truth.get(ceiling.meter)
            if total is None:
                continue
            if ceiling.limit_nano is not None:
                assert total.held_nano + total.spent_nano <= ceiling.limit_nano, ceiling.name
            if ceiling.limit_requests is not None:
                held = total.held_requests + total.spent_requests
                assert held <= ceiling.limit_requests, ceiling.name

    def settle_down(self) -> None:
        """Until everybody waits for the provider or has heard an end."""

        async def quiet() -> None:
            still = 0
            while still < 3:
                for _ in range(10):
                    await asyncio.sleep(0)
                # A write of its own comes back when everything before it is on disk.
                with suppress(sqlite3.Error):
                    await self.commits.write(lambda tx: None)
                still = still + 1 if self.is_quiet() else 0

        self.loop.run_until_complete(asyncio.wait_for(quiet(), 20))
        self.clients = [client for client in self.clients if not client.task.done()]
        if self.broken:
            raise self.broken[0]

    def is_quiet(self) -> bool:
        return len(self.door.live) == len(self.upstream.waiting)

    async def ask(self, run: str, key: str | None, *, stream: bool, model: str) -> str:
        body = {"model": model, "messages": [{"role": "user", "content": f"{run} {key}"}]}
        body |= {"stream": stream, "max_tokens": 50}
        try:
            call = await self.door.model(
                self.tokens[run], Asked.read("chat", json.dumps(body).encode()), Head(key)
            )
            await call.finished()
        except Refusal as refusal:
            return str(refusal.code)
        return "answered"

    # --- what clients do

    @rule(
        run=st.sampled_from(sorted(RUNS)),
        number=st.one_of(st.none(), st.integers(1, 4)),
        stream=st.booleans(),
        model=st.sampled_from(MODELS),
    )
    def call(self, run: str, number: int | None, stream: bool, model: str) -> None:
        key = None if number is None else f"{run}/{number}/0"
        task = self.loop.create_task(self.ask(run, key, stream=stream, model=model))
        self.clients.append(Asking(run, key, task))
        self.settle_down()

    @rule(
        runs=st.lists(st.sampled_from(sorted(RUNS)), min_size=2, max_size=6),
        stream=st.booleans(),
    )
    def many_at_once(self, runs: list[str], stream: bool) -> None:
        for run in runs:
            task = self.loop.create_task(self.ask(run, None, stream=stream, model="both"))
            self.clients.append(Asking(run, None, task))
        self.settle_down()

    # --- what the provider does

    @precondition(lambda self: hasattr(self, "upstream") and self.upstream.waiting)
    @rule(data=st.data(), used=st.one_of(st.none(), st.integers(0, 120)))
    def answer(self, data: Any, used: int | None) -> None:
        sent = data.draw(st.sampled_from(self.upstream.waiting))
        usage = None if used is None else {"prompt_tokens": 5, "completion_tokens": used}
        if sent.stream:
            choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": None}
            stop = {"index": 0, "delta": {}, "finish_reason": "stop"}
            said = sse({"choices": [choice]}, {"choices": [stop]})
            said += sse({"choices": [], "usage": usage}, "[DONE]") if usage else sse("[DONE]")
        else:
            message = {"role": "assistant", "content": "x"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            said = json.dumps({"choices": [choice], "usage": usage}).encode()
        sent.pieces.put_nowait(said)
        sent.pieces.put_nowait(None)
        self.settle_down()

    @precondition(lambda self: hasattr(self, "upstream") and self.upstream.waiting)
    @rule(data=st.data(), done=st.booleans(), after_a_piece=st.booleans())
    def fail(self, data: Any, done: bool, after_a_piece: bool) -> None:
        sent = data.draw(st.sampled_from(self.upstream.waiting))
        if after_a_piece and sent.stream:
            choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": None}
            sent.pieces.put_nowait(sse({"choices": [choice]}))
        sent.pieces.put_nowait(Failure("it broke off", done=done))
        self.settle_down()

    # --- what others do, each in a transaction of another process

    def barred(self, forbidden: set[str], code: Code) -> None:
        """The watcher looks: whoever may not call any more is cut, whatever it was doing."""
        waiting = [sent for sent in self.upstream.waiting if sent.run in forbidden]
        mine = [client for client in self.clients if client.run in forbidden]

        async def look() -> None:
            self.door.live.cut_barred()

        self.loop.run_until_complete(look())
        self.settle_down()
        assert not [sent for sent in waiting if sent in self.upstream.waiting]
        for client in mine:
            assert client.task.done(), "a revoked or stopped client still waits"
            assert client.task.result() in (code, "internal_error", "answered")

    @rule(run=st.sampled_from(sorted(RUNS)))
    def revoke(self, run: str) -> None:
        with self.other.transaction() as tx:
            access.revoke(tx, run=RunId(run), why="harm", now=self.clock.now())
        self.revoked.add(run)
        self.barred({run}, Code.REVOKED)

    @precondition(lambda self: getattr(self, "revoked", None))
    @rule()
    def a_new_token_is_issued(self) -> None:
        for run in sorted(self.revoked):
            self.issue(run)
        self.revoked.clear()

    @rule(agent=st.sampled_from(sorted(RUNS.values())))
    def stop(self, agent: str) -> None:
        with self.other.transaction() as tx:
            access.stop(tx, agent, reason="harm", actor="ann", now=self.clock.now())
        self.stopped.add(agent)
        runs = {run for run, its in RUNS.items() if its == agent} - self.revoked
        self.barred(runs, Code.STOPPED)

    @precondition(lambda self: getattr(self, "stopped", None))
    @rule()
    def unstop(self) -> None:
        with self.other.transaction() as tx:
            for agent in self.stopped:
                access.unstop(tx, agent)
        self.stopped.clear()

    @rule(index=st.integers(0, 1), limit=st.integers(0, 60_000))
    def publish_other_limits(self, index: int, limit: int) -> None:
        rules = list(self.rules)
        rules[index] = rules[index].model_copy(update={"limit": NanoUSD(limit)})
        self.rules = tuple(rules)
        self.publish()

    @rule(requests=st.integers(0, 20))
    def publish_another_number_of_requests(self, requests: int) -> None:
        changed = self.rules[2].model_copy(update={"requests": requests})
        self.rules = (*self.rules[:2], changed)
        self.publish()

    @rule(agent=st.sampled_from(sorted(RUNS.values())), models=st.sampled_from([(), MODELS]))
    def change_a_ceiling(self, agent: str, models: tuple[str, ...]) -> None:
        self.ceil(agent, models)

    @rule(agent=st.sampled_from(sorted(RUNS.values())))
    def drop_a_ceiling(self, agent: str) -> None:
        with self.other.transaction() as tx:
            access.drop_ceilings(tx, [AgentName(agent)])
        self.ceilings[agent] = ()

    @rule(hours=st.integers(1, 20))
    def time_passes(self, hours: int) -> None:
        self.clock.at = Millis(self.clock.at + hours * HOUR)

    @rule()
    def the_next_commit_fails(self) -> None:
        self.database.fails = True

    @rule()
    def the_process_is_killed(self) -> None:
        self.down()
        self.up()
        assert not self.other.read("SELECT * FROM calls WHERE state = 'reserved'")

    # --- what is done by hand

    def issue(self, run: str) -> None:
        self.issued += 1
        with self.other.transaction() as tx:
            self.tokens[run] = access.issue(
                tx,
                principal(run, agent=RUNS[run], occurrence=f"manual:{run}"),
                Grants(models=MODELS),
                None,
                token=f"token-{self.issued}",
                now=self.clock.now(),
                expires_at=Millis(self.clock.now() + 40 * HOUR),
            )
        self.expires[run] = Millis(self.clock.now() + 40 * HOUR)

    def publish(self) -> None:
        new = Policy(
            providers={"p": PROVIDER, "q": PROVIDER},
            models={
                "first": Model(provider="p", id="m", price=PRICE),
                "second": Model(provider="q", id="m", price=PRICE),
            },
            virtual_models={
                "both": VirtualModel(targets=("first", "second"), retry=Retry(attempts=1))
            },
            budgets=self.rules,
        )
        with self.other.transaction() as tx:
            access.publish(tx, new, now=self.clock.now())

    def ceil(self, agent: str, models: tuple[str, ...]) -> None:
        ceiling = AgentPolicy(team="platform", roles={"main": Grants(models=models)})
        with self.other.transaction() as tx:
            access.put_ceilings(tx, {AgentName(agent): ceiling})
        self.ceilings[agent] = models

    # --- what is true at all times

    @invariant()
    def memory_equals_the_ledger(self) -> None:
        if not hasattr(self, "memory"):
            return
        with self.other.transaction() as tx:
            rules = Rules(self.rules)
            assert calls.audit(tx, self.rules) == {}
            assert self.memory.ledger.windows.audit(tx, rules) == {}

    @invariant()
    def a_key_is_settled_once_and_never_for_less_than_nothing(self) -> None:
        if not hasattr(self, "other"):
            return
        rows = self.other.read("SELECT * FROM calls")
        settled = Counter((r["run"], r["step"], r["call"]) for r in rows if r["state"] == "settled")
        assert set(settled.values()) <= {1}
        assert all((row["cost_nano"] or 0) >= 0 for row in rows)

    @invariant()
    def what_waits_is_reserved(self) -> None:
        if not hasattr(self, "upstream"):
            return
        held = len(self.other.read("SELECT * FROM calls WHERE state = 'reserved'"))
        assert held >= len(self.upstream.waiting)


def test_a_stop_cuts_what_was_begun_with_a_token_that_has_expired_since() -> None:
    state = Gateway()
    state.begin()
    state.call("run-a", None, stream=True, model="both")
    state.time_passes(41)
    state.stop("agent-a")
    assert not state.upstream.waiting
    state.teardown()


TestGateway = Gateway.TestCase
TestGateway.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
