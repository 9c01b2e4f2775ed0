"""The children: which processes there are, what each may know, and how they end.

    control  (this process)   git, rollouts, reports        hands keys on, never reads them
    gateway  (child)          models and tools              the only one that uses keys
    runner   (child)          runs and their containers     is given no key

Job mode and service mode start the same children; they differ in who ticks and for how long. A
child dies with its parent (PR_SET_PDEATHSIG), so that a killed supervisor leaves nothing behind
but rows and containers, which the next start finds again.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1


class EnvironmentLacks(Exception):
    """Something this machine lacks; the text says what to do. Exit code 3."""


KEYLESS = ("_API_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
"""Endings of environment variables that are kept from every child but the gateway."""


OURS = frozenset({"INTERLOCK_SIGNING_KEY", "INTERLOCK_GIT_TOKEN", "GITHUB_TOKEN"})
"""The reconciler's own secrets: for no child at all."""


def without_keys(environment: Mapping[str, str], secrets: frozenset[str]) -> dict[str, str]:
    """The environment for processes that must not hold a key: none that the policy names, none
    that is called like one."""
    return {
        name: value
        for name, value in environment.items()
        if not name.upper().endswith(KEYLESS) and name not in OURS | secrets
    }


def for_gateway(environment: Mapping[str, str]) -> dict[str, str]:
    """The gateway's environment: provider keys and tool secrets, none of the reconciler's."""
    return {name: value for name, value in environment.items() if name not in OURS}


@dataclass
class Child:
    """One supervised process: how to start it, and how often it died lately."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    deaths: list[float] = field(default_factory=list)


class Supervisor:
    """Starts children, restarts those that die, ends all of them on leaving.

    A child that dies five times within a minute is given up on: `check` raises EnvironmentLacks
    with the end of its log, because restarting it again would only hide the reason.
    """

    def __init__(self, state: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._state = state
        self._monotonic = monotonic
        self._children: list[Child] = []
        self._logs: list[IO[bytes]] = []

    def add(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a child; its output goes to `logs/<name>.log` in the state directory."""
        child = Child(name, command, environment)
        self._children.append(child)
        self._start(child)

    def check(self) -> None:
        """Restart what died. Call it often; it never waits."""
        for child in self._children:
            if child.process is None or child.process.poll() is None:
                continue
            now = self._monotonic()
            child.deaths = [at for at in child.deaths if now - at < 60] + [now]
            if len(child.deaths) >= 5:
                raise EnvironmentLacks(
                    f"the {child.name} process ends again and again; the end of its log:\n"
                    + self.tail(child.name)
                )
            self._start(child)

    def tail(self, name: str, lines: int = 12) -> str:
        """The last lines of a child's log."""
        path = self._state / "logs" / f"{name}.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {c.name: c.process.pid for c in self._children if c.process is not None}

    def stop(self, patience: float = 15.0) -> None:
        """Ask every child to end, the last started first; kill those that do not in time."""
        for child in reversed(self._children):
            if child.process is None or child.process.poll() is not None:
                continue
            child.process.send_signal(signal.SIGTERM)
            try:
                child.process.wait(patience)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
        for log in self._logs:
            log.close()
        self._children.clear()

    def _start(self, child: Child) -> None:
        logs = self._state / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        log = (logs / f"{child.name}.log").open("ab")
        self._logs.append(log)
        child.process = subprocess.Popen(
            child.command,
            env=dict(child.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no threads are running yet
        )


@contextmanager
def workers(
    state: Path,
    environment: Mapping[str, str],
    *,
    slots: int,
    secrets: frozenset[str],
    listen: str | None = None,
    patience: float = 20.0,
) -> Iterator[Supervisor]:
    """A gateway and a runner for one state directory, ready, until the block is left."""
    with gateway_only(state, environment, listen=listen, patience=patience) as supervisor:
        supervisor.add(
            "runner",
            [sys.executable, "-m", "runner", "--state", str(state), "--slots", str(slots)],
            without_keys(environment, secrets),
        )
        yield supervisor


@contextmanager
def gateway_only(
    state: Path,
    environment: Mapping[str, str],
    *,
    listen: str | None = None,
    patience: float = 20.0,
) -> Iterator[Supervisor]:
    """A gateway for one state directory, ready, until the block is left. `listen` is HOST:PORT;
    None: any port of this machine's own."""
    supervisor = Supervisor(state)
    try:
        (state / "gateway.json").unlink(missing_ok=True)
        command = [sys.executable, "-m", "gateway", "--state", str(state), "--drain-seconds", "10"]
        command += [] if listen is None else ["--listen", listen]
        supervisor.add("gateway", command, for_gateway(environment))
        wait_for_gateway(state, supervisor, patience=patience)
        yield supervisor
    finally:
        supervisor.stop()


def wait_for_gateway(state: Path, supervisor: Supervisor, *, patience: float) -> None:
    """Return when the gateway listens; EnvironmentLacks when it does not in time."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if gateway_url(state) is not None:
            return
        supervisor.check()
        time.sleep(0.02)
    raise EnvironmentLacks(
        "the gateway did not start; the end of its log:\n" + supervisor.tail("gateway")
    )


def gateway_url(state: Path) -> str | None:
    """Where the gateway listens; None when none is alive."""
    try:
        told = json.loads((state / "gateway.json").read_text())
        os.kill(int(told["pid"]), 0)
        return str(told["url"])
    except (OSError, ValueError, KeyError):
        return None


def die_with_parent() -> None:
    """For `preexec_fn`: the kernel kills this process when the one that started it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
