"""Takes a leased run as far as it goes: `advance` until it is finished or has to wait.

The engine keeps the lease alive, honours kills, and sorts what goes wrong. A fault of the
surroundings (no Docker, no gateway) is nobody's result: the run is given back and continued
later. A fault that keeps coming back is the run's own end, `error`, with its text. A fenced runner
drops the run without a word to the database: another one has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from gateway import calls
from gateway.values import CallKey, NanoUSD, RunId, StepPath
from runner.client import GatewayUnreachable
from runner.harness import BuiltinHarness, Meter, Scope, Sent
from runner.identity import Identity, Parts, Successor, open_calls
from runner.journal import Diverged, Done, Journal, Kind
from runner.queue import Fenced, Lease
from runner.redact import Redactor
from runner.sandbox.contract import SandboxLost, SandboxUnavailable
from runner.spec import RunOutcome, StopReason
from runner.workspace import Files, WorkspaceError, read_tree

log = logging.getLogger("interlock.runner")

ATTEMPTS = 3
"""Times a run may fail unexpectedly under one lease before that is its outcome."""
MAX_FRUITLESS = 4
"""Leases in a row under which a run killed its runner, or lost its container, before a step was
done. One fewer than the deaths after which a supervisor gives the runner up: the run ends first."""
MAX_BACKOFF_MS = 60_000


@dataclass(frozen=True, slots=True)
class Finished:
    """The run has an outcome."""

    outcome: RunOutcome


@dataclass(frozen=True, slots=True)
class Yielded:
    """The run is not over and this runner no longer has it. `retry_ms`: wait that long before
    taking work again, because the surroundings are broken (0: they are not)."""

    reason: str
    retry_ms: int = 0


class _Killed(Exception):
    """The run is to end now; the text says why."""


class Engine:
    """Executes leased runs, any number at a time."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._faults = 0

    async def advance(self, lease: Lease) -> Finished | Yielded:
        """Execute until the run is finished or must be left. Never raises for a run's faults.

        On cancellation the lease is given back and the container kept for who continues.
        """
        try:
            outcome, close = await self._under_lease(lease)
        except Fenced:
            log.info("run dropped: another runner has it", extra={"run": lease.run})
            return Yielded("fenced")
        except asyncio.CancelledError:
            with contextlib.suppress(Fenced):
                await asyncio.shield(asyncio.to_thread(self._parts.queue.give_back, lease))
            raise
        except (GatewayUnreachable, SandboxLost, SandboxUnavailable) as error:
            return await self._give_back(lease, error)
        try:
            await asyncio.to_thread(self._parts.queue.finish, lease, outcome)
        except Fenced:
            return Yielded("fenced")
        self._faults = 0
        await self._end(lease, close)
        return Finished(outcome)

    async def _give_back(self, lease: Lease, error: Exception) -> Yielded:
        self._faults += 1
        wait = min(MAX_BACKOFF_MS, 1000 * 2 ** min(self._faults, 10))
        log.warning("run given back: %s", error, extra={"run": lease.run})
        with contextlib.suppress(Fenced):
            # No engine and no gateway are nobody's doing; a container that goes may be the run's.
            suspect = isinstance(error, SandboxLost)
            await asyncio.to_thread(self._parts.queue.give_back, lease, suspect=suspect)
        return Yielded(f"{type(error).__name__}: {error}", retry_ms=wait)

    async def _end(self, lease: Lease, close: Callable[[], Awaitable[None]]) -> None:
        """Take the run's container and socket away. What fails here is done at the next start."""
        sockets = self._parts.sockets
        try:
            try:
                await close()
            finally:
                if sockets is not None:
                    await sockets.close(lease.run)
        except Exception as error:
            log.warning("left for the next start: %s", error, extra={"run": lease.run})

    # ---------------------------------------------------------------- execution

    async def _under_lease(self, lease: Lease) -> tuple[RunOutcome, Callable[[], Awaitable[None]]]:
        """Execute with the lease kept alive beside; a kill or a lost lease ends the work."""
        kill = await asyncio.to_thread(self._parts.queue.renew, lease)
        if kill:
            return await self._ended_early(lease, StopReason.KILLED, kill)
        if lease.fruitless >= MAX_FRUITLESS:
            return await self._ended_early(
                lease,
                StopReason.ERROR,
                f"given up after {lease.fruitless} tries in a row that ended with the runner's or "
                "the container's death before a step was done. See the runner's log and the "
                "machine's memory, then start the run anew.",
            )
        work = asyncio.create_task(self._attempts(lease))
        watch = asyncio.create_task(self._watch(lease))
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await work
            watch.result()
            raise RuntimeError("the lease's watch ended without a reason")
        except _Killed as killed:
            return await self._ended_early(lease, StopReason.KILLED, str(killed))
        except _OutOfTime as late:
            return await self._ended_early(lease, StopReason.TIME_BUDGET, str(late))
        finally:
            work.cancel()
            watch.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)

    async def _watch(self, lease: Lease) -> None:
        """Renew until something speaks against it. Raises _Killed, _OutOfTime, Fenced."""
        wall = lease.spec.limits.max_wall_ms
        while True:
            await self._parts.sleep(self._parts.renew_ms / 1000)
            kill = await asyncio.to_thread(self._parts.queue.renew, lease)
            if kill:
                raise _Killed(kill)
            if wall is not None:
                # Between steps the loop itself sees the limit; this is for a step that hangs.
                started = await asyncio.to_thread(self._first_step_at, lease.run)
                if started is not None and self._parts.clock.now() > started + wall:
                    raise _OutOfTime(f"max_wall_time is {wall} ms; the step under way was given up")

    def _first_step_at(self, run: RunId) -> int | None:
        row = self._parts.database.one(
            "SELECT at FROM journal WHERE run = :run ORDER BY seq LIMIT 1", run=run
        )
        return None if row is None else int(row["at"])

    async def _attempts(self, lease: Lease) -> tuple[RunOutcome, Callable[[], Awaitable[None]]]:
        last: Exception | None = None
        for attempt in range(ATTEMPTS):
            try:
                harness = BuiltinHarness(await self._scope(lease))
                outcome = await harness.execute()
                if lease.first and attempt == 0:
                    return outcome, harness.close
                # An earlier go may have left a container that this one had no need of.
                return outcome, self._reaper(lease.run, harness.close)
            except (Fenced, GatewayUnreachable, SandboxLost, SandboxUnavailable):
                raise
            except (Diverged, WorkspaceError) as error:
                last = error
                break
            except Exception as error:
                last = error
                log.exception(
                    "attempt %d of %d failed", attempt + 1, ATTEMPTS, extra={"run": lease.run}
                )
        return await self._ended_early(
            lease, StopReason.ERROR, f"{type(last).__name__}: {last}. See the runner's log."
        )

    async def _ended_early(
        self, lease: Lease, stop: StopReason, detail: str
    ) -> tuple[RunOutcome, Callable[[], Awaitable[None]]]:
        """An outcome for a run whose harness did not write one, with what it used so far."""
        journal = await asyncio.to_thread(self._journal, lease, Redactor())
        meter = Meter()
        for entry in journal.steps():
            intent = journal.find(entry.key, "intent")
            if entry.event == "outcome" and intent is not None:
                meter.add(Done(intent, entry))
        cut_off = stop in (StopReason.KILLED, StopReason.TIME_BUDGET)
        if cut_off and any(journal.is_tool(key) for key in open_calls(journal)):
            detail = (
                f"{stop}: {detail}. A tool call was under way and may have happened: look at the "
                "system it changes; the last step of the trace names it."
            )
            stop = StopReason.OUTCOME_UNKNOWN
        outcome = RunOutcome(
            stop=stop,
            detail=detail,
            notes=lease.spec.notes,
            steps=meter.steps,
            tokens=meter.tokens,
            cost_nano=NanoUSD(meter.cost_nano),
            working_ms=meter.working_ms,
        )
        return outcome, self._reaper(lease.run)

    def _reaper(
        self, ended: RunId, before: Callable[[], Awaitable[None]] | None = None
    ) -> Callable[[], Awaitable[None]]:
        """Removes every container of a run that is over, whoever opened it."""

        async def close() -> None:
            if before is not None:
                await before()
            await self._parts.sandboxes.reap(lambda run: run != ended, run=ended)

        return close

    # -------------------------------------------------------------------- scope

    async def _scope(self, lease: Lease) -> Scope:
        parts, spec = self._parts, lease.spec
        redactor = Redactor()
        journal = await asyncio.to_thread(self._journal, lease, redactor)
        identity = Identity(parts, lease, redactor)
        under_way = open_calls(journal)
        # A call that an earlier runner began may be running in the gateway right now. Revoking
        # its token would cut it off and make its outcome unknown; so first it is waited for.
        await identity.renew(revoke=not under_way)
        pristine: Files = {}
        if spec.workspace.path is not None:
            pristine = await asyncio.to_thread(read_tree, Path(spec.workspace.path))
        return Scope(
            run=lease.run,
            spec=spec,
            journal=journal,
            gateway=Successor(parts.gateway, under_way, identity) if under_way else parts.gateway,
            tokens=identity.tokens,
            sandboxes=parts.sandboxes,
            spent=self._spent,
            sent=lambda: asyncio.to_thread(self._sent, journal),
            pristine=pristine,
            open_socket=identity.open_socket,
            labels={"owner": parts.owner, "lease": str(lease.fence), "purpose": spec.purpose},
        )

    def _journal(self, lease: Lease, redactor: Redactor) -> Journal:
        parts = self._parts
        return Journal(
            parts.database,
            parts.commits,
            parts.clock,
            run=lease.run,
            fence=lease.fence,
            redactor=redactor,
        )

    async def _spent(self, key: CallKey) -> tuple[int, int]:
        """What the gateway's ledger, the truth for money, holds for a call."""

        def look() -> tuple[int, int]:
            with self._parts.database.snapshot() as tx:
                cost, into, out = calls.summary(calls.attempts(tx, key))
            return into + out, cost

        return await asyncio.to_thread(look)

    def _sent(self, journal: Journal) -> Sent:
        with self._parts.database.snapshot() as tx:
            rows = calls.of_run(tx, journal.run)
        own = {e.key for e in journal.steps() if e.kind in (Kind.MODEL, Kind.TOOL)}
        others = [
            row
            for row in rows
            if CallKey(journal.run, StepPath(row["step"]), row["call"]) not in own
        ]
        cost, into, out = calls.summary(others)
        tools = tuple(row["asked"] for row in rows if row["kind"] == "tool")
        return Sent(tools, into + out, cost)


class _OutOfTime(Exception):
    """A step hangs beyond the run's wall time."""
