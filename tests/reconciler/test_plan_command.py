"""`interlock plan` on a real repository: what it compares, what it prints, how it ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reconciler.cli.planning import plan_command
from reconciler.operations import Refused
from reconciler.operations.planning import plan
from tests.support.small_fleet import FILES

AGENT = "agents/triage/agent.yaml"


def git(directory: Path, *args: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *args], cwd=directory, check=True
    )


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    directory = tmp_path / "config"
    for path, text in FILES.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    git(directory, "init", "-q", "-b", "main")
    git(directory, "add", "-A")
    git(directory, "commit", "-qm", "first")
    return directory


def change(directory: Path, path: str, old: str, new: str) -> None:
    text = (directory / path).read_text()
    assert old in text
    (directory / path).write_text(text.replace(old, new))


Run = Callable[..., Result]


@pytest.fixture
def run(repo: Path) -> Run:
    def call(*args: str) -> Result:
        return CliRunner().invoke(plan_command, [str(repo), *args], catch_exceptions=False)

    return call


def test_a_work_directory_without_changes_has_nothing_to_do(run: Run) -> None:
    result = run()
    assert result.exit_code == 0
    assert "Nothing changes" in result.stdout
    assert "main → work directory" in result.stdout


def test_what_needs_an_approval_ends_with_four(repo: Path, run: Run) -> None:
    change(repo, AGENT, "[open, list]", "[open, list, delete]")
    result = run()
    assert result.exit_code == 4
    assert "tracker.delete" in result.stdout
    assert "Needs approval" in result.stdout


def test_what_needs_nobody_ends_with_zero(repo: Path, run: Run) -> None:
    change(repo, "agents/triage/subagents/reviewer.md", "the change", "the patch")
    result = run()
    assert result.exit_code == 0
    assert "[-change-]{+patch+}" in result.stdout
    assert "needs no approval" in result.stdout


def test_two_commits_are_compared_without_touching_the_work_directory(repo: Path, run: Run) -> None:
    git(repo, "checkout", "-qb", "change")
    change(repo, "gateway/budgets.yaml", "200", "300")
    git(repo, "commit", "-qam", "more")
    change(repo, AGENT, "[open, list]", "[open, list, delete]")
    result = run("--head", "change", "--json")
    shown = json.loads(result.stdout)
    assert result.exit_code == 4
    assert [need["scope"] for need in shown["plan"]["needs"]] == ["budget/month"]
    assert shown["base"] == "main"
    assert shown["plan"]["digest"]
    back = run("--base", "change", "--head", "main", "--format", "json")
    assert back.exit_code == 0


def test_a_bare_repository_is_compared_at_head(repo: Path, tmp_path: Path) -> None:
    git(repo, "checkout", "-qb", "change")
    change(repo, "gateway/budgets.yaml", "200", "300")
    git(repo, "commit", "-qam", "more")
    git(tmp_path, "clone", "-q", "--bare", str(repo), "bare.git")
    found = plan(tmp_path / "bare.git", base="main")
    assert found.plan is not None
    assert [s.scope for s in found.plan.subjects] == ["budget/month"]


def test_an_invalid_change_has_no_plan_and_ends_with_one(repo: Path, run: Run) -> None:
    change(repo, "gateway/budgets.yaml", "limit:", "limitt:")
    result = run()
    assert result.exit_code == 1
    assert "gateway/budgets.yaml:2:" in result.stdout
    assert "there is no plan" in result.stdout


def test_an_agent_in_error_is_told_and_ends_with_one(repo: Path, run: Run) -> None:
    change(repo, AGENT, "model: small", "model: smal")
    result = run()
    assert result.exit_code == 1
    assert "In error; what is live stays" in result.stdout


def test_markdown_is_a_comment(repo: Path, run: Run) -> None:
    change(repo, AGENT, "[open, list]", "[open, list, delete]")
    assert run("--format", "markdown").stdout.startswith("<!-- interlock:plan -->\n")


@pytest.mark.parametrize("args", [{"base": "nowhere"}, {"head": "nowhere"}])
def test_an_unknown_ref_is_refused_by_name(repo: Path, args: dict[str, str]) -> None:
    with pytest.raises(Refused, match=r'"nowhere"'):
        plan(repo, **args)


def test_a_directory_without_git_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="interlock validate"):
        plan(tmp_path)


def test_a_base_in_error_cannot_be_compared_with(repo: Path) -> None:
    change(repo, "gateway/budgets.yaml", "limit:", "limitt:")
    git(repo, "commit", "-qam", "broken")
    with pytest.raises(Refused, match="main is in error itself"):
        plan(repo)


def test_a_pinned_text_is_the_one_that_the_branch_released(repo: Path, run: Run) -> None:
    path = "agents/triage/triage.md"
    change(repo, path, "version: 2", "version: 3")
    change(repo, path, "Find the failing test", "Find the first failing test")
    result = run()
    assert "Nothing changes" in result.stdout  # the agent asks for @v2 still
    change(repo, AGENT, "./triage.md@v2", "./triage.md@v3")
    result = run()
    assert "first" in result.stdout
    assert result.exit_code == 0
