"""A budget for a hundred calls, a thousand that want one, and a gateway that is killed again and
again: whatever happens, no more is spent than the budget, and nothing is served that the ledger
does not know."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway import calls
from gateway.policy import BudgetRule, Model, Price, Provider, Window
from gateway.values import NanoUSD
from tests.gateway.stage import Stage, ceiling, grants, policy, principal

CALLS = 1000
OUTPUT = 64
PRICE = Price(input=NanoUSD(0), output=NanoUSD(1000))
COST = OUTPUT * PRICE.output
"""Every answer uses all the output it may, so the worst case is what it costs."""
LIMIT = 100 * COST
BUDGET = BudgetRule(name="day", limit=NanoUSD(LIMIT), window=Window.DAY)


class Served:
    """A provider that counts what it carries out, whoever is still there to hear the answer."""

    def __init__(self, seed: int) -> None:
        self.marks: Counter[str] = Counter()
        self.busy = asyncio.Event()
        self._running = 0
        self._random = random.Random(seed)

    @property
    def count(self) -> int:
        return self.marks.total()

    def _run(self, more: int) -> None:
        self._running += more
        (self.busy.set if self._running else self.busy.clear)()

    async def __call__(self, read: asyncio.StreamReader, write: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await read.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                request = json.loads(await read.readexactly(length))
                # From here on it is carried out and costs money.
                self.marks[request["messages"][0]["content"]] += 1
                self._run(+1)
                try:
                    await asyncio.sleep(self._random.random() * 0.2)
                finally:
                    self._run(-1)
                message = {"role": "assistant", "content": "x"}
                body = json.dumps(
                    {
                        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                        "usage": {"prompt_tokens": 0, "completion_tokens": OUTPUT},
                    }
                ).encode()
                write.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n%b" % (len(body), body)
                )
                await write.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            write.close()


@dataclass
class World:
    """The clients, the provider, and what anybody has seen of the ledger."""

    stage: Stage
    seed: int
    served: Served = field(init=False)
    ends: Counter[str] = field(default_factory=Counter)
    answered: dict[str, int] = field(default_factory=dict)
    up: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.served = Served(self.seed)

    def look(self) -> int:
        """At this moment: what is spent or may have been, and never more than the budget."""
        rows = self.stage.database.read(
            "SELECT state, COALESCE(SUM(cost_nano), 0) AS cost,"
            " COALESCE(SUM(reserved_nano), 0) AS reserved FROM calls GROUP BY state"
        )
        by = {row["state"]: row for row in rows}
        spent = sum(by[state]["cost"] for state in ("settled", "unknown") if state in by)
        held = by["reserved"]["reserved"] if "reserved" in by else 0
        assert spent + held <= LIMIT, (spent, held)
        return int(spent)

    async def ask(self, number: int, *, keyed: bool) -> str:
        """One client with one question: again and again until there is an answer to it."""
        body = json.dumps(
            {"model": "gpt", "messages": [{"role": "user", "content": f"call {number}"}]}
        ).encode()
        key = f"X-Interlock-Call-Key: run-1/{number}/0\r\n" if keyed else ""
        request = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
            f"Authorization: Bearer token-of-run-1\r\n{key}Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        for _ in range(50):
            await self.up.wait()
            try:
                ready = self.stage.ready
                read, write = await asyncio.open_connection(ready["host"], ready["port"])
                try:
                    write.write(request)
                    answer = await read.read()
                finally:
                    write.close()
                head, _, said = answer.partition(b"\r\n\r\n")
                status = int(head.split(b" ", 2)[1])
                document = json.loads(said)
            except (OSError, ValueError, IndexError):
                await asyncio.sleep(0.02)
                continue
            if status == 200:
                self.answered[f"call {number}"] = number
                return "answered"
            code = str(document["error"]["code"])
            if not document["error"]["retryable"]:
                return code
            await asyncio.sleep(0.02)
        return "gave up"

    async def ask_all(self, at_once: int) -> None:
        """A thousand questions, so many at a time; two of three have a key."""
        numbers = iter(range(CALLS))

        async def worker() -> None:
            for number in numbers:
                self.ends[await self.ask(number, keyed=number % 3 != 0)] += 1

        await asyncio.gather(*(worker() for _ in range(at_once)))

    async def restart(self, how: signal.Signals) -> None:
        """End the process and start another one; clients wait in the meantime."""
        process = self.stage.process
        assert process is not None
        process.send_signal(how)
        status = await asyncio.to_thread(process.wait, 30)
        self.up.clear()
        assert status == (0 if how is signal.SIGTERM else -how)
        self.look()
        if how is signal.SIGTERM:
            assert not self.open_rows(), "it left in good order"
        await asyncio.to_thread(self.stage.start)
        self.up.set()

    def open_rows(self) -> list[Any]:
        return [row for row in self.stage.rows() if row["state"] == "reserved"]


def begin(stage: Stage, seed: int, port: int) -> World:
    stage.publish(
        policy(
            providers={"fake": Provider(kind="openai", base_url=f"http://127.0.0.1:{port}/v1")},
            models={"gpt": Model(provider="fake", id="g", price=PRICE, max_output_tokens=OUTPUT)},
            budgets=(BUDGET,),
        ),
        {"triage": ceiling()},
    )
    stage.issue(principal(), grants())
    return World(stage, seed)


async def run(stage: Stage, seed: int, how: signal.Signals, *, times: int, at_once: int) -> World:
    """All of it: the clients ask while the gateway is ended `times` times at random moments."""
    chance = random.Random(seed)
    world: World | None = None

    async def serve(read: asyncio.StreamReader, write: asyncio.StreamWriter) -> None:
        assert world is not None
        await world.served(read, write)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512)
    world = begin(stage, seed, server.sockets[0].getsockname()[1])
    await asyncio.to_thread(stage.start)
    world.up.set()
    asking = asyncio.create_task(world.ask_all(at_once))

    async def watch() -> None:
        while True:
            world.look()
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    for _ in range(times):
        # Calls are running now, and many still will be then: they take up to twice as long.
        busy = asyncio.create_task(world.served.busy.wait())
        await asyncio.wait({busy, asking}, return_when=asyncio.FIRST_COMPLETED)
        busy.cancel()
        await asyncio.sleep(chance.random() * 0.1)
        await world.restart(how)
    await asyncio.wait_for(asking, 50)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert watching.cancelled(), "the ledger was over the budget at some moment"
    assert await asyncio.to_thread(stage.terminate) == 0
    server.close()
    return world


def check(world: World) -> None:
    """What holds at the end, however it went."""
    stage = world.stage
    assert not world.open_rows()
    rows = stage.rows()
    states = Counter(row["state"] for row in rows)
    spent = world.look()
    assert spent <= LIMIT
    assert spent > LIMIT - 2 * COST, "the budget is used, not lost"
    assert world.served.count * COST <= LIMIT, "never more was carried out than paid for"
    assert world.served.count <= states["settled"] + states["unknown"], "nothing is unbilled"
    assert set(world.ends) <= {"answered", "budget_exceeded"}, world.ends
    assert world.ends["answered"] <= states["settled"]
    settled = Counter((r["step"], r["call"]) for r in rows if r["state"] == "settled")
    assert set(settled.values()) <= {1}
    attempts = Counter((r["step"], r["call"], r["attempt"]) for r in rows)
    assert max(attempts.values()) == 1
    with stage.database.transaction() as tx:
        assert calls.audit(tx, (BUDGET,)) == {}
    # Each key: what was answered to its client is what stands there, paid once.
    keyed = {row["step"] for row in rows if not row["step"].startswith("x.")}
    for step in keyed:
        sent = world.served.marks[f"call {step}"]
        tries = [row for row in rows if row["step"] == step]
        assert sent <= len(tries), f"call {step} was carried out more often than it is booked"


@pytest.mark.parametrize("seed, at_once", [(1, 12), (2, 12), (3, CALLS)])
def test_killed_again_and_again_it_never_spends_more_than_the_budget(
    stage: Stage, seed: int, at_once: int
) -> None:
    world = asyncio.run(run(stage, seed, signal.SIGKILL, times=5, at_once=at_once))
    check(world)
    lost = [row["reserved_at"] for row in stage.rows() if row["state"] == "unknown"]
    assert lost, "no kill hit a running call"
    if at_once == 12:
        assert len(lost) > 12, "only one kill hit running calls"


@pytest.mark.parametrize("at_once", [12, CALLS])
def test_asked_to_leave_again_and_again_it_leaves_nothing_unknown(
    stage: Stage, at_once: int
) -> None:
    world = asyncio.run(run(stage, 4, signal.SIGTERM, times=3, at_once=at_once))
    check(world)
    states = Counter(row["state"] for row in stage.rows())
    assert not states["unknown"]
    assert world.served.count == states["settled"] == 100
