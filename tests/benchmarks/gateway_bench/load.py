"""A closed loop of N keep-alive connections, much cheaper than what it drives.

    python -m tests.benchmarks.gateway_bench.load < JOB

Job and Result are JSON. Request bytes are made once, answers are looked at and not parsed. Every
answer must be complete, have status 200 and hold the marker; the first that does not ends the run,
with its bytes. Nothing that was asked is left unanswered: after the deadline each connection awaits
its last answer, so that `replies` can be compared with a ledger.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import uvloop

CRLF = "\r\n"
SILENCE_SECONDS = 20.0
"""A run in which nothing arrives for so long has failed."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to do: `requests` (text) are dealt out to the connections in turn."""

    port: int
    requests: list[str]
    marker: str
    connections: int
    seconds: float
    replies: int = 0
    """Stop after so many, whatever the time; 0: only time counts."""


@dataclass(slots=True)
class Result:
    """What came of it; times in microseconds. `first` is when the marker was seen."""

    replies: int = 0
    seconds: float = 0.0
    whole_us: list[float] = field(default_factory=list)
    first_us: list[float] = field(default_factory=list)


class _Run:
    """What the connections of one run share."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.marker = job.marker.encode()
        self.whole: list[int] = []
        self.first: list[int] = []
        self.begun = time.perf_counter_ns()
        self.deadline = self.begun + int(job.seconds * 1e9)
        self.asked = 0
        self.open = job.connections
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def more(self, now: int) -> bool:
        """May another request be sent? Counts it if so."""
        if now >= self.deadline or (self.job.replies and self.asked >= self.job.replies):
            return False
        self.asked += 1
        return True

    def closed(self) -> None:
        self.open -= 1
        if not self.open and not self.over.done():
            self.over.set_result(None)

    def failed(self, text: str) -> None:
        if not self.over.done():
            self.over.set_exception(RuntimeError(text))


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run, request: bytes) -> None:
        self._run = run
        self._request = request
        self._seen = b""
        self._end = -1  # length of the whole answer; -1: not known yet, 0: chunked
        self._sent = 0
        self._first = 0
        self._done = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask(time.perf_counter_ns())

    def _ask(self, now: int) -> None:
        if self._run.more(now):
            self._seen, self._end, self._first, self._sent = b"", -1, 0, now
            self._transport.write(self._request)
        else:
            self._done = True
            self._transport.close()
            self._run.closed()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter_ns()
        self._seen = seen = self._seen + data if self._seen else data
        if not self._first and self._run.marker in seen:
            self._first = now
        if self._end < 0:
            head = seen.find(b"\r\n\r\n") + 4
            if head < 4:
                return
            self._end = _length(seen[:head])
        if len(seen) < self._end or (not self._end and not seen.endswith(b"\r\n0\r\n\r\n")):
            return
        if seen[9:12] != b"200" or not self._first or len(seen) > self._end > 0:
            status, _, rest = seen.decode(errors="replace").partition("\r\n")
            self._run.failed(f"unexpected answer: {status} {rest.partition(2 * CRLF)[2][:500]}")
            self._transport.abort()
            return
        self._run.whole.append(now - self._sent)
        self._run.first.append(self._first - self._sent)
        self._ask(now)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done:
            seen = self._seen[:2000].decode(errors="replace")
            self._run.failed(f"the connection was closed ({error}) after: {seen}")


def _length(head: bytes) -> int:
    """Bytes of the whole answer, from its head; 0 when it comes in chunks."""
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    if at >= 0:
        return len(head) + int(lower[at + 17 : lower.index(b"\r\n", at + 2)])
    return 0 if b"\r\ntransfer-encoding: chunked" in lower else len(head)


async def _drive(job: Job) -> Result:
    loop = asyncio.get_running_loop()
    run = _Run(job)
    loop.set_exception_handler(lambda _, context: run.failed(repr(context)))
    requests = [request.encode() for request in job.requests]
    for number in range(job.connections):
        request = requests[number % len(requests)]
        await loop.create_connection(partial(_Connection, run, request), "127.0.0.1", job.port)
    before = -1
    while not run.over.done():
        await asyncio.wait([run.over], timeout=SILENCE_SECONDS)
        if not run.over.done() and len(run.whole) == before:
            raise RuntimeError(f"no answer for {SILENCE_SECONDS:.0f} s after {before} answers")
        before = len(run.whole)
    await run.over
    return Result(
        replies=len(run.whole),
        seconds=(time.perf_counter_ns() - run.begun) / 1e9,
        whole_us=[each / 1e3 for each in run.whole],
        first_us=[each / 1e3 for each in run.first],
    )


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(_drive(Job(**json.load(sys.stdin)))))))
