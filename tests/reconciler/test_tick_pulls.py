"""Pull requests in a tick: one plan comment, a gate for the head, approvals by comment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import reconciler.tick as tick_room
from gateway import access
from gateway.database import Row
from tests.support.config_world import ConfigWorld

GRAB = ("agents/notes/agent.yaml", "tools: [list]", "tools: [list, open]")


@pytest.fixture
def world(tmp_path: Path) -> ConfigWorld:
    return ConfigWorld.settled(tmp_path)


def test_a_pull_request_gets_one_plan_comment_that_follows_its_head(world: ConfigWorld) -> None:
    world.edit(*GRAB, branch="grab")
    pull = world.pull("grab")
    world.tick(3)
    first = world.comment_of_us(pull)
    assert "tracker.open" in first
    assert "/interlock approve" in first
    assert world.statuses(pull) == {"interlock/plan": "pending"}
    head = world.writer.resolve("interlock/pulls")
    world.tick(3)
    world.writer.fetch()
    assert world.writer.resolve("interlock/pulls") == head, "nothing new, yet something was written"
    world.edit(GRAB[0], GRAB[2], GRAB[1], branch="grab")
    world.tick(2)
    second = world.comment_of_us(pull)
    assert "tracker.open" not in second
    assert "Nothing changes" in second
    assert world.statuses(pull) == {"interlock/plan": "success"}


def test_an_approval_by_comment_survives_a_squash_and_is_used_up(world: ConfigWorld) -> None:
    before = world.stable("notes")
    world.edit(*GRAB, branch="grab", by="jun")
    pull = world.pull("grab", by="jun")
    world.tick(2)
    world.say(pull, "Looks right.\n\n/interlock approve", by="ines")
    world.tick(2)
    assert "approved by ines" in world.comment_of_us(pull, "answer-2")
    assert world.statuses(pull)["interlock/plan"] == "success"
    world.merge(pull, squash=True)
    world.settle()
    assert world.waiting() == []
    assert world.stable("notes") not in (None, before)
    used = world.database.read("SELECT * FROM approvals")
    assert [row["actor"] for row in used] == ["ines"]
    assert used[0]["consumed_at"] is not None


@pytest.mark.parametrize("who", ["jun", "mara", "eve", "interlock-bot"])
def test_authors_strangers_and_owners_of_something_else_cannot_approve(
    world: ConfigWorld, who: str
) -> None:
    world.edit(*GRAB, branch="grab", by="jun")
    pull = world.pull("grab", by="jun")
    world.tick(2)
    world.say(pull, "/interlock approve", by=who)
    world.tick(2)
    assert "not approved" in world.comment_of_us(pull, "answer-2")
    assert world.database.read("SELECT * FROM approvals") == []
    world.merge(pull)
    world.settle()
    assert world.waiting() == ["agent/notes"]


def test_an_approval_of_an_earlier_head_is_not_one_of_the_next(world: ConfigWorld) -> None:
    world.edit(*GRAB, branch="grab")
    pull = world.pull("grab")
    world.tick(2)
    world.say(pull, "/interlock approve", by="ines")
    world.edit("agents/notes/notes.md", "what changed", "everything", branch="grab")
    world.tick(2)
    assert "moved" in world.comment_of_us(pull, "answer-2")
    world.merge(pull)
    world.settle()
    assert world.waiting() == ["agent/notes"]


def test_what_was_approved_is_not_approved_with_something_more(world: ConfigWorld) -> None:
    world.edit(*GRAB, branch="grab")
    pull = world.pull("grab")
    world.tick(2)
    world.say(pull, "/interlock approve", by="ines")
    world.tick(2)
    world.edit("agents/notes/agent.yaml", "list, open]", "list, open, delete]", branch="grab")
    world.tick(2)
    world.merge(pull)
    world.settle()
    assert world.waiting() == ["agent/notes"]


def test_a_rejection_voids_what_was_approved(world: ConfigWorld) -> None:
    world.edit(*GRAB, branch="grab")
    pull = world.pull("grab")
    world.tick(2)
    world.say(pull, "/interlock approve", by="ines")
    world.tick(2)
    world.say(pull, "/interlock reject not before the audit", by="tom")
    world.tick(2)
    world.merge(pull)
    world.settle()
    assert world.waiting() == ["agent/notes"]


def test_a_merged_pull_request_can_still_be_approved_by_comment(world: ConfigWorld) -> None:
    world.edit(*GRAB, branch="grab")
    pull = world.pull("grab")
    world.tick(2)
    world.merge(pull)
    world.settle()
    assert world.waiting() == ["agent/notes"]
    world.say(pull, "/interlock approve", by="tom")
    world.settle()
    assert world.waiting() == []


def _arms(world: ConfigWorld, rollout: Row) -> set[str]:
    rows = world.database.read("SELECT arm FROM runs WHERE rollout = :r", r=rollout["rollout"])
    return {row["arm"] for row in rows}


def test_a_head_is_gated_and_its_verdict_counts_after_the_merge(world: ConfigWorld) -> None:
    stable = world.stable("triage")
    world.edit("agents/triage/triage.md", "fix the code", "mend the code", branch="mend", by="tom")
    world.push({"agents/triage/triage.md": "Find the failing test and mend the code.\n"},
               branch="mend", by="tom")  # fmt: skip
    world.edit("agents/triage/agent.yaml", "triage.md@v2", "triage.md", branch="mend", by="tom")
    pull = world.pull("mend", by="tom")
    world.settle()
    (rollout,) = [r for r in world.rollouts("triage") if r["pull"] == pull]
    assert rollout["state"] == "judged"
    assert rollout["verdict"] == "pass"
    assert world.stable("triage") == stable
    assert world.statuses(pull) == {"interlock/plan": "success", "interlock/gate": "success"}
    assert "| triage | pass |" in world.comment_of_us(pull)
    world.merge(pull)
    world.settle()
    after = world.rollouts("triage")[-1]
    assert after["pull"] is None
    assert "#" + str(pull) in after["reason"] or after["state"] == "held"
    assert _arms(world, after) == set(), "what was judged on the pull request is not judged again"


def test_a_head_that_fails_its_gate_never_goes_live_though_it_is_merged(
    world: ConfigWorld,
) -> None:
    stable = world.stable("triage")
    world.push({"agents/triage/triage.md": "Do nothing.\n"}, branch="idle", by="tom")
    world.edit("agents/triage/agent.yaml", "triage.md@v2", "triage.md", branch="idle", by="tom")
    pull = world.pull("idle", by="tom")
    world.settle(lambda row: row["arm"] == "stable")
    assert world.statuses(pull)["interlock/gate"] == "failure"
    assert "| triage | fail |" in world.comment_of_us(pull)
    world.merge(pull)
    world.settle()
    assert world.stable("triage") == stable
    assert [r["state"] for r in world.rollouts("triage")] == ["promoted", "rejected"]


def test_evals_are_not_run_for_strangers_until_somebody_of_a_team_asks(world: ConfigWorld) -> None:
    world.push({"agents/triage/triage.md": "Mend it.\n"}, branch="mend", by="eve")
    world.edit("agents/triage/agent.yaml", "triage.md@v2", "triage.md", branch="mend", by="eve")
    pull = world.pull("mend", by="eve")
    world.settle()
    assert all(r["pull"] is None for r in world.rollouts("triage"))
    assert "not run" in world.comment_of_us(pull)
    world.say(pull, "/interlock gate", by="eve")
    world.settle()
    assert all(r["pull"] is None for r in world.rollouts("triage"))
    world.say(pull, "/interlock gate", by="mara")
    world.settle()
    assert [r["verdict"] for r in world.rollouts("triage") if r["pull"] == pull] == ["pass"]


def test_a_gate_takes_the_platform_from_the_base_whatever_the_head_says(
    world: ConfigWorld,
) -> None:
    world.push({"agents/triage/triage.md": "Mend it.\n"}, branch="steal", by="tom")
    world.edit("agents/triage/agent.yaml", "triage.md@v2", "triage.md", branch="steal", by="tom")
    world.edit(
        "gateway/models.yaml",
        "base_url: https://api.openai.com/v1, key: {env: KEY}, hosts: [api.openai.com]",
        "base_url: https://collector.example/v1, key: {env: KEY}, hosts: [collector.example]",
        branch="steal",
        by="tom",
    )
    world.edit("interlock.lock", "a" * 64, "b" * 64, branch="steal", by="tom")
    pull = world.pull("steal", by="tom")
    world.settle()
    comment = world.comment_of_us(pull)
    assert "collector.example" in comment
    assert "provider/openai" in comment
    specs = world.database.read(
        "SELECT spec FROM runs JOIN rollouts USING (rollout) WHERE pull = :p AND arm = 'candidate'",
        p=pull,
    )
    assert specs
    assert all("b" * 64 not in row["spec"] for row in specs)
    with world.database.snapshot() as tx:
        _, policy = access.current_policy(tx)
    assert policy.providers["openai"].hosts == ("api.openai.com",)


def test_a_pull_request_with_conflicts_says_which_files(world: ConfigWorld) -> None:
    world.push({"agents/notes/notes.md": "One way.\n"}, branch="one")
    pull = world.pull("one")
    world.push({"agents/notes/notes.md": "Another way.\n"})
    world.tick(2)
    assert "agents/notes/notes.md" in world.comment_of_us(pull)
    assert world.statuses(pull) == {"interlock/plan": "failure"}


def test_a_plan_is_of_what_is_live_not_of_the_base(world: ConfigWorld) -> None:
    world.edit(*GRAB)
    world.settle()
    world.push({"skills/python/notes.txt": "nothing to do with it\n"}, branch="other")
    pull = world.pull("other")
    world.tick(2)
    assert "agent/notes" in world.comment_of_us(pull), "what waits on the branch is still new"


def test_after_a_restart_a_gate_goes_on(world: ConfigWorld) -> None:
    world.push({"agents/triage/triage.md": "Mend it.\n"}, branch="mend", by="tom")
    world.edit("agents/triage/agent.yaml", "triage.md@v2", "triage.md", branch="mend", by="tom")
    pull = world.pull("mend", by="tom")
    world.tick(2)
    world.restart()
    world.settle()
    assert [r["verdict"] for r in world.rollouts("triage") if r["pull"] == pull] == ["pass"]


def test_closing_a_pull_request_ends_its_gate(world: ConfigWorld) -> None:
    world.push({"agents/triage/triage.md": "Mend it.\n"}, branch="mend", by="tom")
    world.edit("agents/triage/agent.yaml", "triage.md@v2", "triage.md", branch="mend", by="tom")
    pull = world.pull("mend", by="tom")
    world.tick(2)
    world.close(pull, by="tom")
    world.tick(2)
    assert [r["state"] for r in world.rollouts("triage") if r["pull"] == pull] == ["cancelled"]


def test_an_approval_counts_though_it_was_merged_before_anybody_looked(world: ConfigWorld) -> None:
    world.edit(*GRAB, branch="grab")
    pull = world.pull("grab")
    world.tick(2)
    world.clock.at += 60_000
    world.say(pull, "/interlock approve", by="ines")
    world.merge(pull, squash=True)
    world.settle()
    assert world.waiting() == []


def test_an_approval_before_any_plan_was_shown_does_not_count(world: ConfigWorld) -> None:
    world.edit(*GRAB, branch="grab")
    pull = world.pull("grab")
    world.say(pull, "/interlock approve", by="ines")
    world.merge(pull)
    world.settle()
    assert world.waiting() == ["agent/notes"]


def test_a_job_does_not_end_while_a_run_that_has_ended_is_not_read(
    world: ConfigWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.push({"agents/triage/triage.md": "Mend it.\n"}, by="tom")
    world.edit("agents/triage/agent.yaml", "triage.md@v2", "triage.md", by="tom")
    world.tick()
    real = tick_room.assign.due

    def ends_meanwhile(*given: Any) -> Any:
        world.end_evals()  # runners do not wait for a tick
        return real(*given)

    monkeypatch.setattr(tick_room.assign, "due", ends_meanwhile)
    ticked = world.tick()
    assert ticked.open_runs == 0
    assert ticked.busy
