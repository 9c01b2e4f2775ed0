"""What holds for every plan: nothing differs from itself, no new power passes unseen, and whoever
only tightens is never kept waiting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.values import AgentName, Json
from reconciler.plan import Side, Standing, Unit, diff, side_of, waiting
from reconciler.plan.render import comment, terminal
from reconciler.release import Release, compile_fleet, release_of
from tests.support.small_fleet import fleet

TRIAGE = AgentName("triage")
SMALL = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

BASE = side_of(fleet(), compile_fleet(fleet()), {}, "1" * 40)
LEAVES = dict((BASE.agents[TRIAGE].release or release_of({})).leaves)


def leaf_tool(access: list[str], args: Mapping[str, list[str]], approval: bool) -> Json:
    return {
        "access": [*sorted(access)],
        "description": "",
        "schema": "0" * 64,
        "fingerprint": None,
        "args": {name: [*globs] for name, globs in args.items()},
        "approval": approval,
    }


GLOBS = st.lists(st.sampled_from(["*", "a", "b", "a*", "a?", "ab*"]), min_size=1, max_size=3)
TOOLS = st.builds(
    leaf_tool,
    st.lists(st.sampled_from(["read", "write", "egress", "destructive"]), unique=True, min_size=1),
    st.dictionaries(st.sampled_from(["project", "path"]), GLOBS, max_size=2),
    st.booleans(),
)
GRANTS = st.dictionaries(
    st.sampled_from(["tracker.open", "tracker.list", "tracker.delete", "mail.send"]), TOOLS
)
LIMITS = st.fixed_dictionaries(
    {name: st.none() | st.integers(1, 5) for name in ("max_steps", "max_cost", "max_tokens")}
)


def standing(grants: Mapping[str, Json], limits: Mapping[str, Json]) -> Standing:
    kept = {path: leaf for path, leaf in LEAVES.items() if not path.startswith("main/tools/")}
    leaves = {
        **kept,
        **{f"main/tools/{name}": leaf for name, leaf in grants.items()},
        "limits": dict(limits),
        "subagents/reviewer/limits": dict(limits),
    }
    return replace(BASE.agents[TRIAGE], release=release_of(leaves), origins={}, loosened=())


def with_agent(one: Standing) -> Side:
    return replace(BASE, agents={TRIAGE: one})


STANDINGS = st.builds(standing, GRANTS, LIMITS)


def release(side: Side) -> Release:
    found = side.agents[TRIAGE].release
    assert found is not None
    return found


@SMALL
@given(STANDINGS)
def test_nothing_differs_from_itself(one: Standing) -> None:
    plan = diff(with_agent(one), with_agent(replace(one)))
    assert plan.empty
    assert plan.subjects == ()
    assert waiting(plan, frozenset()) == {}


@SMALL
@given(STANDINGS, STANDINGS)
def test_a_tool_that_was_not_there_is_always_told_and_always_asked_for(
    before: Standing, after: Standing
) -> None:
    live, desired = with_agent(before), with_agent(after)
    plan = diff(live, desired)
    tools = {p.rpartition("/")[2] for p in release(desired).leaves if p.startswith("main/tools/")}
    had = {p.rpartition("/")[2] for p in release(live).leaves if p.startswith("main/tools/")}
    for tool in tools - had:
        assert any(c.kind == "tool" and f"`{tool}`" in c.text for c in plan.gained)
        assert any(one.kind == "tool" and f"`{tool}`" in one.text for one in plan.loosenings)
        assert TRIAGE in waiting(plan, frozenset())
        for text in (comment(plan), terminal(plan)):
            assert tool in text


def tightened(leaf: Json, *, fewer: bool, approval: bool) -> Json:
    assert isinstance(leaf, dict)
    args = leaf["args"]
    assert isinstance(args, dict)
    kept = {
        n: globs[:1] if fewer and isinstance(globs, list) else globs for n, globs in args.items()
    }
    return {**leaf, "args": kept, "approval": approval or leaf["approval"]}


@SMALL
@given(GRANTS, LIMITS, st.booleans(), st.booleans(), st.data())
def test_whoever_only_tightens_is_never_asked(
    grants: dict[str, Json],
    limits: dict[str, int | None],
    fewer: bool,
    approval: bool,
    data: st.DataObject,
) -> None:
    kept = data.draw(st.sets(st.sampled_from(sorted(grants))) if grants else st.just(set()))
    after = {name: tightened(grants[name], fewer=fewer, approval=approval) for name in sorted(kept)}
    lower = {
        name: data.draw(st.integers(0, value)) if value is not None else None
        for name, value in limits.items()
    }
    plan = diff(with_agent(standing(grants, limits)), with_agent(standing(after, lower)))
    assert plan.subjects == ()
    assert all(not power.asked for power in plan.gained)


@SMALL
@given(LIMITS, LIMITS)
def test_a_limit_that_is_raised_or_lifted_is_asked_for(
    before: dict[str, int | None], after: dict[str, int | None]
) -> None:
    plan = diff(with_agent(standing({}, before)), with_agent(standing({}, after)))
    looser = any(
        old is not None and (new is None or new > old)
        for old, new in ((before[name], after[name]) for name in before)
    )
    assert bool(plan.subjects) is looser


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["limit", "hosts", "key", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["budget/a", "provider/b", "tool/s.t", "team/c", "rollout/d", "guardrail/e", "fleet/defaults",
     "owners/rules", "of-tomorrow/f"]
)  # fmt: skip
UNITS = st.dictionaries(NAMES, VALUES, max_size=4)


@SMALL
@given(UNITS, UNITS)
def test_stored_values_of_any_shape_never_end_in_a_traceback(
    before: dict[str, Json], after: dict[str, Json]
) -> None:
    live = replace(BASE, units={name: Unit(value) for name, value in before.items()})
    desired = replace(BASE, units={name: Unit(value) for name, value in after.items()})
    plan = diff(live, desired)
    assert diff(live, live).empty
    again = diff(live, replace(desired, units=dict(reversed(desired.units.items()))))
    assert again.as_json() == plan.as_json()
    assert len(comment(plan)) <= 65_536
    assert terminal(plan)
    different = {n for n in {*before, *after} if before.get(n, ...) != after.get(n, ...)}
    assert {subject.scope for subject in plan.subjects} <= different
