"""A sandbox without a container: a real directory and real processes, kept by this process.

For tests of what stands above the sandbox. Like a container it outlives the runner that made it
(here: the engine object), can be adopted by the next one, and can be lost.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from gateway.values import CallKey, RunId
from runner.sandbox.contract import (
    ExecResult,
    Existing,
    Listing,
    OnceResult,
    PathRefused,
    SandboxConflict,
    SandboxError,
    SandboxLost,
)
from runner.spec import SandboxSpec
from runner.workspace import LIMITS, Entry, Files, SizeLimits, Snapshot, WorkspaceError, check_path


class MemorySandbox:
    """One `container`: its workspace is the directory `root`."""

    def __init__(self, name: str, root: Path, *, read_only: bool) -> None:
        self.name = name
        self.root = root
        self.adopted = False
        self.read_only = read_only
        self.results: dict[str, ExecResult] = {}
        self.lost = False
        self.on_exec: Callable[[CallKey], Awaitable[None]] | None = None

    def _alive(self) -> None:
        if self.lost:
            raise SandboxLost(f"{self.name} is gone")

    def _path(self, path: str) -> Path:
        try:
            return self.root / check_path(path)
        except WorkspaceError as error:
            raise PathRefused(str(error)) from None

    async def exec(
        self,
        key: CallKey,
        argv: Sequence[str],
        *,
        timeout_ms: int,
        stdin: bytes | None = None,
        cwd: str = "/workspace",
    ) -> ExecResult:
        self._alive()
        if str(key) in self.results:
            raise SandboxError(f"{key} was executed already")
        if self.on_exec is not None:
            await self.on_exec(key)
            self._alive()
        code, out, err, late = await _run(argv, self.root, timeout_ms)
        if self.read_only:
            out = out.replace(str(self.root), "/workspace")
        self.results[str(key)] = ExecResult(code, out, err, timed_out=late)
        return self.results[str(key)]

    async def adopt(self, key: CallKey) -> ExecResult | None:
        self._alive()
        return self.results.get(str(key))

    async def read_file(self, path: str, *, limit_bytes: int = 1 << 20) -> bytes:
        self._alive()
        target = self._path(path)
        if not target.is_file():
            raise PathRefused(f"{path}: no such file")
        return target.read_bytes()[:limit_bytes]

    async def write_file(self, path: str, data: bytes) -> None:
        self._alive()
        if self.read_only:
            raise PathRefused(f"{path}: the workspace is read-only")
        target = self._path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    async def list_files(self, prefix: str = "", *, limit: int = 1000) -> Listing:
        self._alive()
        files = _files(self.root)
        rows = tuple((p, len(e.data)) for p, e in sorted(files.items()) if p.startswith(prefix))
        return Listing(rows[:limit], len(rows) > limit)

    async def snapshot(self, *, limits: SizeLimits = LIMITS) -> Snapshot:
        self._alive()
        return Snapshot(_files(self.root))

    async def close(self) -> None:
        self.lost = True
        shutil.rmtree(self.root, ignore_errors=True)


class MemorySandboxes:
    """Makes them, remembers them by name, loses them on request."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.boxes: dict[str, MemorySandbox] = {}
        self.opened: list[str] = []
        self.unavailable: Exception | None = None
        self.once_fault: Exception | None = None
        """What happens instead of a command in a fresh container."""
        self.on_exec: Callable[[CallKey], Awaitable[None]] | None = None
        self._count = 0

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
    ) -> MemorySandbox:
        if self.unavailable is not None:
            raise self.unavailable
        name = f"{run}-{suffix}"
        box = self.boxes.get(name)
        if box is not None and not box.lost:
            if existing is Existing.REFUSE:
                raise SandboxConflict(name)
            if existing is Existing.ADOPT:
                box.adopted = True
                return box
            await box.close()
        self._count += 1
        root = self.root / f"{name}-{self._count}"
        _fill(root, files)
        box = MemorySandbox(name, root, read_only=read_only_workspace)
        box.on_exec = self.on_exec
        self.boxes[name] = box
        self.opened.append(name)
        return box

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
        if self.once_fault is not None:
            raise self.once_fault
        self._count += 1
        root = self.root / f"once-{self._count}"
        _fill(root, files)
        code, out, err, late = await _run(("/bin/sh", "-c", command), root, timeout_ms)
        shutil.rmtree(root)
        return OnceResult(None if late else code, out, err)

    async def reap(self, alive: Callable[[RunId], bool], **labels: str) -> tuple[str, ...]:
        removed = []
        for name, box in self.boxes.items():
            if not box.lost and not alive(RunId("-".join(name.split("-")[:2]))):
                await box.close()
                removed.append(name)
        return tuple(removed)

    async def count(self, **labels: str) -> int:
        return sum(not box.lost for box in self.boxes.values())

    def lose_all(self) -> None:
        """Every container vanishes, as when the machine restarts."""
        for box in self.boxes.values():
            box.lost = True
            shutil.rmtree(box.root, ignore_errors=True)


def _fill(root: Path, files: Files) -> None:
    root.mkdir(parents=True)
    for path, entry in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(entry.data)
        target.chmod(0o755 if entry.executable else 0o644)


def _files(root: Path) -> dict[str, Entry]:
    return {
        path.relative_to(root).as_posix(): Entry(
            path.read_bytes(), bool(path.stat().st_mode & 0o100)
        )
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


async def _run(argv: Sequence[str], cwd: Path, timeout_ms: int) -> tuple[int, str, str, bool]:
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin"},
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), timeout_ms / 1000)
    except TimeoutError:
        process.kill()
        await process.wait()
        return 137, "", "", True
    return process.returncode or 0, out.decode(), err.decode(), False
