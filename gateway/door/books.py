"""What model calls and tool calls share: the deciding transaction, and the ways into the ledger.

A reserved attempt ends in exactly one of three ways: settled, given up (the other side did not
answer), or abandoned (cut off in the middle, so that nobody knows).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway import access, calls
from gateway.budgets import Ceiling
from gateway.calls import Ask, Next, Settlement, Stored
from gateway.database import GroupCommit, Row, Transaction
from gateway.live import Finished, LiveCall, LiveCalls
from gateway.policy import BudgetRule, Policy
from gateway.providers.conversation import Done, Reply
from gateway.refusals import Code, Refusal
from gateway.routing import Failure
from gateway.values import Clock, Label, Millis

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attempt:
    """A reserved attempt: its row, the ceilings it was admitted under, the policy of then."""

    row: Row
    over: tuple[Ceiling, ...]
    policy: Policy

    @property
    def label(self) -> Label:
        """What its answer is labelled."""
        return Label.parse(self.row["label"])


class Books:
    """Decides, settles and gives up attempts; every write is durable when it returns."""

    def __init__(self, commits: GroupCommit, clock: Clock, live: LiveCalls) -> None:
        self._commits = commits
        self._clock = clock
        self._live = live

    def now(self) -> Millis:
        """The time for a deciding transaction."""
        return self._clock.now()

    def standing(
        self, tx: Transaction, call: LiveCall, ask: Ask, *, policy: Policy, now: Millis
    ) -> Stored | Next | Refusal:
        """What the ledger says about sending this request now."""
        others = self._live.others(call)
        return calls.standing(tx, ask, live=others, rules=policy.budgets, now=now)

    async def decide(self, work: Callable[[Transaction], T]) -> T | Refusal:
        """Run a deciding transaction; what it refuses is returned, so that its writes stay."""

        def decide(tx: Transaction) -> T | Refusal:
            try:
                return work(tx)
            except Refusal as refusal:
                return refusal

        writing = asyncio.ensure_future(self._commits.write(decide))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            # Cut while the reservation was being written: nothing is sent, so give it back.
            opened = await writing
            if isinstance(opened, Attempt):
                await self.give_up(opened, Failure("cut before it was sent", done=False))
            raise

    async def settle(
        self, call: LiveCall, attempt: Attempt, settlement: Settlement, response: Any
    ) -> None:
        """Write what it cost and its answer; then the call is finished."""

        def write(tx: Transaction) -> tuple[int, int, int]:
            calls.settle(
                tx,
                attempt.row,
                settlement,
                response=response,
                label=attempt.label,
                over=attempt.over,
                rules=_rules(tx, attempt.policy),
                now=self._clock.now(),
            )
            return calls.summary(calls.attempts(tx, call.key))

        # Shielded: an answer that is here must not be lost because somebody cancels the task.
        cost, tokens_in, tokens_out = await asyncio.shield(self._commits.write(write))
        call.finish(
            Finished(
                response=response,
                cost_nano=cost,
                input_tokens=tokens_in,
                output_tokens=tokens_out,
                replayed=False,
            )
        )

    async def give_up(self, attempt: Attempt, failure: Failure) -> None:
        """No answer: released when the other side surely did nothing, else unknown."""

        def write(tx: Transaction) -> None:
            rules, now = _rules(tx, attempt.policy), self._clock.now()
            if failure.done:
                calls.lose(
                    tx,
                    attempt.row,
                    error=failure.message,
                    rules=rules,
                    over=attempt.over,
                    now=now,
                )
            else:
                calls.release(tx, attempt.row, error=failure.message, rules=rules, now=now)

        await asyncio.shield(self._commits.write(write))

    async def abandon(self, call: LiveCall, attempt: Attempt, error: BaseException) -> None:
        """Cut off in the middle (revoked, stopped, shutting down, a fault of ours): nobody
        knows."""
        why = call.cut.message if call.cut else f"cut off: {type(error).__name__}"
        with contextlib.suppress(asyncio.CancelledError):
            await self.give_up(attempt, Failure(why, done=True))


def replay(call: LiveCall, row: Row) -> None:
    """Give a stored answer again, as the events it came in."""
    response = json.loads(row["response"])
    call.begin(target=row["target"], label=Label.parse(row["label"]), effect_key=row["effect_key"])
    if row["kind"] == "model":
        for event in Reply.from_json(response).events():
            if not isinstance(event, Done):
                call.add(event)
    call.finish(Finished(response, 0, 0, 0, replayed=True))


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


def _rules(tx: Transaction, policy: Policy) -> tuple[BudgetRule, ...]:
    """The rules in force now; those of the reservation when the policy has gone away."""
    try:
        return access.current_policy(tx)[1].budgets
    except Refusal:
        return policy.budgets
