"""A tool server as a child process that speaks on its standard input and output.

Started on first use by `launch`, with a clean environment, a home of its own and limits; started
again when it has died, with growing pauses if it keeps dying. Requests are told apart by their
ids, so that any number may be under way. Whatever the child writes is a stranger's: a line has a
greatest length, noise has a greatest amount, and what it says on standard error is kept only at
the end, without its secrets, to explain an exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, Final

from gateway.keys import Keyring, scrub
from gateway.mcp import launch
from gateway.mcp.connection import LARGEST, NoAnswer, OnNote, checked_response
from gateway.mcp.messages import METHOD_NOT_FOUND, failure, load, success
from gateway.policy import ToolServer
from gateway.routing import Failure
from gateway.values import Clock, Millis

STDERR_BYTES: Final = 4096
MOST_NOISE: Final = 10_000
"""Lines between two answers that answer nothing: notifications, garbage, strangers' ids."""
FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 1_000, 60_000
STEADY_MS: Final = 60_000
"""A child that lived this long did not die of its start."""
PARTING_SECONDS: Final = 2.0


class StdioConnection:
    """One server's child, and its successors."""

    one_channel = True

    def __init__(
        self,
        name: str,
        server: Callable[[], ToolServer],
        keyring: Keyring,
        clock: Clock,
        on_note: OnNote,
    ) -> None:
        self.epoch = 0
        self.version: str | None = None
        self._name = name
        self._server = server
        self._keyring = keyring
        self._clock = clock
        self._on_note = on_note
        self._child: _Child | None = None
        self._starting = asyncio.Lock()
        self._begun = Millis(0)
        self._deaths = 0
        self._not_before = Millis(0)

    @property
    def ready(self) -> bool:
        """Does a child run, and the one that the policy asks for?"""
        child, server = self._child, self._server()
        asked = (server.command, server.env)
        return child is not None and not child.dead and (child.command, child.asked) == asked

    async def start(self) -> None:
        """See that a child runs. Raises Failure (not done) while it may not start again yet."""
        async with self._starting:
            if self.ready:
                return
            server, child = self._server(), self._child
            if child is not None:
                if child.dead is not None:
                    self._wait_after(child)
                await child.end()
            now = self._clock.now()
            secrets = {key: self._keyring.read(ref) for key, ref in server.env.items()}
            self._child = _Child(self._name, server, secrets, self._clock, self._on_note)
            self._begun = now
            self.epoch += 1
            self.version = None
            await self._child.begin()

    async def ask(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        seconds: float,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """One request; there are no headers here. Raises Failure."""
        return await self._living().ask(method, params, seconds)

    async def tell(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification. Raises Failure."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params:
            message["params"] = dict(params)
        await self._living().write(message)

    async def close(self) -> None:
        """End the child and everything it has started."""
        if self._child is not None:
            await self._child.end()
            self._child = None

    def _living(self) -> _Child:
        if self._child is None:
            raise Failure(f"tool server {self._name} is not running", done=False)
        return self._child

    def _wait_after(self, child: _Child) -> None:
        """Raises Failure while a child that has died may not be followed by another yet."""
        if not child.counted:
            child.counted = True
            # A death after a steady life is an accident: the next one starts at once.
            steady = child.died - self._begun >= STEADY_MS
            self._deaths = 0 if steady else self._deaths + 1
            pause = FIRST_PAUSE_MS << min(self._deaths - 1, 16) if self._deaths else 0
            self._not_before = Millis(child.died + min(LONGEST_PAUSE_MS, pause))
        now = self._clock.now()
        if now < self._not_before:
            wait = -(-(self._not_before - now) // 1000)
            raise Failure(
                f"{child.dead}; it is started again in {wait} s", done=False, retry_after=wait
            )


class _Child:
    """One process, from its start to its end."""

    def __init__(
        self,
        name: str,
        server: ToolServer,
        secrets: Mapping[str, str],
        clock: Clock,
        on_note: OnNote,
    ) -> None:
        self.command, self.asked = server.command, server.env
        self.dead: str | None = None
        """Why it is not running any more."""
        self.died = Millis(0)
        self.counted = False
        self._where = f"tool server {name}"
        self._secrets = secrets
        self._clock = clock
        self._on_note = on_note
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._noise = 0
        self._errors = bytearray()
        self._home = tempfile.mkdtemp(prefix="interlock-tool-")
        self._process: asyncio.subprocess.Process | None = None
        self._readers: tuple[asyncio.Task[None], ...] = ()
        self._writing = asyncio.Lock()

    async def begin(self) -> None:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": self._home,
            "TMPDIR": self._home,
            "LANG": "C.UTF-8",
            **self._secrets,
        }
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                launch.__file__,
                str(os.getpid()),
                "--",
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=self._home,
                env=environment,
                start_new_session=True,
                limit=LARGEST,
            )
        except (OSError, ValueError) as error:
            self._die(f"{self._where} cannot be started ({type(error).__name__})")
            raise Failure(str(self.dead), done=False) from None
        self._readers = (
            asyncio.create_task(self._listen(self._process)),
            asyncio.create_task(self._overhear(self._process)),
        )

    async def ask(self, method: str, params: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        if self.dead is not None:
            raise Failure(self.dead, done=False)
        identity = next(self._ids)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[identity] = answer
        message = {"jsonrpc": "2.0", "id": identity, "method": method, "params": dict(params)}
        try:
            async with asyncio.timeout(seconds):
                await self.write(message)
                found = await answer
        except TimeoutError:
            self._cancel(identity)
            raise NoAnswer(
                f"{self._where} did not answer within {seconds:g} s", done=True
            ) from None
        except asyncio.CancelledError:
            self._cancel(identity)
            raise
        finally:
            self._waiting.pop(identity, None)
        return checked_response(found, identity, self._where)

    async def write(self, message: Mapping[str, Any]) -> None:
        """One line. Raises Failure (done: part of it may have been read)."""
        if self._process is None or self._process.stdin is None or self.dead is not None:
            raise Failure(self.dead or f"{self._where} is not running", done=False)
        line = json.dumps(message, ensure_ascii=False).encode() + b"\n"
        try:
            async with self._writing:
                self._process.stdin.write(line)
                await self._process.stdin.drain()
        except (OSError, RuntimeError):
            raise Failure(f"{self._where} has closed its input", done=True) from None

    async def end(self) -> None:
        """Close its input, give it a moment, then end the whole group (2025-11-25 and later,
        stdio, shutdown)."""
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            await _gone(process)
            if process.returncode is None or not self.dead:
                _signal(process.pid, signal.SIGKILL)
            # With the whole group gone its pipes are at their end. One that has left the group
            # may hold them open, and is not waited for.
            await asyncio.wait(self._readers, timeout=PARTING_SECONDS)
            for reader in self._readers:
                reader.cancel()
            await asyncio.gather(*self._readers, return_exceptions=True)
            process._transport.close()  # type: ignore[attr-defined]  # there is no public way
        self._die(f"{self._where} was ended")

    # --- what it says -------------------------------------------------------------------------

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        why = None
        while why is None:
            try:
                line = await process.stdout.readline()
            except ValueError:
                why = f"wrote a line of more than {LARGEST} bytes"
                break
            if not line:
                break
            why = await self._take(line)
        # The leader may have left others behind; nobody else knows of them.
        _signal(process.pid, signal.SIGKILL)
        await _gone(process)
        await asyncio.wait(self._readers[1:], timeout=PARTING_SECONDS)
        if why is None:
            status = process.returncode or 0
            how = f"signal {-status}" if status < 0 else f"status {status}"
            why = f"ended by itself ({how})"
        said = self._said()
        self._die(f"{self._where} {why}" + (f"; its last words: {said}" if said else ""))

    async def _take(self, line: bytes) -> str | None:
        """One line of the child; why it must end, if it must."""
        if not line.strip():
            return None
        try:
            text = line.decode()
            for secret in self._secrets.values():
                text = scrub(text, secret)
            message = load(text)
        except ValueError:
            message = None
        if isinstance(message, dict) and message.get("jsonrpc") == "2.0":
            method, identity = message.get("method"), message.get("id")
            if isinstance(method, str) and "id" in message:
                await self._refuse(method, identity)
            elif isinstance(method, str):
                self._on_note(method)
            elif isinstance(identity, int) and (waiting := self._waiting.get(identity)):
                if not waiting.done():
                    waiting.set_result(message)
                self._noise = 0
                return None
        self._noise += 1
        return None if self._noise <= MOST_NOISE else "wrote too much that answers nothing"

    async def _refuse(self, method: str, identity: Any) -> None:
        """A request of a legacy server: a ping is answered, no other ability was declared."""
        answer = failure(identity, METHOD_NOT_FOUND, "not an ability of this client")
        with contextlib.suppress(Failure, TimeoutError):
            async with asyncio.timeout(PARTING_SECONDS):
                await self.write(success(identity, {}) if method == "ping" else answer)

    async def _overhear(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while chunk := await process.stderr.read(4096):
            # Twice the ring, so that a secret across its edge is still whole when it is cut out.
            self._errors = (self._errors + chunk)[-2 * STDERR_BYTES :]

    def _said(self) -> str:
        text = self._errors.decode(errors="replace")
        for secret in self._secrets.values():
            text = scrub(text, secret)
        kept = "".join(c if c.isprintable() or c == " " else " " for c in text)
        return " ".join(kept[-STDERR_BYTES:].split())[-500:]

    def _die(self, why: str) -> None:
        if self.dead is None:
            self.dead = why
            self.died = self._clock.now()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Failure(self.dead, done=True))
        shutil.rmtree(self._home, ignore_errors=True)

    def _cancel(self, identity: int) -> None:
        """Tell the child to stop (stdio, cancellation), if it will hear it."""
        if self._process is None or self._process.stdin is None or self.dead is not None:
            return
        params = {"requestId": identity, "reason": "no longer wanted"}
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
        with contextlib.suppress(OSError, RuntimeError):
            self._process.stdin.write(json.dumps(note).encode() + b"\n")


async def _gone(process: asyncio.subprocess.Process) -> None:
    """Wait for its end, for a moment: the standard library also waits for whoever else holds its
    pipes, and that may be for ever."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), PARTING_SECONDS)


def _signal(group: int, number: signal.Signals) -> None:
    """To a child's whole process group: it was made the leader of one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
