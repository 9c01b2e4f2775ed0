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
from typing import Protocol

from gateway import access, calls
from gateway.database import Database, Transaction
from gateway.values import CallKey, Clock, Millis, NanoUSD, Principal, RunId
from runner.client import Gateway, GatewayUnreachable, Sleep
from runner.harness import BuiltinHarness, Meter, Scope
from runner.journal import Commits, Diverged, Done, Journal
from runner.queue import Fenced, Lease, Queue, check_fence
from runner.redact import Redactor
from runner.sandbox.contract import Sandboxes, SandboxLost, SandboxUnavailable
from runner.spec import RunOutcome, StopReason
from runner.workspace import Files, WorkspaceError, read_tree

log = logging.getLogger("interlock.runner")

ATTEMPTS = 3
"""Times a run may fail unexpectedly under one lease before that is its outcome."""
TOKEN_GRACE_MS = 24 * 3_600_000
"""How long a run token outlives the run's wall time: a lease renews it by issuing new ones."""
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
    """None: containers get no way to the gateway (the builtin harness needs none)."""
    owner: str = "runner"
    renew_ms: int = 10_000


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
            await asyncio.to_thread(self._parts.queue.give_back, lease)
        return Yielded(f"{type(error).__name__}: {error}", retry_ms=wait)

    async def _end(self, lease: Lease, close: Callable[[], Awaitable[None]]) -> None:
        """Take the run's rights and its container away. What fails here the reaper finishes."""
        now = self._parts.clock.now()

        def revoke(tx: Transaction) -> None:
            access.revoke(tx, run=lease.run, why="the run is finished", now=now)

        await self._parts.commits.write(revoke)
        try:
            await close()
            if self._parts.sockets is not None:
                await self._parts.sockets.close(lease.run)
        except Exception as error:
            log.warning("left for the reaper: %s", error, extra={"run": lease.run})

    # ---------------------------------------------------------------- execution

    async def _under_lease(self, lease: Lease) -> tuple[RunOutcome, Callable[[], Awaitable[None]]]:
        """Execute with the lease kept alive beside; a kill or a lost lease ends the work."""
        kill = await asyncio.to_thread(self._parts.queue.renew, lease)
        if kill:
            return await self._ended_early(lease, StopReason.KILLED, kill)
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
                return await harness.execute(), harness.close
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
        journal = await asyncio.to_thread(self._journal, lease, ())
        meter = Meter()
        for entry in journal.steps():
            intent = journal.find(entry.key, "intent")
            if entry.event == "outcome" and intent is not None:
                meter.add(Done(intent, entry))
        outcome = RunOutcome(
            stop=stop,
            detail=detail,
            notes=lease.spec.notes,
            steps=meter.steps,
            tokens=meter.tokens,
            cost_nano=NanoUSD(meter.cost_nano),
            working_ms=meter.working_ms,
        )

        async def close() -> None:
            ended = lease.run
            await self._parts.sandboxes.reap(lambda run: run != ended, run=ended)

        return outcome, close

    # -------------------------------------------------------------------- scope

    async def _scope(self, lease: Lease) -> Scope:
        parts, spec = self._parts, lease.spec
        tokens = {role: parts.draw() for role in spec.roles}
        now = parts.clock.now()
        expires = Millis(now + (spec.limits.max_wall_ms or 0) + TOKEN_GRACE_MS)
        recorded = (
            None if spec.recorded is None else [r.model_dump(mode="json") for r in spec.recorded]
        )

        def issue(tx: Transaction) -> None:
            check_fence(tx, lease.run, lease.fence)
            # A runner that lost the lease without noticing loses its voice with it.
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

        await parts.commits.write(issue)
        journal = await asyncio.to_thread(self._journal, lease, tuple(tokens.values()))
        pristine: Files = {}
        if spec.workspace.path is not None:
            pristine = await asyncio.to_thread(read_tree, Path(spec.workspace.path))

        async def open_socket() -> str | None:
            if parts.sockets is None:
                return None
            return str(await parts.sockets.open(lease.run, access.hash_token(tokens["main"])))

        return Scope(
            run=lease.run,
            spec=spec,
            journal=journal,
            gateway=parts.gateway,
            tokens=tokens,
            sandboxes=parts.sandboxes,
            spent=self._spent,
            pristine=pristine,
            open_socket=open_socket,
            labels={"owner": parts.owner, "lease": str(lease.fence)},
        )

    def _journal(self, lease: Lease, secrets: tuple[str, ...]) -> Journal:
        parts = self._parts
        return Journal(
            parts.database,
            parts.commits,
            parts.clock,
            run=lease.run,
            fence=lease.fence,
            redactor=Redactor(secrets),
        )

    async def _spent(self, key: CallKey) -> tuple[int, int]:
        """What the gateway's ledger, the truth for money, holds for a call."""

        def look() -> tuple[int, int]:
            with self._parts.database.snapshot() as tx:
                cost, into, out = calls.summary(calls.attempts(tx, key))
            return into + out, cost

        return await asyncio.to_thread(look)


class _OutOfTime(Exception):
    """A step hangs beyond the run's wall time."""
