"""One open sandbox: steps, files and the copy-out, as requests to the process inside."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from gateway.values import CallKey
from runner.sandbox.contract import (
    ExecResult,
    Listing,
    PathRefused,
    SandboxError,
    SandboxLost,
)
from runner.sandbox.hardening import ENVIRONMENT
from runner.sandbox.stream import Reply, Stream
from runner.workspace import LIMITS, SizeLimits, Snapshot, WorkspaceError, unpack

_QUICK = 60.0
"""Seconds an answer may take that waits for no command; a machine under load is slow."""
_GRACE = 15.0
"""Seconds beyond a step's own time-out before the container itself counts as lost."""


def step_name(key: CallKey) -> str:
    """The file name of a step inside the container: nothing of the key's text."""
    return hashlib.sha256(str(key).encode()).hexdigest()[:24]


class Box:
    """A Sandbox over one stream, with a new stream when the old one breaks."""

    def __init__(
        self,
        name: str,
        stream: Stream,
        *,
        adopted: bool,
        reconnect: Callable[[], Awaitable[Stream]],
        remove: Callable[[], Awaitable[None]],
    ) -> None:
        self.name = name
        self.adopted = adopted
        self._stream = stream
        self._reconnect = reconnect
        self._remove = remove
        self._lock = asyncio.Lock()
        self._closed = False

    async def exec(
        self,
        key: CallKey,
        argv: Sequence[str],
        *,
        timeout_ms: int,
        stdin: bytes | None = None,
        cwd: str = "/workspace",
    ) -> ExecResult:
        """See `Sandbox.exec`."""
        if not argv:
            raise SandboxError("an empty command; give at least the program's name")
        fields: dict[str, Any] = {
            "step": step_name(key),
            "argv": list(argv),
            "cwd": cwd,
            "env": ENVIRONMENT,
            "timeout_ms": timeout_ms,
        }
        wait = timeout_ms / 1000 + _GRACE
        try:
            return _result(await self._stream.ask("exec", stdin or b"", seconds=wait, **fields))
        except SandboxLost:
            # The way to the container may be gone while the container is not: look there first.
            found = await self._adopt(key, wait)
            if found is not None:
                return found
        return _result(await self._stream.ask("exec", stdin or b"", seconds=wait, **fields))

    async def adopt(self, key: CallKey) -> ExecResult | None:
        """See `Sandbox.adopt`."""
        return await self._adopt(key, 24 * 3600.0)

    async def _adopt(self, key: CallKey, wait: float) -> ExecResult | None:
        stream = await self._alive()
        try:
            answer = await stream.ask("adopt", seconds=wait, step=step_name(key))
        except SandboxLost:
            raise
        except SandboxError as error:
            raise SandboxLost(str(error)) from error
        return _result(answer) if answer[0].get("found") else None

    async def read_file(self, path: str, *, limit_bytes: int = 1 << 20) -> bytes:
        """See `Sandbox.read_file`."""
        _, data = await self._file("read", path, limit=limit_bytes)
        return data

    async def write_file(self, path: str, data: bytes) -> None:
        """See `Sandbox.write_file`."""
        await self._file("write", path, data)

    async def list_files(self, prefix: str = "", *, limit: int = 1000) -> Listing:
        """See `Sandbox.list_files`."""
        answer, data = await self._file("list", prefix, limit=limit)
        try:
            rows = tuple((str(path), int(size)) for path, size in json.loads(data))
        except (ValueError, TypeError, RecursionError) as error:
            raise SandboxLost(f"the container speaks nonsense: {error}") from error
        return Listing(rows, bool(answer.get("cut")))

    async def snapshot(self, *, limits: SizeLimits = LIMITS) -> Snapshot:
        """See `Sandbox.snapshot`."""
        asked = {
            "file": limits.file_bytes,
            "total": limits.total_bytes,
            "files": limits.files,
        }
        stream = await self._alive()
        try:
            answer, archive = await stream.ask("collect", seconds=2 * _QUICK, limits=asked)
        except SandboxLost:
            raise
        except SandboxError as error:
            raise WorkspaceError(f"{error}; remove what the work does not need") from error
        # Of hostile size, so not on the event loop.
        files = await asyncio.to_thread(unpack, archive, limits=limits)
        skipped = [(str(row[0]), str(row[1])) for row in answer.get("skipped", ())][:100]
        return Snapshot(files, tuple(sorted(skipped)))

    async def close(self) -> None:
        """See `Sandbox.close`."""
        if not self._closed:
            self._closed = True
            await self._stream.close()
            await self._remove()

    async def detach(self) -> None:
        """Let go without removing: the container waits for the next runner."""
        self._closed = True
        await self._stream.close()

    async def _file(self, op: str, path: str, data: bytes = b"", **fields: object) -> Reply:
        inside = path.removeprefix("/workspace/") if path != "/workspace" else ""
        if inside.startswith("/"):
            raise PathRefused(f"{path}: outside the workspace; give a path relative to it")
        stream = await self._alive()
        try:
            return await stream.ask(op, data, seconds=_QUICK, path=inside, **fields)
        except SandboxLost:
            raise
        except SandboxError as error:
            raise PathRefused(str(error)) from error

    async def _alive(self) -> Stream:
        async with self._lock:
            if self._closed:
                raise SandboxLost(f"{self.name} is closed")
            if self._stream.lost:
                await self._stream.close()
                self._stream = await self._reconnect()
            return self._stream


def _result(reply: Reply) -> ExecResult:
    answer, payload = reply
    try:
        at = int(answer["out"])
        return ExecResult(
            exit_code=int(answer["exit"]),
            stdout=payload[:at].decode(errors="replace"),
            stderr=payload[at:].decode(errors="replace"),
            timed_out=bool(answer["timed_out"]),
            truncated=bool(answer["cut"]),
            duration_ms=int(answer["ms"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SandboxLost(f"the container speaks nonsense: {error!r}") from error
