"""The gateway as a process: puts the rooms together, listens, drains, and says where it is.

Exactly one per database (a lock file sees to it), because open reservations found at the start
are taken for those of a dead predecessor.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import gc
import itertools
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway import access, door, schema
from gateway.app import sockets
from gateway.app.control import ControlApp
from gateway.app.face import GatewayApp
from gateway.app.http import Gate, Handler
from gateway.app.http import Server as HttpServer
from gateway.app.sockets import RunSockets
from gateway.clock import SystemClock
from gateway.database import Database, DatabaseError, GroupCommit
from gateway.door import Door
from gateway.door.books import Memory
from gateway.keys import Keyring
from gateway.log import Log, LogHandler
from gateway.mcp import launch
from gateway.providers.tape import Recordings
from gateway.providers.upstream import Upstream, build_client
from gateway.refusals import Refusal
from gateway.telemetry import Telemetry
from gateway.telemetry.otlp import OtlpSettings
from gateway.values import Clock

CONTROL = "gateway-control.sock"
READY = "gateway.json"
KEEP_SECONDS = 5
"""How often it is written down where rate limits stand."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says."""

    state: Path
    database: Path
    host: str
    port: int
    drain_seconds: float
    otlp: OtlpSettings | None
    record: Path | None


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Settings from the command line; argparse ends the process (status 2) on wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="state directory")
    parser.add_argument("--database", type=Path, help="default: STATE/interlock.sqlite")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--drain-seconds", type=float, default=30.0)
    parser.add_argument("--otlp", metavar="URL", help="OpenTelemetry collector (HTTP) for spans")
    parser.add_argument(
        "--record", type=Path, metavar="DIR", help="keep what models are asked and answer, as tapes"
    )
    given = parser.parse_args(arguments)
    host, _, port = given.listen.rpartition(":")
    if not host or not port.isdigit():
        parser.error(f"--listen {given.listen}: expected HOST:PORT")
    try:
        otlp = OtlpSettings.from_environment(environment, url=given.otlp)
    except ValueError as error:
        parser.error(str(error))
    state = given.state.resolve()
    return Settings(
        state=state,
        database=given.database or state / "interlock.sqlite",
        host=host.strip("[]"),
        port=int(port),
        drain_seconds=given.drain_seconds,
        otlp=otlp,
        record=given.record,
    )


async def serve(settings: Settings, environment: Mapping[str, str], clock: Clock, log: Log) -> None:
    """Run until SIGTERM or SIGINT. Raises DatabaseError, OSError (address in use)."""
    database = Database(settings.database)
    database.migrate(schema.MIGRATIONS)
    telemetry = Telemetry(
        log.redactor, otlp=settings.otlp, tell=lambda text: log.write("telemetry", text=text)
    )
    memory = Memory(telemetry.observe_commit)
    if lost := door.recover(database, memory, clock.now()):
        log.write("recovered", unknown=lost)
    commits = GroupCommit(database, memory)
    client = build_client()
    keyring = Keyring(environment, found=lambda secret: log.redact([secret]))
    recorder = None if settings.record is None else Recordings(settings.record)
    inner = Door(database, commits, memory, clock, Upstream(client, keyring, recorder), telemetry)
    inner.load(database)
    telemetry.watch(inner.readings())
    app = GatewayApp(inner, clock, log, telemetry, lambda: _unready(database))
    loop = asyncio.get_running_loop()
    gate = Gate(loop.time)
    leaving = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leaving.set)

    async def listen(
        bound: socket.socket, handler: Handler, principal: str | None = None
    ) -> asyncio.Server:
        server = HttpServer(handler, gate, principal)
        if bound.family == socket.AF_UNIX:
            return await loop.create_unix_server(server.protocol, sock=bound)
        return await loop.create_server(server.protocol, sock=bound)

    runs = RunSockets(
        settings.state / "sockets", lambda bound, token_hash: listen(bound, app, token_hash)
    )
    for run, token_hash in access.sockets(database, now=clock.now()):
        await runs.open(run, token_hash)
    control = ControlApp(runs, commits, inner, clock)
    listening = [await listen(sockets.bind(settings.state, CONTROL, mode=0o600), control)]
    tcp = socket.create_server((settings.host, settings.port), backlog=2048)
    host, port = tcp.getsockname()[:2]
    listening.append(await listen(tcp, app))
    _announce(settings.state, host, port, clock)
    log.write("ready", host=host, port=port, pid=os.getpid())

    # What is there now stays; and calls make few cycles, so that looking for them can be rare.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)

    sweeping = asyncio.create_task(_sweep(gate, inner), name="close who is slow")
    await leaving.wait()

    runs.stop()
    for other in listening:
        other.close()
    gate.close()
    cut = await inner.live.drain(settings.drain_seconds)
    # What was answered in the last moment still has to reach its client.
    for _ in range(100):
        if not gate.connections:
            break
        await asyncio.sleep(0.01)
    gate.abort()
    sweeping.cancel()
    await inner.keep()
    await inner.close()
    commits.close()
    await asyncio.to_thread(telemetry.close, min(5.0, settings.drain_seconds))
    await client.close()
    database.close()
    for name in (READY, CONTROL):
        (settings.state / name).unlink(missing_ok=True)
    log.close()
    log.write("stopped", cut=cut)


async def _sweep(gate: Gate, inner: Door) -> None:
    for second in itertools.count(1):
        await asyncio.sleep(1)
        gate.sweep()
        if second % KEEP_SECONDS == 0:
            await inner.keep()


def _unready(database: Database) -> str | None:
    try:
        access.current_policy(database)
    except Refusal as refusal:
        return refusal.message
    except Exception as error:
        return f"the database cannot be read ({type(error).__name__})"
    return None


def _announce(state: Path, host: str, port: int, clock: Clock) -> None:
    """Write `gateway.json` so that a reader sees the whole of it or nothing."""
    shown = f"[{host}]" if ":" in host else host
    document = {
        "pid": os.getpid(),
        "host": host,
        "port": port,
        "url": f"http://{shown}:{port}",
        "control": str(state / CONTROL),
        "started_at": clock.now(),
    }
    draft = state / f"{READY}.new"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(state / READY)


def main(arguments: Sequence[str]) -> int:
    """Exit codes: 0 stopped in good order, 1 cannot run here (says why), 2 wrong usage."""
    settings = parse(arguments, os.environ)
    # Before anything else: the keys are in the environment from the first moment.
    launch.hide_process()
    clock = SystemClock.from_environment(os.environ)
    log = Log(clock, sys.stderr)
    logging.getLogger().addHandler(LogHandler(log))
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (settings.state / "gateway.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            log.write("refused", text=f"another gateway serves {settings.state}")
            return 1
        try:
            with asyncio.Runner(loop_factory=_loop) as runner:
                runner.run(serve(settings, dict(os.environ), clock, log))
        except (DatabaseError, OSError) as error:
            log.write("refused", text=str(error))
            return 1
    return 0


def _loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()
