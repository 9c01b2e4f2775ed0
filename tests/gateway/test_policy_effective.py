"""Effective policy = what the release grants ∩ what the current policy allows (pure, monotone)."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.policy import (
    Grants,
    Limits,
    Policy,
    ToolGrant,
    VirtualModel,
    effective,
    in_recorded_world,
    intersect,
    lower,
)

ceilings = st.none() | st.integers(min_value=0, max_value=9)
limits = st.builds(
    Limits,
    max_steps=ceilings,
    max_tokens=ceilings,
    max_cost=ceilings,
    max_wall_ms=ceilings,
    max_output_tokens=ceilings,
)
patterns = st.text("ab*?[!]-", min_size=1, max_size=4)
tool_grants = st.builds(
    ToolGrant,
    args=st.dictionaries(
        st.sampled_from(["repo", "path"]),
        st.lists(patterns, max_size=3).map(tuple),
        max_size=2,
    ),
    approval=st.booleans(),
)
grants = st.builds(
    Grants,
    models=st.lists(st.sampled_from(["smart", "fast", "judge"]), unique=True).map(tuple),
    tools=st.dictionaries(st.sampled_from(["gh.read", "gh.write"]), tool_grants),
    limits=limits,
)
arguments = st.dictionaries(st.sampled_from(["repo", "path"]), st.text("ab-", max_size=4))


def admits(grant: ToolGrant, values: dict[str, str]) -> bool:
    """What the door asks of a call's arguments."""
    return all(
        name in values and any(fnmatchcase(values[name], pattern) for pattern in allowed)
        for name, allowed in grant.args.items()
    )


def restrict(*, release: tuple[str, ...], policy: tuple[str, ...]) -> tuple[str, ...]:
    def grants_of(repo: tuple[str, ...]) -> Grants:
        return Grants(tools={"gh.read": ToolGrant(args={"repo": repo})})

    return intersect(grants_of(release), grants_of(policy)).tools["gh.read"].args["repo"]


def _same(a: Grants, b: Grants) -> bool:
    return (set(a.models), a.tools, a.limits) == (set(b.models), b.tools, b.limits)


@given(limits, limits, limits)
def test_the_lower_limit_is_a_greatest_lower_bound(a: Limits, b: Limits, c: Limits) -> None:
    assert lower(a, b) == lower(b, a)
    assert lower(lower(a, b), c) == lower(a, lower(b, c))
    assert lower(a, a) == a
    assert lower(a, Limits()) == a
    for field, value in lower(a, b).model_dump().items():
        given_here = [v for v in (getattr(a, field), getattr(b, field)) if v is not None]
        assert value == (min(given_here) if given_here else None)


@given(grants, grants)
def test_intersecting_grants_names_only_what_both_name(a: Grants, b: Grants) -> None:
    both = intersect(a, b)
    assert set(both.models) == set(a.models) & set(b.models)
    assert set(both.tools) == set(a.tools) & set(b.tools)
    for name, grant in both.tools.items():
        assert grant.approval == (a.tools[name].approval or b.tools[name].approval)
    assert _same(both, intersect(b, a))


@given(grants)
@example(Grants(tools={"gh.read": ToolGrant(args={"repo": ("[!x]?",)})}))
def test_grants_under_themselves_stay_as_they_are(a: Grants) -> None:
    again = intersect(a, a)
    assert (again.models, again.limits) == (a.models, a.limits)
    for name, grant in a.tools.items():
        for argument, allowed in grant.args.items():
            assert set(allowed) <= set(again.tools[name].args[argument])


@given(tool_grants, tool_grants, arguments)
@example(ToolGrant(args={"repo": ("*",)}), ToolGrant(args={"repo": ("?",)}), {"repo": "ab"})
@example(ToolGrant(args={"repo": ("*b",)}), ToolGrant(args={"repo": ("[!a]*",)}), {"repo": "ab"})
def test_no_call_passes_that_either_side_alone_would_refuse(
    a: ToolGrant, b: ToolGrant, values: dict[str, str]
) -> None:
    both = intersect(Grants(tools={"gh.read": a}), Grants(tools={"gh.read": b})).tools["gh.read"]
    if admits(both, values):
        assert admits(a, values)
        assert admits(b, values)


@pytest.mark.parametrize(
    "release, policy, expected",
    [
        (("northwind/*",), ("northwind/*",), ("northwind/*",)),
        (("northwind/*",), ("northwind/api",), ("northwind/api",)),
        (("northwind/api",), ("northwind/*",), ("northwind/api",)),
        (("northwind/api-*",), ("northwind/*",), ("northwind/api-*",)),
        (("northwind/*", "acme/x"), ("acme/*",), ("acme/x",)),
        (("northwind/*",), ("acme/*",), ()),
    ],
)
def test_the_narrower_of_two_argument_constraints_is_kept(
    release: tuple[str, ...], policy: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert restrict(release=release, policy=policy) == expected
    assert restrict(release=policy, policy=release) == expected


def test_constraints_on_different_arguments_are_both_kept() -> None:
    a = Grants(tools={"gh.read": ToolGrant(args={"repo": ("a",)})})
    b = Grants(tools={"gh.read": ToolGrant(args={"path": ("b",)})})
    assert intersect(a, b).tools["gh.read"].args == {"repo": ("a",), "path": ("b",)}


@given(grants, grants)
def test_the_ceiling_of_the_role_bounds_the_release(release: Grants, ceiling: Grants) -> None:
    assert effective(release, ceiling) == intersect(release, ceiling)


@given(grants)
def test_who_has_no_ceiling_gets_nothing(release: Grants) -> None:
    left = effective(release, None)
    assert (left.models, left.tools) == ((), {})
    assert (left.limits.max_steps, left.limits.max_tokens, left.limits.max_cost) == (0, 0, 0)


@given(grants, grants, grants)
def test_a_policy_that_tightens_takes_away_and_adds_nothing(
    release: Grants, policy: Grants, tightening: Grants
) -> None:
    before = effective(release, policy)
    after = effective(release, intersect(policy, tightening))
    assert set(after.models) <= set(before.models)
    assert set(after.tools) <= set(before.tools)
    assert lower(after.limits, before.limits) == after.limits


def test_a_policy_has_one_digest_whatever_order_it_was_written_in() -> None:
    a, b = VirtualModel(targets=("x",)), VirtualModel(targets=("y",))
    one, two = {"a": a, "b": b}, {"b": b, "a": a}
    assert Policy(virtual_models=one).digest() == Policy(virtual_models=two).digest()
    assert Policy(virtual_models={"a": a}).digest() != Policy(virtual_models={"a": b}).digest()


@given(grants, grants)
def test_a_recorded_world_lifts_the_ceiling_of_tools_and_nothing_else(
    release: Grants, ceiling: Grants
) -> None:
    held = effective(release, ceiling)
    sealed = effective(release, in_recorded_world(release, ceiling))
    assert (sealed.models, sealed.limits) == (held.models, held.limits)
    assert set(sealed.tools) == set(release.tools)
    assert in_recorded_world(release, None) is None
