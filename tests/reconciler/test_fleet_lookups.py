"""What an agent can reach, who can reach a thing, what holds and why; and how it is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.values import AgentName
from reconciler.cli import interlock
from reconciler.config import Fleet, GrantedTool, Loosened, Origin
from reconciler.findings import Place
from reconciler.fleet.explain import agent_at, explain, keys_of
from reconciler.fleet.touches import touches
from reconciler.fleet.who import is_known, who_touches
from tests.support import small_fleet

TRIAGE = AgentName("triage")
FILE = "agents/triage/agent.yaml"


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return small_fleet.fleet()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return write(tmp_path, {})


def write(root: Path, changes: dict[str, str]) -> Path:
    for path, text in {**small_fleet.FILES, **changes}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def call(*args: object, **env: str) -> Result:
    return CliRunner().invoke(interlock, [str(arg) for arg in args], env={"COLUMNS": "100", **env})


def test_touches_gathers_everything_over_all_roles(fleet: Fleet) -> None:
    found = touches(fleet, fleet.agents[TRIAGE])
    assert [(use.tool, use.role) for use in found.tools] == [
        ("tracker.list", "main"),
        ("tracker.open", "main"),
    ]
    assert [(m.name, m.roles, m.targets) for m in found.models] == [
        ("smart", ("main",), ("large", "small")),
        ("small", ("reviewer",), ("small",)),
    ]
    assert found.skills == ("python",)
    assert found.hosts == ("127.0.0.1", "api.openai.com")
    assert [(s.reference, s.user, s.hosts) for s in found.secrets] == [
        ("env:KEY", "provider openai", ("api.openai.com",))
    ]
    assert found.workspace is not None
    assert found.workspace.git == "https://git.example/api.git"
    assert [rule.name for rule in found.spend.budgets] == ["month"]
    assert [claim.pattern for claim in found.claims] == ["docs/**", "mcp:tracker/api:changes"]
    assert [source.kind for source in found.sources if not source.trusted] == ["tool", "workspace"]
    assert found.leaks == ()
    assert found.people == ("ines",)


def test_a_workspace_that_no_role_can_read_is_no_input(fleet: Fleet) -> None:
    agent = fleet.agents[TRIAGE]
    blind = replace(agent, main=replace(agent.main, builtin=("finish",), tools={}), subagents=())
    assert touches(fleet, blind).sources == ()


@pytest.mark.parametrize(
    "resource, kinds",
    [
        ("tracker", {"server"}),
        ("tracker.open", {"tool"}),
        ("tracker.*", {"tool"}),
        ("tool:*", {"tool"}),
        ("small", {"model"}),
        ("large", {"model"}),
        ("openai", {"provider"}),
        ("api.openai.com", {"host"}),
        ("KEY", {"secret"}),
        ("env:KEY", {"secret"}),
        ("secret:K*", {"secret"}),
        ("python", {"skill"}),
        ("docs/api.md", {"claim"}),
        ("mcp:tracker/api:changes", {"claim"}),
        ("https://git.example/api.git", {"repository"}),
        ("payments", {"team"}),
        ("default", {"image"}),
        ("src/api.py", set()),
        ("tracker.delete", set()),
        ("server:KEY", set()),
    ],
)
def test_who_touches_finds_a_thing_by_the_name_people_use(
    fleet: Fleet, resource: str, kinds: set[str]
) -> None:
    assert {touch.kind for touch in who_touches(fleet, resource)} == kinds


def test_a_thing_that_nobody_touches_is_known_and_an_invented_one_is_not(fleet: Fleet) -> None:
    assert is_known(fleet, "tracker.delete")
    assert not is_known(fleet, "tracker.explode")
    assert not is_known(fleet, "model:tracker")


def test_who_touches_a_tool_tells_access_arguments_and_approval(fleet: Fleet) -> None:
    (found,) = who_touches(fleet, "tracker.open")
    assert found.how == "main: write; project=northwind-*; waits for approval"
    agent = fleet.agents[TRIAGE]
    tools = {**agent.main.tools, "tracker.delete": GrantedTool()}
    wild = replace(agent, main=replace(agent.main, tools=tools))
    (found,) = who_touches(replace(fleet, agents={TRIAGE: wild}), "tracker.delete")
    assert found.how == "main: write, destructive; NO approval"


def test_explain_tells_the_level_and_the_place_of_every_limit(fleet: Fleet) -> None:
    rows = {row.key: row for row in explain(fleet, fleet.agents[TRIAGE]).rows}
    own, inherited = rows["harness.max_steps"], rows["harness.max_cost_per_run"]
    assert (own.value, own.level) == ("30", "agent")
    assert own.place == Place(FILE, 9, 24)
    assert (inherited.value, inherited.level) == ("0.50", "fleet")
    assert inherited.place is not None
    assert inherited.place.file == "interlock.yaml"
    unwritten = rows["harness.max_output_tokens"]
    assert (unwritten.value, unwritten.level, unwritten.place) == ("none", "built in", None)
    assert rows["sandbox.memory"].value == "512m"
    assert rows["harness.max_wall_time"].value == "20m"
    assert rows["subagents.reviewer.model"].value == "small"
    assert rows["trigger"].value == "schedule 0 6 * * 1-5 Europe/Berlin"


def test_explain_narrows_down_to_a_key_or_a_group(fleet: Fleet) -> None:
    agent = fleet.agents[TRIAGE]
    assert [row.key for row in explain(fleet, agent, "model").rows] == ["model"]
    assert {row.key.split(".")[0] for row in explain(fleet, agent, "sandbox").rows} == {"sandbox"}
    only = explain(fleet, agent, "mcp_servers.tracker.open")
    assert [(tool.use.tool, only.rows) for tool in only.tools] == [("tracker.open", ())]
    assert not explain(fleet, agent, "harness.max").rows
    assert {row.key for row in explain(fleet, agent).rows} | {"mcp_servers"} == {*keys_of(agent)}


def test_a_tool_is_shown_with_where_it_is_classified(fleet: Fleet) -> None:
    tools = explain(fleet, fleet.agents[TRIAGE]).tools
    assert {tool.classified_at.file for tool in tools if tool.classified_at} == {
        "gateway/mcp-servers.yaml"
    }


def test_an_agent_is_found_by_name_by_file_and_by_any_file_beside_it(fleet: Fleet) -> None:
    for path in ("triage", FILE, f"./{FILE}", "agents/triage/triage.md", "agents/triage"):
        found = agent_at(fleet, path)
        assert found is not None
        assert found.name == "triage"
    assert agent_at(fleet, "agents/other/agent.yaml") is None


def test_explain_marks_what_is_looser_with_the_stricter_value(repo: Path, fleet: Fleet) -> None:
    stricter = Origin("fleet", Place("interlock.yaml", 6, 26))
    mark = Loosened("harness.max_steps", "90", "40", Place(FILE, 9, 24), stricter)
    agent = replace(fleet.agents[TRIAGE], loosened=(mark,))
    rows = {row.key: row for row in explain(fleet, agent).rows}
    assert rows["harness.max_steps"].loosened == mark
    assert rows["harness.max_tokens_per_run"].loosened is None
    agent_yaml = small_fleet.FILES[FILE].replace("max_steps: 30", "max_steps: 90")
    (repo / FILE).write_text(agent_yaml)
    shown = call("explain", "triage", "harness.max_steps", "--dir", repo)
    assert shown.exit_code == 0
    assert "looser than 40 of the fleet (interlock.yaml:" in shown.output


def test_every_lookup_speaks_json(repo: Path) -> None:
    for args in (
        ("touches", "triage", "--dir", repo),
        ("who-touches", "tracker", "--dir", repo),
        ("explain", "triage", "--dir", repo),
        ("graph", repo),
        ("lint", repo),
    ):
        shown = call(*args, "--json")
        assert shown.exit_code == 0, shown.output
        assert json.loads(shown.output), args


def test_touches_json_carries_what_the_text_shows(repo: Path) -> None:
    found = json.loads(call("touches", "triage", "--dir", repo, "--json").output)
    assert found["secrets"] == [
        {"reference": "env:KEY", "used_by": "provider openai", "hosts": ["api.openai.com"]}
    ]
    assert found["spend"]["per_run_nano_usd"] == 500_000_000
    assert found["tools"][1]["args"] == {"project": ["northwind-*"]}


@pytest.mark.parametrize("columns", [80, 100])
def test_no_line_is_wider_than_the_terminal(repo: Path, columns: int) -> None:
    for args in (
        ("touches", "triage", "--dir", repo),
        ("who-touches", "*", "--dir", repo),
        ("explain", "triage", "--dir", repo),
        ("lint", repo),
        ("graph", repo),
    ):
        shown = call(*args, COLUMNS=str(columns))
        assert max(map(len, shown.output.splitlines())) <= columns, shown.output


def test_an_unknown_agent_gets_a_suggestion(repo: Path) -> None:
    for args in (("touches", "triag"), ("explain", "triag"), ("explain", "agents/triag/x.md")):
        shown = call(*args, "--dir", repo)
        assert shown.exit_code == 1
        assert 'did you mean "triage"?' in shown.output


def test_an_unknown_resource_or_key_gets_a_suggestion(repo: Path) -> None:
    shown = call("who-touches", "trakcer", "--dir", repo)
    assert (shown.exit_code, 'did you mean "tracker"?' in shown.output) == (1, True)
    shown = call("explain", "triage:harness.max_step", "--dir", repo)
    assert (shown.exit_code, 'did you mean "harness.max_steps"?' in shown.output) == (1, True)


def test_a_known_thing_that_nobody_touches_is_an_answer(repo: Path) -> None:
    shown = call("who-touches", "tracker.delete", "--dir", repo)
    assert (shown.exit_code, shown.output) == (0, "no agent touches tracker.delete\n")


def test_an_agent_in_error_is_refused_with_its_findings(tmp_path: Path) -> None:
    broken = small_fleet.FILES[FILE].replace("skills: [python]", "skills: [pyton]")
    write(tmp_path, {FILE: broken})
    shown = call("touches", "triage", "--dir", tmp_path)
    assert shown.exit_code == 1
    assert f"{FILE}:5:" in shown.output
    assert call("lint", tmp_path).exit_code == 1
    asked = json.loads(call("who-touches", "python", "--dir", tmp_path, "--json").output)
    assert asked["not_known_of"] == ["triage"]


def test_a_repository_that_does_not_load_is_refused_with_its_errors(tmp_path: Path) -> None:
    write(tmp_path, {"teams.yaml": "teams: [\n"})
    for args in (("graph", tmp_path), ("touches", "triage", "--dir", tmp_path)):
        shown = call(*args)
        assert shown.exit_code == 1
        assert "teams.yaml:" in shown.output


def test_lint_shows_each_kind_with_reason_fix_and_section(repo: Path) -> None:
    shown = call("lint", repo)
    assert shown.exit_code == 0
    for expected in ("warning  unowned-fleet", "docs/lint.md#unowned-fleet", "→ add it to a team"):
        assert expected in shown.output
    assert call("lint", repo, "--strict").exit_code == 1


def test_lint_says_no_owner_once_where_loading_warns_too(tmp_path: Path) -> None:
    unowned = small_fleet.FILES[FILE].replace("  team: payments\n", "")
    write(tmp_path, {FILE: unowned})
    found = json.loads(call("lint", tmp_path, "--json").output)["findings"]
    assert [f["id"] for f in found if "own" in f["message"] or "team" in f["message"]].count(
        "no-owner"
    ) == 1
    assert "no-team" not in {f["id"] for f in found}


def test_lint_shows_ten_of_a_kind_and_all_of_them_when_asked(tmp_path: Path) -> None:
    servers = "".join(f"  s{n:02}: {{url: 'http://127.0.0.1:{8000 + n}/mcp'}}\n" for n in range(12))
    write(tmp_path, {"gateway/more.yaml": f"servers:\n{servers}"})
    assert "… and 2 more" in call("lint", tmp_path).output
    assert "… and" not in call("lint", tmp_path, "--all").output


def test_a_lint_error_ends_with_one(tmp_path: Path) -> None:
    models = small_fleet.FILES["gateway/models.yaml"].replace(
        "id: small-1", 'id: small-1, retires: "2020-01-01"'
    )
    write(tmp_path, {"gateway/models.yaml": models})
    shown = call("lint", tmp_path)
    assert shown.exit_code == 1
    assert "error  model-retires" in shown.output


def chained(root: Path) -> Path:
    simple = "agent: {{name: {0}, team: payments, instructions: ./i.md, rollout: ungated}}\n"
    changes = {}
    for name, trigger in (("notes", "{after: triage}"), ("post", "{after: [notes, triage]}")):
        changes[f"agents/{name}/agent.yaml"] = simple.format(name) + f"trigger: {trigger}\n"
        changes[f"agents/{name}/i.md"] = "Do it.\n"
    return write(root, changes)


def test_graph_draws_chains_once_and_refers_back(tmp_path: Path) -> None:
    assert call("graph", chained(tmp_path)).output == (
        "schedule 0 6 * * 1-5 Europe/Berlin\n"
        "└─ triage  owns docs/**; mcp:tracker/api:changes\n"
        "   ├─ notes\n"
        "   │  └─ post\n"
        "   └─ post  (as above)\n"
    )


def test_graph_speaks_mermaid_and_dot(tmp_path: Path) -> None:
    repo = chained(tmp_path)
    mermaid = call("graph", repo, "--format", "mermaid").output
    assert mermaid.startswith("flowchart LR\n")
    assert "  a2 -->|accepted| a0\n" in mermaid
    dot = call("graph", repo, "--format", "dot").output
    assert '  "triage" -> "notes" [label=accepted];\n' in dot
    assert dot.rstrip().endswith("}")


def test_a_name_from_the_repository_cannot_break_out_of_a_drawing(tmp_path: Path) -> None:
    repo = write(
        tmp_path,
        {
            "agents/x/agent.yaml": "agent: {name: x, team: payments, instructions: ./i.md, "
            "rollout: ungated}\ntrigger: {event: 'a\"]; b <script>'}\n",
            "agents/x/i.md": "Do it.\n",
        },
    )
    assert '"event a#quot;]; b #lt;script#gt;"' in call("graph", repo, "--format", "mermaid").output
    assert '"event a\\"]; b <script>"' in call("graph", repo, "--format", "dot").output


def test_colour_is_left_out_where_it_is_not_wanted(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coloured = CliRunner().invoke(interlock, ["lint", str(repo)], color=True)
    assert "\x1b[" in coloured.output
    monkeypatch.setenv("NO_COLOR", "1")
    plain = CliRunner().invoke(interlock, ["lint", str(repo)], color=True)
    assert "\x1b[" not in plain.output
