"""What the rest of the runner may assume of a sandbox, whatever runs it.

Errors carry their own policy. `SandboxLost` means that the place is gone and the run must be
continued from its journal in a new one; every other `SandboxError` means that nothing was started
and trying again without a change will not help.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from gateway.values import CallKey, RunId
from runner.spec import SandboxSpec
from runner.workspace import LIMITS, Files, SizeLimits, Snapshot


class SandboxError(Exception):
    """The sandbox cannot do what was asked; the text says what to do next."""


class SandboxUnavailable(SandboxError):
    """No container engine answers on this machine."""


class SandboxLost(SandboxError):
    """The container, or the way to it, is gone; what it was doing may have happened."""


class SandboxConflict(SandboxError):
    """A container of this name exists and may not be taken over."""


class ProbeFailed(SandboxError):
    """A restriction is not in force. The container was removed before anything ran in it."""

    def __init__(self, which: str, seen: object, expected: object) -> None:
        super().__init__(
            f"sandbox refused: {which} is {seen!r}, must be {expected!r}; nothing was run in it. "
            "Check the container engine's version and configuration (`interlock doctor`)"
        )
        self.which, self.seen, self.expected = which, seen, expected


class PathRefused(SandboxError):
    """A path of a file tool is not a regular file inside the workspace, or does not exist."""


class Existing(StrEnum):
    """What to do when the run's container exists already: the name is the fence."""

    ADOPT = "adopt"
    REPLACE = "replace"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a step printed and how it ended.

    `exit_code` is 128 + n after signal n, 126/127 when it could not be started. Each stream
    keeps its first and last 32 KiB; `truncated` tells that more was printed.
    """

    exit_code: int
    stdout: str
    stderr: str
    timed_out: bool = False
    truncated: bool = False
    duration_ms: int = 0


@dataclass(frozen=True, slots=True)
class OnceResult:
    """How a one-command container ended, in the container engine's own words.

    `exit_code` is None when the time ran out (the container was then removed).
    """

    exit_code: int | None
    stdout: str
    stderr: str
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """Paths under a prefix with their sizes in bytes (-1: not a regular file), sorted by folder."""

    files: tuple[tuple[str, int], ...]
    truncated: bool


class Sandbox(Protocol):
    """One run's container. Safe for concurrent calls of one event loop."""

    name: str
    adopted: bool
    """True when the container was there already: its workspace has what earlier steps made."""

    async def exec(
        self,
        key: CallKey,
        argv: Sequence[str],
        *,
        timeout_ms: int,
        stdin: bytes | None = None,
        cwd: str = "/workspace",
    ) -> ExecResult:
        """Run a command as the step `key`; at most once per key, then SandboxError.

        At the time-out the step's whole process group is killed. Raises SandboxLost.
        """
        ...

    async def adopt(self, key: CallKey) -> ExecResult | None:
        """The result of a step that an earlier runner started, waiting for it if it still runs.

        None when it was never started. Raises SandboxLost when it was, and its result is gone.
        """
        ...

    async def read_file(self, path: str, *, limit_bytes: int = 1 << 20) -> bytes:
        """A regular file of the workspace; links are not followed. Raises PathRefused."""
        ...

    async def write_file(self, path: str, data: bytes) -> None:
        """Create or replace a file, with its folders. Raises PathRefused."""
        ...

    async def list_files(self, prefix: str = "", *, limit: int = 1000) -> Listing:
        """Files below a folder of the workspace. Raises PathRefused."""
        ...

    async def snapshot(self, *, limits: SizeLimits = LIMITS) -> Snapshot:
        """Copy the workspace out. Raises WorkspaceError when it is too big or nonsense."""
        ...

    async def close(self) -> None:
        """Remove the container and all it holds. Idempotent."""
        ...


class Sandboxes(Protocol):
    """Makes sandboxes, one per run, and clears away those nobody needs any more."""

    async def open(
        self,
        run: RunId,
        spec: SandboxSpec,
        *,
        files: Files,
        socket_dir: Path | None = None,
        read_only_workspace: bool = False,
        suffix: str = "",
        existing: Existing = Existing.ADOPT,
        labels: Mapping[str, str] | None = None,
    ) -> Sandbox:
        """Create, prove and fill the container `interlock-<run>[-suffix]`, or adopt it.

        A container that was never filled, or has stopped, is replaced whatever `existing` says
        short of REFUSE: its workspace is not what the run's steps left. Raises ProbeFailed,
        SandboxConflict, SandboxError.
        """
        ...

    async def run_once(
        self,
        run: RunId,
        spec: SandboxSpec,
        command: str,
        *,
        files: Files,
        timeout_ms: int,
        suffix: str,
    ) -> OnceResult:
        """A shell command in a fresh container without any socket, removed afterwards.

        The exit code is the container's own, as the engine reports it. Raises SandboxError.
        """
        ...

    async def reap(self, alive: Callable[[RunId], bool], **labels: str) -> tuple[str, ...]:
        """Remove containers whose run is not alive; returns their names."""
        ...

    async def count(self, **labels: str) -> int:
        """How many containers of ours exist, running or not."""
        ...
