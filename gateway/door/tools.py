"""A tool call, from the decision to the ledger: on its server, or in an eval's recorded world."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from gateway import calls
from gateway.access import Caller
from gateway.access.directory import InForce
from gateway.budgets import Admission
from gateway.calls import Ask, Next, Settlement, Stored
from gateway.database import Transaction
from gateway.door.books import Attempt, Books, Changed, exhausted
from gateway.door.guarding import Guarding
from gateway.limits import Limiter, Refused, Traits
from gateway.live import Finished, LiveCall
from gateway.mcp import artifacts, catalogue, recorded, results
from gateway.mcp.catalogue import GrantedTool
from gateway.mcp.fingerprints import Observed
from gateway.mcp.results import Artifact
from gateway.mcp.upstream import Servers
from gateway.policy import ToolServer
from gateway.policy.rules import Hook
from gateway.refusals import Code, Refusal
from gateway.routing import Failure
from gateway.telemetry import Outcome
from gateway.values import Label, Millis, NanoUSD, Purpose, RunId


@dataclass(frozen=True, slots=True)
class ToolAttempt(Attempt):
    """A reserved attempt of a tool call. `server` is None when a recorded world answers."""

    tool: GrantedTool
    server: ToolServer | None
    world: tuple[Mapping[str, Any], ...]


class ToolCalls:
    """The order for tool calls."""

    def __init__(
        self, books: Books, servers: Servers, guarding: Guarding, limiter: Limiter
    ) -> None:
        self._books = books
        self._servers = servers
        self._guarding = guarding
        self._limiter = limiter

    async def carry_out(self, call: LiveCall, name: str, arguments: Mapping[str, Any]) -> None:
        """Prepare the call under the policy in force and carry it out. Raises Refusal."""
        for _ in range(8):
            try:
                return await self._prepared(call, name, arguments)
            except Changed:
                self._books.look_again()
            call.findings.clear()
            call.audited.clear()
        raise Refusal(Code.NO_POLICY, "the policy changes faster than a call can be prepared")

    async def _prepared(self, call: LiveCall, name: str, arguments: Mapping[str, Any]) -> None:
        """Look at what goes out and count it, then call the tool. Raises Refusal, Changed."""
        standing, policy = self._books.caller(call.token_hash, certainly=True)
        who = standing.who.principal
        guard = self._guarding.at(Hook.TOOL_INPUT, policy, who, tool=name)
        if guard is not None:
            arguments = await self._guarding.arguments(guard, call, arguments)
        room = self._limiter.admit(
            policy.policy.rate_limits,
            Traits(who.agent, who.team, (), name),
            tokens=0,
            now=self._books.now(),
        )
        if isinstance(room, Refused):
            raise room.refusal()
        call.audited.extend(over.rule for over in room.over)
        sent = False
        try:
            await self._carry_out(call, name, arguments, policy)
            sent = True
        finally:
            if not sent and not call.attempts:
                self._limiter.release(room, self._books.now())

    async def _carry_out(
        self, call: LiveCall, name: str, arguments: Mapping[str, Any], policy: InForce
    ) -> None:
        """On its server or in the recorded world. Raises Refusal, Changed."""
        seen = await self._look(call, name, arguments, policy)
        opened = await self._books.decide(
            call, lambda tx: self._open(tx, call, name, arguments, policy, seen)
        )
        if isinstance(opened, Stored):
            self._books.replayed(call, opened.row, Outcome.REPLAYED)
            replay(call, opened)
            return
        if isinstance(opened, Refusal):
            raise opened
        effect_key = opened.row["effect_key"]
        call.begin(target=name, label=opened.label, effect_key=effect_key)
        try:
            answer = await self._answer(call, opened, name, arguments)
        except Failure as failure:
            await self._books.give_up(call, opened, failure)
            if failure.done and not opened.tool.kind.repeatable:
                raise Refusal(
                    Code.OUTCOME_UNKNOWN,
                    f"{name} may have happened: {failure.message}. It is not safe to repeat; "
                    "look at the system it changes, then decide.",
                    call_key=str(call.key),
                ) from None
            raise exhausted([failure]) from None
        except Refusal as refused:
            # A key that is missing or may not be sent there: nothing has left this process.
            await self._books.give_up(
                call, opened, Failure(refused.message, done=False, code=refused.code)
            )
            raise
        except BaseException as error:
            await self._books.abandon(call, opened, error)
            raise
        assert call.who is not None
        guard = self._guarding.at(Hook.TOOL_OUTPUT, policy, call.who, tool=name)
        if guard is not None:
            try:
                answer = await self._guarding.result(guard, call, answer)
            except BaseException as error:
                # It has happened all the same: settled, and what it said is not given.
                cut = call.cut.message if call.cut else f"cut off: {type(error).__name__}"
                why = error.message if isinstance(error, Refusal) else cut
                settlement = Settlement(NanoUSD(0), error=why)
                await asyncio.shield(self._books.settle(call, opened, settlement, None))
                raise
        await self._settle(call, opened, name, answer)

    async def _settle(
        self, call: LiveCall, opened: ToolAttempt, name: str, answer: dict[str, Any]
    ) -> None:
        """Write the result, and keep the whole of it apart when it is large."""
        also = None
        if opened.server is not None:
            fitted = results.fit(answer, run=call.key.run, most=opened.server.max_result_bytes)
            answer = fitted.result
            if fitted.artifact is not None:
                also = partial(_keep, fitted.artifact, call.key.run, name, opened.label)
        settled = self._books.settle(
            call, opened, Settlement(NanoUSD(0)), calls.stored(answer), also=also
        )
        await asyncio.shield(settled)
        call.finish(Finished(response=answer))

    async def _look(
        self, call: LiveCall, name: str, arguments: Mapping[str, Any], policy: InForce
    ) -> Observed | Failure | Refusal | None:
        """What the tool's server says of it now, for whoever may call it at all. A server that
        cannot be asked matters only if the call has not been answered before."""
        standing = self._books.caller(call.token_hash)[0]
        if not reaches(standing.who) or self._books.answered(call):
            return None
        catalogue.check(
            name, arguments, grants=standing.grants, sides=standing.sides, policy=policy.policy
        )
        server, _, short = name.partition(".")
        try:
            return await self._servers.look(
                server, policy.policy.servers[server], short, user=standing.who.principal.user
            )
        except (Failure, Refusal) as reason:
            return reason

    def _open(
        self,
        tx: Transaction,
        call: LiveCall,
        name: str,
        arguments: Mapping[str, Any],
        prepared: InForce,
        seen: Observed | Failure | Refusal | None,
    ) -> ToolAttempt | Stored | Refusal:
        """Decide and reserve, in one transaction. Raises Refusal, Changed."""
        now = self._books.now()
        standing, policy = self._books.deciding(tx, call.token_hash, now)
        if policy.digest != prepared.digest:
            raise Changed
        who = standing.who
        tool = catalogue.check(
            name,
            arguments,
            grants=standing.grants,
            sides=standing.sides,
            policy=policy.policy,
            seen=seen if isinstance(seen, Observed) else None,
        )
        ask = Ask(
            call.key,
            who.principal,
            "tool",
            name,
            call.request_hash,
            policy.digest,
            repeatable=tool.kind.repeatable,
            changes=tool.changes,
            fresh=call.fresh,
        )
        stands = self._books.standing(tx, call, ask, rules=policy.rules, now=now)
        if not isinstance(stands, Next):
            return stands
        if isinstance(seen, Failure):
            return exhausted([seen])
        if isinstance(seen, Refusal):
            return seen
        row = self._books.ledger.reserve(
            tx,
            ask,
            attempt=stands.attempt,
            effect_key=stands.effect_key,
            target=name,
            admission=Admission(0, 0, 0),
            price_table=None,
            label=tool.label,
            rules=policy.rules,
            now=now,
        )
        # An eval never reaches a real server, even when nobody recorded anything for it.
        server = policy.policy.servers[name.partition(".")[0]] if reaches(who) else None
        return ToolAttempt(
            row, (), policy, self._books.monotonic(), tool, server, who.recorded or ()
        )

    async def _answer(
        self, call: LiveCall, attempt: ToolAttempt, name: str, arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The MCP result. Raises Failure, Refusal (nothing was sent)."""
        if attempt.server is None:
            return recorded.answer(attempt.world, name, arguments)
        server, _, short = name.partition(".")
        return await self._servers.call(
            server,
            attempt.server,
            short,
            arguments,
            effect_key=attempt.row["effect_key"],
            user=attempt.row["for_user"],
            decided=attempt.tool.kind,
        )


def reaches(who: Caller) -> bool:
    """Is there a real server behind this caller's tools?"""
    return who.recorded is None and who.principal.purpose is Purpose.LIVE


def _keep(
    artifact: Artifact, run: RunId, tool: str, label: Label, tx: Transaction, now: Millis
) -> None:
    """Keep the whole of a large result."""
    artifacts.store(tx, artifact, run=run, tool=tool, label=label, now=now)


def replay(call: LiveCall, found: Stored) -> None:
    """Give a stored result again."""
    row = found.row
    if row["response"] is None:
        raise Refusal(Code.GUARDRAIL, f"the result was withheld: {row['error']}")
    call.begin(target=row["target"], label=Label.parse(row["label"]), effect_key=row["effect_key"])
    call.finish(Finished(response=json.loads(row["response"]), replayed=True))
