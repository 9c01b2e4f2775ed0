"""A run's sandbox as the harness holds it: opened when first needed, rebuilt when it was lost.

The container holds the only copy of the workspace while a run goes on, and it may vanish. What
was done in it is in the journal, so a new one is brought to the same state by doing that again:
commands and edits, in order, their old results ignored. Opening is itself journaled, so that a
runner which finds a container can tell a finished one from one whose rebuilding was cut short.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from gateway.values import CallKey, StepPath
from runner.harness.scope import Scope
from runner.journal import Attempt, Entry, Kind, Outcome
from runner.sandbox.contract import Existing, Sandbox, SandboxLost
from runner.spec import Role
from runner.tools import REGISTRY, ToolContext
from runner.workspace import Files

T = TypeVar("T")

MAX_LOSSES = 3
"""Containers one action may lose before the run gives up for now: something kills them."""


class RunRoom:
    """The sandbox of one scope of a run: `""` is the agent's own, a step path a checker's."""

    def __init__(self, scope: Scope, name: str, files: Files, *, read_only: bool = False) -> None:
        self._scope = scope
        self._files = files
        self._read_only = read_only
        self._sandbox: Sandbox | None = None
        self.name = name
        self._path = StepPath(f"{name}.0" if name else "0")

    @property
    def used(self) -> bool:
        """Whether anything can have changed in it; before, its files are those it began with."""
        return self._sandbox is not None or self._openings() > 0

    async def use(self, act: Callable[[Sandbox], Awaitable[T]]) -> T:
        """Do something in the sandbox; in a rebuilt one, again, if it was lost meanwhile.

        Raises SandboxLost when it keeps being lost, and whatever `act` raises.
        """
        losses = 0
        replace = False
        while True:
            try:
                sandbox = self._sandbox or await self._open(replace=replace)
                return await act(sandbox)
            except SandboxLost:
                self._sandbox = None
                losses += 1
                if losses >= MAX_LOSSES:
                    raise
                replace = True

    async def files(self) -> Files:
        """The workspace as it is now."""
        if not self.used:
            return self._files

        async def snapshot(sandbox: Sandbox) -> Files:
            return (await sandbox.snapshot()).files

        return await self.use(snapshot)

    async def close(self) -> None:
        """Remove the container, if this runner opened it."""
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            await sandbox.close()

    def _openings(self) -> int:
        count = 0
        while self._scope.journal.find(CallKey(self._scope.run, self._path, count), "intent"):
            count += 1
        return count

    async def _open(self, *, replace: bool) -> Sandbox:
        number = self._openings()
        previous = CallKey(self._scope.run, self._path, number - 1)
        if number and self._scope.journal.find(previous, "outcome") is None:
            # Its opening was cut short: nobody knows how far the rebuilding had come.
            replace = True
        opened: Sandbox | None = None

        async def perform(attempt: Attempt) -> Outcome:
            nonlocal opened
            socket = None if self._read_only else await self._scope.open_socket()
            opened = await self._scope.sandboxes.open(
                self._scope.run,
                self._scope.spec.sandbox,
                files=self._files,
                socket_dir=Path(socket) if socket else None,
                read_only_workspace=self._read_only,
                suffix=self.name.replace(".", "-"),
                existing=Existing.REPLACE if replace else Existing.ADOPT,
                labels=self._scope.labels,
            )
            again = [] if opened.adopted else self._done()
            for entry in again:
                await self._repeat(entry, opened)
            return Outcome(
                body={"name": opened.name, "adopted": opened.adopted, "repeated": len(again)}
            )

        await self._scope.journal.step(
            self._path,
            kind=Kind.SANDBOX,
            name=self.name or "main",
            role="main",
            intent={"replace": replace, "read_only": self._read_only},
            perform=perform,
            call=number,
        )
        if opened is None:
            raise RuntimeError(f"{self._path}: opening {number} is in the journal already")
        self._sandbox = opened
        return opened

    def _done(self) -> list[Entry]:
        """Intents of the finished steps that changed this room, in the order they ended."""
        journal = self._scope.journal
        finished = []
        for entry in journal.steps():
            if entry.event != "outcome" or entry.kind not in (Kind.EXEC, Kind.FILE):
                continue
            intent = journal.find(entry.key, "intent")
            tool = REGISTRY.get(entry.name)
            changes = entry.kind is Kind.EXEC or (tool is not None and not tool.reads_only)
            if intent is not None and intent.body.get("room") == self.name and changes:
                finished.append(intent)
        return finished

    async def _repeat(self, intent: Entry, sandbox: Sandbox) -> None:
        tool = REGISTRY[intent.name]
        if tool.run is not None and isinstance(intent.body.get("arguments"), dict):
            role: Role = self._scope.spec.roles[intent.role]
            context = ToolContext(role, _Given(sandbox), self._scope.spec.sandbox.exec_timeout_ms)
            await tool.run(
                context, intent.body["arguments"], Attempt(intent.key, intent.body, False)
            )


class _Given:
    """A room that is this sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def use(self, act: Callable[[Sandbox], Awaitable[T]]) -> T:
        return await act(self._sandbox)
