"""The two ways to run, over one tick: until quiet (a scheduled job), or for ever (the service)."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from reconciler.process.compose import (
    Options,
    allowed_signers,
    open_context,
    reports_branch,
    restore_if_behind,
    secret_names,
)
from reconciler.process.lock import sole
from reconciler.process.supervisor import EnvironmentLacks, Supervisor, workers
from reconciler.record import mark
from reconciler.record.draft import HEARTBEAT_MS
from reconciler.record.publish import Published, publish
from reconciler.tick import Ticked, assign, tick
from reconciler.tick.context import Context
from reconciler.tick.declare import declare
from runner import queue

__all__ = ["Context", "Loop", "Progress", "Superseded", "Watch", "once", "serve"]

PAUSE_S = 0.25
"""Between two ticks while runs are open: short beside a run, long beside a tick."""
HEARTBEAT_S = HEARTBEAT_MS / 1000
"""Without news the record is written this often: that is how a dead reconciler shows."""
DRAIN_S = 300.0
"""How long after its deadline a job waits for the live runs it has begun."""
GIVE_UP_AFTER = 3
"""Publications that failed in a row, after which a job with nothing but claims ends."""
REPORT_EVERY_S = 300.0
"""Progress of evals is worth a commit this often; decisions and live runs at once."""


@dataclass
class Progress:
    """What a person watching may be shown after each tick."""

    ticked: Ticked
    published: Published | None
    notes: tuple[str, ...] = ()


Watch = Callable[[Context, Progress], None]


@dataclass
class Loop:
    """Ticks, and publishes what is worth it. One per state directory, under its lock."""

    context: Context
    options: Options
    environment: Mapping[str, str]
    watch: Watch
    stack: ExitStack
    supervisor: Supervisor | None = None
    published_at: float = field(default_factory=time.monotonic)
    pending: bool = False
    failures: int = 0
    """Publications in a row that did not arrive."""

    def step(self) -> Ticked:
        """One tick, the workers it needs, and the record of it."""
        if self.supervisor is not None:
            self.supervisor.check()
        ticked = tick(self.context)
        urgent = bool(ticked.opened or ticked.moved or ticked.started or ticked.ended)
        self.pending = self.pending or ticked.changed
        published = None
        with self.context.database.snapshot() as tx:
            claims = bool(assign.open_claims(tx))
        since = time.monotonic() - self.published_at
        due = since > (REPORT_EVERY_S if self.pending else HEARTBEAT_S)
        if claims or urgent or due:
            published = self.publish()
        if ticked.busy and self.supervisor is None:
            self.supervisor = self.stack.enter_context(
                workers(
                    self.context.state,
                    self.environment,
                    slots=self.options.slots,
                    secrets=secret_names(self.context),
                    listen=self.options.gateway_listen,
                )
            )
        self.watch(self.context, Progress(ticked, published))
        return ticked

    def publish(self, *, clean: bool = False) -> Published:
        """Commit the record; claims that it carried become runs.

        Raises Superseded when another reconciler's state stands there.
        """
        context = self.context
        assert context.signer is not None
        with context.database.snapshot() as tx:
            last = mark.last(tx)
        number = (last.tick if last else 0) + 1
        result = publish(
            context.database,
            context.config,
            branch=reports_branch(context),
            signer=context.signer,
            clock=context.clock,
            machine=context.machine,
            tick=number,
            clean=clean,
            allowed=allowed_signers(context),
            sleep=time.sleep,
            draw=context.seeded(f"{context.machine}:{number}").random,
        )
        self.published_at = time.monotonic()
        if result.outcome in ("pushed", "nothing_new"):
            with context.database.transaction() as tx:
                assign.claims_pushed(tx, list(result.claims))
            self.pending = False
            self.failures = 0
            return result
        if result.outcome == "superseded":
            raise Superseded(result.reason)
        self.failures += 1
        context.problems.append(f"the record was not written ({result.outcome}): {result.reason}")
        return result

    @property
    def stuck(self) -> bool:
        """The record cannot be written, and nothing but claims that need it is open."""
        if self.failures < GIVE_UP_AFTER:
            return False
        open_runs = queue.open_runs(self.context.database)
        return all(run["status"] == queue.RunStatus.CLAIMED for run in open_runs)


class Superseded(Exception):
    """Another reconciler moved the state; this one must start again from git."""


def once(options: Options, environment: Mapping[str, str], watch: Watch) -> Ticked:
    """Tick until nothing is open and nothing changes, or until the deadline; then record it.

    After the deadline nothing new is begun; live runs are waited for a little longer. Evals that
    are open then go on at the next job. A live run that is open even then goes on only where the
    state directory is kept: elsewhere its claim is found without an outcome (`outcome_unknown`).
    Raises Busy, EnvironmentLacks, RemoteUnavailable, rebuild errors, Superseded.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(sole(options.state))
        context = open_context(options, environment, job=True)
        need_signer(context)
        rebuilt = restore_if_behind(context)
        loop = Loop(context, options, environment, watch, stack)
        if rebuilt is not None:
            watch(context, Progress(_nothing(), None, tuple(rebuilt.notes)))
        while True:
            ticked = loop.step()
            if (not ticked.busy and not ticked.changed) or loop.stuck:
                break
            late = time.monotonic() - started - (options.deadline_s or math.inf)
            context.draining = late > 0
            if (context.draining and not ticked.open_live) or late > DRAIN_S:
                break
            if ticked.busy:
                time.sleep(PAUSE_S)
        if loop.supervisor is not None:
            loop.supervisor.stop()
        result = loop.publish(clean=not ticked.open_live)
        problems = list(dict.fromkeys([*ticked.problems, *context.problems]))
        ended = replace(ticked, problems=problems)
        watch(context, Progress(ended, result))
        return ended


def serve(
    options: Options,
    environment: Mapping[str, str],
    watch: Watch,
    *,
    every_s: float = 1.0,
) -> None:
    """The service: gateway and runner as supervised children, a tick every `every_s` seconds.

    Ends in good order on SIGTERM or SIGINT: runs give their leases back, the record is marked as
    cleanly shut down.
    """
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with ExitStack() as stack:
        stack.enter_context(sole(options.state, "service"))
        context = open_context(options, environment, job=False)
        need_signer(context)
        restore_if_behind(context)
        declare(context)  # before the children start: what it names as secrets is kept from them
        loop = Loop(context, options, environment, watch, stack)
        loop.supervisor = stack.enter_context(
            workers(
                context.state,
                environment,
                slots=options.slots,
                secrets=secret_names(context),
                listen=options.gateway_listen,
            )
        )
        while not stopping.is_set():
            loop.step()
            stopping.wait(every_s)
        loop.supervisor.stop()
        open_live = [r for r in queue.open_runs(context.database) if r["purpose"] == "live"]
        loop.publish(clean=not open_live)


def need_signer(context: Context) -> None:
    """Raise EnvironmentLacks, with what to do, when nothing could be signed."""
    if context.signer is None:
        raise EnvironmentLacks(
            "what is decided is committed signed, so a key is needed: --signing-key PATH or "
            "INTERLOCK_SIGNING_KEY. Make one with `ssh-keygen -t ed25519 -N '' -f PATH` and add "
            "PATH.pub to fleet.reports.signers in interlock.yaml."
        )


def _nothing() -> Ticked:
    return Ticked(None, 0, 0, 0, 0, [], 0, 0)
