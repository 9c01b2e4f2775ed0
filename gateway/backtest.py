"""Which recorded calls a changed policy would now refuse, let through, or serve elsewhere. Pure.

Every recorded call is held against two sides, what is in force and what a change asks for, by the
very rules of the door: `routing.targets`, `catalogue.check`, `pricing` and `budgets`. What a
recording cannot know is left out or counted as not known; docs/policies/backtest.md lists it.

Verdicts are about each call alone: *had everything before it happened as recorded, would the door
have let this one through?* A refused run would have gone another way, which nobody knows, so every
recorded call counts against the budgets of both sides, whether it would have been let through or
not. This also makes the replay monotone: what only tightens never lets anything new through.

Rows are read once, in the order of time. What is kept grows with agents, runs and budget windows,
not with calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple

from gateway import budgets, pricing
from gateway.budgets import Ceiling, Charge, Meter, Rules, Shortfall, Total
from gateway.mcp import catalogue
from gateway.policy import Access, AgentPolicy, Grants, Policy
from gateway.pricing import PriceList, Usage
from gateway.refusals import Code, Refusal
from gateway.routing import targets as routes
from gateway.values import CallKey, Json, Millis, NanoUSD, RunId, StepPath

EXAMPLES: Final = 5
"""Call keys given of each thing that is told."""
_KEPT: Final = 50_000
_DAY: Final = 86_400_000


class RecordedCall(NamedTuple):
    """One attempt that was sent (a row of the ledger), or a tool call that was refused (the
    journal). `arguments` are None where nobody recorded them. `lost`: the answer never came, and
    `cost_nano` is what was booked for it; its tokens are those reserved."""

    run: str
    step: str
    call: int
    kind: Literal["model", "tool"]
    agent: str
    role: str
    at: Millis
    asked: str
    target: str
    purpose: str = "live"
    cost_nano: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    lost: bool = False
    user: str | None = None
    tags: tuple[str, ...] = ()
    arguments: Mapping[str, Any] | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent as a side declares it. `asks`: the model that each of its roles asks for; a role
    that is not there (a caller from outside) asks for what it likes."""

    name: str
    policy: AgentPolicy
    asks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Side:
    """One policy, and who is declared under it. `agent` finds an agent by the name that its calls
    were recorded under: a renamed one is found by both of its names."""

    policy: Policy
    agent: Callable[[str], Agent | None]


class Reason(StrEnum):
    """Why a call is not let through."""

    UNDECLARED = "undeclared"
    MODEL = "model"
    TOOL = "tool"
    ARGUMENT = "argument"
    PRICE = "price"
    BUDGET = "budget"
    APPROVAL = "approval"
    """Not refused: a person is asked."""


@dataclass(frozen=True, slots=True)
class Told:
    """Calls that come off otherwise, for one reason: `about` is the model, the tool, the budget
    (`run`: the run's own limits) or the agent."""

    reason: Reason
    about: str
    calls: int
    examples: tuple[CallKey, ...]

    def as_json(self) -> Json:
        """By name; examples as `run/step/call`."""
        return {
            "reason": self.reason.value,
            "about": self.about,
            "calls": self.calls,
            "examples": [str(key) for key in self.examples],
        }


@dataclass(frozen=True, slots=True)
class AgentOutcome:
    """What came of one agent's recorded calls. Money is in nano-dollars.

    `before_nano` and `after_nano` are what the calls that each side lets through cost at its own
    prices; `recorded_nano` is what the ledger says of all of them.
    """

    agent: str
    runs: int = 0
    calls: int = 0
    denied: tuple[Told, ...] = ()
    """Let through before and not now; or a person is asked now."""
    allowed: tuple[Told, ...] = ()
    """Let through now and not before, with why not; or nobody is asked any more."""
    rerouted: tuple[tuple[str, str, int], ...] = ()
    """(from, to, calls) that are served by another model."""
    denied_before: int = 0
    """Calls that neither side lets through: recorded under an earlier policy, or refused."""
    unseen: int = 0
    """Tool calls under a constraint whose arguments nobody recorded: only the tool was judged."""
    unpriced: int = 0
    """Calls that now cost nothing because nobody knows the price."""
    recorded_nano: NanoUSD = NanoUSD(0)
    before_nano: NanoUSD = NanoUSD(0)
    after_nano: NanoUSD = NanoUSD(0)

    @property
    def differs(self) -> bool:
        """Whether anything comes off otherwise."""
        return bool(
            self.denied or self.allowed or self.rerouted or self.before_nano != self.after_nano
        )

    def as_json(self) -> Json:
        """By name."""
        return {
            "agent": self.agent,
            "runs": self.runs,
            "calls": self.calls,
            "newly_denied": [told.as_json() for told in self.denied],
            "newly_allowed": [told.as_json() for told in self.allowed],
            "rerouted": [{"from": a, "to": b, "calls": n} for a, b, n in self.rerouted],
            "denied_before": self.denied_before,
            "unseen_arguments": self.unseen,
            "unpriced": self.unpriced,
            "recorded_nano": self.recorded_nano,
            "before_nano": self.before_nano,
            "after_nano": self.after_nano,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of all recorded calls, by agent. `first` and `last` are when the first and the
    last of them were made; None without any. `strangers`: calls of agents neither side has."""

    agents: tuple[AgentOutcome, ...] = ()
    first: Millis | None = None
    last: Millis | None = None
    strangers: int = 0

    @property
    def calls(self) -> int:
        """How many calls were replayed."""
        return sum(one.calls for one in self.agents)

    @property
    def runs(self) -> int:
        """Of how many runs."""
        return sum(one.runs for one in self.agents)


def backtest(
    recorded: Iterable[RecordedCall], *, before: Side, after: Side, priced_at: Millis
) -> Outcome:
    """Replay calls, in the order they were made, against both sides.

    Calls for evals count against budgets and are not judged. `priced_at`: prices are those of
    this time on both sides. A budget's window begins empty at the first call that is given.
    """
    replay = _Replay(_Books(before, priced_at), _Books(after, priced_at))
    for call in recorded:
        replay.take(call)
    return replay.outcome()


class _Way(NamedTuple):
    """Where a model call goes on one side: its targets, or why nowhere. `ordered`: the first one
    is the first choice; else they share the calls."""

    agent: Agent | None
    grants: Grants
    targets: tuple[str, ...]
    ordered: bool
    reason: Reason | None
    about: str


class _Pair(NamedTuple):
    """Both ways of a model call, and the target it is served by on each; None: by none."""

    before: _Way
    after: _Way
    served: str | None
    now_served: str | None


class _Verdict(NamedTuple):
    reason: Reason | None
    about: str = ""

    @property
    def rank(self) -> int:
        return 0 if self.reason is None else 1 if self.reason is Reason.APPROVAL else 2


_YES: Final = _Verdict(None)


class _Books:
    """One side while it is replayed: its prices, and what its budgets have counted so far."""

    def __init__(self, side: Side, priced_at: Millis) -> None:
        self.side = side
        self.policy = side.policy
        self._digest = side.policy.digest()
        self._rules = Rules(side.policy.budgets)
        self._priced_at = priced_at
        self._agents: dict[str, Agent | None] = {}
        self._prices: dict[str, PriceList | None] = {}
        self._totals: dict[Meter, Total] = {}
        self._over: dict[Any, tuple[tuple[tuple[Ceiling, Total], ...], tuple[Total, ...]]] = {}

    def agent(self, name: str) -> Agent | None:
        """The agent of that recorded name."""
        if name not in self._agents:
            self._agents[name] = self.side.agent(name)
        return self._agents[name]

    def way(self, agent: Agent | None, role: str, asked: str) -> _Way:
        """Where a call for this model goes."""
        grants = agent.policy.roles.get(role) if agent else None
        if agent is None or grants is None:
            return _Way(agent, Grants(), (), True, Reason.UNDECLARED, role)
        virtual = self.policy.virtual_models.get(asked)
        ordered = virtual is None or virtual.routing == "priority"
        try:
            found = routes(asked, grants, self.policy)
        except Refusal:
            return _Way(agent, grants, (), ordered, Reason.MODEL, asked)
        return _Way(agent, grants, tuple(t.name for t in found), ordered, None, "")

    def price(self, target: str) -> PriceList | None:
        """What a model costs; None: nobody knows, or there is no such model."""
        if target not in self._prices:
            model = self.policy.models.get(target)
            provider = self.policy.providers.get(model.provider) if model else None
            self._prices[target] = (
                pricing.price_of(model, provider, self._digest, self._priced_at)
                if model and provider
                else None
            )
        return self._prices[target]

    def cost(self, call: RecordedCall, target: str) -> int:
        """What the call costs here: nothing where the price is not known, as booked where the
        answer was lost."""
        if call.lost:
            return call.cost_nano
        price = self.price(target)
        return price.cost(_usage(call)) if price else 0

    def objection(self, call: RecordedCall, way: _Way, target: str) -> _Verdict:
        """Whether price and budgets let a call of this target through, as things stand."""
        assert way.agent is not None
        checks, _ = self._counted(call, way.agent, way.grants, target)
        if not checks:
            return _YES
        price = self.price(target)
        if price is None and any(c.limit_nano is not None for c, _ in checks):
            return _Verdict(Reason.PRICE, target)
        tokens = call.input_tokens + call.output_tokens
        worst = price.worst(call.input_tokens, call.output_tokens) if price else 0
        for ceiling, total in checks:
            nano, most, times = ceiling.limit_nano, ceiling.limit_tokens, ceiling.limit_requests
            if (
                (nano is not None and total.spent_nano + worst > nano)
                or (most is not None and total.spent_tokens + tokens > most)
                or (times is not None and total.spent_requests >= times)
            ):
                break
        else:
            return _YES
        # It does not fit as it was. The door would shorten its answer before it refuses it.
        answer = budgets.admit(
            [ceiling for ceiling, _ in checks],
            {ceiling.meter: total for ceiling, total in checks},
            cost=price.worst if price else lambda _input, _output: 0,
            input_tokens=call.input_tokens,
            wanted_output=call.output_tokens,
        )
        if isinstance(answer, Shortfall):
            return _Verdict(Reason.BUDGET, answer.ceiling.name)
        return _YES

    def charge(self, call: RecordedCall, agent: Agent, grants: Grants, target: str, cost: int
               ) -> None:  # fmt: skip
        """Count the call in every window that counts it."""
        tokens = call.input_tokens + call.output_tokens
        for total in self._counted(call, agent, grants, target)[1]:
            total.spent_nano += cost
            total.spent_tokens += tokens
            total.spent_requests += 1

    def _counted(
        self, call: RecordedCall, agent: Agent, grants: Grants, target: str
    ) -> tuple[tuple[tuple[Ceiling, Total], ...], tuple[Total, ...]]:
        """The enforced ceilings over a call with their totals, and every total that counts it."""
        key = (call.run, call.role, target, call.at // _DAY, call.user, call.tags, call.purpose)
        found = self._over.get(key)
        if found is None:
            charge = Charge(
                run=call.run,
                agent=agent.name,
                team=agent.policy.team,
                model=target,
                purpose=call.purpose,
                at=call.at,
                user=call.user,
                tags=call.tags,
            )
            counting = tuple(self._total(meter) for meter in self._rules.meters(charge))
            checks = tuple(
                (ceiling, self._total(ceiling.meter))
                for ceiling in self._rules.ceilings(grants.limits, charge)
                if ceiling.enforce
            )
            if len(self._over) >= _KEPT:
                self._over.clear()
            found = self._over[key] = (checks, counting)
        return found

    def _total(self, meter: Meter) -> Total:
        return self._totals.setdefault(meter, Total())


@dataclass(slots=True)
class _Tally:
    """One agent's figures while they are counted."""

    runs: set[str] = field(default_factory=set)
    calls: int = 0
    denied: dict[_Verdict, list[Any]] = field(default_factory=dict)
    allowed: dict[_Verdict, list[Any]] = field(default_factory=dict)
    rerouted: Counter[tuple[str, str]] = field(default_factory=Counter)
    denied_before: int = 0
    unseen: int = 0
    unpriced: int = 0
    recorded: int = 0
    before: int = 0
    after: int = 0


class _Replay:
    """Both sides, call by call."""

    def __init__(self, before: _Books, after: _Books) -> None:
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
            if call.purpose == "live":
                self._tool(call)
        else:
            self._model(call)

    def _model(self, call: RecordedCall) -> None:
        pair = self._pair(call)
        before, after = self._before, self._after
        cost = before.cost(call, pair.served) if pair.served is not None else 0
        now = after.cost(call, pair.now_served) if pair.now_served is not None else 0
        if call.purpose == "live":
            then_told = self._verdict(before, call, pair.before, pair.served)
            now_told = self._verdict(after, call, pair.after, pair.now_served)
            tally = self._count(call, then_told, now_told)
            if then_told.reason is None:
                tally.before += cost
            if now_told.reason is None:
                tally.after += now
                assert pair.now_served is not None
                if not call.lost and after.price(pair.now_served) is None:
                    tally.unpriced += 1
                if then_told.reason is None and pair.served != pair.now_served:
                    assert pair.served is not None
                    tally.rerouted[pair.served, pair.now_served] += 1
        # What a side has no target for is counted there as on the other: see the module.
        one, two = pair.before, pair.after
        if pair.served is not None and one.agent is not None:
            before.charge(call, one.agent, one.grants, pair.served, cost)
            if pair.now_served is None:
                after.charge(call, two.agent or one.agent, two.grants, pair.served, cost)
        if pair.now_served is not None and two.agent is not None:
            after.charge(call, two.agent, two.grants, pair.now_served, now)
            if pair.served is None:
                before.charge(call, one.agent or two.agent, one.grants, pair.now_served, now)

    @staticmethod
    def _verdict(books: _Books, call: RecordedCall, way: _Way, target: str | None) -> _Verdict:
        if way.reason is not None or target is None:
            return _Verdict(way.reason, way.about)
        return books.objection(call, way, target)

    def _pair(self, call: RecordedCall) -> _Pair:
        key = (call.agent, call.role, call.asked, call.target)
        found = self._pairs.get(key)
        if found is None:
            if len(self._pairs) >= _KEPT:
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
        before = self._before.way(one, call.role, asked)
        after = self._after.way(two, call.role, now_asked)
        served = _served(before, call.target)
        now_served = _now_served(before, after, served or call.target)
        return _Pair(before, after, served, now_served)

    def _tool(self, call: RecordedCall) -> None:
        told, unseen = _tool(call, self._before.agent(call.agent), self._before.policy)
        now, now_unseen = _tool(call, self._after.agent(call.agent), self._after.policy)
        tally = self._count(call, told, now)
        tally.unseen += unseen or now_unseen

    def _count(self, call: RecordedCall, then: _Verdict, now: _Verdict) -> _Tally:
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


def _usage(call: RecordedCall) -> Usage:
    return Usage(call.input_tokens, call.output_tokens, call.cached_tokens, call.reasoning_tokens)


def _served(way: _Way, recorded: str) -> str | None:
    """What serves a call on the side that is in force: what served it, if that may still be."""
    if recorded in way.targets:
        return recorded
    return way.targets[0] if way.targets else None


def _now_served(before: _Way, after: _Way, served: str) -> str | None:
    """What serves it on the other side.

    Where the targets are the same, the same one: it stood at this place when it was recorded.
    A call that its first choice served is served by the new first choice; one that fell back, by
    the first target that it had not failed at. Among targets that share the calls it stays where
    it is, as long as that is one of them.
    """
    if not after.targets:
        return None
    same = (before.targets, before.ordered) == (after.targets, after.ordered)
    if served in after.targets and (same or not after.ordered):
        return served
    failed: tuple[str, ...] = ()
    if before.ordered and served in before.targets:
        failed = before.targets[: before.targets.index(served)]
    return next((t for t in after.targets if t not in failed), after.targets[-1])


def _tool(call: RecordedCall, agent: Agent | None, policy: Policy) -> tuple[_Verdict, bool]:
    """What the door says of a tool call, and whether it could not look at its arguments."""
    grants = agent.policy.roles.get(call.role) if agent else None
    if grants is None:
        return _Verdict(Reason.UNDECLARED, call.role), False
    grant, kind = grants.tools.get(call.asked), policy.tool(call.asked)
    if grant is None or kind is None:
        return _Verdict(Reason.TOOL, call.asked), False
    if call.arguments is None:
        asks = grant.approval or Access.DESTRUCTIVE in kind.access
        verdict = _Verdict(Reason.APPROVAL, call.asked) if asks else _YES
        return verdict, bool(grant.args)
    try:
        catalogue.check(call.asked, call.arguments, grants=grants, sides=(grants,), policy=policy)
    except Refusal as refusal:
        asks = refusal.code is Code.APPROVAL_REQUIRED
        return _Verdict(Reason.APPROVAL if asks else Reason.ARGUMENT, call.asked), False
    return _YES, False


def _note(into: dict[_Verdict, list[Any]], verdict: _Verdict, call: RecordedCall) -> None:
    noted = into.setdefault(verdict, [0])
    noted[0] += 1
    if len(noted) <= EXAMPLES:
        noted.append(CallKey(RunId(call.run), StepPath(call.step), call.call))


def _told(noted: Mapping[_Verdict, list[Any]]) -> tuple[Told, ...]:
    """The most calls first."""
    found = [
        Told(verdict.reason, verdict.about, count, tuple(examples))
        for verdict, (count, *examples) in noted.items()
        if verdict.reason is not None
    ]
    return tuple(sorted(found, key=lambda told: (-told.calls, told.reason, told.about)))
