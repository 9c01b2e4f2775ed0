"""Who owns which artifact: claims that meet, hand-overs, and claims that changed hands."""

from __future__ import annotations

import time
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.values import AgentName
from reconciler.config import Claim, Fleet
from reconciler.config.globs import can_meet, literal_prefix
from reconciler.findings import Place
from reconciler.fleet import claims as rooms
from reconciler.fleet.claims import overlaps, owned
from reconciler.fleet.touches import touches
from reconciler.fleet.who import who_touches
from tests.support import small_fleet

REPO = "https://git.example/api.git"


def claim(pattern: str, *, realm: str = REPO, to: str = "", taken_from: str = "") -> Claim:
    return Claim(
        realm="mcp" if pattern.startswith("mcp:") else realm,
        pattern=pattern,
        place=Place("agents/x/agent.yaml", 9, 10),
        given_to=AgentName(to) if to else None,
        taken_from=AgentName(taken_from) if taken_from else None,
    )


@cache
def loaded_once() -> Fleet:
    return small_fleet.fleet()


def fleet(**owns: list[Claim | str]) -> Fleet:
    base = loaded_once()
    agent = base.agents[AgentName("triage")]
    return replace(
        base,
        agents={
            AgentName(name): replace(
                agent,
                name=AgentName(name),
                owns=tuple(claim(c) if isinstance(c, str) else c for c in mine),
            )
            for name, mine in owns.items()
        },
    )


@pytest.mark.parametrize(
    "one, other, expected",
    [
        ("docs/**", "docs/api.md", True),
        ("docs/**", "docs", True),
        ("docs", "docs/api/a.md", True),
        ("docs/", "docs/a/b.md", True),
        ("services/*/docs", "services/x/docs/a.md", True),
        ("README.md", "**/CHANGELOG.md", False),
        ("docs/", "**/api.md", True),
        ("docs/*.md", "docs/api.md", True),
        ("docs/*.md", "docs/deep/api.md", False),
        ("docs/*.md", "docs/*.txt", False),
        ("docs/a*", "docs/*b", True),
        ("docs-old/**", "docs/**", False),
        ("**/api.md", "docs/**", True),
        ("**/api.md", "api.md", True),
        ("**/api.md", "docs/myapi.md", False),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a/**/z", "b/**/z", False),
        ("?.md", "ab.md", False),
        ("[ab].md", "a.md", True),
        ("mcp:tracker/api:changes", "mcp:tracker/api:draft", False),
        ("mcp:tracker/*:changes", "mcp:tracker/api:changes", True),
        ("mcp:tracker/**", "mcp:chat/api", False),
    ],
)
def test_claims_meet_when_some_artifact_is_meant_by_both(
    one: str, other: str, expected: bool
) -> None:
    assert can_meet(one, other) is expected
    assert can_meet(other, one) is expected


def test_a_second_claim_names_both_agents_and_places() -> None:
    (pair,) = overlaps(fleet(b=["docs/api.md"], a=["docs/**"])).collisions
    assert (pair.one.agent, pair.other.agent) == ("a", "b")
    assert pair.one.claim.place == Place("agents/x/agent.yaml", 9, 10)


def test_one_agent_may_claim_a_thing_twice_and_two_may_in_different_repositories() -> None:
    assert overlaps(fleet(a=["docs/**", "docs/api.md"])).pairs == ()
    elsewhere = claim("docs/**", realm="https://git.example/other.git")
    assert overlaps(fleet(a=["docs/**"], b=[elsewhere])).pairs == ()


def test_a_hand_over_needs_both_sides() -> None:
    gives, takes = claim("docs/**", to="b"), claim("docs/**", taken_from="a")
    agreed = overlaps(fleet(a=[gives], b=[takes]))
    assert [pair.handed_over for pair in agreed.pairs] == [True]
    assert agreed.collisions == ()
    for mine, theirs in ((gives, claim("docs/**")), (claim("docs/**"), takes)):
        assert len(overlaps(fleet(a=[mine], b=[theirs])).collisions) == 1
    stolen = overlaps(fleet(a=[claim("docs/**", to="c")], b=[takes]))
    assert len(stolen.collisions) == 1


def test_who_has_handed_a_thing_over_owns_it_no_longer_and_collides_with_nobody() -> None:
    gives, takes = claim("docs/**", to="b"), claim("docs/**", taken_from="a")
    agreed = fleet(a=[gives, "src/**"], b=[takes], c=["docs/x"])
    assert [c.pattern for c in owned(agreed, agreed.agents[AgentName("a")])] == ["src/**"]
    assert [c.pattern for c in owned(agreed, agreed.agents[AgentName("b")])] == ["docs/**"]
    assert [(p.one.agent, p.other.agent) for p in overlaps(agreed).collisions] == [("b", "c")]
    reached = {name: touches(agreed, agreed.agents[AgentName(name)]).claims for name in "ab"}
    assert {name: [c.pattern for c in found] for name, found in reached.items()} == {
        "a": ["src/**"],
        "b": ["docs/**"],
    }
    assert [t.agent for t in who_touches(agreed, "claim:docs/y")] == ["b"]
    alone = fleet(a=[gives], b=["src/**"])
    assert [c.pattern for c in owned(alone, alone.agents[AgentName("a")])] == ["docs/**"]


patterns = st.lists(
    st.sampled_from(["a", "b", "ab", "*", "**", "a*", "*b", "?"]), min_size=1, max_size=4
).map("/".join)
paths = st.lists(st.sampled_from(["a", "b", "ab", "aab"]), min_size=1, max_size=5).map("/".join)


def matches(pattern: str, path: str) -> bool:
    """Segment by segment, the slow and plain way; a folder stands for what is in it."""

    def go(segments: list[str], parts: list[str]) -> bool:
        if not segments:
            return not parts
        if segments[0] == "**":
            return go(segments[1:], parts) or (bool(parts) and go(segments, parts[1:]))
        return bool(parts) and fnmatchcase(parts[0], segments[0]) and go(segments[1:], parts[1:])

    return go(pattern.split("/"), path.split("/"))


@settings(deadline=None)
@given(patterns, patterns, paths)
def test_patterns_with_a_common_path_are_never_said_to_be_apart(
    one: str, other: str, path: str
) -> None:
    if matches(one, path) and matches(other, path):
        assert can_meet(one, other)


@settings(deadline=None)
@given(patterns, paths)
def test_a_path_meets_the_patterns_that_mean_it_and_the_folders_above_and_below(
    pattern: str, path: str
) -> None:
    if matches(pattern, path):
        assert can_meet(pattern, path)
    if not any(c in pattern for c in "*?"):
        either = f"{path}/".startswith(f"{pattern}/") or f"{pattern}/".startswith(f"{path}/")
        assert can_meet(pattern, path) is either


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), patterns), max_size=10))
def test_the_index_finds_what_comparing_all_pairs_finds(made: list[tuple[str, str]]) -> None:
    owns: dict[str, list[Claim | str]] = {"a": [], "b": [], "c": []}
    for name, pattern in made:
        owns[name].append(pattern)
    found = {
        frozenset({(p.one.agent, p.one.claim.pattern), (p.other.agent, p.other.claim.pattern)})
        for p in overlaps(fleet(**owns)).pairs
    }
    expected = {
        frozenset({(a, one), (b, other)})
        for a, one in made
        for b, other in made
        if a != b and can_meet(one, other)
    }
    assert found == expected


def test_fifty_thousand_claims_are_compared_without_comparing_all_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = 0

    def counted(one: str, other: str, **_: object) -> bool:
        nonlocal compared
        compared += 1
        return can_meet(one, other)

    monkeypatch.setattr(rooms, "can_meet", counted)
    big = fleet(**{f"a{n}": [f"services/s{n}/**"] for n in range(50_000)}, z=["services/s7/x"])
    result = overlaps(big)
    assert [(p.one.agent, p.other.agent) for p in result.pairs] == [("a7", "z")]
    assert result.complete
    assert compared < 100


def test_too_many_globs_to_compare_are_told_and_do_not_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rooms, "MOST_STEPS", 1_000)
    result = overlaps(fleet(**{f"a{n}": [f"*x{n}.md"] for n in range(100)}))
    assert not result.complete


def test_a_hostile_pattern_is_answered_in_pattern_times_pattern() -> None:
    begun = time.perf_counter()
    assert not can_meet("*a" * 100 + "b", "*a" * 100 + "c")
    assert not can_meet("**/a/" * 40 + "b", "**/a/" * 40 + "c/a")
    assert time.perf_counter() - begun < 20


def test_the_literal_beginning_of_a_glob_is_whole_folders() -> None:
    assert literal_prefix("docs/api*/x") == "docs"
    assert literal_prefix("doc*") == ""
    assert literal_prefix("docs/api.md") == "docs/api.md"
