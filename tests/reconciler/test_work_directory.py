"""A work directory is judged as a commit of it would be, by its branch's history, and quickly."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from reconciler.config import history
from reconciler.config.versions import History
from reconciler.findings import Finding
from reconciler.operations.authoring import new_agent
from reconciler.operations.lookups import explain, lint
from reconciler.operations.outcome import Refused
from reconciler.operations.repository import read, validate
from tests.support.small_fleet import FILES

TEXT = "agents/triage/triage.md"
AGENT = "agents/triage/agent.yaml"
TODAY = date(2026, 1, 1)
UNPINNED = {
    AGENT: FILES[AGENT].replace("triage.md@v2", "triage.md"),
    TEXT: "Find the failing test.\n",
    "skills/python/SKILL.md": FILES["skills/python/SKILL.md"].replace("version: 1\n", ""),
}


def git(directory: Path, *args: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *args], cwd=directory, check=True
    )


def write(directory: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    directory = tmp_path / "config"
    write(directory, dict(FILES))
    git(tmp_path, "init", "-q", "-b", "main", "config")
    git(directory, "add", "-A")
    git(directory, "commit", "-qm", "first")
    return directory


def test_other_content_under_a_released_version_is_an_error_before_it_is_pushed(repo: Path) -> None:
    assert validate(repo).errors == ()
    (repo / TEXT).write_text("---\nversion: 2\n---\nDo something else.\n")
    (found,) = validate(repo).errors
    assert found.id == "version-changed"
    assert "bump to v3" in found.fix
    assert "version-changed" in [f.id for f in lint(repo, TODAY).findings]
    with pytest.raises(Refused, match="bump to v3"):
        explain(repo, "triage", None)


def test_a_pin_means_what_the_branch_released(repo: Path) -> None:
    (repo / TEXT).write_text("---\nversion: 3\n---\nDo something else.\n")
    assert validate(repo).errors == ()
    fleet = read(repo).loaded.fleet
    assert fleet is not None
    (agent,) = fleet.agents.values()
    assert agent.main.instructions.body == "Find the failing test and fix the code.\n"


def test_what_is_new_is_checked_against_the_same_history(repo: Path) -> None:
    (repo / TEXT).write_text("---\nversion: 3\n---\nDo something else.\n")
    assert "agents/second/agent.yaml" in new_agent(repo, "second").files
    fleet = read(repo).loaded.fleet
    assert fleet is not None
    assert sorted(fleet.agents) == ["second", "triage"]


def test_a_shallow_clone_says_that_versions_were_not_checked(repo: Path, tmp_path: Path) -> None:
    git(repo, "commit", "-qm", "second", "--allow-empty")
    git(tmp_path, "clone", "-q", "--depth=1", repo.as_uri(), "shallow")
    for found in (validate(tmp_path / "shallow"), lint(tmp_path / "shallow", TODAY)):
        assert "shallow-history" in [f.id for f in found.findings]


def test_outside_git_there_is_no_history_and_nothing_wrong(tmp_path: Path) -> None:
    write(tmp_path, dict(FILES))
    assert validate(tmp_path).errors == ()


def test_the_past_is_looked_at_only_when_something_has_a_version(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = history.history_of

    def noted(at: Path, *, branch: str) -> tuple[History, tuple[Finding, ...]]:
        asked.append(branch)
        return real(at, branch=branch)

    monkeypatch.setattr(history, "history_of", noted)
    validate(repo)
    assert asked == ["main"]
    write(repo, UNPINNED)
    assert validate(repo).errors == ()
    assert asked == ["main"]
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=repo, text=True).strip()
    write(repo, {AGENT: FILES[AGENT].replace("@v2", f"@{commit}")})
    assert validate(repo).errors == ()
    assert asked == ["main", "main"]


SLOW = ("pygit2", "httpx", "docker", "genai_prices", "psycopg", "uvicorn", "starlette", "ruamel")


@pytest.mark.parametrize(
    "module", ["repository", "lookups", "authoring", "importing", "outcome", "planning"]
)
def test_a_look_into_a_directory_does_not_load_what_runs_agents(module: str) -> None:
    code = f"import sys, reconciler.operations.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert f"reconciler.operations.{module}" in loaded
    assert not [name for name in loaded if name.startswith(("reconciler.tick", "runner.engine"))]
    slow = set(SLOW) - ({"pygit2"} if module == "planning" else set())
    assert not slow & loaded
