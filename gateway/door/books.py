"""What model calls and tool calls share: the deciding transaction, and the ways into the ledger.

A reserved attempt ends in exactly one of three ways: settled, given up (the other side did not
answer), or abandoned (cut off in the middle, so that nobody knows).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar

from gateway import calls
from gateway.access.directory import Directory, InForce, Standing
from gateway.budgets import Ceiling, Rules
from gateway.calls import Ask, CallState, Ledger, Next, Settlement, Stored
from gateway.database import Database, GroupCommit, Hooks, Row, Transaction
from gateway.live import LiveCall, LiveCalls
from gateway.pricing import Usage
from gateway.refusals import Code, Refusal
from gateway.routing import Failure
from gateway.telemetry import Observation, Outcome, Telemetry
from gateway.values import Clock, Label, Millis, NanoUSD

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attempt:
    """A reserved attempt: its row, the ceilings it was admitted under, the policy of then."""

    row: Row
    over: tuple[Ceiling, ...]
    policy: InForce
    begun: float
    """Seconds of a clock that never goes back."""

    @property
    def model_id(self) -> str | None:
        """The model as its provider names it."""
        return None

    @property
    def provider_kind(self) -> str | None:
        """What its provider speaks."""
        return None

    @property
    def label(self) -> Label:
        """What its answer is labelled."""
        return _label(self.row["label"])


class Memory(Hooks):
    """What the gateway keeps in memory of what is on disk, kept true at every group of writes."""

    def __init__(
        self, observe: Callable[[int, float], None] = lambda _size, _seconds: None
    ) -> None:
        self.ledger = Ledger()
        self.directory = Directory()
        self._observe = observe
        self._epoch = -1

    def begin(self, tx: Transaction) -> None:
        # Not what `refresh` says: the event loop may have been the first to see that it moved.
        self.directory.refresh(tx)
        if self.directory.epoch != self._epoch:
            self._epoch = self.directory.epoch
            self.ledger.refresh()

    def finish(self, tx: Transaction) -> None:
        self.ledger.finish(tx)

    def failed(self) -> None:
        self.ledger.forget()

    def committed(self, size: int, seconds: float) -> None:
        self._observe(size, seconds)


class Changed(Exception):
    """The policy is another one than the call was prepared under: prepare it again."""


class Books:
    """Decides, settles and gives up attempts; every write is durable when it returns."""

    def __init__(
        self,
        database: Database,
        commits: GroupCommit,
        memory: Memory,
        clock: Clock,
        live: LiveCalls,
        telemetry: Telemetry,
        monotonic: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._database = database
        self._commits = commits
        self._memory = memory
        self.clock = clock
        self._live = live
        self._telemetry = telemetry
        self.monotonic = monotonic

    @property
    def ledger(self) -> Ledger:
        """For deciding work, which runs on the thread that the ledger belongs to."""
        return self._memory.ledger

    def now(self) -> Millis:
        """The time for a deciding transaction."""
        return self.clock.now()

    def caller(self, token_hash: str, *, certainly: bool = False) -> tuple[Standing, InForce]:
        """Who calls and what is in force as far as this process knows, for preparing a call.
        `certainly`: as it is on disk. Raises Refusal, and that is always certain."""
        directory = self._memory.directory
        if certainly:
            directory.refresh(self._database)
        now = self.clock.now()
        try:
            standing = directory.standing(self._database, token_hash, now)
        except Refusal:
            if certainly or not directory.refresh(self._database):
                raise
            standing = directory.standing(self._database, token_hash, now)
        return standing, directory.in_force(self._database)

    def deciding(self, tx: Transaction, token_hash: str, now: Millis) -> tuple[Standing, InForce]:
        """The same within a deciding transaction, where it is certain. Raises Refusal."""
        directory = self._memory.directory
        return directory.standing(tx, token_hash, now), directory.in_force(tx)

    def answered(self, call: LiveCall) -> bool:
        """Has it been settled already, so that nothing outside need be asked for it?"""
        if call.fresh:
            return False
        rows = calls.attempts(self._database, call.key)
        return any(row["state"] == CallState.SETTLED for row in rows)

    def standing(
        self, tx: Transaction, call: LiveCall, ask: Ask, *, rules: Rules, now: Millis
    ) -> Stored | Next | Refusal:
        """What the ledger says about sending this request now."""
        others = () if ask.fresh and not ask.changes else self._live.others(call)
        return calls.standing(tx, self.ledger, ask, live=others, rules=rules, now=now)

    async def decide(self, call: LiveCall, work: Callable[[Transaction], T]) -> T | Refusal:
        """Run a deciding transaction; what it refuses is returned, so that its writes stay."""

        def decide(tx: Transaction) -> T | Refusal:
            try:
                return work(tx)
            except Refusal as refusal:
                return refusal

        writing = self._commits.decide(decide)
        try:
            opened = await asyncio.shield(writing)
            call.attempts += isinstance(opened, Attempt)
            return opened
        except asyncio.CancelledError:
            # Cut while the reservation was being written: nothing is sent, so give it back.
            opened = await writing
            if isinstance(opened, Attempt):
                await self.give_up(call, opened, Failure("cut before it was sent", done=False))
            raise

    def settle(
        self,
        call: LiveCall,
        attempt: Attempt,
        settlement: Settlement,
        response: str | None,
        *,
        usage: Usage | None = None,
        also: Callable[[Transaction, Millis], None] | None = None,
    ) -> asyncio.Future[tuple[int, int, int]]:
        """Write what it cost and its answer (JSON); the future's end is that it is on disk.

        Its result is what all attempts of the key have cost: nano-dollars, input and output
        tokens. The write is on its way when this returns, whether anybody waits for it or not; who
        waits shields it (`asyncio.shield`), as an answer that is here must not be lost.
        `also` writes what belongs to the answer, in the same transaction.
        """

        def write(tx: Transaction) -> tuple[int, int, int]:
            now, row = self.clock.now(), attempt.row
            self.ledger.settle(
                tx,
                row,
                settlement,
                response=response,
                label=attempt.label,
                over=attempt.over,
                rules=self._rules(tx, attempt),
                now=now,
            )
            if also is not None:
                also(tx, now)
            if row["attempt"] == 0:
                return settlement.cost_nano, settlement.input_tokens, settlement.output_tokens
            self.ledger.write(tx)
            return calls.summary(calls.attempts(tx, call.key))

        self.observe(call, attempt, Outcome.SETTLED, usage=usage, cost=settlement.cost_nano)
        return self._commits.decide(write)

    def tell(self, *, kind: str, agent: str | None, identity: tuple[str, ...], text: str) -> None:
        """Record an alert, once; nobody waits for it."""
        now = self.clock.now()
        self._commits.decide(
            lambda tx: calls.alert(
                tx, kind=kind, agent=agent, identity=identity, text=text, now=now
            )
        )

    def look_again(self) -> bool:
        """Has something changed that this process's view did not show? It does from now on."""
        return self._memory.directory.refresh(self._database)

    async def give_up(self, call: LiveCall, attempt: Attempt, failure: Failure) -> None:
        """No answer: released when the other side surely did nothing, else unknown."""

        def write(tx: Transaction) -> None:
            rules, now, row = self._rules(tx, attempt), self.clock.now(), attempt.row
            why = failure.message
            if failure.done:
                self.ledger.lose(tx, row, error=why, rules=rules, over=attempt.over, now=now)
            else:
                self.ledger.release(tx, row, error=why, rules=rules, now=now)

        outcome = Outcome.UNKNOWN if failure.done else Outcome.RELEASED
        cost = attempt.row["reserved_nano"] if failure.done else 0
        self.observe(call, attempt, outcome, code=failure.code, cost=cost)
        await asyncio.shield(self._commits.decide(write))

    async def abandon(self, call: LiveCall, attempt: Attempt, error: BaseException) -> None:
        """Cut off in the middle (revoked, stopped, shutting down, a fault of ours): nobody
        knows."""
        why = call.cut.message if call.cut else f"cut off: {type(error).__name__}"
        with contextlib.suppress(asyncio.CancelledError):
            await self.give_up(call, attempt, Failure(why, done=True))

    def observe(
        self,
        call: LiveCall,
        attempt: Attempt,
        outcome: Outcome,
        *,
        usage: Usage | None = None,
        cost: int = 0,
        code: Code | None = None,
    ) -> None:
        """Tell of an attempt that has ended."""
        row = attempt.row
        begun = attempt.begun
        first = None if call.first is None else int((call.first - begun) * 1e6)
        self._telemetry.observe(
            Observation(
                kind=row["kind"],
                outcome=outcome,
                started_at=row["reserved_at"],
                duration_us=int((self.monotonic() - begun) * 1e6),
                first_token_us=first,
                code=code,
                who=call.who,
                key=call.key,
                attempt=row["attempt"],
                dialect=row["api"] or "mcp",
                streamed=call.streams,
                asked=row["asked"],
                target=row["target"],
                model_id=attempt.model_id,
                provider=row["provider"],
                provider_kind=attempt.provider_kind,
                usage=usage,
                findings=tuple(call.findings),
                audited=tuple(call.audited),
                cost_nano=NanoUSD(cost),
                price_table=row["price_table"],
                label=row["label"],
                traceparent=call.traceparent,
            )
        )

    def refused(
        self, kind: Literal["model", "tool"], call: LiveCall | None, refusal: Refusal
    ) -> None:
        """Tell of a call that was refused; `call` is None when it never became one. One that was
        sent has been told of by its attempts."""
        if call is not None and call.attempts:
            return
        self._telemetry.observe(
            Observation(
                kind=kind,
                outcome=Outcome.REFUSED,
                started_at=self.clock.now(),
                duration_us=0,
                code=refusal.code,
                who=call.who if call else None,
                key=call.key if call else None,
                rule=refusal.facts.get("rule"),
                findings=tuple(call.findings) if call else (),
                audited=tuple(call.audited) if call else (),
                traceparent=call.traceparent if call else None,
            )
        )

    def replayed(self, call: LiveCall, row: Row, outcome: Outcome) -> None:
        """Tell of a call that was answered from what is stored."""
        self._telemetry.observe(
            Observation(
                kind=row["kind"],
                outcome=outcome,
                started_at=self.clock.now(),
                duration_us=0,
                who=call.who,
                key=call.key,
                attempt=row["attempt"],
                dialect=row["api"] or "mcp",
                streamed=call.streams,
                asked=row["asked"],
                target=row["target"],
                provider=row["provider"],
                label=row["label"],
                traceparent=call.traceparent,
            )
        )

    def _rules(self, tx: Transaction, attempt: Attempt) -> Rules:
        """The rules in force now; those of the reservation when the policy has gone away."""
        try:
            return self._memory.directory.in_force(tx).rules
        except Refusal:
            return attempt.policy.rules


_label = lru_cache(maxsize=64)(Label.parse)
"""There are six labels."""


def exhausted(failures: list[Failure]) -> Refusal:
    """What the client hears when no target is left: the last reason, and all of them in words."""
    if not failures:
        return Refusal(Code.PROVIDER_ERROR, "the model has no target whose provider is declared")
    busy = all(failure.code is Code.PROVIDER_BUSY for failure in failures)
    last = failures[-1].code
    code = Code.PROVIDER_ERROR if last is Code.PROVIDER_BUSY and not busy else last
    waits = [f.retry_after for f in failures if f.retry_after is not None]
    return Refusal(
        code,
        "; ".join(failure.message for failure in failures),
        retry_after=min(waits, default=None) if busy else None,
    )
