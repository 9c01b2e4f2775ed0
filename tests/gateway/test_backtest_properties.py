"""What a replay promises whatever was recorded: nothing from nothing, tightening only denies, and
no money appears or gets lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.backtest import Outcome, RecordedCall, Side, backtest
from gateway.policy import BudgetRule, Grants, Limits, Policy, ToolGrant, VirtualModel
from gateway.policy import Window as Over
from gateway.values import Millis, NanoUSD
from tests.support.recordings import AT, GRANTS, POLICY, asked, did, side

AGENTS = ("triage", "notes", "user:ines")
NAMES = ("smart", "large", "small", "gone")
MINUTE = 60_000

gaps = st.integers(0, 2 * 24 * 60)
model_calls = st.builds(
    lambda name, target, agent, gap, size, lost, run: (
        gap,
        {
            "asked": name,
            "target": target,
            "agent": agent,
            "input_tokens": size,
            "output_tokens": size // 9,
            "cost_nano": size * 1_111,
            "booked": lost,
            "run": f"run-{agent}-{run}",
        },
    ),
    st.sampled_from(NAMES),
    st.sampled_from(("large", "small", "gone")),
    st.sampled_from(AGENTS),
    gaps,
    st.integers(0, 9_000),
    st.booleans(),
    st.integers(0, 3),
)
tool_calls = st.tuples(
    gaps,
    st.sampled_from(("tracker.list", "tracker.open", "tracker.drop", "elsewhere.list")),
    st.one_of(st.none(), st.sampled_from(({}, {"project": "northwind-api"}, {"project": "x"}))),
    st.sampled_from(AGENTS),
)


def _recorded(told: list[object]) -> list[RecordedCall]:
    calls: list[RecordedCall] = []
    now = int(AT)
    for number, one in enumerate(told):
        assert isinstance(one, tuple)
        now += one[0] * MINUTE
        if isinstance(one[1], dict):
            call = asked(number, **one[1])
        else:
            _, tool, arguments, agent = one
            call = did(tool, arguments, number, agent=agent, run=f"run-{agent}-0")
        calls.append(call._replace(at=Millis(now), step=str(number)))
    return calls


recordings = st.lists(st.one_of(model_calls, tool_calls), max_size=25).map(_recorded)
amounts = st.integers(0, 60_000_000).map(NanoUSD)
budgets = st.builds(
    BudgetRule,
    name=st.sampled_from(("one", "two")),
    window=st.sampled_from(tuple(Over)),
    limit=st.one_of(st.none(), amounts),
    tokens=st.one_of(st.none(), st.integers(0, 60_000)),
    requests=st.one_of(st.none(), st.integers(0, 20)),
    agent=st.sampled_from(("*", "tri*")),
    model=st.sampled_from(("*", "large")),
    purpose=st.sampled_from(("*", "live")),
    each_agent=st.booleans(),
    mode=st.sampled_from(("enforce", "audit")),
)
policies = st.builds(
    lambda rules, targets, destructive: POLICY.model_copy(
        update={
            "budgets": tuple(rules),
            "virtual_models": {"smart": VirtualModel(targets=targets)},
            "destructive": destructive,
        }
    ),
    st.lists(budgets, max_size=3),
    st.sampled_from((("large", "small"), ("small", "large"), ("small",), ("free",))),
    st.sampled_from(((), ("*.list",))),
)
given_to = st.builds(
    lambda models, tools, cost: Grants(
        models=models, tools=tools, limits=Limits(max_cost=cost, max_tokens=None)
    ),
    st.sampled_from((GRANTS.models, ("smart", "small"), ("free", "large", "small", "smart"))),
    st.dictionaries(
        st.sampled_from(("tracker.list", "tracker.open")),
        st.sampled_from((ToolGrant(), ToolGrant(args={"project": ("north*",)}))),
    ),
    st.one_of(st.none(), amounts),
)
sides = st.builds(side, policies, given_to)


def _replay(calls: list[RecordedCall], before: Side, after: Side) -> Outcome:
    return backtest(calls, before=before, after=after, priced_at=AT)


@given(recordings, policies, given_to)
def test_an_unchanged_policy_denies_and_moves_nothing_and_costs_the_same(
    calls: list[RecordedCall], policy: Policy, grants: Grants
) -> None:
    for agent in _replay(calls, side(policy, grants), side(policy, grants)).agents:
        assert not agent.differs
        assert agent.before_nano == agent.after_nano


@given(recordings, sides, sides)
def test_every_call_and_every_cost_is_told_once(
    calls: list[RecordedCall], before: Side, after: Side
) -> None:
    found = _replay(calls, before, after)
    live = [c for c in calls if c.agent != "user:ines"]
    assert found.calls == len(live)
    assert sum(a.recorded_nano for a in found.agents) == sum(c.cost_nano for c in live)
    assert found.strangers == sum(c.agent == "user:ines" for c in calls)
    for agent in found.agents:
        told = sum(t.calls for t in (*agent.denied, *agent.allowed)) + agent.denied_before
        assert told <= agent.calls


@given(recordings, sides, sides)
def test_the_way_back_allows_what_the_way_there_denies(
    calls: list[RecordedCall], before: Side, after: Side
) -> None:
    """With the names asked for the same on both sides, only the fallbacks depend on the way."""
    calls = [c for c in calls if c.kind == "tool"]
    there, back = _replay(calls, before, after), _replay(calls, after, before)
    for one, other in zip(there.agents, back.agents, strict=True):
        assert sum(t.calls for t in one.denied) == sum(t.calls for t in other.allowed)
        assert sum(t.calls for t in one.allowed) == sum(t.calls for t in other.denied)


@st.composite
def tightened(draw: st.DrawFn) -> tuple[Side, Side]:
    """A side, and the same with one thing that allows less."""
    policy, grants = draw(policies), draw(given_to)
    then = side(policy, grants)
    what = draw(st.sampled_from(("model", "tool", "argument", "approval", "rule", "limit", "run")))
    if what == "model":
        # Not a target: what takes its place may be cheaper.
        lost = draw(st.sampled_from(("smart", "gone")))
        grants = grants.model_copy(update={"models": tuple(m for m in grants.models if m != lost)})
    elif what == "tool":
        lost = draw(st.sampled_from(("tracker.list", "tracker.open")))
        grants = grants.model_copy(
            update={"tools": {n: g for n, g in grants.tools.items() if n != lost}}
        )
    elif what == "argument":
        args = {"project": ("northwind-*",)}
        grants = grants.model_copy(
            update={
                "tools": {n: g if g.args else ToolGrant(args=args) for n, g in grants.tools.items()}
            }
        )
    elif what == "approval":
        grants = grants.model_copy(
            update={"tools": {n: ToolGrant(args=g.args, approval=True)
                              for n, g in grants.tools.items()}}
        )  # fmt: skip
    elif what == "rule":
        more = draw(budgets).model_copy(update={"name": "more"})
        policy = policy.model_copy(update={"budgets": (*policy.budgets, more)})
    elif what == "limit":
        percent = draw(st.integers(0, 100))
        policy = policy.model_copy(
            update={
                "budgets": tuple(
                    r.model_copy(
                        update={
                            "limit": None if r.limit is None else r.limit * percent // 100,
                            "tokens": None if r.tokens is None else r.tokens * percent // 100,
                        }
                    )
                    for r in policy.budgets
                )
            }
        )
    else:
        cost = draw(amounts)
        own = grants.limits.max_cost
        grants = grants.model_copy(
            update={"limits": Limits(max_cost=cost if own is None else min(own, cost))}
        )
    return then, side(policy, grants)


@given(recordings, tightened())
def test_what_only_tightens_never_lets_anything_new_through(
    calls: list[RecordedCall], both: tuple[Side, Side]
) -> None:
    for agent in _replay(calls, *both).agents:
        assert agent.allowed == ()
        assert agent.after_nano <= agent.before_nano


@given(recordings, sides, sides)
def test_the_same_calls_give_the_same_outcome(
    calls: list[RecordedCall], before: Side, after: Side
) -> None:
    assert _replay(calls, before, after) == _replay(iter(calls), before, after)  # type: ignore[arg-type]
