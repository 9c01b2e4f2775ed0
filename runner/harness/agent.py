"""One role's loop, the agent's own or a sub-agent's: decide, do, remember, again.

Everything done here is a journaled step, and everything decided here follows from journaled
outcomes (`runner.loop.decide`). That is what lets a restarted runner walk the same path again.
Steps of a sub-agent lie below the step that started it: `7.1`, `7.2`, … of step `7`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.values import CallKey, StepPath
from runner.client import CallRefused, Reply
from runner.harness import refusals
from runner.harness.answers import Ended, hand_back, mcp_text, number
from runner.harness.room import RunRoom
from runner.harness.scope import Meter, Scope, replay_usage
from runner.harness.still import StillRoom
from runner.journal import Attempt, Done, Kind, Outcome, Status
from runner.loop import (
    CallModel,
    Event,
    Judge,
    Message,
    RunTool,
    Stop,
    Tell,
    Told,
    ToolCall,
    ToolResult,
    decide,
    messages,
    parse_turn,
)
from runner.spec import Role, StopReason
from runner.stops import NUDGES, Observation, exceeded, stall
from runner.tools import Tool, ToolContext, misfit, offered, result, shorten


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of a `finish`: an end, or reasons to go on."""

    end: Stop | None
    reasons: str = ""


JudgeFinish = Callable[[Mapping[str, Any]], Awaitable[Judgement]]
Delegate = Callable[[StepPath, Role, str, Meter], Awaitable[Ended]]


class RoleLoop:
    """Runs one role until its loop ends."""

    def __init__(
        self,
        scope: Scope,
        role: Role,
        *,
        opening: Sequence[Message],
        room: RunRoom | StillRoom,
        prefix: str = "",
        meter: Meter,
        subagents: Mapping[str, Role] | None = None,
        delegate: Delegate | None = None,
    ) -> None:
        self._scope = scope
        self._role = role
        self._opening = tuple(opening)
        self._room = room
        self._prefix = prefix
        self._meter = meter
        self._subagents = dict(subagents or {})
        self._delegate = delegate
        self._tools = offered(role, delegates=bool(self._subagents))
        self._external: dict[str, dict[str, Any]] = {}
        self._events: list[Event] = []
        self._seen: list[Observation] = []
        self._taken = 0

    def path(self) -> StepPath:
        """The next step's position."""
        self._taken += 1
        return StepPath(f"{self._prefix}{self._taken}")

    async def step(
        self,
        *,
        kind: Kind,
        name: str,
        intent: Mapping[str, Any] | Callable[[], Awaitable[Mapping[str, Any]]],
        perform: Callable[[Attempt], Awaitable[Outcome]],
        path: StepPath | None = None,
    ) -> Done:
        """A journaled step of this role, counted."""
        done = await self._scope.journal.step(
            path or self.path(),
            kind=kind,
            name=name,
            role=self._role.name,
            intent=intent,
            perform=perform,
        )
        self._meter.add(done)
        return done

    async def run(self, judge: JudgeFinish) -> Ended:
        """The loop. `judge` decides what a `finish` means."""
        refused = await self._ask_for_tools()
        if refused is not None:
            return Ended(refused, fatal=refused.reason in refusals.FATAL)
        while True:
            pattern = stall(self._seen)
            over, of_run = self._over()
            decision = decide(
                self._events, stall=pattern, nudge=NUDGES[pattern] if pattern else "", over=over
            )
            end: Stop | None = None
            if isinstance(decision, Stop):
                return Ended(decision, fatal=decision is over and of_run)
            if isinstance(decision, Tell):
                await self._tell(decision.told)
            elif isinstance(decision, CallModel):
                end = await self._call_model()
            elif isinstance(decision, RunTool):
                end = await self._run_tool(decision.call)
            else:
                ended = await self._finish(decision, judge)
                if ended is not None:
                    return ended
            if end is not None:
                return Ended(end, fatal=end.reason in refusals.FATAL)

    def _over(self) -> tuple[Stop | None, bool]:
        """The ceiling that is reached, and whether it is the run's (and not the role's own)."""
        whole = exceeded(self._scope.meter.usage, self._scope.spec.limits)
        own = exceeded(self._meter.usage, self._role.grants.limits)
        reached = whole or own
        if reached is None:
            return None, False
        return Stop(reached.reason, reached.detail), whole is not None

    async def _tell(self, told: Told) -> None:
        if told.nudge:

            async def perform(attempt: Attempt) -> Outcome:
                return Outcome(body={"text": told.text})

            await self.step(kind=Kind.NUDGE, name="nudge", intent={}, perform=perform)
        self._events.append(told)

    # ------------------------------------------------------------------ model

    async def _ask_for_tools(self) -> Stop | None:
        """Which external tools there are, journaled: a policy change in the middle of a run must
        not change what a replay offers. What is called is checked again by the gateway."""
        if not self._role.grants.tools:
            return None

        async def perform(attempt: Attempt) -> Outcome:
            try:
                tools = await self._scope.gateway.list_tools(self._token)
            except CallRefused as refused:
                return refusals.outcome(refused)
            return Outcome(body={"tools": [dict(tool) for tool in tools]})

        done = await self.step(kind=Kind.CATALOGUE, name="tools", intent={}, perform=perform)
        if "error" in done.body:
            return refusals.stop(done.body["error"], model=True)
        for tool in done.body["tools"]:
            self._external[tool["name"]] = {
                "type": "function",
                "function": {
                    "name": tool["name"],
                    "description": tool.get("description") or "",
                    "parameters": tool.get("inputSchema") or {"type": "object"},
                },
            }
        return None

    @property
    def _token(self) -> str:
        return self._scope.tokens[self._role.name]

    async def _call_model(self) -> Stop | None:
        request = self._request()
        text = json.dumps(request, sort_keys=True).encode()
        path = self.path()

        async def perform(attempt: Attempt) -> Outcome:
            try:
                reply = await self._scope.gateway.chat(self._token, attempt.key, request)
            except CallRefused as refused:
                return refusals.outcome(refused)
            choices = reply.body.get("choices") or [{}]
            body = {
                "message": choices[0].get("message") or {},
                "finish_reason": choices[0].get("finish_reason") or "",
            }
            return await self._bought(attempt, reply, body, Status.OK)

        done = await self.step(
            kind=Kind.MODEL,
            name=self._role.model,
            intent={
                "model": self._role.model,
                "messages": len(request["messages"]),
                "request": hashlib.sha256(text).hexdigest(),
            },
            perform=perform,
            path=path,
        )
        if "error" in done.body:
            return refusals.stop(done.body["error"], model=True)
        turn = parse_turn(done.body["message"], done.body["finish_reason"], path)
        self._events.append(turn)
        if not turn.calls:
            self._seen.append(Observation("", turn.text))
        return None

    def _request(self) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._role.model,
            "messages": messages(self._opening, self._events),
            "tools": [tool.schema() for tool in self._tools.values()]
            + list(self._external.values()),
        }
        for name, value in self._role.parameters.items():
            # Decimals are strings in a release, because a digest has no floats.
            request[name] = number(value) if isinstance(value, str) else value
        ceiling = self._role.grants.limits.max_output_tokens
        if ceiling is not None:
            request["max_tokens"] = min(ceiling, request.get("max_tokens", ceiling))
        return request

    async def _bought(
        self, attempt: Attempt, reply: Reply, body: Mapping[str, Any], status: Status
    ) -> Outcome:
        """The outcome of an answered call. A replayed answer was paid for by an attempt whose
        outcome was lost with its runner: the ledger knows the figures."""
        tokens, cost = reply.tokens, int(reply.cost_nano)
        if reply.replayed:
            tokens, cost = await self._scope.spent(attempt.key)
        return Outcome(
            body=body,
            status=status,
            label=reply.label,
            tokens=tokens,
            cost_nano=type(reply.cost_nano)(cost),
            effect_key=reply.effect_key,
        )

    # ------------------------------------------------------------------ tools

    async def _run_tool(self, call: ToolCall) -> Stop | None:
        tool = self._tools.get(call.name)
        if call.arguments is None:
            done = await self._reject(call, "the arguments are not a JSON object")
        elif call.name in self._external:
            done = await self._call_external(call, call.arguments)
        elif tool is None:
            names = ", ".join([*self._tools, *self._external])
            done = await self._reject(call, f"there is no tool {call.name!r}; tools: {names}")
        elif wrong := misfit(tool.parameters, call.arguments):
            done = await self._reject(call, wrong)
        elif tool.kind is Kind.DELEGATE:
            return await self._hand_over(call, call.arguments)
        else:
            done = await self._call_builtin(tool, call.arguments)
        self._observe(call, str(done.body.get("result", "")), done.outcome.status is not Status.OK)
        if "error" in done.body:
            return refusals.stop(done.body["error"], model=False)
        return None

    def _observe(self, call: ToolCall, text: str, error: bool) -> None:
        self._events.append(ToolResult(call, text, error))
        self._seen.append(Observation(call.signature, text, error))

    async def _reject(self, call: ToolCall, why: str) -> Done:
        async def perform(attempt: Attempt) -> Outcome:
            return result(why, error=True)

        return await self.step(
            kind=Kind.TOOL, name=call.name or "?", intent={"raw": call.raw}, perform=perform
        )

    async def _call_builtin(self, tool: Tool, arguments: Mapping[str, Any]) -> Done:
        context = ToolContext(self._role, self._room, self._scope.spec.sandbox.exec_timeout_ms)

        async def intent() -> Mapping[str, Any]:
            seen = await tool.prepare(context, arguments) if tool.prepare else {}
            room = {"room": self._room.name} if tool.kind in (Kind.EXEC, Kind.FILE) else {}
            return {"arguments": dict(arguments), **room, **seen}

        async def perform(attempt: Attempt) -> Outcome:
            if tool.run is None:
                return result(f"{tool.name} cannot be used here", error=True)
            return await tool.run(context, arguments, attempt)

        return await self.step(kind=tool.kind, name=tool.name, intent=intent, perform=perform)

    async def _call_external(self, call: ToolCall, arguments: Mapping[str, Any]) -> Done:
        async def perform(attempt: Attempt) -> Outcome:
            try:
                reply = await self._scope.gateway.call_tool(
                    self._token, attempt.key, call.name, arguments
                )
            except CallRefused as refused:
                return refusals.outcome(refused)
            failed = bool(reply.body.get("isError"))
            body = {"result": shorten(mcp_text(reply.body))}
            return await self._bought(attempt, reply, body, Status.ERROR if failed else Status.OK)

        return await self.step(
            kind=Kind.TOOL,
            name=call.name,
            intent={"tool": call.name.replace("__", ".", 1), "arguments": dict(arguments)},
            perform=perform,
        )

    async def _hand_over(self, call: ToolCall, arguments: Mapping[str, Any]) -> Stop | None:
        role = self._subagents.get(arguments["name"])
        if role is None or self._delegate is None:
            names = ", ".join(self._subagents)
            done = await self._reject(
                call, f"there is no sub-agent {arguments['name']!r}; sub-agents: {names}"
            )
            self._observe(call, str(done.body["result"]), error=True)
            return None
        path, delegate = self.path(), self._delegate

        async def perform(attempt: Attempt) -> Outcome:
            ended = await delegate(path, role, arguments["task"], self._meter)
            answer = hand_back(ended)
            return result(
                answer,
                error=ended.said is None,
                stop=ended.stop.reason,
                detail=ended.stop.detail,
                fatal=ended.fatal,
            )

        # On a replay the sub-agent's steps are not walked again, so their use is added here.
        known = self._scope.journal.find(CallKey(self._scope.run, path), "outcome") is not None
        done = await self.step(
            kind=Kind.DELEGATE,
            name=role.name,
            intent={"task": arguments["task"]},
            perform=perform,
            path=path,
        )
        if known:
            replay_usage(self._scope, path, self._meter)
        self._observe(call, str(done.body["result"]), done.outcome.status is not Status.OK)
        if done.body["fatal"]:
            return Stop(StopReason(done.body["stop"]), f"{role.name}: {done.body['detail']}")
        return None

    # ----------------------------------------------------------------- finish

    async def _finish(self, decision: Judge, judge: JudgeFinish) -> Ended | None:
        call = decision.call
        arguments = call.arguments or {}
        wrong = misfit(self._tools["finish"].parameters, arguments)

        async def perform(attempt: Attempt) -> Outcome:
            return result(wrong, error=True) if wrong else Outcome(body=dict(arguments))

        done = await self.step(
            kind=Kind.FINISH, name="finish", intent={"arguments": dict(arguments)}, perform=perform
        )
        if wrong:
            self._observe(call, str(done.body["result"]), error=True)
            return None
        said = {str(k): v for k, v in done.body.items()}
        judgement = await judge(said)
        if judgement.end is not None:
            return Ended(judgement.end, said, fatal=judgement.end.reason in refusals.FATAL)
        self._events.append(ToolResult(call, "not accepted; see the reasons below", error=True))
        self._events.append(Told(judgement.reasons))
        self._seen.append(Observation(call.signature, judgement.reasons, error=True))
        return None
