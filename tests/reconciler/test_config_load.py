"""Loading a tree: effective values with origins, and one person's error staying theirs."""

from __future__ import annotations

import pytest

from gateway.policy import Limits
from gateway.values import AgentName
from reconciler.config.load import load
from reconciler.config.reader import Memo
from reconciler.config.rollouts import MINIMUM_CASES, SMALLEST_CANARY
from reconciler.gates import statistics
from runner.spec import ChangeCheck, CommandCheck, RoleKind
from tests.support.small_fleet import FILES, edited, fleet, loaded, tree

AGENT = "agents/triage/agent.yaml"


def test_a_whole_repository_loads_without_findings() -> None:
    assert loaded().findings == ()


def test_limits_are_the_agents_or_inherited_and_each_knows_its_origin() -> None:
    agent = fleet().agents[AgentName("triage")]
    assert agent.limits == Limits(
        max_steps=30, max_tokens=400_000, max_cost=500_000_000, max_wall_ms=1_200_000
    )
    assert str(agent.origins["harness.max_steps"].place) == f"{AGENT}:9:24"
    assert str(agent.origins["harness.max_cost_per_run"].place) == "interlock.yaml:6:77"
    assert str(agent.origins["model"].place) == "interlock.yaml:4:12"


def test_a_subagent_inherits_the_model_and_no_tools() -> None:
    repository = edited(AGENT, "role: checker, model: small", "role: checker")
    reviewer = fleet(repository).agents[AgentName("triage")].subagents[0]
    assert (reviewer.kind, reviewer.model, dict(reviewer.tools)) == (RoleKind.CHECKER, "smart", {})
    assert reviewer.builtin == ("finish", "list_files", "read_file")
    assert reviewer.instructions.body == "Judge the change.\n"


def test_a_subagent_without_a_file_gets_the_words_of_its_role() -> None:
    reviewer = (
        fleet(tree({"agents/triage/subagents/reviewer.md": None}))
        .agents[AgentName("triage")]
        .subagents[0]
    )
    assert "You judge the work of another agent" in reviewer.instructions.body


def test_arguments_are_restricted_where_the_tool_has_them() -> None:
    tools = fleet().agents[AgentName("triage")].main.tools
    assert tools["tracker.open"].args == {"project": ("northwind-*",)}
    assert tools["tracker.open"].approval
    assert not tools["tracker.list"].approval


def test_a_servers_plain_name_grants_no_destructive_tool() -> None:
    repository = edited(
        AGENT, "[{name: tracker, tools: [open, list], args: {project: northwind-*}}]", "[tracker]"
    )
    tools = fleet(repository).agents[AgentName("triage")].main.tools
    assert sorted(tools) == ["tracker.list", "tracker.open"]


def test_cases_become_the_runners_checks() -> None:
    suite = fleet().agents[AgentName("triage")].suite
    assert suite is not None
    case = suite.cases[0]
    assert [check.kind for check in case.checks] == [
        "command", "file", "changes", "tools", "limits",
    ]  # fmt: skip
    assert case.checks[0] == CommandCheck(
        id="command-1", command="python3 -m unittest -q", protect=("tests/**",)
    )
    assert case.checks[2] == ChangeCheck(id="changes-3", exclude=("tests/**",), safety=True)
    assert case.workspace == "agents/triage/evals/fixtures/one"
    assert case.workspace_oid == str(tree().oid(case.workspace))
    assert case.critical
    assert case.recorded[0].tool == "tracker.open"


def test_the_suites_digest_is_of_what_is_asked_not_of_file_names() -> None:
    def digest(repository: object) -> str:
        suite = fleet(repository).agents[AgentName("triage")].suite  # type: ignore[arg-type]
        assert suite is not None
        return suite.digest

    one = "agents/triage/evals/cases/case-07.yaml"
    renamed = tree({one: None, "agents/triage/evals/cases/other.yaml": FILES[one]})
    assert digest(renamed) == digest(tree())
    for path, old, new in (
        (one, "Fix it.", "Fix it!"),
        (one, "exclude: [", 'exclude: ["x", '),
        ("agents/triage/evals/fixtures/one/main.py", "1", "2"),
        ("agents/triage/evals/sentinels/idle.md", "nothing", "little"),
    ):
        assert digest(edited(path, old, new)) != digest(tree()), path


def test_one_broken_agent_does_not_break_the_others() -> None:
    result = loaded(
        tree(
            {
                "agents/audit/agent.yaml": """\
agent: {name: audit, team: paymets, instructions: ./audit.md, rollout: ungated}
trigger: manual
""",
                "agents/audit/audit.md": "Audit.\n",
            }
        )
    )
    assert result.fleet is not None
    assert list(result.fleet.agents) == ["triage"]
    assert list(result.broken) == ["audit"]
    assert [str(f) for f in result.broken[AgentName("audit")]] == [
        'agents/audit/agent.yaml:1:28 team "paymets" is not defined; '
        'did you mean "payments"? (teams.yaml)'
    ]


def test_an_agent_that_cannot_be_parsed_is_known_by_its_folder() -> None:
    result = loaded(tree({AGENT: "agent: [\n"}))
    assert list(result.broken) == ["triage"]
    assert result.fleet is not None


@pytest.mark.parametrize(
    "path", ["interlock.yaml", "teams.yaml", "interlock.lock", "gateway/models.yaml",
             "gateway/scripts/offline.yaml", "gateway/mcp-servers.yaml", "gateway/budgets.yaml"],
)  # fmt: skip
def test_an_error_in_a_shared_file_refuses_the_whole_commit(path: str) -> None:
    result = loaded(tree({path: FILES[path] + "oops: 1\n"}))
    assert result.fleet is None
    assert list(result.broken) == ["triage"]
    assert any(f.file == path and "oops" in f.message for f in result.findings)


def test_no_fleet_at_all_is_said() -> None:
    result = loaded(tree({"interlock.yaml": None}))
    assert result.fleet is None
    assert "there is no fleet" in str(result.findings[0])


def test_other_tools_yaml_is_left_alone_and_our_misspelt_file_is_not() -> None:
    assert loaded(tree({"mkdocs.yml": "site_name: x\n", ".hidden.yaml": "["})).findings == ()
    result = loaded(edited("interlock.yaml", "fleet:", "fleat:"))
    assert 'did you mean "fleet"?' in str(result.findings[0])


def test_documents_are_parsed_once_per_content(monkeypatch: pytest.MonkeyPatch) -> None:
    from reconciler.config import positions

    parsed: list[str] = []
    real = positions.parse

    def counting(file: str, raw: bytes) -> positions.Document:
        parsed.append(file)
        return real(file, raw)

    monkeypatch.setattr(positions, "parse", counting)
    first = load(tree())
    parsed.clear()
    load(edited("teams.yaml", "ines", "tom"), previous=first)
    assert parsed == ["teams.yaml"]


def test_findings_of_a_load_that_goes_on_from_another_are_the_same() -> None:
    repository = edited(AGENT, "skills: [python]", "skils: [python]")
    first = load(repository)
    assert first.findings
    assert load(edited("teams.yaml", "ines", "tom"), previous=first).findings == ()
    again = load(repository, previous=load(tree(), previous=first))
    assert again == first


def test_a_memo_forgets_what_was_used_least_recently() -> None:
    memo, made = Memo(size=2), []
    for key in ("a", "b", "a", "c", "a", "b"):
        memo.get((key,), lambda key=key: made.append(key))
    assert made == ["a", "b", "c", "b"]


def test_the_numbers_of_the_gate_are_those_of_its_statistics() -> None:
    assert MINIMUM_CASES == statistics.MINIMUM_CASES
    assert {h: statistics.minimum_count(horizon=h) for h in statistics.HORIZONS} == SMALLEST_CANARY
