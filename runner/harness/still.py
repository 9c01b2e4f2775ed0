"""A checker's view of the work when it only reads: the files as they were, and no container.

A checker that may not run anything needs no sandbox: what it reads was copied out of the maker's
container already, as bytes, and reading bytes executes nothing. That saves a container for every
verdict. A checker with a shell gets a container with a read-only workspace instead (`room`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from gateway.values import CallKey
from runner.sandbox.contract import (
    ExecResult,
    Listing,
    PathRefused,
    Sandbox,
    SandboxError,
)
from runner.workspace import LIMITS, Entry, SizeLimits, Snapshot

T = TypeVar("T")


class StillSandbox:
    """Answers from files in memory; everything that would change or run something is refused."""

    name = "still"
    adopted = False

    def __init__(self, files: Mapping[str, Entry]) -> None:
        self._files = files

    async def exec(
        self,
        key: CallKey,
        argv: Sequence[str],
        *,
        timeout_ms: int,
        stdin: bytes | None = None,
        cwd: str = "/workspace",
    ) -> ExecResult:
        """Refused: nothing runs here."""
        raise SandboxError("this role reads only; nothing can be run")

    async def adopt(self, key: CallKey) -> ExecResult | None:
        """None: nothing was ever started."""
        return None

    async def read_file(self, path: str, *, limit_bytes: int = 1 << 20) -> bytes:
        """See `Sandbox.read_file`."""
        entry = self._files.get(path.removeprefix("/workspace/"))
        if entry is None:
            raise PathRefused(f"{path}: there is no such file")
        if len(entry.data) > limit_bytes:
            raise PathRefused(f"{path}: larger than {limit_bytes} bytes")
        return entry.data

    async def write_file(self, path: str, data: bytes) -> None:
        """Refused."""
        raise PathRefused(f"{path}: this workspace is read-only")

    async def list_files(self, prefix: str = "", *, limit: int = 1000) -> Listing:
        """See `Sandbox.list_files`."""
        folder = prefix.removeprefix("/workspace").strip("/")
        below = f"{folder}/" if folder else ""
        rows = [
            (path, len(entry.data))
            for path, entry in sorted(self._files.items())
            if path.startswith(below)
        ]
        return Listing(tuple(rows[:limit]), len(rows) > limit)

    async def snapshot(self, *, limits: SizeLimits = LIMITS) -> Snapshot:
        """The files as they are."""
        return Snapshot(dict(self._files), ())

    async def close(self) -> None:
        """Nothing to remove."""


class StillRoom:
    """Stands where a run's room would, for a role that only reads."""

    def __init__(self, name: str, files: Mapping[str, Entry]) -> None:
        self.name = name
        self._sandbox = StillSandbox(files)

    async def use(self, act: Callable[[Sandbox], Awaitable[T]]) -> T:
        """Do something with the files."""
        return await act(self._sandbox)

    async def close(self) -> None:
        """Nothing to remove."""
