"""Ways around an approval: each of them leaves the previous value in force."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway import access
from reconciler.operations import Refused
from reconciler.operations import approvals as deciding
from reconciler.operations.approvals import approve
from tests.support.config_world import START, ConfigWorld

GRAB = ("agents/notes/agent.yaml", "tools: [list]", "tools: [list, open]")
FLEET = "interlock.yaml"
NOTES = "agents/notes/agent.yaml"
EXTRA = {
    f"agents/extra-{n}/{path}": text.replace("NAME", f"extra-{n}")
    for n in range(4)
    for path, text in (
        (
            "agent.yaml",
            "agent: {name: NAME, team: payments, instructions: ./it.md, rollout: ungated}\n"
            "trigger: manual\n",
        ),
        ("it.md", "Do it.\n"),
    )
}


@pytest.fixture
def world(tmp_path: Path) -> ConfigWorld:
    made = ConfigWorld(tmp_path)
    made.settle()
    return made


def _tools(world: ConfigWorld, agent: str) -> set[str]:
    with world.database.snapshot() as tx:
        policy = access.agent_policy(tx, agent)
    return set(policy.roles["main"].tools) if policy is not None else set()


def _waits(world: ConfigWorld, scope: str) -> deciding.Waiting:
    return next(w for w in deciding.listed(world.context) if w.subject.scope == scope)


# --- restarts and failures


def test_most_of_a_fleet_stays_after_a_restart_too(world: ConfigWorld) -> None:
    world.push(EXTRA)
    world.settle()
    world.push(dict.fromkeys([*EXTRA, NOTES, "agents/notes/notes.md"]))
    world.settle()
    assert world.waiting() == ["fleet/agents"]
    world.restart()
    world.settle()
    assert world.waiting() == ["fleet/agents"]
    assert world.wanted("extra-2") is not None


def test_removed_while_nobody_looked_and_added_again_is_a_new_agent(world: ConfigWorld) -> None:
    world.push({NOTES: None})
    world.restart()
    world.settle()
    world.push({NOTES: START[NOTES]})
    world.settle()
    assert world.waiting() == ["agent/notes"]


def test_a_commit_about_another_branch_hides_nothing(world: ConfigWorld) -> None:
    text = START[FLEET]
    assert text is not None
    world.edit(*GRAB)
    world.push({FLEET: text + "  branch: other\n"})  # at the end: nothing else moves
    world.settle()
    world.push({FLEET: text})
    world.settle()
    assert world.waiting() == ["agent/notes"]
    assert world.context.declared is not None
    assert world.context.declared.releases["notes"].digest == world.stable("notes")  # type: ignore[index]


def test_a_commit_that_cannot_be_read_hides_nothing(world: ConfigWorld) -> None:
    text = START[FLEET]
    assert text is not None
    world.edit(*GRAB)
    world.push({FLEET: "fleet: [\n"})
    world.settle()
    world.push({FLEET: text})
    world.settle()
    assert world.waiting() == ["agent/notes"]


def test_a_tick_that_failed_hides_nothing(
    world: ConfigWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.edit(*GRAB)
    with monkeypatch.context() as patched:

        def full(*_: object, **__: object) -> None:
            raise OSError("no space left on device")

        patched.setattr(sys.modules["reconciler.tick.declare"], "adopt", full)
        with pytest.raises(OSError, match="space"):
            world.tick()
    world.settle()
    assert world.waiting() == ["agent/notes"]
    assert world.stable("notes") == world.wanted("notes")


def test_a_restart_asks_for_nothing_twice_while_a_gate_runs(world: ConfigWorld) -> None:
    world.edit("agents/triage/agent.yaml", "tools: [open, list]", "tools: [open, list, delete]")
    world.tick(2)
    approve(world.context, _waits(world, "agent/triage").id, reason="ok", actor="ines")
    for who in ("mara",):
        if world.waiting():
            approve(world.context, _waits(world, "agent/triage").id, reason="ok", actor=who)
    world.tick(2)
    assert world.waiting() == []
    wanted = world.wanted("triage")
    world.restart()
    world.tick(2)
    assert world.waiting() == []
    assert world.wanted("triage") == wanted


def test_a_newest_commit_about_another_branch_stops_nothing_at_a_restart(
    world: ConfigWorld,
) -> None:
    text = START[FLEET]
    assert text is not None
    world.push({FLEET: text.replace("  name: northwind\n", "  name: northwind\n  branch: other\n")})
    world.settle()
    world.restart()
    ticked = world.tick()
    assert ticked.commit is not None
    assert any("watched" in problem for problem in ticked.problems)
    assert any("watched" in problem for problem in world.tick().problems)


# --- two commits


def test_a_rollout_policy_removed_and_written_anew_is_compared(world: ConfigWorld) -> None:
    text = START[FLEET]
    assert text is not None
    start = text.index("    standard:")
    end = text.index("    ungated:")
    world.push({FLEET: text[:start] + text[end:]})
    world.settle()
    world.push({FLEET: text[:start] + "    standard: {gate: none}\n" + text[end:]})
    world.settle()
    assert world.waiting() == ["agent/triage"]
    assert world.context.declared is not None
    assert world.context.declared.fleet.agents["triage"].rollout.gate is not None  # type: ignore[index]


def test_what_was_tightened_is_not_loosened_again_while_its_gate_runs(world: ConfigWorld) -> None:
    world.edit("agents/triage/agent.yaml", "tools: [open, list]", "tools: [list]")
    world.edit("agents/triage/agent.yaml", "  approvals: {open: pause_for_human}\n", "")
    world.push(
        {
            f"agents/triage/evals/cases/case-{n:02}.yaml": str(
                START[f"agents/triage/evals/cases/case-{n:02}.yaml"]
            )
            .replace("  tools: [{tool: tracker.open, result: '{}'}]\n", "")
            .replace("    - {tools: {include: [tracker.open]}}\n", "")
            for n in range(1, 21)
        }
    )
    world.tick(2)
    for scope in world.waiting():
        approve(world.context, _waits(world, scope).id, reason="incident", actor="ines")
    world.tick(2)
    assert world.waiting() == []
    assert _tools(world, "triage") == {"tracker.list"}
    world.edit("agents/triage/agent.yaml", "tools: [list]", "tools: [open, list]")
    world.tick(2)
    assert world.waiting() == ["agent/triage"]
    assert _tools(world, "triage") == {"tracker.list"}


def test_broken_and_then_mended_with_more(world: ConfigWorld) -> None:
    world.push({NOTES: "agent: {name: notes, teem: x}\ntrigger: manual\n"})
    world.settle()
    world.push({NOTES: str(START[NOTES]).replace("[list]", "[list, open]")})
    world.settle()
    assert world.waiting() == ["agent/notes"]
    assert _tools(world, "notes") == {"tracker.list"}


def test_a_new_agent_does_not_inherit_what_nobody_approved(world: ConfigWorld) -> None:
    world.edit(FLEET, "max_cost_per_run: 0.50", "max_cost_per_run: 50")
    world.push({k: v for k, v in EXTRA.items() if k.startswith("agents/extra-0/")})
    world.settle()
    assert "fleet/defaults" in world.waiting()
    assert world.stable("extra-0") is None


def test_an_agent_does_not_fall_back_on_what_nobody_approved(world: ConfigWorld) -> None:
    world.edit(
        NOTES, "  rollout: ungated", "  harness: {max_cost_per_run: 0.10}\n  rollout: ungated"
    )
    world.settle()
    assert world.waiting() == []
    before = world.stable("notes")
    world.edit(FLEET, "max_cost_per_run: 0.50", "max_cost_per_run: 50")
    world.edit(NOTES, "  harness: {max_cost_per_run: 0.10}\n", "")
    world.settle()
    approve(world.context, _waits(world, "agent/notes").id, reason="ok", actor="ines")
    world.settle()
    assert world.stable("notes") == before


def test_an_agent_does_not_use_what_its_team_may_not_use_yet(world: ConfigWorld) -> None:
    teams = str(START["teams.yaml"])
    tight = teams.replace(
        'owns: ["agents/**", "skills/**"]',
        'owns: ["agents/**", "skills/**"], uses: {models: [smart, small]}',
    )
    assert tight != teams
    world.push({"teams.yaml": tight})
    world.settle()
    before = world.stable("notes")
    world.push({"teams.yaml": tight.replace("[smart, small]", "[smart, small, large]")})
    world.edit(NOTES, "  instructions:", "  model: large\n  instructions:")
    world.settle()
    assert "team/payments" in world.waiting()
    assert world.stable("notes") == before


def test_twice_as_many_easy_cases_are_a_weaker_suite(world: ConfigWorld) -> None:
    world.push(
        {
            f"agents/triage/evals/cases/easy-{n:02}.yaml": f"""\
case:
  id: easy-{n:02}
  workspace: ../fixtures/one
  input: Say hello.
  grade: [{{max_steps: 24}}]
"""
            for n in range(1, 42)
        }
    )
    world.tick(2)
    assert world.waiting() == ["agent/triage"]


def test_a_rollout_policy_called_inline_hides_nothing(world: ConfigWorld) -> None:
    own = "  rollout: {gate: {first_release: {min_pass_rate: 0.80, approval: false}}}\n"
    world.edit("agents/triage/agent.yaml", "  rollout: standard\n", own)
    world.settle()
    for scope in world.waiting():
        approve(world.context, _waits(world, scope).id, reason="no canary", actor="ines")
    world.settle()
    assert world.waiting() == []
    world.push(
        {
            FLEET: f"{START[FLEET]}    inline: {{gate: none}}\n",
            "agents/triage/agent.yaml": str(START["agents/triage/agent.yaml"]).replace(
                "  rollout: standard\n", "  rollout: {gate: none}\n"
            ),
        }
    )
    world.tick(2)
    assert world.waiting() == ["agent/triage"]


def test_an_emptied_team_asks_its_owners(world: ConfigWorld) -> None:
    world.edit("teams.yaml", "members: [mara]", "members: []")
    world.settle()
    assert world.waiting() == ["team/platform"]


def test_a_team_is_asked_before_an_agent_joins_it(world: ConfigWorld) -> None:
    world.edit(NOTES, "team: payments", "team: platform")
    world.settle()
    approve(world.context, _waits(world, "agent/notes").id, reason="take it", actor="ines")
    world.settle()
    assert world.waiting() == ["agent/notes"]
    approve(world.context, _waits(world, "agent/notes").id, reason="welcome", actor="mara")
    world.settle()
    assert world.waiting() == []


# --- who may say yes


def test_whoever_wrote_a_part_of_what_waits_cannot_approve_it(world: ConfigWorld) -> None:
    # Something of hers comes into force at once, so that the next look begins after her commit.
    world.push(
        {
            NOTES: str(START[NOTES]).replace("[list]", "[list, open]"),
            "agents/triage/subagents/reviewer.md": "Judge it well.\n",
        },
        by="ines",
    )
    world.tick(2)
    world.push({"agents/notes/notes.md": "Write down what changed, briefly.\n"}, by="jun")
    world.tick(2)
    with pytest.raises(Refused, match="author"):
        approve(world.context, _waits(world, "agent/notes").id, reason="mine", actor="ines")


def test_an_approval_is_not_used_up_before_it_has_an_effect(world: ConfigWorld) -> None:
    before = world.stable("notes")
    world.edit(
        "gateway/mcp-servers.yaml",
        "      delete:",
        "      close: {access: [write], description: Close a change.}\n      delete:",
    )
    world.edit(NOTES, "tools: [list]", "tools: [list, close]")
    world.settle()
    assert world.waiting() == ["agent/notes", "tool/tracker.close"]
    approve(world.context, _waits(world, "agent/notes").id, reason="ok", actor="ines")
    world.settle()
    assert world.stable("notes") == before
    approve(world.context, _waits(world, "tool/tracker.close").id, reason="ok", actor="mara")
    world.settle()
    assert world.waiting() == []
    assert world.stable("notes") != before


def test_an_approval_that_expired_can_be_given_again(world: ConfigWorld) -> None:
    before = world.stable("notes")
    world.edit(
        "gateway/mcp-servers.yaml",
        "      delete:",
        "      close: {access: [write], description: Close a change.}\n      delete:",
    )
    world.edit(NOTES, "tools: [list]", "tools: [list, close]")
    world.settle()
    approve(world.context, _waits(world, "agent/notes").id, reason="ok", actor="ines")
    world.settle()
    world.clock.at += 15 * 86_400_000
    world.settle()
    approve(world.context, _waits(world, "agent/notes").id, reason="again", actor="ines")
    approve(world.context, _waits(world, "tool/tracker.close").id, reason="ok", actor="mara")
    world.settle()
    assert world.waiting() == []
    assert world.stable("notes") != before
