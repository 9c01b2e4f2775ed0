"""Both sides, call by call, and what comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from gateway.backtest.books import KEPT, Books
from gateway.backtest.outcome import AgentOutcome, Outcome, Reason, Told
from gateway.backtest.recorded import Agent, RecordedCall, Side
from gateway.backtest.verdicts import Verdict, Way, now_served_by, of_tool, served_by, way_of
from gateway.values import CallKey, Millis, NanoUSD, RunId, StepPath

EXAMPLES: Final = 5
"""Call keys given of each thing that is told."""


def backtest(
    recorded: Iterable[RecordedCall], *, before: Side, after: Side, priced_at: Millis
) -> Outcome:
    """Replay calls, in the order they were made, against both sides.

    `priced_at`: prices are those of this time on both sides. A budget's window begins empty at the
    first call that is given.
    """
    replay = _Replay(Books(before, priced_at), Books(after, priced_at))
    for call in recorded:
        replay.take(call)
    return replay.outcome()


class _Judged(NamedTuple):
    verdict: Verdict
    cost: int


class _Pair(NamedTuple):
    """Both ways of a model call, and the target it is served by on each; None: by none."""

    before: Way
    after: Way
    served: str | None
    now_served: str | None


@dataclass(slots=True)
class _Tally:
    """One agent's figures while they are counted."""

    runs: set[str] = field(default_factory=set)
    calls: int = 0
    denied: dict[Verdict, list[Any]] = field(default_factory=dict)
    allowed: dict[Verdict, list[Any]] = field(default_factory=dict)
    rerouted: Counter[tuple[str, str]] = field(default_factory=Counter)
    denied_before: int = 0
    unseen: int = 0
    unpriced: int = 0
    recorded: int = 0
    before: int = 0
    after: int = 0


class _Replay:
    """Both sides, call by call."""

    def __init__(self, before: Books, after: Books) -> None:
        self._before = before
        self._after = after
        self._pairs: dict[tuple[str, str, str, str], _Pair] = {}
        self._tallies: dict[str, _Tally] = {}
        self._first: Millis | None = None
        self._last: Millis | None = None
        self._strangers = 0

    def take(self, call: RecordedCall) -> None:
        """One call more."""
        if self._first is None:
            self._first = call.at
        self._last = call.at
        if self._before.agent(call.agent) is None and self._after.agent(call.agent) is None:
            self._strangers += 1
            return
        if call.kind == "tool":
            self._tool(call)
        else:
            self._model(call)

    def _model(self, call: RecordedCall) -> None:
        pair = self._pair(call)
        # What a side has no way for is counted there as on the other: every recorded call counts.
        served, now_served = pair.served or pair.now_served, pair.now_served or pair.served
        one, two = pair.before.agent or pair.after.agent, pair.after.agent or pair.before.agent
        if served is None or now_served is None or one is None or two is None:
            self._count(call, pair.before.verdict, pair.after.verdict)
            return
        then = self._judged(self._before, call, pair.before, one, served)
        now = self._judged(self._after, call, pair.after, two, now_served)
        tally = self._count(call, then.verdict, now.verdict)
        if then.verdict.reason is None:
            tally.before += then.cost
        if now.verdict.reason is None:
            tally.after += now.cost
            tally.unpriced += not call.booked and self._after.price(call, now_served) is None
            if then.verdict.reason is None and served != now_served:
                tally.rerouted[served, now_served] += 1

    def _judged(
        self, books: Books, call: RecordedCall, way: Way, agent: Agent, target: str
    ) -> _Judged:
        """What one side says of a model call; and it is counted there."""
        room = books.limited(call, agent, target)
        verdict = room if way.verdict.reason is None else way.verdict
        checks, counting = books.counted(call, agent, way.grants, target)
        other = self._after if books is self._before else self._before
        cost = (books if way.targets else other).cost(call, target)
        if verdict.reason is None:
            verdict = books.objection(call, target, cost, checks)
        tokens = call.input_tokens + call.output_tokens
        for total in counting:
            total.spent_nano += cost
            total.spent_tokens += tokens
            total.spent_requests += 1
        return _Judged(verdict, cost)

    def _pair(self, call: RecordedCall) -> _Pair:
        key = (call.agent, call.role, call.asked, call.target)
        found = self._pairs.get(key)
        if found is None:
            if len(self._pairs) >= KEPT:
                self._pairs.clear()
            found = self._pairs[key] = self._find(call)
        return found

    def _find(self, call: RecordedCall) -> _Pair:
        one, two = self._before.agent(call.agent), self._after.agent(call.agent)
        asked = call.asked
        own = one.asks.get(call.role) if one else None
        grants = one.policy.roles.get(call.role) if one else None
        if own is not None and grants is not None and asked not in grants.models:
            asked = own  # by a release from before: a run of today's asks for what its role names
        now_asked = asked
        if two is not None and asked == own:
            now_asked = two.asks.get(call.role, asked)
        before = way_of(one, call.role, asked, self._before.policy)
        after = way_of(two, call.role, now_asked, self._after.policy)
        served = served_by(before, call.target)
        return _Pair(before, after, served, now_served_by(before, after, served or call.target))

    def _tool(self, call: RecordedCall) -> None:
        one, two = self._before.agent(call.agent), self._after.agent(call.agent)
        then, unseen = of_tool(call, one, self._before.policy)
        now, now_unseen = of_tool(call, two, self._after.policy)
        then = self._roomy(self._before, call, one or two, then)
        now = self._roomy(self._after, call, two or one, now)
        tally = self._count(call, then, now)
        tally.unseen += unseen or now_unseen

    @staticmethod
    def _roomy(books: Books, call: RecordedCall, agent: Agent | None, verdict: Verdict) -> Verdict:
        """The verdict, if it is a no; else what rate limits and guardrails say. The limits count
        the call anyway."""
        if agent is None:
            return verdict
        room = books.limited(call, agent, call.target)
        if verdict.reason is None:
            verdict = room
        if books.side.guard is not None and verdict.rank < Verdict(Reason.GUARDRAIL).rank:
            rule = books.side.guard(call, agent)
            return verdict if rule is None else Verdict(Reason.GUARDRAIL, rule)
        return verdict

    def _count(self, call: RecordedCall, then: Verdict, now: Verdict) -> _Tally:
        tally = self._tallies.get(call.agent)
        if tally is None:
            tally = self._tallies[call.agent] = _Tally()
        tally.runs.add(call.run)
        tally.calls += 1
        tally.recorded += call.cost_nano
        if then.reason is None and now.reason is None:
            return tally
        if now.rank > then.rank:
            _note(tally.denied, now, call)
        elif now.rank < then.rank:
            _note(tally.allowed, then, call)
        else:
            tally.denied_before += 1
        return tally

    def outcome(self) -> Outcome:
        """What has come of it so far; agents by name."""
        return Outcome(
            agents=tuple(
                AgentOutcome(
                    agent=name,
                    runs=len(tally.runs),
                    calls=tally.calls,
                    denied=_told(tally.denied),
                    allowed=_told(tally.allowed),
                    rerouted=tuple(sorted((a, b, n) for (a, b), n in tally.rerouted.items())),
                    denied_before=tally.denied_before,
                    unseen=tally.unseen,
                    unpriced=tally.unpriced,
                    recorded_nano=NanoUSD(tally.recorded),
                    before_nano=NanoUSD(tally.before),
                    after_nano=NanoUSD(tally.after),
                )
                for name, tally in sorted(self._tallies.items())
            ),
            first=self._first,
            last=self._last,
            strangers=self._strangers,
        )


def _note(into: dict[Verdict, list[Any]], verdict: Verdict, call: RecordedCall) -> None:
    noted = into.setdefault(verdict, [0])
    noted[0] += 1
    if len(noted) <= EXAMPLES:
        noted.append(CallKey(RunId(call.run), StepPath(call.step), call.call))


def _told(noted: Mapping[Verdict, list[Any]]) -> tuple[Told, ...]:
    """The most calls first."""
    found = [
        Told(verdict.reason, verdict.about, count, tuple(examples))
        for verdict, (count, *examples) in noted.items()
        if verdict.reason is not None
    ]
    return tuple(sorted(found, key=lambda told: (-told.calls, told.reason, told.about)))
