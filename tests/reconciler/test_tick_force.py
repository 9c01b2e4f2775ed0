"""What is in force: loosening waits for its owners, by whatever route it reached the branch."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import access
from reconciler.operations import Refused, oncall
from reconciler.operations import approvals as deciding
from reconciler.operations.approvals import approve
from runner.spec import RunSpec
from tests.support.config_world import ConfigWorld

GRAB = ("agents/notes/agent.yaml", "tools: [list]", "tools: [list, open]")


@pytest.fixture
def world(tmp_path: Path) -> ConfigWorld:
    return ConfigWorld.settled(tmp_path)


def _tools(world: ConfigWorld, agent: str) -> set[str]:
    with world.database.snapshot() as tx:
        policy = access.agent_policy(tx, agent)
    assert policy is not None
    return set(policy.roles["main"].tools)


def _budget(world: ConfigWorld, name: str) -> int:
    with world.database.snapshot() as tx:
        _, policy = access.current_policy(tx)
    return next(rule.limit for rule in policy.budgets if rule.name == name)


def _only(world: ConfigWorld) -> str:
    waiting = deciding.listed(world.context)
    assert len(waiting) == 1, waiting
    return waiting[0].id


def test_the_first_commit_is_the_baseline_and_nobody_is_asked(world: ConfigWorld) -> None:
    assert world.waiting() == []
    assert world.stable("notes") is not None
    assert world.stable("triage") is not None
    assert len(world.audit("in_force.baseline")) == 1


def test_a_live_run_carries_the_tags_in_force(world: ConfigWorld) -> None:
    world.edit(
        "agents/notes/agent.yaml", "  team: payments\n", "  team: payments\n  tags: [batch]\n"
    )
    world.settle()
    before = world.stable("notes")
    started = oncall.run(world.context, "notes", text="", actor="ines", token="one")
    row = world.database.one("SELECT spec FROM runs WHERE run = :run", run=started.subject)
    assert row is not None
    assert RunSpec.model_validate_json(row["spec"]).tags == ("batch",)
    world.edit("agents/notes/agent.yaml", "  tags: [batch]\n", "")
    world.settle()
    assert world.waiting() == ["agent/notes"]
    assert world.stable("notes") == before
    again = oncall.run(world.context, "notes", text="", actor="ines", token="two")
    row = world.database.one("SELECT spec FROM runs WHERE run = :run", run=again.subject)
    assert row is not None
    assert RunSpec.model_validate_json(row["spec"]).tags == ("batch",)


def test_a_change_that_loosens_nothing_goes_live_at_once(world: ConfigWorld) -> None:
    before = world.stable("notes")
    world.push({"agents/notes/notes.md": "Write down what changed, in order.\n"})
    world.settle()
    assert world.waiting() == []
    assert world.stable("notes") not in (None, before)


def test_a_pushed_new_tool_keeps_the_agent_as_it_was_until_an_owner_approves(
    world: ConfigWorld,
) -> None:
    before = world.stable("notes")
    world.edit(*GRAB, by="jun")
    world.settle()
    assert world.waiting() == ["agent/notes"]
    assert world.stable("notes") == world.wanted("notes") == before
    assert _tools(world, "notes") == {"tracker.list"}
    approve(world.context, _only(world), reason="needed for the digest", actor="ines")
    world.settle()
    assert world.waiting() == []
    assert world.stable("notes") not in (None, before)
    assert _tools(world, "notes") == {"tracker.list", "tracker.open"}


def test_an_approval_lets_through_exactly_once(world: ConfigWorld) -> None:
    world.edit(*GRAB)
    world.settle()
    approve(world.context, _only(world), reason="fine", actor="ines")
    world.settle()
    world.edit(GRAB[0], GRAB[2], GRAB[1])
    world.settle()
    world.edit(*GRAB)
    world.settle()
    assert world.waiting() == ["agent/notes"]


def test_whoever_wrote_the_change_cannot_approve_it(world: ConfigWorld) -> None:
    world.edit(*GRAB, by="ines")
    world.settle()
    with pytest.raises(Refused, match="author"):
        approve(world.context, _only(world), reason="mine", actor="ines")
    approve(world.context, _only(world), reason="checked", actor="tom")
    world.settle()
    assert world.waiting() == []


def test_nobody_but_an_owner_can_approve(world: ConfigWorld) -> None:
    world.edit(*GRAB)
    world.settle()
    for stranger in ("mara", "eve", ""):
        with pytest.raises(Refused):
            approve(world.context, _only(world), reason="please", actor=stranger)


def test_owners_that_a_change_brings_along_do_not_count(world: ConfigWorld) -> None:
    world.edit("teams.yaml", "members: [ines, tom]", "members: [ines, tom, eve]", by="jun")
    world.edit(*GRAB, by="jun")
    world.settle()
    assert world.waiting() == ["agent/notes", "team/payments"]
    grab = next(w for w in deciding.listed(world.context) if w.subject.scope == "agent/notes")
    with pytest.raises(Refused, match="eve is not among"):
        approve(world.context, grab.id, reason="i am new", actor="eve")


def test_a_raised_budget_stays_what_it_was_and_a_lowered_one_counts_at_once(
    world: ConfigWorld,
) -> None:
    before = _budget(world, "month")
    world.edit("gateway/budgets.yaml", "limit: 200", "limit: 900")
    world.settle()
    assert world.waiting() == ["budget/month"]
    assert _budget(world, "month") == before
    world.edit("gateway/budgets.yaml", "limit: 900", "limit: 20")
    world.settle()
    assert world.waiting() == []
    assert _budget(world, "month") == before // 10


def test_an_approved_budget_is_in_force(world: ConfigWorld) -> None:
    before = _budget(world, "month")
    world.edit("gateway/budgets.yaml", "limit: 200", "limit: 400")
    world.settle()
    approve(world.context, _only(world), reason="agreed with finance", actor="mara")
    world.settle()
    assert _budget(world, "month") == 2 * before


def test_a_provider_that_points_elsewhere_keeps_its_address(world: ConfigWorld) -> None:
    world.edit(
        "gateway/models.yaml",
        "base_url: https://api.openai.com/v1, key: {env: KEY}, hosts: [api.openai.com]",
        "base_url: https://collector.example/v1, key: {env: KEY}, hosts: [collector.example]",
    )
    world.settle()
    assert "provider/openai" in world.waiting()
    with world.database.snapshot() as tx:
        _, policy = access.current_policy(tx)
    assert policy.providers["openai"].base_url == "https://api.openai.com/v1"
    assert policy.providers["openai"].hosts == ("api.openai.com",)


def test_what_a_waiting_commit_takes_away_is_gone_at_once(world: ConfigWorld) -> None:
    world.edit("agents/notes/agent.yaml", "tools: [list]", "tools: [open]")
    world.settle()
    assert world.waiting() == ["agent/notes"]
    assert _tools(world, "notes") == set()


def test_a_new_agent_with_a_tool_waits_and_one_without_does_not(world: ConfigWorld) -> None:
    text = """\
agent:
  name: {name}
  team: payments
  instructions: ./it.md
  mcp_servers: [{servers}]
  rollout: ungated
trigger: manual
"""
    for name, servers in (("quiet", ""), ("loud", "{name: tracker, tools: [open]}")):
        world.push(
            {
                f"agents/{name}/agent.yaml": text.format(name=name, servers=servers),
                f"agents/{name}/it.md": "Do it.\n",
            }
        )
    world.settle()
    assert world.waiting() == ["agent/loud"]
    assert world.stable("quiet") is not None
    assert world.stable("loud") is None
    assert world.wanted("loud") is None


def test_a_restart_changes_nothing(world: ConfigWorld) -> None:
    before = world.stable("notes")
    world.edit(*GRAB)
    world.settle()
    world.restart()
    world.settle()
    assert world.waiting() == ["agent/notes"]
    assert world.stable("notes") == world.wanted("notes") == before
    approve(world.context, _only(world), reason="fine", actor="ines")
    world.restart()
    world.settle()
    assert world.stable("notes") not in (None, before)


def test_an_approval_that_nobody_used_expires(world: ConfigWorld) -> None:
    world.edit(*GRAB, branch="grab")
    pull = world.pull("grab")
    world.tick(2)
    world.say(pull, "/interlock approve", by="ines")
    world.tick(2)
    world.clock.at += 15 * 86_400_000
    world.merge(pull)
    world.settle()
    assert world.waiting() == ["agent/notes"]


def test_removing_most_of_a_fleet_needs_a_confirmation(world: ConfigWorld) -> None:
    more = {
        f"agents/extra-{n}/{path}": text.replace("notes", f"extra-{n}")
        for n in range(4)
        for path, text in (
            (
                "agent.yaml",
                "agent: {name: notes, team: payments, instructions: ./it.md, rollout: ungated}\n"
                "trigger: manual\n",
            ),
            ("it.md", "Do it.\n"),
        )
    }
    world.push(more)
    world.settle()
    assert world.stable("extra-3") is not None
    world.push(dict.fromkeys([*more, "agents/notes/agent.yaml", "agents/notes/notes.md"]))
    world.settle()
    assert world.waiting() == ["fleet/agents"]
    assert world.wanted("extra-2") is not None
    approve(world.context, _only(world), reason="yes, all of them", actor="mara")
    world.settle()
    assert world.wanted("extra-2") is None


def test_a_broken_agent_keeps_what_is_in_force_and_the_others_go_on(world: ConfigWorld) -> None:
    before = world.stable("notes")
    triage = world.stable("triage")
    world.push(
        {
            "agents/notes/agent.yaml": "agent: {name: notes, teem: x}\ntrigger: manual\n",
            "agents/triage/subagents/reviewer.md": "Judge the change, and say why.\n",
        }
    )
    world.settle()
    assert world.stable("notes") == before
    assert _tools(world, "notes") == {"tracker.list"}
    assert world.stable("triage") == triage
    assert [r["state"] for r in world.rollouts("triage")] == ["promoted", "held"]


RENAMED = {
    "agents/notes/agent.yaml": None,
    "agents/notes/notes.md": None,
    "agents/diary/agent.yaml": """\
agent:
  name: diary
  formerly: notes
  team: payments
  instructions: ./notes.md
  mcp_servers: [{name: tracker, tools: [list]}]
  rollout: ungated
trigger: manual
""",
    "agents/diary/notes.md": "Write down what changed.\n",
}


def test_a_renamed_agent_keeps_its_release_and_its_decisions(world: ConfigWorld) -> None:
    before = world.stable("notes")
    world.push(RENAMED)
    world.settle()
    assert world.waiting() == []
    assert world.stable("diary") == before
    assert world.stable("notes") is None
    assert [r["agent"] for r in world.rollouts("diary")] == ["diary"]
    assert _tools(world, "diary") == {"tracker.list"}


def test_a_renamed_agent_that_grabs_a_tool_goes_on_under_its_old_name(world: ConfigWorld) -> None:
    before = world.stable("notes")
    text = RENAMED["agents/diary/agent.yaml"]
    assert text is not None
    world.push({**RENAMED, "agents/diary/agent.yaml": text.replace("[list]", "[list, open]")})
    world.settle()
    assert world.waiting() == ["agent/diary"]
    assert world.stable("notes") == before
    assert _tools(world, "notes") == {"tracker.list"}
    approve(world.context, _only(world), reason="fine", actor="ines")
    world.settle()
    assert world.stable("notes") is None
    assert world.stable("diary") not in (None, before)


def test_what_another_version_of_interlock_stored_is_no_change_of_the_fleet(
    world: ConfigWorld,
) -> None:
    before = world.stable("notes")
    with world.database.transaction() as tx:
        tx.execute("UPDATE in_force SET format = 'interlock.standing/0', value = '{\"odd\": 1}'")
    world.restart()
    world.push({"agents/notes/notes.md": "Write down what changed, in order.\n"})
    world.settle()
    assert world.waiting() == []
    assert world.stable("notes") not in (None, before)


def test_what_nobody_owns_is_decided_by_the_operator(tmp_path: Path) -> None:
    (tmp_path / "unowned").mkdir()
    bare = ConfigWorld(tmp_path / "unowned")
    bare.push({"teams.yaml": "teams:\n  payments: {members: [ines]}\n"})
    bare.settle()
    bare.push({"teams.yaml": 'teams:\n  payments: {members: [ines], owns: ["**"]}\n'}, by="jun")
    bare.settle()
    assert "owners/rules" in bare.waiting()
    for waiting in deciding.listed(bare.context):
        approve(bare.context, waiting.id, reason="setting it up", actor="root")
    bare.settle()
    assert bare.waiting() == []
