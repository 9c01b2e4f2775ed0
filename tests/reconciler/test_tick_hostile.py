"""What a tick does with a commit or a pull request that is wrong: others go on, and it says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.forge.documents import BRANCH
from reconciler.record.views import fleet
from reconciler.source.objects import MODE_LINK
from tests.reconciler.test_config_hostile import CONTROL, check_markdown
from tests.support.config_world import START, ConfigWorld
from tests.support.mutations import TEXTS, Repository, Thing, repository
from tests.support.odd_git import ROWS, Odd, spoiled

AGENT = "agents/triage/agent.yaml"
THINGS: Repository = repository({p: t for p, t in START.items() if t is not None})


@pytest.fixture
def world(tmp_path: Path) -> ConfigWorld:
    return ConfigWorld.settled(tmp_path)


def push(world: ConfigWorld, things: Repository, branch: str = "main") -> None:
    """A commit with exactly these things; links and names as they come."""
    odd = Odd(world.bare)
    odd.commit(odd.rows(things), branch)
    world.context.fetched_at = None


def findings(world: ConfigWorld, agent: str) -> str:
    row = world.database.one("SELECT findings FROM desired WHERE agent = :a", a=agent)
    assert row is not None
    return "\n".join(json.dumps(one) for one in json.loads(row["findings"]))


BROKEN = ("billion laughs", "nul escaped")


@pytest.mark.parametrize("name", [*BROKEN, "a link out"])
def test_a_broken_agent_keeps_its_release_and_says_why_and_the_others_go_on(
    name: str, world: ConfigWorld
) -> None:
    notes, triage = world.stable("notes"), world.stable("triage")
    wrong = Thing(b"/etc/passwd", MODE_LINK) if name == "a link out" else Thing(TEXTS[name])
    news = Thing(b"Write down what changed, in order.\n")
    push(world, {**THINGS, AGENT: wrong, "agents/notes/notes.md": news})
    world.settle()
    assert world.stable("notes") not in (None, notes)
    assert world.stable("triage") == triage
    assert AGENT in findings(world, "triage")
    with world.database.snapshot() as tx:
        seen = {agent.agent: agent for agent in fleet(tx, world.clock.now()).agents}
    assert seen["triage"].broken
    assert any(AGENT in text for text in seen["triage"].findings)
    assert not any(CONTROL.search(text) for text in seen["triage"].findings)
    assert not seen["notes"].broken


@pytest.mark.parametrize("path", ["interlock.yaml", "gateway/models.yaml"])
def test_nothing_of_a_commit_with_a_broken_shared_file_is_applied(
    path: str, world: ConfigWorld
) -> None:
    before = {name: (world.stable(name), world.wanted(name)) for name in ("notes", "triage")}
    news = Thing(b"Write down what changed, in order.\n")
    push(world, {**THINGS, path: Thing(TEXTS["billion laughs"]), "agents/notes/notes.md": news})
    said = world.tick(2).problems
    world.settle()
    assert any(path in problem for problem in said), said
    assert {name: (world.stable(name), world.wanted(name)) for name in before} == before
    push(world, {**THINGS, "agents/notes/notes.md": news})
    world.settle()
    assert world.stable("notes") != before["notes"][0]
    assert world.tick().problems == []


ODD = ("twice", ".git", "slash", "not utf-8", "mode 0", "all links", "all submodules")


@pytest.mark.parametrize("place", ["", "agents", "skills"])
def test_no_commit_of_odd_trees_stops_a_tick_or_what_is_live(
    place: str, world: ConfigWorld
) -> None:
    before = {name: world.stable(name) for name in ("notes", "triage")}
    odd = Odd(world.bare)
    for name in ODD:
        odd.commit(spoiled(odd, THINGS, place, ROWS[name]))
        world.context.fetched_at = None
        world.tick()
        assert {name: world.stable(name) for name in before} == before, name
    push(world, THINGS)
    world.settle()
    assert world.tick().problems == []
    assert {name: world.stable(name) for name in before} == before


# --- pull requests


def hostile_heads(world: ConfigWorld) -> list[str]:
    """Branches, each with a head that is wrong in its own way."""
    odd = Odd(world.bare)
    found = []
    for number, things in enumerate(
        [
            {**THINGS, AGENT: Thing(TEXTS["billion laughs"])},
            {**THINGS, "agents/triage": Thing(b"../../../etc", MODE_LINK)},
            {**THINGS, AGENT: Thing(THINGS[AGENT].content.replace(b"docs/", b"<b>@all`[x](y)"))},
        ]
    ):
        branch = f"thing-{number}"
        below = {p: t for p, t in things.items() if p == "agents/triage" or not
                 (things.get("agents/triage") and p.startswith("agents/triage/"))}  # fmt: skip
        odd.commit(odd.rows(below), branch, base="main")
        found.append(branch)
    for name, place in (("twice", "agents"), (".git", "agents"), ("mode 0", "")):
        branch = f"odd-{len(found)}"
        odd.commit(spoiled(odd, THINGS, place, ROWS[name]), branch, base="main")
        found.append(branch)
    return found


def check_pulls(world: ConfigWorld, branches: list[str]) -> None:
    pulls = {branch: world.pull(branch) for branch in branches}
    good = world.pull("good")
    world.context.fetched_at = None
    world.tick()
    said = world.tick().problems + world.context.problems
    assert "Write down" in world.comment_of_us(good)
    for branch, pull in pulls.items():
        text = world.comment_of_us(pull)
        assert text or any(f"#{pull}:" in problem for problem in said), branch
        check_markdown(text, branch)


def test_no_pull_request_keeps_another_from_its_plan(world: ConfigWorld) -> None:
    world.push({"agents/notes/notes.md": "Write down what changed, soon.\n"}, branch="good")
    check_pulls(world, hostile_heads(world))


def test_nor_does_one_that_must_be_merged_first(world: ConfigWorld) -> None:
    world.push({"agents/notes/notes.md": "Write down what changed, soon.\n"}, branch="good")
    branches = hostile_heads(world)
    world.push({"agents/triage/subagents/reviewer.md": "Judge the change, and say why.\n"})
    check_pulls(world, branches)


def test_a_head_that_is_gone_and_one_without_common_history(world: ConfigWorld) -> None:
    world.push({"agents/notes/notes.md": "Write down what changed, soon.\n"}, branch="good")
    odd = Odd(world.bare)
    odd.commit(odd.rows(THINGS), "orphan")
    odd.commit(odd.rows(THINGS), "gone", base="main")
    gone = world.pull("gone")
    odd.repository.references.delete("refs/heads/gone")
    check_pulls(world, ["orphan"])
    assert world.comment_of_us(gone) == ""


MALFORMED = {
    "pulls/1/pull.json": "{",
    "pulls/2/pull.json": "[" * 50_000,
    "pulls/3/pull.json": '{"format": "interlock.pulls/1", "number": 4}',
    "pulls/4/pull.json/x": "a folder",
    "pulls/5/comments/1.json": "{}",
    "pulls/6/pull.json": '{"number": ' + "9" * 5000 + "}",
    "pulls/7/pull.json": '"\\ud800"',
    "pulls/8": "a file",
    "pulls/999999999999/pull.json": "{}",
    "pulls/..json": "{}",
    "elsewhere": "x",
}


def test_files_that_are_no_pull_requests_stop_nobody(world: ConfigWorld) -> None:
    world.push({"agents/notes/notes.md": "Write down what changed, soon.\n"}, branch="good")
    odd = Odd(world.bare)
    odd.commit(odd.rows(repository(MALFORMED)), BRANCH)
    good = world.pull("good")
    world.context.fetched_at = None
    said = "\n".join(world.tick().problems)
    assert "Write down" in world.comment_of_us(good)
    for number in (1, 2, 3, 4, 5, 6, 7):
        assert f"#{number} cannot be read: pulls/{number}/" in said, said
    assert not CONTROL.search(said.replace("\n", ""))


def test_a_comment_that_cannot_be_read_costs_its_pull_and_no_other(world: ConfigWorld) -> None:
    world.push({"agents/notes/notes.md": "Write down what changed, soon.\n"}, branch="good")
    world.push({"agents/notes/notes.md": "Write down what changed, late.\n"}, branch="bad")
    bad, good = world.pull("bad"), world.pull("good")
    world.push({f"pulls/{bad}/comments/1.json": "{"}, branch=BRANCH)
    said = world.tick().problems
    assert "Write down" in world.comment_of_us(good)
    assert any(f"#{bad}" in problem and "1.json" in problem for problem in said), said
