"""Pull requests and comments that try to get more than their people may give."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.forge.local import LocalForge
from reconciler.forge.model import ForgeUnavailable, UpsertComment
from tests.support.config_world import START, ConfigWorld

GRAB = ("agents/notes/agent.yaml", "tools: [list]", "tools: [list, open]")
NOTES = "agents/notes/agent.yaml"
TRIAGE = "agents/triage/agent.yaml"


@pytest.fixture
def world(tmp_path: Path) -> ConfigWorld:
    made = ConfigWorld(tmp_path)
    made.settle()
    return made


def _harmless(world: ConfigWorld, *, by: str = "jun", branch: str = "words") -> int:
    world.push({"agents/notes/notes.md": f"In {branch}.\n"}, branch=branch, by=by)
    return world.pull(branch, by=by)


def _mend(world: ConfigWorld, *, by: str = "tom") -> int:
    world.push(
        {
            "agents/triage/triage.md": "Mend it.\n",
            TRIAGE: str(START[TRIAGE]).replace("triage.md@v2", "triage.md"),
        },
        branch="mend",
        by=by,
    )
    return world.pull("mend", by=by)


# --- who approves what


def test_nobody_approves_their_own_push_on_the_pull_request_of_another(world: ConfigWorld) -> None:
    old = _harmless(world)
    world.tick(2)
    world.merge(old)
    world.settle()
    world.edit(*GRAB, by="ines")
    world.settle()
    world.say(old, "/interlock approve agent/notes", by="ines")
    world.settle()
    assert world.waiting() == ["agent/notes"]


def test_nobody_approves_their_own_push_by_way_of_an_open_pull_request(world: ConfigWorld) -> None:
    world.edit(*GRAB, by="ines")
    world.settle()
    other = _harmless(world)
    world.tick(2)
    world.say(other, "/interlock approve", by="ines")
    world.tick(2)
    assert world.database.read("SELECT * FROM approvals") == []


def test_a_yes_to_a_pull_request_is_none_to_what_somebody_pushed_meanwhile(
    world: ConfigWorld,
) -> None:
    pull = _harmless(world)
    world.tick(2)
    world.edit("gateway/budgets.yaml", "limit: 200", "limit: 900", by="eve")
    world.say(pull, "/interlock approve", by="mara")
    world.settle()
    assert world.waiting() == ["budget/month"]
    world.say(pull, "/interlock approve budget/month", by="mara")
    world.settle()
    assert world.waiting() == []


def test_a_yes_from_before_is_none_to_what_came_later(world: ConfigWorld) -> None:
    old = _harmless(world)
    world.tick(2)
    world.merge(old)
    world.settle()
    world.say(old, "/interlock approve", by="ines")
    world.settle()
    world.edit(*GRAB, by="jun")
    world.settle()
    assert world.waiting() == ["agent/notes"]


def test_a_yes_to_an_old_pull_request_is_none_to_what_others_pushed_since(
    world: ConfigWorld,
) -> None:
    old = _harmless(world)
    world.tick(2)
    world.merge(old)
    world.settle()
    world.edit(*GRAB, by="eve")
    world.settle()
    world.say(old, "/interlock approve", by="ines")
    world.settle()
    assert world.waiting() == ["agent/notes"]
    assert "eve" in world.comment_of_us(old, "answer-2")


def test_a_stranger_cannot_void_an_approval(world: ConfigWorld) -> None:
    world.edit(*GRAB, branch="grab")
    pull = world.pull("grab")
    world.tick(2)
    world.say(pull, "/interlock approve", by="ines")
    world.tick(2)
    world.say(pull, "/interlock reject because I can", by="eve")
    world.tick(2)
    world.merge(pull)
    world.settle()
    assert world.waiting() == []


def test_what_expired_can_be_approved_again_at_the_same_head(world: ConfigWorld) -> None:
    world.edit(*GRAB, branch="grab")
    pull = world.pull("grab")
    world.tick(2)
    world.say(pull, "/interlock approve", by="ines")
    world.tick(2)
    world.clock.at += 15 * 86_400_000
    world.say(pull, "/interlock approve", by="ines")
    world.tick(2)
    world.merge(pull)
    world.settle()
    assert world.waiting() == []


@pytest.mark.parametrize(
    "body", ["> /interlock approve", "    /interlock approve", "```\n/interlock approve\n```"]
)
def test_a_quoted_command_is_none(world: ConfigWorld, body: str) -> None:
    world.edit(*GRAB, branch="grab")
    pull = world.pull("grab")
    world.tick(2)
    world.say(pull, body, by="ines")
    world.tick(2)
    assert world.database.read("SELECT * FROM approvals") == []


def test_a_closed_pull_request_approves_nothing(world: ConfigWorld) -> None:

    world.edit(*GRAB, branch="grab")
    pull = world.pull("grab")
    world.tick(2)
    world.close(pull)
    world.edit(*GRAB)
    world.settle()
    world.say(pull, "/interlock approve agent/notes", by="ines")
    world.settle()
    assert world.waiting() == ["agent/notes"]


# --- what is looked at, and when


def test_what_is_said_while_we_write_is_heard(
    world: ConfigWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.edit(*GRAB, branch="grab")
    pull = world.pull("grab")
    perform = LocalForge.perform
    said: list[str] = []

    def meanwhile(self: LocalForge, action: object) -> object:
        if isinstance(action, UpsertComment) and not said:
            said.append("once")
            world.say(pull, "/interlock approve", by="ines")
        return perform(self, action)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalForge, "perform", meanwhile)
    world.tick(3)
    assert said
    assert [row["actor"] for row in world.database.read("SELECT * FROM approvals")] == ["ines"]


def test_what_could_not_be_written_is_written_later(
    world: ConfigWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.edit(*GRAB, branch="grab")
    pull = world.pull("grab")
    with monkeypatch.context() as patched:

        def down(*_: object) -> object:
            raise ForgeUnavailable("no route to host", retryable=True)

        patched.setattr(LocalForge, "perform", down)
        assert world.tick().problems
        assert world.tick().problems
    assert world.tick().problems == []
    assert "tracker.open" in world.comment_of_us(pull)


def test_asking_for_the_plan_again_does_not_end_the_gate(world: ConfigWorld) -> None:
    pull = _mend(world)
    world.tick(2)
    world.say(pull, "/interlock plan", by="eve")
    world.tick(2)
    assert [r["state"] for r in world.rollouts("triage") if r["pull"] == pull] == ["evaluating"]


def test_a_malformed_comment_does_not_end_a_gate(world: ConfigWorld) -> None:
    pull = _mend(world)
    world.tick(2)
    world.push({f"pulls/{pull}/comments/9.json": "{"}, branch="interlock/pulls")
    world.restart()
    assert world.tick().problems
    assert world.tick().problems, "it is still wrong"
    assert [r["state"] for r in world.rollouts("triage") if r["pull"] == pull] == ["evaluating"]


# --- what a gate runs


def test_no_gate_runs_an_image_that_nobody_approved(world: ConfigWorld) -> None:
    world.edit("interlock.lock", "a" * 64, "b" * 64, by="eve")
    world.settle()
    assert "image/default" in world.waiting()
    _mend(world)
    world.settle()
    specs = world.database.read("SELECT spec FROM runs WHERE arm IS NOT NULL")
    assert all("b" * 64 not in row["spec"] for row in specs)


def test_a_superseded_head_leaves_no_gate_open(world: ConfigWorld) -> None:
    pull = _mend(world)
    world.tick(2)
    world.push({"agents/triage/triage.md": "Mend it well.\n"}, branch="mend", by="tom")
    world.settle()
    states = [r["state"] for r in world.rollouts("triage") if r["pull"] == pull]
    assert states == ["cancelled", "judged"]
    assert world.database.read("SELECT * FROM runs WHERE status NOT IN ('finished')") == []
