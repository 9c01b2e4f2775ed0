"""Whatever a commit holds: findings with a place, never a traceback, and only what it touches.

`tests.support.mutations` spoils repositories that are as they should be; here is what must hold of
each of them, for loading, compiling, planning, and every question that is asked about a fleet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from markdown_it import MarkdownIt

from gateway.values import AgentName
from reconciler.config import Loaded
from reconciler.config.load import load
from reconciler.config.scaffold import starter
from reconciler.findings import Finding, Severity, render
from reconciler.fleet import who
from reconciler.fleet.explain import explain
from reconciler.fleet.graph import graph_of
from reconciler.fleet.lint import lint
from reconciler.fleet.touches import touches
from reconciler.plan import Plan, Side, collisions_of, diff, side_of
from reconciler.plan.render import comment, terminal
from reconciler.release import Compiled, compile_loaded
from reconciler.source.tree import DirectoryTree
from tests.support.config_world import START
from tests.support.mutations import Mutation, OddTree, Repository, mutations, repository

# Each example is a whole repository: shrinking thousands of times would take minutes.
HOSTILE = settings(
    max_examples=150,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TODAY = date(2026, 3, 2)
EXAMPLE = Path(__file__).parents[2] / "example-config-repo"
IMAGE = "sha256:" + "a" * 64


def small() -> dict[str, str | bytes]:
    """Two agents of which one has everything, a third that shares a skill, and owners."""
    return {
        **START,
        "agents/other/agent.yaml": """\
agent:
  name: other
  team: platform
  instructions: ./other.md
  skills: [python]
  mcp_servers: [{name: tracker, tools: [open]}]
  owns: ["other/**"]
  formerly: another
  rollout: ungated
trigger: {after: triage}
""",
        "agents/other/other.md": "---\nversion: 1\n---\nDo other things.\n",
        "CODEOWNERS": "* @mara\n/agents/ @ines\n",
    }


def example() -> dict[str, str | bytes]:
    """The example repository of this project."""
    tree = DirectoryTree(EXAMPLE)
    return {path: tree.read(path) for path, _ in tree.walk()}


def begun() -> dict[str, str | bytes]:
    """What `interlock init` writes."""
    images = {"default": IMAGE}
    return dict(starter(fleet="acme", team="loops", member="ines", images=images, signer=None))


@dataclass(frozen=True)
class Good:
    """A repository as it should be, with all that is known of it."""

    things: Repository
    loaded: Loaded
    compiled: Compiled
    side: Side

    @property
    def roots(self) -> Iterator[tuple[AgentName, frozenset[str]]]:
        """Each agent, with the folders that are nobody else's business or that it asks for."""
        assert self.loaded.fleet is not None
        for name, agent in self.loaded.fleet.agents.items():
            skills = {f"skills/{skill.name}" for p in agent.participants for skill in p.skills}
            yield name, frozenset({agent.place.file.rpartition("/")[0], *skills})


@cache
def good(name: str) -> Good:
    """A repository that has no error."""
    things = repository({"small": small, "example": example, "begun": begun}[name]())
    loaded = load(OddTree(things))
    assert not loaded.broken, render(loaded.findings)
    compiled = compiled_of(loaded)
    return Good(things, loaded, compiled, side(compiled))


def compiled_of(loaded: Loaded, previous: Compiled | None = None) -> Compiled:
    return compile_loaded(loaded, images={"default": IMAGE}, previous=previous)


def side(compiled: Compiled) -> Side:
    assert compiled.fleet is not None
    found = side_of(compiled.fleet, compiled.releases, compiled.broken, "1" * 40)
    return Side(**{**_fields(found), "collisions": collisions_of(compiled.fleet)})


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


# --- what must hold

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def check_findings(findings: tuple[Finding, ...], things: Repository) -> None:
    """Each tells where it is, what is wrong, and can be shown to a person."""
    for found in findings:
        assert found.id
        assert found.message.strip(), found
        assert not CONTROL.search(found.message + found.fix), repr(found)
        assert not CONTROL.search(str(found)), repr(found)
        assert len(found.message) + len(found.fix) < 2_000, found.message[:500]
        assert found.file.strip("/"), found
        assert found.line >= 1
        assert found.column >= 1
        check_place(found, things)


def check_place(found: Finding, things: Repository) -> None:
    thing = things.get(found.file)
    if thing is None:
        return
    text = thing.content.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    assert found.line <= len(lines) + 1, (found, len(lines))
    line = lines[found.line - 1] if found.line <= len(lines) else ""
    assert found.column <= len(line) + 1, (found, line[:200])


def errors(findings: tuple[Finding, ...]) -> set[Finding]:
    return {found for found in findings if found.severity is Severity.ERROR}


def check_nothing_is_lost(loaded: Loaded, compiled: Compiled) -> None:
    """Every error stops something: the commit, an agent, or a skill that nobody uses."""
    if loaded.fleet is None:
        assert errors(loaded.findings)
        assert not compiled.releases
        return
    of_agents = {found for some in compiled.broken.values() for found in some}
    for found in errors(loaded.findings):
        assert found in of_agents or found.file.startswith("skills"), found
    for name, some in compiled.broken.items():
        assert errors(some), name
        assert name not in compiled.releases
    assert not loaded.fleet.agents.keys() & loaded.broken.keys()


def touched(before: Repository, after: Repository) -> set[str]:
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def check_others_go_on(before: Good, things: Repository, loaded: Loaded, made: Compiled) -> None:
    """Who is not touched has the very same definition and release."""
    paths = touched(before.things, things)
    if not all(path.startswith(("agents/", "skills/")) for path in paths) or loaded.fleet is None:
        return
    for name, roots in before.roots:
        if any(path == root or path.startswith(f"{root}/") for path in paths for root in roots):
            continue
        if name in loaded.broken:  # somebody else took its name, or what it owns
            ids = {found.id for found in errors(loaded.broken[name])}
            assert ids & {"duplicate-name", "claimed-twice"}, loaded.broken[name]
            continue
        assert before.loaded.fleet is not None
        assert loaded.fleet.agents[name] == before.loaded.fleet.agents[name]
        assert made.releases[name].digest == before.compiled.releases[name].digest


MARKDOWN = MarkdownIt("commonmark").enable("table")


def check_markdown(text: str, note: str) -> None:
    """A comment of ours in which nothing of theirs is markup, a link or a mention."""
    assert len(text) <= 65_536
    assert not CONTROL.search(re.sub("[\n\t]", "", text)), note
    assert not re.search(
        r"(?i)<(?!/?(?:details|summary|pre|b|code|br|ins|del|sub)\b|!-- interlock)", text
    ), note
    for token in MARKDOWN.parse(text):
        for inline in token.children or ():
            assert inline.type not in {"link_open", "image"}, (note, token.content)
            if inline.type == "text":
                assert not re.search(r"@\w", inline.content), (note, token.content)


def check_shown(plan: Plan, note: str) -> None:
    """A plan can be shown to people without anything in it taking part in the showing."""
    shown = terminal(plan)
    assert not CONTROL.search(shown.replace("\n", "")), (note, CONTROL.search(shown))
    check_markdown(comment(plan), note)
    json.dumps(plan.as_json())


def check_questions(loaded: Loaded) -> None:
    """Every question about what was understood has an answer."""
    fleet = loaded.fleet
    assert fleet is not None
    check_findings(lint(fleet, TODAY), {})
    assert graph_of(fleet).cycles is not None
    who.names_of(fleet)
    for agent in fleet.agents.values():
        touches(fleet, agent)
        explain(fleet, agent)
    for resource in ("tracker", "tool:tracker.open", "*", "../../etc", "model:small", "\x1b[2J"):
        who.who_touches(fleet, resource)
        who.is_known(fleet, resource)


def check(before: Good, things: Repository, note: str = "") -> Loaded:
    """All of it, of one commit."""
    tree = OddTree(things)
    fresh = load(tree)
    check_findings(fresh.findings, things)
    made = compiled_of(fresh)
    check_findings(made.findings, things)
    check_nothing_is_lost(fresh, made)
    check_others_go_on(before, things, fresh, made)
    going_on = load(tree, previous=before.loaded)
    assert going_on == fresh
    again = compiled_of(going_on, before.compiled)
    assert (again.releases, again.broken) == (made.releases, made.broken)
    back = load(OddTree(before.things), previous=going_on)
    assert back == before.loaded
    if fresh.fleet is not None:
        plan = diff(before.side, side(made))
        check_shown(plan, note)
        check_questions(fresh)
    return fresh


@HOSTILE
@given(mutations(good("small").things))
def test_whatever_is_done_to_a_repository_is_found_where_it_is(mutation: Mutation) -> None:
    before = good("small")
    check(before, mutation.of(before.things), repr(mutation))


@settings(HOSTILE, max_examples=30)
@given(mutations(good("example").things))
def test_so_it_is_with_the_example_repository(mutation: Mutation) -> None:
    before = good("example")
    check(before, mutation.of(before.things), repr(mutation))


@settings(HOSTILE, max_examples=60)
@given(mutations(good("begun").things))
def test_and_with_what_init_writes(mutation: Mutation) -> None:
    before = good("begun")
    check(before, mutation.of(before.things), repr(mutation))
