"""What model calls and tool calls share: the deciding transaction, and the ways into the ledger.

A reserved attempt ends in exactly one of three ways: settled, given up (the other side did not
answer), or abandoned (cut off in the middle, so that nobody knows).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from gateway import calls
from gateway.access.directory import Directory, InForce, Standing
from gateway.budgets import Ceiling, Rules
from gateway.calls import Ask, Ledger, Next, Settlement, Stored
from gateway.database import Database, GroupCommit, Hooks, Row, Transaction
from gateway.live import LiveCall, LiveCalls
from gateway.refusals import Code, Refusal
from gateway.routing import Failure
from gateway.values import Clock, Label, Millis

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attempt:
    """A reserved attempt: its row, the ceilings it was admitted under, the policy of then."""

    row: Row
    over: tuple[Ceiling, ...]
    policy: InForce

    @property
    def label(self) -> Label:
        """What its answer is labelled."""
        return Label.parse(self.row["label"])


class Memory(Hooks):
    """What the gateway keeps in memory of what is on disk, kept true at every group of writes."""

    def __init__(
        self, observe: Callable[[int, float], None] = lambda _size, _seconds: None
    ) -> None:
        self.ledger = Ledger()
        self.directory = Directory()
        self._observe = observe

    def begin(self, tx: Transaction) -> None:
        if self.directory.refresh(tx):
            self.ledger.refresh()

    def finish(self, tx: Transaction) -> None:
        self.ledger.finish(tx)

    def failed(self) -> None:
        self.ledger.forget()

    def committed(self, size: int, seconds: float) -> None:
        self._observe(size, seconds)


class Books:
    """Decides, settles and gives up attempts; every write is durable when it returns."""

    def __init__(
        self,
        database: Database,
        commits: GroupCommit,
        memory: Memory,
        clock: Clock,
        live: LiveCalls,
    ) -> None:
        self._database = database
        self._commits = commits
        self._memory = memory
        self._clock = clock
        self._live = live

    @property
    def ledger(self) -> Ledger:
        """For deciding work, which runs on the thread that the ledger belongs to."""
        return self._memory.ledger

    def now(self) -> Millis:
        """The time for a deciding transaction."""
        return self._clock.now()

    def caller(self, token_hash: str) -> tuple[Standing, InForce]:
        """Who calls and what is in force as far as this process knows: for preparing a call, and
        for listings. Raises Refusal."""
        directory = self._memory.directory
        standing = directory.standing(self._database, token_hash, self._clock.now())
        return standing, directory.in_force(self._database)

    def deciding(self, tx: Transaction, token_hash: str, now: Millis) -> tuple[Standing, InForce]:
        """The same within a deciding transaction, where it is certain. Raises Refusal."""
        directory = self._memory.directory
        return directory.standing(tx, token_hash, now), directory.in_force(tx)

    def standing(
        self, tx: Transaction, call: LiveCall, ask: Ask, *, rules: Rules, now: Millis
    ) -> Stored | Next | Refusal:
        """What the ledger says about sending this request now."""
        others = () if ask.fresh and not ask.changes else self._live.others(call)
        return calls.standing(tx, self.ledger, ask, live=others, rules=rules, now=now)

    async def decide(self, work: Callable[[Transaction], T]) -> T | Refusal:
        """Run a deciding transaction; what it refuses is returned, so that its writes stay."""

        def decide(tx: Transaction) -> T | Refusal:
            try:
                return work(tx)
            except Refusal as refusal:
                return refusal

        writing = asyncio.ensure_future(self._commits.decide(decide))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            # Cut while the reservation was being written: nothing is sent, so give it back.
            opened = await writing
            if isinstance(opened, Attempt):
                await self.give_up(opened, Failure("cut before it was sent", done=False))
            raise

    async def settle(
        self, call: LiveCall, attempt: Attempt, settlement: Settlement, response: str
    ) -> tuple[int, int, int]:
        """Write what it cost and its answer (JSON); what all attempts of the key have cost.

        The nano-dollars, input and output tokens of a call whose key is the gateway's own are
        those of this attempt: what its earlier attempts cost nobody can ask for.
        """

        def write(tx: Transaction) -> tuple[int, int, int]:
            self.ledger.settle(
                tx,
                attempt.row,
                settlement,
                response=response,
                label=attempt.label,
                over=attempt.over,
                rules=self._rules(tx, attempt),
                now=self._clock.now(),
            )
            if attempt.row["attempt"] == 0:
                return (
                    settlement.cost_nano,
                    settlement.input_tokens,
                    settlement.output_tokens,
                )
            self.ledger.write(tx)
            return calls.summary(calls.attempts(tx, call.key))

        # Shielded: an answer that is here must not be lost because somebody cancels the task.
        return await asyncio.shield(asyncio.ensure_future(self._commits.decide(write)))

    async def give_up(self, attempt: Attempt, failure: Failure) -> None:
        """No answer: released when the other side surely did nothing, else unknown."""

        def write(tx: Transaction) -> None:
            rules, now, row = self._rules(tx, attempt), self._clock.now(), attempt.row
            why = failure.message
            if failure.done:
                self.ledger.lose(tx, row, error=why, rules=rules, over=attempt.over, now=now)
            else:
                self.ledger.release(tx, row, error=why, rules=rules, now=now)

        await asyncio.shield(asyncio.ensure_future(self._commits.decide(write)))

    async def abandon(self, call: LiveCall, attempt: Attempt, error: BaseException) -> None:
        """Cut off in the middle (revoked, stopped, shutting down, a fault of ours): nobody
        knows."""
        why = call.cut.message if call.cut else f"cut off: {type(error).__name__}"
        with contextlib.suppress(asyncio.CancelledError):
            await self.give_up(attempt, Failure(why, done=True))

    def _rules(self, tx: Transaction, attempt: Attempt) -> Rules:
        """The rules in force now; those of the reservation when the policy has gone away."""
        try:
            return self._memory.directory.in_force(tx).rules
        except Refusal:
            return attempt.policy.rules


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
