"""Who decides about a path: CODEOWNERS patterns, teams and the fall-back to the fleet's owners."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.values import TeamName
from reconciler.config import OwnerRule, TeamConfig
from reconciler.findings import Place
from reconciler.fleet.owners import Owners, deciders, matches, owners_of, people_of

AT = Place("CODEOWNERS")
TEAMS = {
    TeamName("platform"): TeamConfig(TeamName("platform"), ("mara", "jun"), ()),
    TeamName("empty"): TeamConfig(TeamName("empty"), (), ()),
}


def rules(*pairs: tuple[str, str]) -> tuple[OwnerRule, ...]:
    return tuple(OwnerRule(pattern, tuple(owners.split()), AT) for pattern, owners in pairs)


@pytest.mark.parametrize(
    "pattern, path, expected",
    [
        ("*", "a/b/c.py", True),
        ("**", "a/b/c.py", True),
        ("*.js", "src/deep/app.js", True),
        ("*.js", "src/app.jsx", False),
        ("docs", "docs/a/b.md", True),
        ("docs", "src/docs/a.md", True),
        ("docs", "docs", True),
        ("docs/", "docs/a/b.md", True),
        ("docs/", "src/docs/b.md", True),
        ("docs/", "docs", False),
        ("/docs/", "src/docs/b.md", False),
        ("/docs/", "docs/a/b.md", True),
        ("docs/*", "docs/getting-started.md", True),
        ("docs/*", "docs/build-app/troubleshooting.md", False),
        ("docs/*", "src/docs/a.md", False),
        ("docs/*.md", "docs/a.md", True),
        ("docs/*.md", "docs/deep/a.md", False),
        ("docs/**", "docs/a/b.md", True),
        ("docs/**", "docs", False),
        ("**/logs", "build/logs/x", True),
        ("**/logs", "logs", True),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z/deep", True),
        ("a/**/z", "b/a/z", False),
        ("/interlock.yaml", "interlock.yaml", True),
        ("/interlock.yaml", "old/interlock.yaml", False),
        ("interlock.yaml", "old/interlock.yaml", True),
        ("apps/github", "apps/github/x", True),
        ("apps/github", "apps/github-old", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        (r"\*.md", "*.md", True),
        (r"\*.md", "a.md", False),
        ("[ab].md", "a.md", False),
        ("/", "a", False),
        ("", "a", False),
    ],
)
def test_patterns_mean_what_codeowners_means(pattern: str, path: str, expected: bool) -> None:
    assert matches(pattern, path) is expected


def test_the_last_match_wins_even_when_it_names_nobody() -> None:
    given_rules = rules(("*", "platform"), ("/agents/", "mara jun"), ("/agents/free/", ""))
    assert owners_of(given_rules, "docs/a.md") == ("platform",)
    assert owners_of(given_rules, "agents/ci/agent.yaml") == ("mara", "jun")
    assert owners_of(given_rules, "agents/free/agent.yaml") == ()
    assert owners_of((), "agents/free/agent.yaml") == ()


def test_a_team_stands_for_its_members_and_a_login_for_itself() -> None:
    assert people_of(("platform", "noor"), TEAMS) == {"mara", "jun", "noor"}
    assert people_of(("@northwind/platform", "@noor"), TEAMS) == {"mara", "jun", "noor"}
    assert people_of(("@northwind/unknown",), TEAMS) == {"northwind/unknown"}
    assert people_of(("empty",), TEAMS) == frozenset()


def test_the_fleet_s_owners_decide_where_a_path_has_none() -> None:
    known = rules(("/interlock.yaml", "platform"), ("/agents/ci/", "ines"), ("/agents/x/", "empty"))
    assert deciders(known, TEAMS, "agents/ci/agent.yaml") == ("ines",)
    assert deciders(known, TEAMS, "agents/other/agent.yaml") == ("platform",)
    assert deciders(known, TEAMS, "agents/x/agent.yaml") == ("platform",)
    assert deciders(known[1:], TEAMS, "agents/other/agent.yaml") == ()


def test_a_hostile_pattern_costs_pattern_times_path_and_no_more() -> None:
    begun = time.perf_counter()
    assert not matches("**/a" * 200 + "/b", "a/" * 400 + "c")
    assert not matches("*a" * 2_000 + "b", "a" * 4_000)
    assert time.perf_counter() - begun < 20


segment = st.sampled_from(["a", "b", "ab", "*", "**", "a*", "*b", "?", "a?"])
pattern_texts = st.builds(
    lambda lead, inner, trail: lead + "/".join(inner) + trail,
    st.sampled_from(["", "/"]),
    st.lists(segment, min_size=1, max_size=5),
    st.sampled_from(["", "/"]),
)
path_texts = st.lists(st.sampled_from(["a", "b", "ab", "ba"]), min_size=1, max_size=6).map("/".join)


def oracle(pattern: str) -> re.Pattern[str]:
    """The documented rules as a (backtracking) regular expression: slow, and easy to believe."""
    segments = pattern.split("/")
    if segments[0] == "":
        segments = segments[1:]
    elif len(segments) == 1 or segments[1:] == [""]:
        segments = ["**", *segments]
    if segments[-1] == "":
        segments[-1] = "**"
    text = ""
    for number, each in enumerate(segments):
        last = number == len(segments) - 1
        if each == "**":
            text += "(?:[^/]+/)+" if last else "(?:[^/]+/)*"
        else:
            text += "".join({"*": "[^/]*", "?": "[^/]"}.get(c, re.escape(c)) for c in each) + "/"
            text += "(?:[^/]+/)*" if last and each != "*" else ""
    return re.compile(text)


@settings(deadline=None)
@given(pattern_texts, path_texts)
def test_matching_agrees_with_the_rules_written_as_a_regular_expression(
    pattern: str, path: str
) -> None:
    assert matches(pattern, path) is bool(oracle(pattern).fullmatch(path + "/"))


@settings(deadline=None)
@given(st.lists(st.tuples(pattern_texts, st.sampled_from(["x", "y", ""])), max_size=8), path_texts)
def test_the_index_answers_as_the_rules_do(pairs: list[tuple[str, str]], path: str) -> None:
    known = rules(*pairs)
    assert Owners(known).of(path) == owners_of(known, path)
