"""A value that an agent inherits is asked for at its level, and nothing hides behind that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.values import AgentName
from reconciler.plan import Plan, Side, Standing, diff, side_of, waiting
from reconciler.release import compile_fleet
from reconciler.source.tree import MemoryTree
from tests.support.small_fleet import FILES, fleet, tree

AGENT = "agents/triage/agent.yaml"
FLEET = "interlock.yaml"
TRIAGE = AgentName("triage")
OWNED = {
    "teams.yaml": """\
teams:
  payments: {members: [ines], owns: ["agents/**"]}
  platform: {members: [mara], owns: ["gateway/**", "/*.yaml"]}
"""
}


def side(repository: MemoryTree) -> Side:
    declared = fleet(repository)
    return side_of(declared, compile_fleet(declared), {}, None)


def owned() -> Side:
    return side(tree(OWNED))


def scopes(found: Plan) -> list[str]:
    return [subject.scope for subject in found.subjects]


TWO_LEVELS = {
    "own value raised while the fleet's is lowered": (
        "max_cost_per_run: 0.40",
        ", max_cost_per_run: 0.45",
    ),
    "own value raised while the fleet's is raised": (
        "max_cost_per_run: 0.60",
        ", max_cost_per_run: 0.70",
    ),
    "own value raised below the fleet's new one": (
        "max_cost_per_run: 5.00",
        ", max_cost_per_run: 0.70",
    ),
}


@pytest.mark.parametrize("name", TWO_LEVELS)
@pytest.mark.parametrize("stored", [False, True])
def test_an_agent_s_own_loosening_does_not_hide_behind_its_level_s(name: str, stored: bool) -> None:
    fleet_s, own = TWO_LEVELS[name]
    live = owned()
    if stored:
        bare = {n: Standing(s.release, s.facts) for n, s in live.agents.items()}
        live = replace(live, agents=bare)
    changed = {
        FLEET: FILES[FLEET].replace("max_cost_per_run: 0.50", fleet_s),
        AGENT: FILES[AGENT].replace("max_steps: 30", f"max_steps: 30{own}"),
    }
    found = diff(live, side(tree({**OWNED, **changed})))
    mine = [s for s in found.subjects if s.scope == "agent/triage"]
    looser = "0.45" not in own
    assert bool(mine) is looser
    if mine:  # what it had was the fleet's, so the fleet's owners are asked
        assert mine[0].owners == (("platform",),)


@pytest.mark.parametrize("stored", [False, True])
def test_an_own_value_that_goes_away_is_not_the_fleet_s_change(stored: bool) -> None:
    changed = {
        FLEET: FILES[FLEET].replace("max_steps: 40", "max_steps: 39"),
        AGENT: FILES[AGENT].replace("max_steps: 30, ", ""),
    }
    live = owned()
    if stored:
        bare = {n: Standing(s.release, s.facts) for n, s in live.agents.items()}
        live = replace(live, agents=bare)
    found = diff(live, side(tree({**OWNED, **changed})))
    assert [(s.scope, s.owners) for s in found.subjects] == [("agent/triage", (("payments",),))]


def test_an_approval_of_the_fleet_that_is_dropped_is_asked_for_once() -> None:
    everywhere = FILES[FLEET].replace("    model: smart", "    model: smart\n    approvals: [list]")
    live = side(tree({**OWNED, FLEET: everywhere}))
    bare = {n: Standing(s.release, s.facts) for n, s in live.agents.items()}
    for before in (live, replace(live, agents=bare)):
        found = diff(before, owned())
        assert scopes(found) == ["fleet/defaults"]
        assert waiting(found, frozenset()).keys() == {TRIAGE}
