"""Claims in a plan: handed over by two, taken by one, and too many to be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from gateway.values import AgentName
from reconciler.config import Loosened, Origin
from reconciler.findings import Place, Severity
from reconciler.fleet import claims
from reconciler.plan import Plan, Side, collisions_of, diff, side_of
from reconciler.plan.render import terminal
from reconciler.release import compile_fleet
from tests.support.small_fleet import FILES, fleet, loaded, tree

TEAMS = """\
teams:
  payments: {members: [ines], owns: ["agents/triage/**"]}
  docs: {members: [aiko], owns: ["agents/notes/**"]}
  platform: {members: [mara], owns: ["gateway/**", "/*.yaml"]}
"""
MINE = 'owns: ["docs/**", "mcp:tracker/api:changes"]'
NONE = 'owns: ["mcp:tracker/api:changes"]'
GIVES = 'owns: [{claim: "docs/**", to: notes}, "mcp:tracker/api:changes"]'


def notes(owns: str) -> str:
    return f"""\
agent:
  name: notes
  team: docs
  instructions: Write notes.
  rollout: ungated
  sandbox: {{workspace: {{git: "https://git.example/api.git"}}}}
  owns: [{owns}]
trigger: {{manual: true}}
"""


def files(triage: str = MINE, others: str = "") -> Mapping[str, str]:
    text = FILES["agents/triage/agent.yaml"].replace(MINE, triage)
    return {
        "teams.yaml": TEAMS,
        "agents/triage/agent.yaml": text,
        "agents/notes/agent.yaml": notes(others),
    }


def side(triage: str = MINE, others: str = "") -> Side:
    declared = fleet(tree(files(triage, others)))
    made = side_of(declared, compile_fleet(declared), {}, None)
    return replace(made, collisions=collisions_of(declared))


def asked(plan: Plan) -> dict[str, list[tuple[str, ...]]]:
    return {s.scope: [one.owners for one in s.loosenings] for s in plan.subjects}


TAKES = '{claim: "docs/**", from: triage}'


def test_a_hand_over_by_both_collides_with_nobody_and_asks_the_one_who_gives() -> None:
    plan = diff(side(), side(GIVES, TAKES))
    assert plan.collisions == ()
    assert asked(plan) == {"agent/notes": [("payments",)]}


@pytest.mark.parametrize("pattern", ["docs/**", "docs/api/**"])
def test_what_its_owner_drops_and_another_claims_in_one_change_asks_the_owner(pattern: str) -> None:
    plan = diff(side(), side(NONE, f'"{pattern}"'))
    (finding,) = plan.collisions
    assert (finding.id, finding.severity) == ("claim-taken", Severity.WARNING)
    assert "hand it over" in finding.fix
    assert plan.failing == ()
    assert asked(plan) == {"agent/notes": [("payments",)]}
    assert "did not hand over" in terminal(plan)


def test_a_new_agent_that_takes_a_claim_asks_too() -> None:
    live = side()
    live = replace(live, agents={k: v for k, v in live.agents.items() if k != "notes"})
    (subject,) = diff(live, side(NONE, '"docs/**"')).subjects
    assert [one.owners for one in subject.loosenings if one.kind == "claim"] == [("payments",)]


def test_what_nobody_owned_or_was_dropped_before_asks_nobody() -> None:
    assert asked(diff(side(), side(NONE, '"src/**"'))) == {}
    assert asked(diff(side(NONE), side(NONE, '"docs/**"'))) == {}


def test_a_third_claim_meets_the_new_owner_and_not_the_one_who_gave() -> None:
    third = notes('"docs/x"').replace("name: notes", "name: third")
    found = loaded(tree({**files(GIVES, TAKES), "agents/third/agent.yaml": third}))
    assert sorted(found.broken) == ["notes", "third"]


def test_claims_that_cannot_all_be_compared_fail_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = fleet(tree(files(MINE, '"*.md"')))
    assert "claims-too-wide" not in [f.id for f in collisions_of(declared)]
    monkeypatch.setattr(claims, "MOST_STEPS", 0)
    wide = collisions_of(declared)
    assert [(f.id, f.severity) for f in wide] == [("claims-too-wide", Severity.ERROR)]


def test_a_value_above_what_two_levels_say_is_asked_of_both() -> None:
    before = side()
    after = before.agents[AgentName("triage")]
    assert after.release is not None
    path = "harness.max_steps"
    at = after.place or Place("f")
    marks = (
        Loosened(path, "60", "50", at, Origin("team", Place("teams.yaml", 4, 5))),
        Loosened(path, "60", "40", at, Origin("fleet", Place("agents/notes/x", 4, 5))),
    )
    raised = fleet(tree({**files(), "agents/triage/agent.yaml": FILES["agents/triage/agent.yaml"]
                         .replace("max_steps: 30", "max_steps: 60")}))  # fmt: skip
    made = side_of(raised, compile_fleet(raised), {}, None)
    agent = replace(made.agents[AgentName("triage")], loosened=marks)
    plan = diff(before, replace(made, agents={**made.agents, AgentName("triage"): agent}))
    (subject,) = plan.subjects
    assert subject.owners == (("docs",), ("platform",))
    assert [str(one.stricter) for one in subject.loosenings] == [
        "agents/notes/x:4:5",
        "teams.yaml:4:5",
    ]
