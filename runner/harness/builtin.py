"""The builtin harness: the agent's loop, its sub-agents, who says that it is done, the grades.

The maker's word never ends a run-until-done: after its `finish` a command in a fresh container or
a checker with an identity of its own, on a read-only copy, decides; a rejection goes back to the
maker as a message and the loop goes on within its limits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.values import CallKey, NanoUSD, StepPath
from runner.context import first_line, opening, review
from runner.harness.agent import Judgement, RoleLoop
from runner.harness.answers import Ended, said_text
from runner.harness.grading import called_tools, merge
from runner.harness.room import RunRoom
from runner.harness.scope import Meter, Scope, replay_usage
from runner.harness.still import StillRoom
from runner.journal import Attempt, Done, Kind, Outcome
from runner.loop import Stop
from runner.sandbox.contract import SandboxError, SandboxLost, SandboxUnavailable
from runner.spec import (
    CommandCheck,
    Grade,
    LimitCheck,
    Role,
    RoleKind,
    RunOutcome,
    StopReason,
    ToolCheck,
)
from runner.tools import shorten
from runner.verifier import verify
from runner.workspace import WorkspaceError, diff

MAIN = "main"
REVIEW_DIFF_CHARS = 20_000

UNGRADED = frozenset({StopReason.KILLED, StopReason.ERROR, StopReason.OUTCOME_UNKNOWN})
"""Ends that say nothing about the agent's work: it is not graded."""


class BuiltinHarness:
    """Executes one run under one lease."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._spec = scope.spec
        self._room = RunRoom(scope, "", scope.pristine)
        self._open: list[RunRoom] = [self._room]
        self._accepted: bool | None = None
        subagents = {n: r for n, r in self._spec.roles.items() if n != MAIN}
        role = self._spec.roles[MAIN]
        self._loop = RoleLoop(
            scope,
            role,
            opening=opening(
                role,
                self._spec.input,
                notes=self._spec.notes,
                subagents=[(n, first_line(r.instructions)) for n, r in subagents.items()],
            ),
            room=self._room,
            meter=scope.meter,
            subagents=subagents,
            delegate=self._delegate,
        )

    async def execute(self) -> RunOutcome:
        """Carry the run to its end, from wherever its journal stands.

        Raises what is not the run's doing (Fenced, GatewayUnreachable, SandboxLost,
        SandboxUnavailable): the run can then be continued later, in the same container.
        """
        ended = await self._loop.run(self._judge)
        return await self._conclude(ended)

    async def close(self) -> None:
        """Remove the containers of a run that is over. Never call it for a run that goes on:
        the next runner, perhaps already at work, has the same container."""
        for room in self._open:
            await room.close()

    # -------------------------------------------------------------- sub-agents

    async def _delegate(self, path: StepPath, role: Role, task: str, parent: Meter) -> Ended:
        """Run a sub-agent one level deep, with its own context, identity and grants."""
        if role.kind is RoleKind.CHECKER:
            return await self._on_snapshot(path, role, task, parent)
        return await self._subloop(path, role, task, parent, self._room)

    async def _on_snapshot(self, path: StepPath, role: Role, task: str, parent: Meter) -> Ended:
        files = await self._room.files()
        if "shell" not in role.tools:
            return await self._subloop(path, role, task, parent, StillRoom(path, files))
        room = RunRoom(self._scope, path, files, read_only=True)
        self._open.append(room)
        ended = await self._subloop(path, role, task, parent, room)
        await room.close()
        self._open.remove(room)
        return ended

    async def _subloop(
        self, path: StepPath, role: Role, task: str, parent: Meter, room: RunRoom | StillRoom
    ) -> Ended:
        loop = RoleLoop(
            self._scope,
            role,
            opening=opening(role, task),
            room=room,
            prefix=f"{path}.",
            meter=Meter(parent=parent),
        )

        async def done(said: Mapping[str, Any]) -> Judgement:
            return Judgement(_said_end(said) or Stop(StopReason.DONE))

        return await loop.run(done)

    # ------------------------------------------------------------------- until

    async def _judge(self, said: Mapping[str, Any]) -> Judgement:
        refused = _said_end(said)
        if refused is not None:
            return Judgement(refused)
        until = self._spec.until
        if until.command is None and until.checker is None:
            return Judgement(Stop(StopReason.DONE))
        if until.command is not None:
            command = until.command
            verdict = await self._check("until", lambda path: self._by_command(command))
            if verdict is not None:
                return verdict
        if until.checker is not None:
            role = self._spec.roles[until.checker]
            verdict = await self._check(role.name, lambda path: self._by_checker(path, role, said))
            if verdict is not None:
                return verdict
        self._accepted = True
        return Judgement(Stop(StopReason.UNTIL_MET))

    async def _check(
        self, name: str, judge: Callable[[StepPath], Awaitable[Outcome]]
    ) -> Judgement | None:
        """One journaled verdict; None when it accepts."""
        path = self._loop.path()
        known = self._scope.journal.find(CallKey(self._scope.run, path), "outcome") is not None

        async def perform(attempt: Attempt) -> Outcome:
            return await judge(path)

        done: Done = await self._loop.step(
            kind=Kind.CHECK, name=name, intent={}, perform=perform, path=path
        )
        if known:
            replay_usage(self._scope, path, self._scope.meter)
        body = done.body
        if body["verdict"] == "accept":
            return None
        if body["verdict"] == "reject":
            self._accepted = False
            return Judgement(None, f"{name} does not accept the work:\n{body['reasons']}")
        return Judgement(Stop(StopReason(body["stop"]), f"{name}: {body['reasons']}"))

    async def _by_command(self, command: str) -> Outcome:
        check = CommandCheck(
            id="until", command=command, timeout_ms=self._spec.sandbox.exec_timeout_ms
        )
        try:
            files = await self._room.files()
        except WorkspaceError as error:
            return _no_verdict(StopReason.ERROR, str(error))
        (grade,) = await verify(
            (check,),
            files=files,
            pristine=_directory(self._spec.workspace.path),
            protect=self._spec.workspace.protect,
            spec=self._spec.sandbox,
            sandboxes=self._scope.sandboxes,
            run=self._scope.run,
        )
        if grade.status == "error":
            return _no_verdict(StopReason.ERROR, grade.detail)
        verdict = "accept" if grade.status == "passed" else "reject"
        return Outcome(body={"verdict": verdict, "reasons": f"`{command}`: {grade.detail}"})

    async def _by_checker(self, path: StepPath, role: Role, said: Mapping[str, Any]) -> Outcome:
        try:
            change = diff(self._scope.pristine, await self._room.files())
        except WorkspaceError as error:
            return _no_verdict(StopReason.ERROR, str(error))
        task = review(
            self._spec.input,
            claim=said_text(said),
            changed=change.changed,
            diff=shorten(change.diff, REVIEW_DIFF_CHARS),
        )
        ended = await self._on_snapshot(path, role, task, self._scope.meter)
        verdict = (ended.said or {}).get("verdict")
        if verdict not in ("accept", "reject"):
            return _no_verdict(ended.stop.reason, f"no verdict: {ended.stop.detail}")
        return Outcome(body={"verdict": verdict, "reasons": (ended.said or {}).get("reasons", "")})

    # --------------------------------------------------------------------- end

    async def _conclude(self, ended: Ended) -> RunOutcome:
        stop = ended.stop
        body: Mapping[str, Any] = {}
        if stop.reason is not StopReason.KILLED:
            done = await self._loop.step(
                kind=Kind.RESULT,
                name="result",
                intent={"stop": stop.reason},
                perform=lambda attempt: self._result(stop),
            )
            body = done.body
        said = ended.said or {}
        meter = self._scope.meter
        return RunOutcome(
            stop=stop.reason,
            stall=stop.stall,
            detail=stop.detail,
            shared_budget=stop.shared_budget,
            summary="\n".join(v for k in ("outcome", "evidence") if (v := str(said.get(k) or ""))),
            accepted=self._accepted,
            grades=tuple(Grade.model_validate(grade) for grade in body.get("grades", ())),
            changed=tuple(body.get("changed", ())),
            diff=body.get("diff", ""),
            notes=self._notes(),
            steps=meter.steps,
            tokens=meter.tokens,
            cost_nano=NanoUSD(meter.cost_nano),
            working_ms=meter.working_ms,
        )

    async def _result(self, stop: Stop) -> Outcome:
        """Take the change out of the sandbox and grade it, while the container is still there."""
        checks = self._spec.checks if stop.reason not in UNGRADED else ()
        try:
            files = await self._room.files()
        except (SandboxLost, SandboxUnavailable):
            raise
        except (WorkspaceError, SandboxError) as error:
            problem = str(error)
            grades = tuple(Grade(check=c.id, status="error", detail=problem) for c in checks)
            return Outcome(body={"problem": problem, "grades": [_plain(g) for g in grades]})
        change = diff(self._scope.pristine, files)
        verified: tuple[Grade, ...] = ()
        in_container = [c for c in checks if not isinstance(c, ToolCheck | LimitCheck)]
        if in_container:
            verified = await verify(
                in_container,
                files=files,
                pristine=_directory(self._spec.workspace.path),
                protect=self._spec.workspace.protect,
                spec=self._spec.sandbox,
                sandboxes=self._scope.sandboxes,
                run=self._scope.run,
            )
        sent = await self._scope.sent()
        called = (*called_tools(self._scope.journal.steps()), *sent.tools)
        usage = self._scope.meter.usage
        usage = replace(
            usage, tokens=usage.tokens + sent.tokens, cost_nano=usage.cost_nano + sent.cost_nano
        )
        grades = merge(checks, verified, called, usage)
        return Outcome(
            # What commands bought through the run's socket is counted here, once.
            tokens=sent.tokens,
            cost_nano=NanoUSD(sent.cost_nano),
            body={
                "changed": list(change.changed),
                "diff": change.diff,
                "grades": [_plain(grade) for grade in grades],
            },
        )

    def _notes(self) -> str:
        """The last notes of this run, else those it was given: they stay until replaced."""
        notes = self._spec.notes
        for entry in self._scope.journal.steps():
            if entry.event == "outcome" and entry.kind is Kind.NOTE and "notes" in entry.body:
                notes = str(entry.body["notes"])
        return notes


def _said_end(said: Mapping[str, Any]) -> Stop | None:
    """A `finish` whose outcome is the word `refused` is a refusal, with its reason."""
    outcome = str(said.get("outcome", "")).strip()
    if outcome.lower().startswith("refused"):
        return Stop(StopReason.REFUSED, str(said.get("evidence") or outcome))
    return None


def _no_verdict(reason: StopReason, why: str) -> Outcome:
    return Outcome(body={"verdict": "none", "stop": reason, "reasons": why})


def _plain(grade: Grade) -> dict[str, Any]:
    return grade.model_dump(mode="json")


def _directory(path: str | None) -> Path | None:
    return None if path is None else Path(path)
