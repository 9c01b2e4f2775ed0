"""A socket per run: whoever can connect to it *is* that run's principal.

Lives in a directory of its own, because a container is given the directory: a restarted gateway
makes a new inode in the same place. The socket is bound through `/proc/self/fd`, since a Unix
socket's path may have 107 bytes only and state directories are often deeper.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.refusals import Code, Refusal
from gateway.values import RunId

NAME = "gateway.sock"
RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
Listen = Callable[[socket.socket, str], Awaitable[asyncio.Server]]


@dataclass(slots=True)
class _Open:
    token_hash: str
    server: asyncio.Server


class RunSockets:
    """Opens and closes run sockets. `listen` serves a bound socket as one principal."""

    def __init__(self, root: Path, listen: Listen) -> None:
        self._root = root
        self._listen = listen
        self._open: dict[RunId, _Open] = {}

    def directory(self, run: RunId) -> Path:
        """Where a run's socket is. Raises Refusal for a name that is no run's."""
        if not RUN.fullmatch(run):
            raise Refusal(Code.INVALID_REQUEST, f"not a run: {run!r}")
        return self._root / run

    async def open(self, run: RunId, token_hash: str) -> dict[str, str]:
        """Open the run's socket for this principal; idempotent."""
        found = self._open.get(run)
        if found is not None and found.token_hash != token_hash:
            self._stop(run)
            found = None
        if found is None:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory = self.directory(run)
            directory.mkdir(mode=0o755, exist_ok=True)
            # Not left to the umask: the container's user is nobody we know.
            directory.chmod(0o755)
            bound = bind(directory, NAME, mode=0o666)
            self._open[run] = _Open(token_hash, await self._listen(bound, token_hash))
        return self.describe(run)

    def describe(self, run: RunId) -> dict[str, str]:
        """What the control socket tells about a run's socket."""
        directory = self.directory(run)
        return {"run": run, "directory": str(directory), "socket": str(directory / NAME)}

    def close(self, run: RunId) -> None:
        """Close the run's socket and remove its directory; idempotent."""
        directory = self.directory(run)
        self._stop(run)
        (directory / NAME).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            directory.rmdir()

    def listing(self) -> list[dict[str, str]]:
        """Every open socket."""
        return [self.describe(run) for run in sorted(self._open)]

    def stop(self) -> None:
        """Accept nothing more; the directories stay, for the next process."""
        for run in list(self._open):
            self._stop(run)

    def _stop(self, run: RunId) -> None:
        found = self._open.pop(run, None)
        if found is not None:
            found.server.close()


def bind(directory: Path, name: str, *, mode: int) -> socket.socket:
    """A listening Unix socket in `directory`, replacing what a dead process left there."""
    (directory / name).unlink(missing_ok=True)
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Narrow until it is chmod'ed: never a moment in which anyone could connect.
        previous = os.umask(0o177)
        try:
            bound.bind(f"/proc/self/fd/{handle}/{name}")
        finally:
            os.umask(previous)
        (directory / name).chmod(mode)
        bound.listen(1024)
        bound.setblocking(False)
    finally:
        os.close(handle)
    return bound
