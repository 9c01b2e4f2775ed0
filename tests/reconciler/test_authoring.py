"""`interlock init` and `interlock new`: what they leave behind is valid, or they leave nothing."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from reconciler.cli import interlock
from reconciler.config.load import load
from reconciler.config.scaffold import write_new
from reconciler.findings import Severity
from reconciler.operations.authoring import slug
from reconciler.operations.repository import validate
from reconciler.source.overlay import OverlayTree
from reconciler.source.tree import DirectoryTree, MemoryTree

IMAGE = "sha256:" + "b" * 64


@pytest.fixture(autouse=True)
def image(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has the sandbox image, whatever this one has."""
    monkeypatch.setattr("reconciler.cli.authoring._images", lambda: {"default": IMAGE})


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that `init` made, as the current directory."""
    assert ran("init", str(tmp_path / "fleet")).exit_code == 0
    monkeypatch.chdir(tmp_path / "fleet")
    return tmp_path / "fleet"


def ran(*arguments: str) -> Result:
    return CliRunner().invoke(interlock, list(arguments))


def problems(directory: Path) -> list[str]:
    return [str(finding) for finding in validate(directory).findings]


def tree_of(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


# ------------------------------------------------------------------------------------------- init


def test_a_new_repository_is_valid_without_a_single_finding(tmp_path: Path) -> None:
    assert ran("init", str(tmp_path / "my-ops")).exit_code == 0
    assert problems(tmp_path / "my-ops") == []
    assert list(validate(tmp_path / "my-ops").releases) == ["first-loop"]
    fleet = load(DirectoryTree(tmp_path / "my-ops")).fleet
    assert fleet is not None
    assert fleet.name == "my-ops"


def test_the_loop_of_a_new_repository_needs_no_network_and_no_key(repo: Path) -> None:
    fleet = load(DirectoryTree(repo)).fleet
    assert fleet is not None
    model = fleet.agents["first-loop"].main.model  # type: ignore[index]
    assert fleet.platform.providers[fleet.platform.models[model].provider].kind == "scripted"


def test_a_new_repository_lints_without_a_note(repo: Path) -> None:
    result = ran("lint", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["findings"] == []


def test_a_new_repository_has_its_own_signing_key_and_keeps_it_out_of_git(repo: Path) -> None:
    fleet = load(DirectoryTree(repo)).fleet
    assert fleet is not None
    public = (repo / "signing-key.pub").read_text().split()[:2]
    assert fleet.signers == (" ".join(public),)
    assert stat.S_IMODE((repo / "signing-key").stat().st_mode) == 0o600
    assert "/signing-key*" in (repo / ".gitignore").read_text().splitlines()


def test_init_says_what_to_do_next_in_three_commands(tmp_path: Path) -> None:
    shown = ran("init", str(tmp_path / "my fleet")).output
    commands = shown.split("Next\n")[1].strip().splitlines()
    assert len(commands) == 3
    assert commands[0].strip().startswith(f"cd '{tmp_path}/my fleet' && git init")


def test_init_writes_over_nothing_and_then_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "teams.yaml").write_text("teams: {}\n")
    before = tree_of(tmp_path)
    result = ran("init", str(tmp_path))
    assert result.exit_code == 1
    assert "nothing is written over: teams.yaml" in result.output
    assert tree_of(tmp_path) == before


def test_init_leaves_a_readme_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Mine\n")
    (tmp_path / "LICENSE").write_text("free\n")
    result = ran("init", str(tmp_path), "--name", "mine")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "README.md").read_text() == "# Mine\n"
    assert "README.md stays as it is" in result.output
    assert problems(tmp_path) == []


def test_init_writes_through_no_link_that_leads_out(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "agents").symlink_to(outside)
    assert ran("init", str(inside)).exit_code == 1
    assert list(outside.iterdir()) == []


def test_init_without_the_image_says_so_and_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.cli.authoring._images", dict)
    result = ran("init", str(tmp_path / "x"))
    assert result.exit_code == 0
    assert "interlock.lock lacks the sandbox image" in result.output
    assert "interlock doctor && interlock lock && " in result.output
    assert load(DirectoryTree(tmp_path / "x")).findings == ()


def test_the_scheduled_job_runs_once_at_a_time_and_is_given_the_key(repo: Path) -> None:
    job = yaml.safe_load((repo / ".github/workflows/interlock.yml").read_text())
    assert job["concurrency"]["cancel-in-progress"] is False
    step = job["jobs"]["reconcile"]["steps"][-1]
    assert "interlock reconcile --once" in step["run"]
    assert "INTERLOCK_SIGNING_KEY" in step["env"]


@pytest.mark.parametrize("name", ["Upper", "a_b", "-x", "ü"])
def test_a_fleet_name_that_is_none_is_wrong_usage(tmp_path: Path, name: str) -> None:
    assert ran("init", str(tmp_path / "x"), "--name", name).exit_code == 2
    assert not (tmp_path / "x").exists()


# -------------------------------------------------------------------------------------------- new


def test_a_new_agent_is_valid_and_inherits_everything(repo: Path) -> None:
    result = ran(
        "new", "agent", "nightly", "--schedule", "0 2 * * *", "--timezone", "Europe/Berlin"
    )
    assert result.exit_code == 0, result.output
    assert problems(repo) == []
    fleet = load(DirectoryTree(repo)).fleet
    assert fleet is not None
    agent = fleet.agents["nightly"]  # type: ignore[index]
    assert (agent.team, agent.trigger.schedule) == ("platform", "0 2 * * *")
    assert agent.main.tools == {}
    assert "+ agents/nightly/agent.yaml" in result.output


def test_a_new_agent_gets_what_its_fleet_does_not_let_it_inherit(tmp_path: Path) -> None:
    (tmp_path / "gateway/scripts").mkdir(parents=True)
    (tmp_path / "interlock.yaml").write_text("fleet: {name: bare}\n")
    (tmp_path / "gateway/models.yaml").write_text(
        "providers: {p: {kind: scripted, script: ./scripts/s.yaml}}\n"
        "models: {m: {provider: p, id: m}}\n"
    )
    (tmp_path / "gateway/scripts/s.yaml").write_text("script: {rules: [{name: end, say: x}]}\n")
    (tmp_path / "interlock.lock").write_text(f"lock: {{images: {{default: '{IMAGE}'}}}}\n")
    refused = ran("new", "agent", "a", "--into", str(tmp_path))
    assert refused.exit_code == 2
    assert "--model m" in refused.output
    result = ran("new", "agent", "a", "--model", "m", "--into", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "no team owns it" in result.output
    found = validate(tmp_path)
    assert found.errors == ()
    assert list(found.releases) == ["a"]
    text = (tmp_path / "agents/a/agent.yaml").read_text()
    assert "max_cost_per_run: 0.50" in text
    assert "rollout: {gate: none}" in text


def test_a_new_agent_goes_into_the_repository_around_the_folder_one_is_in(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repo / "agents")
    assert ran("new", "agent", "inner").exit_code == 0
    assert (repo / "agents/inner/agent.yaml").exists()


@pytest.mark.parametrize(
    "arguments, hint",
    [
        (["Nightly_Check"], "how about nightly-check?"),
        (["x", "--team", "plattform"], 'did you mean "platform"?'),
        (["x", "--model", "smrt"], 'did you mean "smart"?'),
        (["x", "--schedule", "99 * * * *"], "not a cron schedule"),
        (["x", "--schedule", "0 6 * * *", "--timezone", "Mars/Base"], "not a time zone"),
        (["../x"], "is not a name for an agent"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage_with_a_hint(
    repo: Path, arguments: list[str], hint: str
) -> None:
    before = tree_of(repo)
    result = ran("new", "agent", *arguments)
    assert result.exit_code == 2
    assert hint in " ".join(result.output.split())
    assert tree_of(repo) == before


def test_with_several_teams_one_has_to_be_named(repo: Path) -> None:
    (repo / "teams.yaml").write_text("teams:\n  a: {members: [x]}\n  b: {members: [y]}\n")
    (repo / "agents/first-loop/agent.yaml").unlink()
    result = ran("new", "agent", "x")
    assert result.exit_code == 2
    assert "--team a|b" in result.output


def test_nothing_is_written_over(repo: Path) -> None:
    before = tree_of(repo)
    assert ran("new", "agent", "first-loop").exit_code == 1
    assert ran("new", "skill", "house-style").exit_code == 1
    assert tree_of(repo) == before


def test_a_new_skill_is_valid(repo: Path) -> None:
    result = ran("new", "skill", "deploys")
    assert result.exit_code == 0, result.output
    assert problems(repo) == []


def test_in_a_broken_fleet_nothing_is_added_and_the_fault_is_shown(repo: Path) -> None:
    (repo / "interlock.yaml").write_text("fleet: {nmae: x}\n")
    result = ran("new", "agent", "x")
    assert result.exit_code == 1
    assert "interlock.yaml:1:9" in result.output
    assert not (repo / "agents/x").exists()


def test_outside_a_repository_one_is_told_how_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    result = ran("new", "agent", "x")
    assert result.exit_code == 1
    assert "interlock init" in result.output


def test_json_names_the_files_and_the_next_commands(repo: Path) -> None:
    shown = json.loads(ran("new", "skill", "deploys", "--json").output)
    assert shown["files"] == ["skills/deploys/SKILL.md"]
    assert shown["next"]


# ----------------------------------------------------------------------------------------- pieces


@pytest.mark.parametrize(
    "text, name",
    [
        ("CodeReviewer", "code-reviewer"),
        ("Windows Helper", "windows-helper"),
        ("Überprüfer 2", "uberprufer-2"),
        ("a__b", "a-b"),
        ("審査", ""),
        ("-x-", "x"),
        ("a" * 80, "a" * 64),
    ],
)
def test_the_nearest_name(text: str, name: str) -> None:
    assert slug(text) == name


def test_an_overlay_is_the_tree_that_would_be_written(tmp_path: Path) -> None:
    files = {"a/b.md": b"1", "a/c/d.md": b"2", "e.md": b"3"}
    more = {"a/c/x.md": b"4", "f/g.md": b"5", "e.md": b"6"}
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    over = OverlayTree(DirectoryTree(tmp_path), more)
    whole = MemoryTree({**files, **more})
    assert over.oid("") == whole.oid("")
    assert [(p, e.oid) for p, e in over.walk()] == [(p, e.oid) for p, e in whole.walk()]
    assert [over.read(path) for path, _ in over.walk()] == [
        whole.read(path) for path, _ in whole.walk()
    ]
    assert not over.exists("a/nothing")


def test_a_write_that_fails_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "z").write_text("came into being meanwhile")
    with pytest.raises(FileExistsError):
        write_new(tmp_path, {"a/b/c": b"1", "z": b"2"})
    assert [path.name for path in tmp_path.iterdir()] == ["z"]
    assert (tmp_path / "z").read_text() == "came into being meanwhile"


def test_only_warnings_of_this_version_would_be_shown_for_the_examples() -> None:
    examples = Path(__file__).parents[2] / "docs/language/examples"
    for name in ("minimal", "full"):
        found = validate(examples / name)
        assert [str(f) for f in found.findings if f.severity is Severity.ERROR] == []
        assert found.releases
