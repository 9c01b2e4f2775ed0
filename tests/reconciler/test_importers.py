"""`interlock import`: what people have becomes valid, grants no more than before, loses nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.cli import interlock
from reconciler.config import AgentConfig, Fleet
from reconciler.config.importers import Known, brought_agent, brought_skill
from reconciler.config.importers.front_matter import read_page, words
from reconciler.config.load import load
from reconciler.config.scaffold import agent_files
from reconciler.findings import Severity
from reconciler.operations.repository import validate
from reconciler.source.tree import DirectoryTree
from tests.support import claude_files

EXAMPLE = Path(__file__).parents[2] / "example-config-repo"
IMAGE = "sha256:" + "b" * 64


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh repository with the example's tool server, as the current directory."""
    monkeypatch.setattr("reconciler.cli.authoring._images", lambda: {"default": IMAGE})
    root = tmp_path / "fleet"
    assert CliRunner().invoke(interlock, ["init", str(root)]).exit_code == 0
    shutil.copy(EXAMPLE / "gateway/mcp-servers.yaml", root / "gateway/mcp-servers.yaml")
    monkeypatch.chdir(root)
    return root


def brought(*arguments: str) -> Result:
    return CliRunner().invoke(interlock, ["import", *arguments])


def fleet_of(repo: Path) -> Fleet:
    loaded = load(DirectoryTree(repo))
    assert [str(f) for f in loaded.findings if f.severity is Severity.ERROR] == []
    assert loaded.fleet is not None
    return loaded.fleet


def agent_of(repo: Path, name: str) -> AgentConfig:
    return fleet_of(repo).agents[name]  # type: ignore[index]


def file_of(tmp_path: Path, text: str, name: str = "some-agent.md") -> str:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return str(path)


def said(result: Result) -> str:
    return " ".join(result.output.split())


GOOD = {
    "REVIEWER": "code-reviewer",
    "DIALOGUE": "frontend-developer",
    "MCP": "release-manager",
    "RULES": "committer",
    "PLAN": "researcher",
    "NO_FRONT_MATTER": "some-agent",
    "WINDOWS": "windows-helper",
    "TABS": "tabbed",
    "UNICODE": "uberprufer",
    "NAMELESS": "some-agent",
    "EMPTY_BODY": "terse",
    "NO_TOOLS": "thinker",
    "UNCLOSED": "some-agent",
}


# ----------------------------------------------------------------------------------------- agents


@pytest.mark.parametrize("sample", sorted(GOOD))
def test_every_sample_becomes_a_loop_that_validates(
    repo: Path, tmp_path: Path, sample: str
) -> None:
    result = brought(file_of(tmp_path, getattr(claude_files, sample)))
    assert result.exit_code == 0, result.output
    assert GOOD[sample] in validate(repo).releases
    assert validate(repo).errors == ()


@pytest.mark.parametrize(
    "sample, reason",
    [
        ("HUGE", "larger than 524,288 bytes"),
        ("LITERAL_KEY", "looks like an AWS access key"),
        ("CONTROL", "U+001B is not allowed"),
    ],
)
def test_what_cannot_be_valid_is_refused_with_the_reason(
    repo: Path, tmp_path: Path, sample: str, reason: str
) -> None:
    before = sorted(repo.rglob("*"))
    result = brought(file_of(tmp_path, getattr(claude_files, sample)))
    assert result.exit_code == 1
    assert reason in said(result)
    assert sorted(repo.rglob("*")) == before


def test_tools_become_built_in_tools_of_the_same_power(repo: Path, tmp_path: Path) -> None:
    brought(file_of(tmp_path, claude_files.REVIEWER))
    main = agent_of(repo, "code-reviewer").main
    assert set(main.builtin) == {"shell", "read_file", "list_files", "finish"}


def test_a_tool_that_was_limited_is_not_granted_whole(repo: Path, tmp_path: Path) -> None:
    result = brought(file_of(tmp_path, claude_files.RULES))
    assert "shell" not in agent_of(repo, "committer").main.builtin
    text = (repo / "agents/committer/agent.yaml").read_text()
    for word in ("Bash(git add *)", "Bash(git commit *)", "WebFetch", "FrobnicateTool"):
        assert word in text
        assert word in said(result)


def test_external_tools_are_granted_only_when_the_repository_declares_them(
    repo: Path, tmp_path: Path
) -> None:
    result = brought(file_of(tmp_path, claude_files.MCP))
    granted = agent_of(repo, "release-manager").main.tools
    assert set(granted) == {"tracker.list_changes", "tracker.open_change", "tracker.save_draft"}
    assert 'did you mean "open_change"' in said(result)
    assert 'server "jira" is not in gateway/mcp-servers.yaml' in said(result)
    assert "mcp__tracker__delete_project: it is destructive" in said(result)


def test_what_is_not_brought_over_stands_in_the_file_too(repo: Path, tmp_path: Path) -> None:
    brought(file_of(tmp_path, claude_files.MCP))
    text = (repo / "agents/release-manager/agent.yaml").read_text()
    for word in ("mcp__jira__search", "unknown-skill", "hooks", "maxTurns", "permissionMode"):
        assert f"# - {word}" in text or f"# - skill {word}" in text


def test_a_denied_tool_is_not_granted(repo: Path, tmp_path: Path) -> None:
    text = (
        "---\nname: a\ntools: Read, Edit, mcp__tracker\n"
        "disallowedTools: Edit, mcp__tracker__save_draft\n---\nDo.\n"
    )
    brought(file_of(tmp_path, text))
    main = agent_of(repo, "a").main
    assert "edit_file" not in main.builtin
    assert set(main.tools) == {"tracker.list_changes", "tracker.open_change"}


def test_plan_mode_only_reads(repo: Path, tmp_path: Path) -> None:
    brought(file_of(tmp_path, claude_files.PLAN))
    builtins = set(agent_of(repo, "researcher").main.builtin)
    assert not builtins & {"shell", "write_file", "edit_file"}


def test_no_tools_means_none_but_the_end(repo: Path, tmp_path: Path) -> None:
    brought(file_of(tmp_path, claude_files.NO_TOOLS))
    assert set(agent_of(repo, "thinker").main.builtin) == {"finish"}


def test_a_model_of_the_repository_is_kept_and_another_is_the_fleets(
    repo: Path, tmp_path: Path
) -> None:
    (repo / "gateway/more.yaml").write_text("models: {large: {provider: offline, id: large}}\n")
    brought(file_of(tmp_path, "---\nname: a\nmodel: large\n---\nDo.\n"))
    result = brought(file_of(tmp_path, "---\nname: b\nmodel: opus\n---\nDo.\n"))
    assert agent_of(repo, "a").main.model == "large"
    assert agent_of(repo, "b").main.model == "smart"
    assert "model opus" in said(result)


def test_front_matter_that_is_no_yaml_is_read_as_it_was_meant(repo: Path, tmp_path: Path) -> None:
    result = brought(file_of(tmp_path, claude_files.DIALOGUE))
    text = (repo / "agents/frontend-developer/frontend-developer.md").read_text()
    header, _, body = text.removeprefix("---\n").partition("---\n")
    description = json.loads(header.removeprefix("description: "))
    assert description.startswith("Builds React components. Use this agent when:\n")
    assert 'user: "I need a customer detail page with tabs"' in description
    assert body == "You are an elite frontend developer.\n"
    assert "read line by line" in said(result)


def test_the_text_is_kept_to_the_letter(repo: Path, tmp_path: Path) -> None:
    brought(file_of(tmp_path, claude_files.UNICODE))
    assert agent_of(repo, "uberprufer").main.instructions.body == (
        "Prüfe die Übersetzung. 翻訳を確認する。\n"
    )


def test_another_name_can_be_given_and_the_old_one_is_told(repo: Path, tmp_path: Path) -> None:
    result = brought(file_of(tmp_path, claude_files.REVIEWER), "--name", "reviewer")
    assert "loop reviewer (was code-reviewer)" in said(result)
    assert agent_of(repo, "reviewer").team == "platform"


def test_nothing_is_written_over(repo: Path, tmp_path: Path) -> None:
    path = file_of(tmp_path, claude_files.REVIEWER)
    assert brought(path).exit_code == 0
    before = (repo / "agents/code-reviewer/agent.yaml").read_bytes()
    result = brought(path)
    assert result.exit_code == 1
    assert "exists already (agents/code-reviewer); give it another with --name" in said(result)
    assert (repo / "agents/code-reviewer/agent.yaml").read_bytes() == before


@pytest.mark.parametrize(
    "arguments, hint",
    [
        (["--team", "platfrom"], 'did you mean "platform"?'),
        (["--model", "smrt"], 'did you mean "smart"?'),
        (["--name", "No Good"], "how about no-good?"),
    ],
)
def test_options_that_cannot_be_meant(
    repo: Path, tmp_path: Path, arguments: list[str], hint: str
) -> None:
    result = brought(file_of(tmp_path, claude_files.REVIEWER), *arguments)
    assert result.exit_code == 2
    assert hint in said(result)
    assert not (repo / "agents/code-reviewer").exists()


# ----------------------------------------------------------------------------------------- skills

SKILL = (
    "---\nname: pdf\ndescription: Reads PDF files.\nlicense: MIT\n---\n# PDF\n\nUse pdftotext.\n"
)


def skill_at(folder: Path, text: str = SKILL) -> Path:
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_bytes(text.encode())
    return folder


def test_a_valid_skill_is_copied_byte_for_byte_with_its_scripts(repo: Path, tmp_path: Path) -> None:
    source = skill_at(tmp_path / "pdf")
    (source / "scripts").mkdir()
    (source / "scripts/go.sh").write_text("#!/bin/sh\n")
    (source / "scripts/go.sh").chmod(0o755)
    assert brought(str(source)).exit_code == 0
    assert (repo / "skills/pdf/SKILL.md").read_text() == SKILL
    assert (repo / "skills/pdf/scripts/go.sh").stat().st_mode & 0o111
    assert validate(repo).errors == ()


def test_keys_of_other_tools_move_into_metadata(repo: Path, tmp_path: Path) -> None:
    text = (
        "---\nname: Brand Guide\ndescription: Colours: blue and white\nversion: 1.2.0\n"
        "allowed-tools: Read, Bash(git add *)\nuser-invocable: true\n---\nUse blue.\n"
    )
    result = brought(str(skill_at(tmp_path / "brand", text)))
    assert result.exit_code == 0, result.output
    assert validate(repo).errors == ()
    made = (repo / "skills/brand-guide/SKILL.md").read_text()
    header = read_page(made, ()).header or {}
    assert header["description"] == "Colours: blue and white"
    assert header["allowed-tools"] == ["Read", "Bash(git add *)"]
    assert header["metadata"] == {
        "name-before": "Brand Guide", "version": "1.2.0", "user-invocable": "true"
    }  # fmt: skip
    assert "moved into metadata: user-invocable" in said(result)


@pytest.mark.parametrize(
    "text, note",
    [
        ("# No front matter\n\nRead the file.\n", "had no front matter"),
        ("---\nname: pdf\n---\nRead the file.\n", "had no description"),
        (f"---\nname: pdf\ndescription: {'long ' * 400}\n---\nRead.\n", "was cut at 1024"),
        (
            f"---\nname: pdf\ndescription: a\ncompatibility: {'x' * 501}\n---\nR\n",
            "longer than 500",
        ),
        ("---\r\nname: pdf\r\ndescription: a\r\ntags: [x]\r\n---\r\nR\r\n", "metadata: tags"),
    ],
)
def test_a_skill_that_is_nearly_valid_is_mended_and_said(
    repo: Path, tmp_path: Path, text: str, note: str
) -> None:
    result = brought(str(skill_at(tmp_path / "pdf", text)))
    assert result.exit_code == 0, result.output
    assert note in said(result)
    assert validate(repo).errors == ()
    assert (repo / "skills/pdf/SKILL.md").exists()


def test_what_is_no_text_or_leads_out_of_the_skill_stays_behind(repo: Path, tmp_path: Path) -> None:
    source = skill_at(tmp_path / "pdf")
    (tmp_path / "secret.txt").write_text("outside")
    (source / "out.txt").symlink_to(tmp_path / "secret.txt")
    (source / "loop").symlink_to(source)
    (source / "logo.png").write_bytes(b"\x89PNG\x00\xff")
    (source / "big.csv").write_bytes(b"x" * 600_000)
    (source / "near.md").symlink_to("SKILL.md")
    result = brought(str(source))
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (repo / "skills/pdf").rglob("*")) == ["SKILL.md", "near.md"]
    assert not (repo / "skills/pdf/near.md").is_symlink()
    for word in (
        "out.txt: a link that leads out",
        "a skill is text: logo.png",
        "big.csv: larger than",
    ):
        assert word in said(result)


def test_a_skill_of_too_many_files_is_refused(repo: Path, tmp_path: Path) -> None:
    source = skill_at(tmp_path / "pdf")
    for number in range(201):
        (source / f"{number}.txt").write_text("x")
    result = brought(str(source))
    assert result.exit_code == 1
    assert "more than 200 files" in said(result)
    assert not (repo / "skills/pdf").exists()


# ---------------------------------------------------------------------------------------- folders


def test_a_claude_folder_brings_its_agents_and_the_skills_they_name(
    repo: Path, tmp_path: Path
) -> None:
    source = tmp_path / "project"
    skill_at(source / ".claude/skills/pdf")
    agents = source / ".claude/agents"
    (agents / "web").mkdir(parents=True)
    (agents / "one.md").write_text("---\nname: one\ntools: Read\nskills: pdf\n---\nDo.\n")
    (agents / "web/two.md").write_text(claude_files.REVIEWER)
    (agents / "README.md").write_text("# Our agents\n")
    (source / ".claude/settings.json").write_text("{}")
    (source / "CLAUDE.md").write_text("x")
    result = brought(str(source))
    assert result.exit_code == 0, result.output
    assert "brought over 2 loops and 1 skill" in said(result)
    assert "Left where it is: settings.json, CLAUDE.md" in said(result)
    assert [s.name for s in agent_of(repo, "one").main.skills] == ["pdf"]
    assert "code-reviewer" in fleet_of(repo).agents


def test_a_plugin_and_a_folder_of_skills_are_understood_as_well(repo: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    (plugin / ".claude-plugin").mkdir(parents=True)
    (plugin / "agents").mkdir()
    (plugin / "agents/r.md").write_text(claude_files.REVIEWER)
    skill_at(plugin / "skills/pdf")
    assert brought(str(plugin)).exit_code == 0
    skills = tmp_path / "skills-repo"
    skill_at(skills / "document/docx", SKILL.replace("pdf", "docx"))
    skill_at(skills / "xlsx", SKILL.replace("pdf", "xlsx"))
    (skills / "README.md").write_text("# Skills\n")
    (skills / "commands").mkdir()
    (skills / "commands/go.md").write_text("---\ndescription: A command.\n---\nGo.\n")
    result = brought(str(skills))
    assert result.exit_code == 0
    assert "Left where it is: commands" in said(result)
    assert set(fleet_of(repo).agents) == {"first-loop", "code-reviewer"}
    found = sorted(p.parent.name for p in (repo / "skills").rglob("SKILL.md"))
    assert found == ["docx", "house-style", "pdf", "xlsx"]


def test_what_is_good_is_brought_and_what_is_not_is_named(repo: Path, tmp_path: Path) -> None:
    folder = tmp_path / ".claude/agents"
    folder.mkdir(parents=True)
    (folder / "a.md").write_text(claude_files.REVIEWER)
    (folder / "b.md").write_text(claude_files.REVIEWER)
    (folder / "c.md").write_text(claude_files.LITERAL_KEY)
    (folder / "d.md").write_bytes(b"---\nname: d\n---\n\xff\xfe\n")
    (folder / "e.md").symlink_to("/etc/passwd")
    result = brought(str(tmp_path), "--json")
    assert result.exit_code == 1
    shown = json.loads(result.output)
    assert [item["name"] for item in shown["items"]] == ["code-reviewer"]
    assert len(shown["refused"]) == 4
    assert validate(repo).errors == ()


def test_a_folder_with_nothing_importable_is_wrong_usage(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.md").write_text("# Notes\n")
    result = brought(str(tmp_path / "empty"))
    assert result.exit_code == 2
    assert "there is no agent" in said(result)


# ---------------------------------------------------------------------------------- for any text

# Characters that do not show on a screen are refused before a text gets here.
VISIBLE = st.characters(exclude_categories=["C", "Z"], include_characters=" \n\t")
ANYTHING = st.text(VISIBLE) | st.lists(
    st.sampled_from(
        ["---", "name: A b", "description: x: y", "tools: Read, Bash(a b)", "tools:", "\t- Read",
         "- Edit", "model: opus", "skills: [a, ", "hooks: {", "  x: 1", "", "text", "&a *a", "? -"]
    ),
    max_size=14,
).map("\n".join)  # fmt: skip


@settings(max_examples=300)
@given(ANYTHING)
def test_no_text_makes_the_importer_fail_and_none_grants_what_it_does_not_name(text: str) -> None:
    made = brought_agent(text, stem="x", name="x", known=Known(), source="x.md")
    files = agent_files(made.draft, instructions=made.instructions)
    document = files["agents/x/agent.yaml"].decode()
    assert "mcp_servers: []" in document
    if made.draft.tools is not None and "shell" in made.draft.tools:
        assert "bash" in text.lower() or "disallowed" in text.lower() or "shell" in text.lower()
    for line in document.split("\nagent:")[0].splitlines():
        assert line.startswith(("#", "agent:"))
    skill = brought_skill(text, name="x")
    assert brought_skill(skill.text, name="x").changed == () or skill.text == text


@pytest.mark.parametrize(
    "written, meant",
    [
        ("Read, Write", ["Read", "Write"]),
        ("Read Write", ["Read", "Write"]),
        (["Read", "Bash(git add *)"], ["Read", "Bash(git add *)"]),
        ("Bash(git add *), Read", ["Bash(git add *)", "Read"]),
        ("", []),
        (None, []),
        ([{"github": {"type": "stdio"}}, "slack"], ["github", "slack"]),
    ],
)
def test_lists_as_people_write_them(written: object, meant: list[str]) -> None:
    assert words(written) == meant
