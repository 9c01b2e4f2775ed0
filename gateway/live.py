"""A call while it runs: what came so far, for everyone who waits for it.

Several requests may follow one call (a client that lost its connection and asks again with the
same key); each is given the same pieces from the beginning, pushed as they come.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.refusals import Code, Refusal
from gateway.values import CallKey, Label, Millis, Principal, RunId, StepPath

WATCH_SECONDS = 0.2
"""How often running calls are checked for a revocation or a stop from another process."""
GIVEN = re.compile(r"[^/]+/[A-Za-z0-9][A-Za-z0-9._:@+~=-]{0,127}/\d{1,9}", re.ASCII)
"""Call keys that clients may give: they go into headers and BIGINT columns."""
OURS = re.compile(r"x\.\d{13,}", re.ASCII)
"""Steps of keys that the gateway makes. Nobody may give one: the row under it would be in the way
of the call that is given it next, and of every call in the same commit."""
Sink = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a call that was answered, and what this key has cost.

    `response` is a tool's result. A model's answer is `stored` (docs/formats/calls.md); `body` is
    the response for a client that does not stream and `tail` the end of a stream, where the call
    was carried out for such a client.
    """

    cost_nano: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    replayed: bool = False
    cached: bool = False
    response: Any = None
    stored: str = ""
    body: bytes = b""
    tail: bytes = b""


class LiveCall:
    """Pieces and end of one running call. Written by its task, followed by any number of clients.

    `streams`: its pieces are a stream in the dialect of the client it was begun for.
    """

    def __init__(
        self,
        key: CallKey,
        token_hash: str,
        request_hash: str,
        *,
        fresh: bool = False,
        streams: bool = False,
        who: Principal | None = None,
        traceparent: str | None = None,
        api: str | None = None,
    ) -> None:
        self.key = key
        self.who = who
        self.traceparent = traceparent
        self.api = api
        """The client's API; None for a tool call."""
        self.token_hash = token_hash
        self.request_hash = request_hash
        self.fresh = fresh
        self.streams = streams
        self.target: str | None = None
        self.label: Label | None = None
        self.effect_key: str | None = None
        self.cut: Refusal | None = None
        self.fault: Exception | None = None
        self.task: asyncio.Task[Any] | None = None
        self.findings: list[tuple[str, int]] = []
        """What guardrails found: (rule, how often)."""
        self.audited: list[str] = []
        """Rules in audit mode that would have refused."""
        self.attempts = 0
        """How often it has been sent, or was about to be."""
        self.first: float | None = None
        """When the first piece of the answer came, by a clock that never goes back."""
        self._pieces: list[bytes] = []
        self._sinks: list[Sink] = []
        self._end: Finished | Refusal | None = None
        self._news: asyncio.Event | None = None

    @property
    def said(self) -> bool:
        """Has any piece of the answer been given away?"""
        return bool(self._pieces)

    def begin(self, *, target: str, label: Label, effect_key: str | None) -> None:
        """Someone answers: from here on the headers are known."""
        self.target, self.label, self.effect_key = target, label, effect_key
        self._tell()

    def add(self, piece: bytes) -> None:
        """A piece of the answer."""
        self._pieces.append(piece)
        for sink in self._sinks:
            sink(piece)

    def finish(self, end: Finished) -> None:
        """The whole answer is there."""
        if self._end is None:
            self._end = end
        self._tell()

    def fail(self, refusal: Refusal) -> None:
        """There will be no (whole) answer. The first end stays."""
        if self._end is None:
            self._end = refusal
        self._tell()

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None

    async def _wait(self) -> None:
        if self._news is None:
            self._news = asyncio.Event()
        await self._news.wait()

    async def begun(self) -> None:
        """Wait until there is something to say. Raises Refusal when that is no."""
        while self.target is None and self._end is None:
            await self._wait()
        if self.target is None and isinstance(self._end, Refusal):
            raise self._end

    def follow(self, sink: Sink) -> None:
        """Give every piece from the first one to `sink`, as they come."""
        for piece in self._pieces:
            sink(piece)
        self._sinks.append(sink)

    async def finished(self) -> Finished:
        """Wait for the end. Raises Refusal."""
        while self._end is None:
            await self._wait()
        if isinstance(self._end, Refusal):
            raise self._end
        return self._end


class LiveCalls:
    """The calls this process is carrying out, by key.

    `barred` tells which of some token hashes may not call any more, and what they hear; it is
    asked a few times a second as long as anything runs. `boot` makes the keys of this process
    unlike any earlier's.
    """

    def __init__(
        self, barred: Callable[[Sequence[str]], Mapping[str, Refusal]], boot: Millis
    ) -> None:
        self._barred = barred
        self._boot = boot
        self._count = 0
        self._calls: dict[CallKey, LiveCall] = {}
        self._watcher: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def key(self, run: RunId, given: str | None) -> CallKey:
        """The key a client gave, or a new one of its run. Raises Refusal (invalid_call_key)."""
        if given is None:
            self._count += 1
            return CallKey(run, StepPath(f"x.{self._boot}{self._count:06d}"))
        try:
            key = CallKey.parse(given)
        except ValueError:
            key = None
        if key is None or not GIVEN.fullmatch(given) or OURS.fullmatch(key.step):
            raise Refusal(
                Code.INVALID_CALL_KEY,
                f"not a call key: {given[:200]!r}; expected `run/step/call` with a step of at most "
                "128 letters, digits and . _ : @ + ~ = -, other than those the gateway makes",
            )
        if key.run != run:
            raise Refusal(
                Code.INVALID_CALL_KEY, f"call key {given} is not of the caller's run {run}"
            )
        return key

    def others(self, call: LiveCall) -> set[CallKey]:
        """The keys of everything else that is running."""
        # Asked on the writer's thread while the loop adds and removes: a copy first, in one step.
        return {key for key in tuple(self._calls) if key != call.key}

    def carry(self, call: LiveCall, run: Callable[[LiveCall], Awaitable[None]]) -> LiveCall:
        """The running call of this key, which is `call` if there is none yet.

        Raises Refusal (request_mismatch) when the key is running for another request.
        """
        found = self._calls.get(call.key)
        if found is not None:
            if found.request_hash != call.request_hash:
                raise Refusal(
                    Code.REQUEST_MISMATCH,
                    f"call {call.key} is running for another request; a new request needs a new "
                    "key",
                )
            return found
        self._add(call)
        call.task = asyncio.create_task(self._guard(call, run), name=f"call {call.key}")
        return call

    async def carry_here(
        self, call: LiveCall, run: Callable[[LiveCall], Awaitable[None]]
    ) -> LiveCall:
        """Carry out a call that nobody else can ask for, in the caller's own task; returns when it
        has ended. Its key is one that `key` has made."""
        self._add(call)
        call.task = asyncio.current_task()
        await self._guard(call, run)
        return call

    def _add(self, call: LiveCall) -> None:
        self._calls[call.key] = call
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch(), name="cut what is barred")

    async def _guard(self, call: LiveCall, run: Callable[[LiveCall], Awaitable[None]]) -> None:
        try:
            await run(call)
        except Refusal as refusal:
            call.fail(refusal)
        except asyncio.CancelledError:
            call.fail(call.cut or Refusal(Code.INTERNAL_ERROR, "the gateway is stopping"))
        except RecursionError:
            # Deep enough to be read and too deep to be written again.
            call.fail(Refusal(Code.INVALID_REQUEST, "the request is nested too deeply"))
        except Exception as error:
            call.fault = error
            call.fail(Refusal(Code.INTERNAL_ERROR, f"a fault of the gateway in call {call.key}"))
        finally:
            del self._calls[call.key]

    async def _watch(self) -> None:
        while self._calls:
            # A database that cannot be read now can be read later; nobody may be left uncut.
            with contextlib.suppress(Exception):
                self.cut_barred()
            await asyncio.sleep(WATCH_SECONDS)

    def cut_barred(self) -> int:
        """Cut running calls whose principal was revoked or stopped; returns how many."""
        barred = self._barred(sorted({call.token_hash for call in self._calls.values()}))
        cut = 0
        for call in list(self._calls.values()):
            if call.token_hash in barred and call.cut is None and call.task is not None:
                call.cut = barred[call.token_hash]
                call.task.cancel()
                cut += 1
        return cut

    async def drain(self, seconds: float) -> int:
        """Wait for running calls to end; cut the rest. Returns how many were cut."""
        tasks = [call.task for call in self._calls.values() if call.task is not None]
        if not tasks:
            return 0
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return len(late)
