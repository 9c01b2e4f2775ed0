"""The runner's process: takes runs from the queue and executes up to N of them at a time.

`python -m runner --state DIR --slots N --owner NAME`. It shares nothing with its siblings but the
state directory: the database (runs, journal, tokens), the gateway's address and its control socket.
It may be killed at any moment; whoever starts next with the same owner takes its leases up again at
once, and containers and sockets whose run is over are removed at start.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import logging
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway import access, schema
from gateway.clock import SystemClock
from gateway.database import Database, GroupCommit
from gateway.values import RunId
from runner import queue
from runner.client import ControlSocket, GatewayClient, Sleep
from runner.engine import Engine, Finished
from runner.identity import Parts
from runner.queue import Lease, Queue
from runner.sandbox import SandboxError, Sandboxes, connect

log = logging.getLogger("interlock.runner")

POLL_SECONDS = 0.2
PARENT_POLL_SECONDS = 0.5
LEASE_MS = 30_000


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": int(record.created * 1000),
            "level": record.levelname.lower(),
            "process": "runner",
            "message": record.getMessage(),
        }
        for name in ("run", "stop", "release"):
            if hasattr(record, name):
                line[name] = str(getattr(record, name))
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Runner:
    """Leases runs while slots are free; `stop` gives what it holds back."""

    def __init__(self, work: Queue, engine: Engine, *, slots: int, sleep: Sleep) -> None:
        self._queue = work
        self._engine = engine
        self._slots = slots
        self._sleep = sleep
        self._running: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._pause_ms = 0

    def stop(self) -> None:
        """Take no more work and give the leases back."""
        self._stopping.set()

    async def run(self) -> None:
        """Until `stop`."""
        stopping = asyncio.create_task(self._stopping.wait())
        serving = asyncio.create_task(self._serve())
        try:
            await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
        finally:
            for task in (stopping, serving, *self._running):
                task.cancel()
            await asyncio.gather(stopping, serving, *self._running, return_exceptions=True)

    async def _serve(self) -> None:
        while True:
            if self._pause_ms:
                pause, self._pause_ms = self._pause_ms, 0
                await self._sleep(pause / 1000)
            lease = None
            if len(self._running) < self._slots:
                lease = await asyncio.to_thread(self._queue.lease)
            if lease is None:
                await self._sleep(POLL_SECONDS)
                continue
            task = asyncio.create_task(self._advance(lease))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _advance(self, lease: Lease) -> None:
        about = {"run": lease.run, "release": lease.spec.release}
        log.info("run taken" if lease.first else "run continued", extra=about)
        try:
            result = await self._engine.advance(lease)
        except asyncio.CancelledError:
            log.info("run given back", extra=about)
            raise
        except Exception:
            # Not the run's fault and not foreseen: the lease runs out and somebody continues.
            log.exception("run left", extra=about)
            self._pause_ms = max(self._pause_ms, 1000)
            return
        if isinstance(result, Finished):
            log.info("run finished", extra={**about, "stop": result.outcome.stop})
        else:
            self._pause_ms = max(self._pause_ms, result.retry_ms)


def installation(state: Path) -> str:
    """Tells the containers of one state directory from those of another on this machine."""
    return hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:12]


async def reap(
    sandboxes: Sandboxes, sockets: ControlSocket | None, database: Database, state: Path
) -> None:
    """Remove containers and close sockets of runs that are over, left by a process that died."""
    open_runs = {row["run"] for row in await asyncio.to_thread(queue.open_runs, database)}

    def alive(run: RunId) -> bool:
        return run in open_runs

    for name in await sandboxes.reap(alive, installation=installation(state)):
        log.info("orphan container %s removed", name)
    if sockets is not None:
        for run in await asyncio.to_thread(access.with_sockets, database):
            if not alive(run):
                await sockets.close(run)


async def exit_with_parent(parent: int) -> None:
    """End this process when the one that started it is gone, so that a killed supervisor leaves
    nothing behind. Leases run out, or the next runner of this owner takes them up."""
    while os.getppid() == parent:  # noqa: ASYNC110 - nothing tells us but asking
        await asyncio.sleep(PARENT_POLL_SECONDS)
    log.warning("the parent process is gone; exiting")
    logging.shutdown()
    os._exit(0)


async def serve(
    state: Path, *, database_path: Path, slots: int, owner: str, detached: bool, sockets: bool
) -> None:
    """Run the process until SIGTERM or SIGINT."""
    parent = os.getppid()
    database, clock = Database(database_path), SystemClock.from_environment(os.environ)
    database.migrate((*schema.MIGRATIONS, *queue.MIGRATIONS))
    work = Queue(database, clock, owner, lease_ms=LEASE_MS)
    work.release_own()
    commits = GroupCommit(database)
    sandboxes = connect(labels={"installation": installation(state)}, threads=max(4, slots * 2))
    control = ControlSocket(state, asyncio.sleep) if sockets else None
    async with GatewayClient(state, asyncio.sleep) as gateway:
        parts = Parts(
            database=database,
            commits=commits,
            queue=work,
            clock=clock,
            sleep=asyncio.sleep,
            gateway=gateway,
            sandboxes=sandboxes,
            draw=lambda: f"ilk_{secrets.token_urlsafe(32)}",
            sockets=control,
            owner=owner,
            renew_ms=LEASE_MS // 3,
        )
        runner = Runner(work, Engine(parts), slots=slots, sleep=asyncio.sleep)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, runner.stop)
        watch = None if detached else asyncio.create_task(exit_with_parent(parent))
        try:
            await reap(sandboxes, control, database, state)
            log.info("runner %s ready, %d slots", owner, slots)
            await runner.run()
        finally:
            if watch is not None:
                watch.cancel()
            with contextlib.suppress(SandboxError):
                await sandboxes.close()
            await asyncio.to_thread(commits.close)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code (3: the environment lacks something)."""
    parser = argparse.ArgumentParser(prog="python -m runner", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="state directory")
    parser.add_argument("--database", type=Path, help="default: STATE/interlock.sqlite")
    parser.add_argument("--slots", type=int, default=2, help="runs at a time")
    parser.add_argument("--owner", default="runner", help="name of this runner; unique at a time")
    parser.add_argument("--detached", action="store_true", help="go on when the parent dies")
    parser.add_argument(
        "--no-sockets",
        action="store_true",
        help="give containers no way to the gateway: for a container engine on another machine, "
        "which cannot see the sockets of this one",
    )
    options = parser.parse_args(argv)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        asyncio.run(
            serve(
                options.state,
                database_path=options.database or options.state / "interlock.sqlite",
                slots=options.slots,
                owner=options.owner,
                detached=options.detached,
                sockets=not options.no_sockets,
            )
        )
    except SandboxError as error:
        log.error("%s", error)
        return 3
    return 0
