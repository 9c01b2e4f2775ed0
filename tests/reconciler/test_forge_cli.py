"""`interlock pr` as a person uses it: nothing but a repository's address is needed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reconciler.cli.pulls import pr_command
from reconciler.process.forge import default_login
from reconciler.process.store import open_database


def git(folder: Path, *arguments: str) -> str:
    person = ("-c", "user.name=Anna", "-c", "user.email=anna@example.org")
    done = subprocess.run(
        ["git", "-C", str(folder), *person, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A bare repository with main, and a branch `idea` one commit ahead."""
    bare, work = tmp_path / "config.git", tmp_path / "work"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    subprocess.run(["git", "init", "-q", "-b", "main", str(work)], check=True)
    for branch, text in (("main", "one\n"), ("idea", "two\n")):
        if branch == "idea":
            git(work, "checkout", "-q", "-b", "idea")
        (work / "file").write_text(text)
        git(work, "add", "-A")
        git(work, "commit", "-q", "-m", f"Say {text.strip()}\n\nAt length.")
        git(work, "push", "-q", str(bare), branch)
    return bare


@pytest.fixture
def pr(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("INTERLOCK_REPO", str(repo))
    monkeypatch.setenv("INTERLOCK_LOGIN", "anna")
    monkeypatch.delenv("INTERLOCK_STATE", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 0, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(pr_command, [*arguments], input=stdin)
        assert result.exit_code == code, result.output
        return result

    return run


def test_a_pull_from_open_to_merged(pr, repo: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert "no pull requests yet" in pr("list").output
    assert pr("open", "--from", "idea").output == "#1 opened: Say two\n"
    assert "#1 is open already" in pr("open", "--from", "idea").output
    head = git(repo, "rev-parse", "idea")
    said = pr("comment", "1", "-", "--head", head[:8], "--as", "bob", stdin="/interlock approve\n")
    assert f"comment 1 by bob at {head[:12]}" in said.output
    assert "asks to approve all you may" in said.output
    shown = pr("show", "1").output
    assert "merges into main" in shown
    assert "  /interlock approve" in shown
    merged = json.loads(pr("merge", "1", "--squash", "--json").output)
    assert merged["commit"] == git(repo, "rev-parse", "main")
    assert "no open pull requests; 1 merged or closed" in pr("list").output
    everything = json.loads(pr("list", "--all", "--json").output)
    assert [pull["state"] for pull in everything["pulls"]] == ["merged"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.git", "work"]


def test_negative_answers_are_exit_code_one(pr) -> None:  # type: ignore[no-untyped-def]
    pr("open", "--from", "idea")
    assert "there is no pull #7" in pr("show", "7", code=1).output
    assert "there is no branch nowhere" in pr("open", "--from", "nowhere", code=1).output
    assert "is at" in pr("merge", "1", "--head", "0123456", code=1).output
    assert "at least 7 digits" in pr("merge", "1", "--head", "01", code=1).output
    assert "reconciler's own name" in pr("list", "--as", "Interlock", code=1).output
    pr("close", "1")
    assert "is closed" in pr("merge", "1", code=1).output


def test_a_mistaken_command_is_told_at_once(pr) -> None:  # type: ignore[no-untyped-def]
    pr("open", "--from", "idea")
    said = pr("comment", "1", "/interlock aprove").output
    assert "Did you mean /interlock approve?" in said


def test_an_unknown_repository_is_what_the_environment_lacks(  # type: ignore[no-untyped-def]
    pr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "check the address" in pr("list", "--repo", str(tmp_path / "x"), code=3).output
    monkeypatch.delenv("INTERLOCK_REPO")
    assert "give --repo URL" in pr("list", code=3).output


def test_a_state_directory_tells_the_repository_and_keeps_a_mirror_of_its_own(  # type: ignore[no-untyped-def]
    pr, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INTERLOCK_REPO")
    state = tmp_path / "state"
    state.mkdir()
    database = open_database(state)
    with database.transaction() as tx:
        tx.execute("INSERT INTO facts (name, value) VALUES ('repo', :repo)", repo=str(repo))
    for _ in range(2):
        pr("list", "--state", str(state))
    (mirror,) = (state / "mirrors").glob("*.git")
    assert mirror.name.startswith("pulls-")


def test_a_hostile_title_cannot_steer_the_terminal(pr, repo: Path) -> None:  # type: ignore[no-untyped-def]
    pr("open", "--from", "idea", "--body", "a\x1b[2Jb\n<!-- x -->")
    assert "\x1b" not in pr("show", "1").output


def test_the_login_is_told_or_git_s_name_or_the_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_login({"INTERLOCK_LOGIN": "carol"}) == "carol"
    config = tmp_path / "gitconfig"
    config.write_text("[user]\n\tname = Anna van der Berg\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.chdir(tmp_path)
    assert default_login({}) == "anna-van-der-berg"
    config.write_text("")
    monkeypatch.setenv("LOGNAME", "account")
    assert default_login({}) == "account"
