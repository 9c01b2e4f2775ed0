"""Fleet → team → agent: the nearest level speaks, approvals add up, what is looser is marked."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.values import AgentName, TeamName
from reconciler.config import AgentConfig, Fleet, Origin
from reconciler.config.inheritance import BUILT_IN, Layer, Ledger
from reconciler.config.load import load
from reconciler.config.models.fields import (
    parse_duration,
    parse_size,
    written_duration,
    written_size,
    written_thousandths,
    written_usd,
)
from reconciler.findings import Place
from tests.support.small_fleet import FILES, edited, fleet, loaded, tree

AGENT = "agents/triage/agent.yaml"
TEAMS = "teams.yaml"
TEAM = "teams:\n  payments:\n    members: [ines]\n"


def of_team(text: str, agent: str = FILES[AGENT], **more: str) -> Fleet:
    return fleet(tree({TEAMS: TEAM + text, AGENT: agent, **more}))


def triage(found: Fleet) -> AgentConfig:
    return found.agents[AgentName("triage")]


def marks(agent: AgentConfig) -> list[tuple[str, str, str, str, str, str]]:
    return [
        (m.path, m.value, m.inherited, str(m.place), m.stricter.level, str(m.stricter.place))
        for m in agent.loosened
    ]


def test_every_effective_value_knows_where_it_comes_from() -> None:
    origins = triage(fleet()).origins
    assert {path: origin.level for path, origin in origins.items()} == {
        "team": "agent",
        "model": "fleet",
        "harness.max_steps": "agent",
        "harness.max_tokens_per_run": "fleet",
        "harness.max_cost_per_run": "fleet",
        "harness.max_wall_time": "fleet",
        "harness.max_output_tokens": "built in",
        "harness.until": "agent",
        "approvals.tracker.open": "agent",
        "sandbox.image": "fleet",
        "sandbox.cpus": "fleet",
        "sandbox.memory": "fleet",
        "sandbox.pids": "fleet",
        "sandbox.disk": "fleet",
        "sandbox.exec_timeout": "built in",
        "rollout": "fleet",
        "subagents.reviewer.model": "agent",
        "subagents.reviewer.harness.max_steps": "agent",
        "subagents.reviewer.harness.max_tokens_per_run": "fleet",
        "subagents.reviewer.harness.max_cost_per_run": "fleet",
        "subagents.reviewer.harness.max_wall_time": "fleet",
        "subagents.reviewer.harness.max_output_tokens": "built in",
    }
    assert origins["sandbox.exec_timeout"] is BUILT_IN
    assert str(origins["subagents.reviewer.model"].place) == f"{AGENT}:8:46"
    assert str(origins["rollout"].place) == "interlock.yaml:5:14"


def test_a_team_speaks_before_the_fleet_and_an_agent_before_both() -> None:
    agent = triage(
        of_team(
            "    defaults: {model: small, harness: {max_steps: 20, max_wall_time: 10m},"
            " sandbox: {memory: 256m}}\n"
        )
    )
    assert agent.main.model == "small"
    assert agent.limits.max_steps == 30
    assert agent.limits.max_wall_ms == 600_000
    assert agent.sandbox.memory_bytes == 256 * 1024**2
    assert agent.origins["model"] == Origin("team", Place(TEAMS, 4, 23))
    assert agent.origins["harness.max_wall_time"].level == "team"
    assert agent.origins["subagents.reviewer.harness.max_wall_time"].level == "team"
    assert marks(agent) == [
        ("harness.max_steps", "30", "20", f"{AGENT}:9:24", "team", "teams.yaml:4:51")
    ]


def test_a_higher_limit_is_marked_as_people_write_it_with_where_the_lower_one_stands() -> None:
    text = FILES[AGENT].replace(
        "harness: {max_steps: 30,",
        "harness: {max_steps: 41, max_cost_per_run: 0.75, max_wall_time: 1h30m,",
    )
    text = text.replace("sandbox: {", "sandbox: {memory: 1g, cpus: 1.5, ")
    agent = triage(fleet(tree({AGENT: text})))
    assert [(m.path, m.value, m.inherited) for m in agent.loosened] == [
        ("harness.max_steps", "41", "40"),
        ("harness.max_cost_per_run", "0.75", "0.50"),
        ("harness.max_wall_time", "1h30m", "20m"),
        ("sandbox.cpus", "1.5", "1"),
        ("sandbox.memory", "1g", "512m"),
    ]
    assert str(agent.loosened[0].stricter.place) == "interlock.yaml:6:26"
    assert agent.limits.max_steps == 41


def test_a_teams_loosening_of_the_fleet_is_marked_on_each_of_its_agents() -> None:
    found = of_team(
        "    defaults: {harness: {max_cost_per_run: 2}}\n",
        **{
            "agents/notes/agent.yaml": (
                "agent: {name: notes, team: payments, instructions: Write notes., rollout: "
                "ungated, harness: {max_cost_per_run: 0.10}}\ntrigger: manual\n"
            )
        },
    )
    assert marks(triage(found)) == [
        (
            "harness.max_cost_per_run",
            "2.00",
            "0.50",
            "teams.yaml:4:44",
            "fleet",
            "interlock.yaml:6:77",
        )
    ]
    notes = found.agents[AgentName("notes")]
    assert [m.path for m in notes.loosened] == ["rollout.gate", "rollout.canary"]


def test_an_agent_above_its_team_is_marked_for_the_team_and_for_the_fleet() -> None:
    agent = triage(
        of_team(
            "    defaults: {harness: {max_steps: 50}}\n",
            FILES[AGENT].replace("max_steps: 30", "max_steps: 60"),
        )
    )
    assert [(m.value, m.inherited, m.place.file, m.stricter.level) for m in agent.loosened] == [
        ("60", "50", AGENT, "team"),
        ("60", "40", AGENT, "fleet"),
    ]


def test_an_agent_within_what_its_team_allows_loosens_nothing_itself() -> None:
    agent = triage(
        of_team(
            "    defaults: {harness: {max_steps: 50}}\n",
            FILES[AGENT].replace("max_steps: 30", "max_steps: 45"),
        )
    )
    assert [(m.value, m.inherited, m.place.file, m.stricter.level) for m in agent.loosened] == [
        ("50", "40", TEAMS, "fleet")
    ]


def test_a_weaker_rollout_policy_is_marked_where_it_is_weaker() -> None:
    own = (
        "rollout: {gate: {delta: 0.20, first_release: {min_pass_rate: 0.70, approval: false}},"
        " canary: {count: 4}}\n  approvals:"
    )
    agent = triage(fleet(edited(AGENT, "approvals:", own)))
    assert [(m.path, m.value, m.inherited) for m in agent.loosened] == [
        ("rollout.gate.delta", "0.2", "0.1"),
        ("rollout.gate.first_release.min_pass_rate", "0.7", "0.8"),
        ("rollout.canary.count", "4", "5"),
    ]
    same = "rollout: standard\n  approvals:"
    assert triage(fleet(edited(AGENT, "approvals:", same))).loosened == ()


def test_a_team_with_a_weaker_rollout_policy_is_marked_on_its_agents() -> None:
    agent = triage(of_team("    defaults: {rollout: ungated}\n"))
    assert agent.rollout.gate is None
    assert marks(agent) == [
        ("rollout.gate", "none", "a gate", "teams.yaml:4:25", "fleet", "interlock.yaml:5:14"),
        ("rollout.canary", "none", "5 runs", "teams.yaml:4:25", "fleet", "interlock.yaml:5:14"),
    ]


def test_an_approval_the_team_or_the_fleet_asks_for_cannot_be_dropped() -> None:
    without = FILES[AGENT].replace("  approvals: {open: pause_for_human}\n", "")
    agent = triage(of_team("    defaults: {approvals: [tracker.open]}\n", without))
    assert agent.main.tools["tracker.open"].approval
    assert agent.origins["approvals.tracker.open"] == Origin("team", Place(TEAMS, 4, 16))
    refused = loaded(edited(AGENT, "{open: pause_for_human}", "{open: none}"))
    assert "an approval that the fleet or the team requires stays" in str(refused.findings[0])


def test_a_teams_defaults_and_uses_are_plain_values_by_path() -> None:
    found = of_team(
        "    defaults: {harness: {max_cost_per_run: 0.25}, approvals: {open: pause_for_human}}\n"
        "    uses: {models: [small, smart], servers: []}\n",
        "agent: {name: triage, team: payments, instructions: Find it., rollout: ungated}\n"
        "trigger: manual\n",
    )
    team = found.teams[TeamName("payments")]
    assert team.defaults == {
        "harness.max_cost_per_run": 250_000_000,
        "approvals.open": "pause_for_human",
    }
    assert team.uses == {"models": ("small", "smart"), "servers": ()}
    assert found.defaults["harness.max_wall_time"] == 1_200_000
    assert found.places["team", "payments"] == Place(TEAMS, 2, 3)
    assert found.forge == "local"


USES = {
    "model": ("models: [large]", "8:46", 'may not use model "small"'),
    "inherited model": ("models: [small]", "2:9", 'may not use model "smart"'),
    "skill": ("skills: [go-*]", "5:12", 'may not use skill "python"'),
    "server": ("servers: [mail, ci]", "6:24", 'may not use server "tracker"'),
}


@pytest.mark.parametrize("name", USES)
def test_what_a_team_may_not_use_is_refused_where_it_is_named(name: str) -> None:
    uses, place, message = USES[name]
    kind = uses.partition(":")[0]
    result = loaded(tree({TEAMS: TEAM + f"    uses: {{{uses}}}\n"}))
    assert f'{AGENT}:{place} team "payments" {message} (uses.{kind} at teams.yaml:4:' in "\n".join(
        map(str, result.findings)
    )
    assert "triage" in result.broken


def test_a_team_uses_what_its_globs_allow() -> None:
    uses = "    uses: {models: ['sm*'], skills: [python], servers: ['*']}\n"
    assert loaded(tree({TEAMS: TEAM + uses})).findings == ()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("defaults: {model: smrt}", 'teams.yaml:4:23 model "smrt" is not defined'),
        ("defaults: {rollout: nix}", 'teams.yaml:4:25 rollout policy "nix" is not defined'),
        (
            "{defaults: {model: smart}, uses: {models: [small]}}",
            'may not use model "smart" (uses.models at teams.yaml:',
        ),
        ("defaults: {harness: {until: {command: x}}}", 'unknown key "until"'),
    ],
)
def test_a_mistake_in_teams_refuses_the_commit(text: str, expected: str) -> None:
    body = TEAM + f"    {text}\n"
    if text.startswith("{"):
        body = "teams:\n  payments: {members: [ines], " + text[1:] + "\n"
    result = loaded(tree({TEAMS: body}))
    assert expected in "\n".join(map(str, result.findings))
    assert result.fleet is None


def test_levels_share_their_origins_among_agents() -> None:
    found = of_team(
        "    defaults: {harness: {max_wall_time: 5m}}\n",
        **{
            "agents/notes/agent.yaml": (
                "agent: {name: notes, team: payments, instructions: Write it., rollout: ungated}\n"
                "trigger: manual\n"
            )
        },
    )
    one, two = found.agents[AgentName("notes")], triage(found)
    for path in ("harness.max_wall_time", "harness.max_cost_per_run", "sandbox.memory"):
        assert one.origins[path] is two.origins[path]


limits = st.none() | st.integers(1, 100)


@given(limits, limits, limits)
def test_no_value_above_a_stricter_one_goes_unmarked(
    own: int | None, team: int | None, above: int | None
) -> None:
    path = "harness.max_steps"

    def level(name: str, value: int | None) -> Layer:
        if value is None:
            return Layer(name)  # type: ignore[arg-type]
        return Layer(name, {path: value}, {path: Origin(name, Place(name))})  # type: ignore[arg-type]

    ledger = Ledger((level("team", team), level("fleet", above)))
    effective = ledger.limit(path, own, lambda: Origin("agent", Place("agent")))
    assert effective == next((v for v in (own, team, above) if v is not None), None)
    stricter = {
        name
        for name, value in (("team", team), ("fleet", above))
        if value is not None and effective is not None and effective > value
    }
    assert {mark.stricter.level for mark in ledger.loosened} == stricter
    for mark in ledger.loosened:
        assert int(mark.value) >= effective > int(mark.inherited)


@given(st.integers(1, 10**12))
def test_what_is_written_is_read_as_the_same(value: int) -> None:
    assert parse_duration(written_duration(value)) == value
    size = value % 10**6 * 1024 + 1024
    assert parse_size(written_size(size)) == size


def test_money_and_cpus_are_written_as_people_do() -> None:
    assert [written_usd(v) for v in (500_000_000, 3_000_000_000, 4_200_000, 1)] == [
        "0.50",
        "3.00",
        "0.0042",
        "0.000000001",
    ]
    assert [written_thousandths(v) for v in (1000, 500, 1250, 20_000)] == ["1", "0.5", "1.25", "20"]


STEPS = {
    "team default": {TEAMS: TEAM + "    defaults: {harness: {max_steps: 20}}\n"},
    "another one": {TEAMS: TEAM + "    defaults: {harness: {max_steps: 25}}\n"},
    "team rollout": {TEAMS: TEAM + "    defaults: {rollout: ungated}\n"},
    "approval": {TEAMS: TEAM + "    defaults: {approvals: [list]}\n"},
    "uses": {TEAMS: TEAM + "    uses: {models: [small]}\n"},
    "uses more": {TEAMS: TEAM + "    uses: {models: [small, smart]}\n"},
    "fleet default": {
        "interlock.yaml": FILES["interlock.yaml"].replace("max_steps: 40", "max_steps: 10")
    },
    "fleet moved": {"interlock.yaml": "# a comment\n" + FILES["interlock.yaml"]},
    "owners": {"CODEOWNERS": "* @ines\n"},
    "other owners": {".github/CODEOWNERS": "* @tom\n"},
    "rail": {
        "gateway/guardrails.yaml": "guardrails: [{name: a, hooks: [tool_input], secrets: {}}]\n"
    },
    "nothing": {},
}


NAMES = list(STEPS)
PAIRS = [
    *itertools.pairwise(NAMES),
    *((name, "nothing") for name in NAMES),
    *(("nothing", name) for name in NAMES),
]


@pytest.mark.parametrize("first, second", PAIRS)
def test_going_on_from_an_earlier_commit_gives_what_a_fresh_start_gives(
    first: str, second: str
) -> None:
    after = tree(STEPS[second])
    fresh, continued = load(after), load(after, previous=load(tree(STEPS[first])))
    assert continued.fleet == fresh.fleet
    assert continued.findings == fresh.findings
    assert continued.broken == fresh.broken


def test_a_change_of_a_teams_members_leaves_its_agents_alone() -> None:
    before = load(tree({TEAMS: TEAM + "    uses: {models: [small, smart]}\n"}))
    text = TEAM.replace("ines", "tom") + "    uses: {models: [small, smart]}\n"
    after = load(tree({TEAMS: text}), previous=before)
    assert before.fleet is not None
    assert after.fleet is not None
    assert after.fleet.teams[TeamName("payments")].members == ("tom",)
    assert triage(after.fleet) is triage(before.fleet)
