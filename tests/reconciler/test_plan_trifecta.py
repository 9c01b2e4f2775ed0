"""Untrusted input, sensitive data and a free way out in one agent fail the plan."""

from __future__ import annotations

import json
from dataclasses import replace

from gateway.values import AgentName
from reconciler.findings import Severity
from reconciler.fleet.flows import Classes, leaks, sources_of, uses_of
from reconciler.plan import Plan, Side, diff, side_of, waiting
from reconciler.plan.reach import leaks_of, reach_of
from reconciler.plan.render import comment, terminal
from reconciler.release import compile_fleet
from tests.support.small_fleet import FILES, fleet, tree

AGENT = "agents/triage/agent.yaml"
TRIAGE = AgentName("triage")
SERVERS = FILES["gateway/mcp-servers.yaml"].replace(
    "      delete:", "      post: {access: [egress], description: Tell the world.}\n      delete:"
)
WORLD = {
    "gateway/mcp-servers.yaml": SERVERS,
    "teams.yaml": """\
teams:
  payments: {members: [ines], owns: ["agents/**"]}
  platform: {members: [mara], owns: ["gateway/**", "/*.yaml"]}
""",
}
LEAKING = ("[open, list]", "[open, list, post]")


def side(*edits: tuple[str, str], **files: str) -> Side:
    text = FILES[AGENT]
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    declared = fleet(tree({**WORLD, AGENT: text, **files}))
    return side_of(declared, compile_fleet(declared), {}, None)


def trifecta(plan: Plan) -> list[tuple[str, ...]]:
    return [one.owners for one in plan.loosenings if one.kind == "trifecta"]


def test_an_agent_that_newly_has_all_three_fails_the_plan_and_waits_for_the_fleet_s_owners() -> (
    None
):
    plan = diff(side(), side(LEAKING))
    (finding,) = plan.failing
    assert (finding.id, finding.severity) == ("lethal-trifecta", Severity.ERROR)
    assert "tracker.post" in finding.message
    assert "results of tracker.list (untrusted)" in finding.message
    assert "pause_for_human" in finding.fix
    assert trifecta(plan) == [("platform",)]
    (subject,) = plan.subjects
    assert subject.owners == (("payments",), ("platform",)), "its own team is asked as well"
    assert TRIAGE in waiting(plan, frozenset())


def test_every_rendering_says_so() -> None:
    plan = diff(side(), side(LEAKING))
    for text in (comment(plan), terminal(plan)):
        assert "Lethal trifecta" in text
        assert "could be made to send data away" in text
    assert json.loads(json.dumps(plan.as_json()))["leaks"][0]["id"] == "lethal-trifecta"


def test_a_new_agent_that_leaks_fails_too() -> None:
    live = side()
    plan = diff(replace(live, agents={}), side(LEAKING))
    assert [one.id for one in plan.failing] == ["lethal-trifecta"]
    assert trifecta(plan) == [("platform",)]


def test_what_leaks_live_already_is_told_when_the_agent_changes_and_asked_of_nobody_again() -> None:
    live = side(LEAKING)
    assert diff(live, side(LEAKING)).leaks == ()
    plan = diff(live, side(LEAKING, ("max_steps: 30", "max_steps: 20")))
    assert [one.severity for one in plan.leaks] == [Severity.WARNING]
    assert plan.failing == ()
    assert plan.subjects == ()


def test_more_sensitive_data_through_the_same_hole_is_a_new_leak() -> None:
    secret = SERVERS.replace(
        "list: {access: [read],", "list: {access: [read], sensitivity: secret,"
    )
    again = ("max_steps: 30", "max_steps: 20")
    plan = diff(side(LEAKING), side(LEAKING, again, **{"gateway/mcp-servers.yaml": secret}))
    assert [one.severity for one in plan.leaks] == [Severity.ERROR]
    assert trifecta(plan) == [("platform",)]


def test_an_approval_between_takes_the_danger_away() -> None:
    waits = ("{open: pause_for_human}", "{open: pause_for_human, post: pause_for_human}")
    plan = diff(side(), side(LEAKING, waits))
    assert plan.leaks == ()
    assert trifecta(plan) == []


def test_the_plan_and_lint_mean_the_same_by_it() -> None:
    """One reads a release and stored facts, the other the agent's file."""
    for edits in ((), (LEAKING,)):
        text = FILES[AGENT]
        for old, new in edits:
            text = text.replace(old, new)
        declared = fleet(tree({**WORLD, AGENT: text}))
        standing = side(*edits).agents[TRIAGE]
        uses = uses_of(declared.agents[TRIAGE], Classes(declared.platform))
        linted = leaks(sources_of(declared.agents[TRIAGE], uses), uses)
        planned = leaks_of(standing, reach_of(standing, side(*edits).units))
        assert [(f.steer, f.data, f.sink.tool, f.sink.role) for f in planned] == [
            (f.steer, f.data, f.sink.tool, f.sink.role) for f in linted
        ]
        assert bool(linted) == bool(edits)
