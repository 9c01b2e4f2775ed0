"""Commits that no work directory could make: git stores them, and libgit2 hands them on.

A server does not check objects unless it is told to (`transfer.fsckObjects`), so that a push can
bring trees with two entries of one name, out of order, called `.git` or `..`, of strange modes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.values import AgentName
from reconciler.cli import interlock
from reconciler.config.load import load
from reconciler.plan import diff
from reconciler.source import Mirror
from reconciler.source.tree import changed_paths
from tests.reconciler.test_config_hostile import (
    CONTROL,
    check_findings,
    check_nothing_is_lost,
    check_questions,
    check_shown,
    compiled_of,
    side,
    small,
)
from tests.support.mutations import TEXTS, Repository, repository
from tests.support.odd_git import ROWS, Odd, spoiled

THINGS: Repository = repository(
    {p: text for p, text in small().items() if not p.startswith("agents/triage/")}
    | {"agents/triage/agent.yaml": """\
agent:
  name: triage
  team: payments
  instructions: ./triage.md
  skills: [python]
  mcp_servers: [{name: tracker, tools: [open, list], args: {project: northwind-*}}]
  rollout: ungated
trigger: manual
""", "agents/triage/triage.md": "Fix it.\n"}
)  # fmt: skip


PLACES = ("", "agents", "agents/triage", "skills", "skills/python", "gateway")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Odd:
    return Odd(tmp_path_factory.mktemp("odd") / "odd.git")


@pytest.mark.parametrize("name", ROWS)
def test_a_tree_object_of_any_shape_is_read_or_refused(name: str, odd: Odd) -> None:
    good = odd.of(odd.rows(THINGS))
    before = load(good)
    assert not before.broken
    compiled = compiled_of(before)
    for place in PLACES:
        tree = odd.of(spoiled(odd, THINGS, place, ROWS[name]))
        fresh = load(tree)
        check_findings(fresh.findings, {})
        made = compiled_of(fresh)
        check_nothing_is_lost(fresh, made)
        going_on = load(tree, previous=before)
        assert going_on == fresh, place
        assert load(good, previous=going_on) == before, place
        if fresh.fleet is not None and place in ("", "agents/triage"):
            check_shown(diff(side(compiled), side(made)), f"{name} in {place}")
            check_questions(fresh)


def test_a_change_below_folders_of_a_padded_mode_is_not_overlooked(odd: Odd) -> None:
    padded = ROWS["folders with a padded mode"]
    before = odd.of(padded(odd, odd.rows(THINGS)))
    path = "agents/triage/triage.md"
    text = THINGS[path].content.replace(b"Fix it.", b"Break it.")
    after = odd.of(padded(odd, odd.rows({**THINGS, **repository({path: text})})))
    assert changed_paths(before, after) == (path,)
    loaded = load(after, previous=load(before))
    assert loaded == load(after)
    assert loaded.fleet is not None
    assert loaded.fleet.agents[AgentName("triage")].main.instructions.body == "Break it.\n"


def test_a_submodule_whose_commit_has_the_id_of_a_file_is_not_taken_for_it(odd: Odd) -> None:
    good = load(odd.of(odd.rows(THINGS)))
    submodules = ROWS["all submodules"]
    tree = odd.of(submodules(odd, odd.rows(THINGS)))
    assert load(tree, previous=good).fleet is None


def test_what_a_server_took_is_fetched_and_refused_with_a_reason(odd: Odd, tmp_path: Path) -> None:
    odd.commit(odd.rows(THINGS))
    mirror = Mirror.open_or_clone(str(odd.bare), tmp_path / "mirror")
    loaded = load(mirror.tree(mirror.fetch()["refs/heads/main"]))
    assert not loaded.broken
    for place, name in (("agents", "twice"), ("", ".git"), ("skills", "..")):
        odd.commit(spoiled(odd, THINGS, place, ROWS[name]))
        loaded = load(mirror.tree(mirror.fetch()["refs/heads/main"]), previous=loaded)
        assert any(found.id == "unsafe-path" for found in loaded.findings), name
        odd.commit(odd.rows(THINGS))
        loaded = load(mirror.tree(mirror.fetch()["refs/heads/main"]), previous=loaded)
        assert not loaded.broken
        assert loaded.fleet is not None


# --- a work directory


def work_directory(at: Path) -> Path:
    """A clone of the repository as it should be."""
    directory = at / "config"
    for path, thing in THINGS.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(thing.content)
    for arguments in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-qm", "first")):
        call = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        subprocess.run(call, cwd=directory, check=True)
    return directory


def _text(path: str, name: str) -> Callable[[Path], object]:
    return lambda root: (root / path).write_bytes(TEXTS[name])


def _link(path: str, target: str) -> Callable[[Path], object]:
    def spoil(root: Path) -> None:
        place = root / path
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        place.symlink_to(target)

    return spoil


def _called(name: bytes) -> Callable[[Path], object]:
    def spoil(root: Path) -> None:
        folder = os.fsencode(root) + b"/agents/" + name
        os.mkdir(folder)  # noqa: PTH102 - a name that no text has
        (Path(os.fsdecode(folder)) / "agent.yaml").write_bytes(b"agent: {name: x}\n")

    return spoil


SPOILED: Mapping[str, Callable[[Path], object]] = {
    "a bomb": _text("agents/triage/agent.yaml", "billion laughs"),
    "a bomb for all": _text("gateway/models.yaml", "billion laughs"),
    "depth": _text("agents/triage/agent.yaml", "deep lists"),
    "size": _text("interlock.yaml", "five megabytes"),
    "utf-16": _text("agents/triage/agent.yaml", "utf-16"),
    "nul": _text("teams.yaml", "nul"),
    "control characters in values": _text("agents/triage/agent.yaml", "nul escaped"),
    "every control": _text("skills/python/SKILL.md", "every control"),
    "a link out": _link("agents/triage/triage.md", "/etc/passwd"),
    "a link up": _link("agents/triage", "../../../../../../etc"),
    "a link to itself": _link("skills", "skills"),
    "a link into .git": _link("agents/triage/triage.md", "../../.git/config"),
    "a line feed in a name": _called(b"a\nb"),
    "an escape sequence in a name": _called(b"\x1b[2J"),
    "a name that is not UTF-8": _called(b"caf\xe9"),
}
COMMANDS = (
    ("validate",), ("validate", "--json"), ("lint",), ("plan",), ("plan", "--format", "markdown"),
    ("plan", "--format", "json"),
)  # fmt: skip
ASKING = (("touches", "triage"), ("who-touches", "tracker"), ("explain", "triage"))


@pytest.mark.parametrize("name", SPOILED)
def test_every_command_says_what_is_wrong_with_a_work_directory(name: str, tmp_path: Path) -> None:
    directory = work_directory(tmp_path)
    SPOILED[name](directory)
    for command in COMMANDS:
        result = asked(command, directory)
        assert result.exit_code == 1, (command, result.output)
    for command in (*ASKING, ("graph",)):
        assert asked(command, directory).exit_code in (0, 1), command


def test_a_pipe_is_left_out_as_git_leaves_it_out(tmp_path: Path) -> None:
    directory = work_directory(tmp_path)
    (directory / "agents/triage/agent.yaml").unlink()
    os.mkfifo(directory / "agents/triage/agent.yaml")
    assert "2 agents are valid" in asked(("validate",), directory).output


def asked(command: tuple[str, ...], directory: Path) -> Result:
    where = ["--dir", str(directory)] if command in ASKING else [str(directory)]
    result = CliRunner().invoke(interlock, [*command, *where])
    assert result.exception is None or isinstance(result.exception, SystemExit), command
    assert "Traceback" not in result.output
    assert not CONTROL.search(re.sub("[\n\t]", "", result.output)), (command, result.output)
    return result
