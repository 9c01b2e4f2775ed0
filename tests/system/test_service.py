"""The service and the on-call's verbs, as processes: serve, run, hold, stop, resume, rollback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.config.lockfile import edit
from reconciler.demo.world import World
from tests.system.story_world import ungated_world

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


class Service:
    """`interlock serve` on a world's state directory."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.log = (world.folder / "serve.log").open("wb")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "reconciler.cli", "serve", "--repo", str(world.config)),
                *("--signing-key", str(world.folder / "signing-key")),
            ],
            env=world.environment_of_commands(),
            stdout=self.log,
            stderr=self.log,
        )

    def until(self, reached: Callable[[], bool], patience: float = 60.0) -> None:
        """Wait for something to become true; fails with the service's log when it does not."""
        deadline = time.monotonic() + patience
        while not reached():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail((self.world.folder / "serve.log").read_text())
            time.sleep(0.05)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self.log.close()
        return code


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ungated_world(tmp_path / "world") as built:
        yield built


@pytest.fixture
def service(world: World) -> Iterator[Service]:
    started = Service(world)
    started.until(lambda: (world.state / "gateway.json").exists())
    started.until(lambda: stable(world, "ci-triage") is not None)
    yield started
    started.stop()


def stable(world: World, agent: str) -> str | None:
    if not (world.state / "interlock.sqlite").exists():
        return None
    rows = world.rows("SELECT stable FROM pointers WHERE agent = :agent", agent=agent)
    return str(rows[0]["stable"]) if rows else None


def run_of(world: World, key: str) -> dict[str, object]:
    rows = world.rows("SELECT * FROM runs WHERE occurrence = :o", o=f"manual:{key}")
    return rows[0] if rows else {"status": None}


def test_a_run_started_beside_the_service_is_executed_by_it(service: Service) -> None:
    world = service.world
    world.interlock("run", "ci-triage", "--key", "one", "--input", "Red.")
    service.until(lambda: run_of(world, "one")["status"] == "finished")
    assert run_of(world, "one")["stop"] == "until_met"
    trace = world.ask("trace", str(run_of(world, "one")["run"])).stdout
    assert "reviewer" in trace
    assert "accepted: yes" in trace


def test_a_gateway_that_dies_is_started_again(service: Service) -> None:
    world = service.world

    def pid() -> int:
        try:
            return int(json.loads((world.state / "gateway.json").read_text())["pid"])
        except (OSError, ValueError):
            return 0

    first = pid()
    os.kill(first, signal.SIGKILL)
    service.until(lambda: pid() not in (0, first))
    world.interlock("run", "ci-triage", "--key", "after", "--input", "Red.")
    service.until(lambda: run_of(world, "after")["status"] == "finished")
    assert run_of(world, "after")["stop"] == "until_met"


def test_a_commit_goes_live_and_a_rollback_takes_it_back(service: Service) -> None:
    world = service.world
    old = stable(world, "release-notes")
    notes = world.folder / "config-work" / "agents" / "release-notes" / "notes.md"
    notes.write_text(notes.read_text() + "\nKeep it short.\n")
    world.push(world.folder / "config-work", "release-notes: shorter")
    service.until(lambda: stable(world, "release-notes") not in (None, old))
    bad = stable(world, "release-notes")
    world.interlock("rollback", "release-notes", "--reason", "too short", "--as", "mara")
    assert stable(world, "release-notes") == old
    status = json.loads(world.ask("status", "--json").stdout)
    notes_view = next(a for a in status["fleet"]["agents"] if a["agent"] == "release-notes")
    assert [q["digest"] for q in notes_view["quarantine"]] == [bad]
    assert notes_view["holds"]
    answer = world.ask("rollback", "release-notes", "--reason", "again", "--as", "mara")
    assert answer.returncode == 1
    assert "--to" in answer.stderr


def test_hold_and_stop_and_resume(service: Service) -> None:
    world = service.world
    world.interlock("hold", "ci-triage", "--reason", "freeze", "--as", "jun")
    refused = world.ask("run", "ci-triage", "--key", "held", "--input", "Red.")
    assert refused.returncode == 1
    assert "held by jun: freeze" in refused.stderr
    world.interlock("resume", "ci-triage", "--reason", "over", "--as", "jun")
    world.interlock("stop", "ci-triage", "--reason", "odd calls", "--as", "jun")
    world.interlock("run", "ci-triage", "--key", "stopped", "--input", "Red.")
    service.until(lambda: run_of(world, "stopped")["status"] == "finished")
    assert run_of(world, "stopped")["stop"] == "killed"
    world.interlock("resume", "ci-triage", "--reason", "fine", "--as", "jun")
    world.interlock("run", "ci-triage", "--key", "resumed", "--input", "Red.")
    service.until(lambda: run_of(world, "resumed")["status"] == "finished")
    assert run_of(world, "resumed")["stop"] == "until_met"


def test_an_orderly_end_marks_the_record_as_clean(service: Service) -> None:
    world = service.world
    assert service.stop() == 0
    manifest = json.loads(world.git(world.config, "show", "interlock/reports:state/manifest.json"))
    assert manifest["clean"] is True
    assert not (world.state / "gateway.json").exists()


def test_unknown_names_and_wrong_usage_have_their_exit_codes(world: World) -> None:
    world.reconcile()
    assert world.ask("runs", "--nonsense").returncode == 2
    assert world.ask("stauts").returncode == 2
    assert "did you mean `interlock status`" in world.ask("stauts").stderr
    unknown = world.ask("hold", "ci-triagge", "--reason", "x", "--as", "jun")
    assert unknown.returncode == 1
    assert "there are: ci-triage" in unknown.stderr
    nowhere = world.ask("status", "--state", str(world.folder / "nothing-here"))
    assert nowhere.returncode == 1
    assert "interlock reconcile" in nowhere.stderr
    assert "Traceback" not in unknown.stderr + nowhere.stderr


def test_eval_shows_the_grades_and_decides_nothing(tmp_path: Path) -> None:
    with ungated_world(tmp_path / "world") as world:
        work = world.folder / "config-work"
        edit(work / "agents" / "ci-triage" / "agent.yaml", ("agent", "rollout"), "standard")
        suite = work / "agents" / "ci-triage" / "evals" / "cases"
        assert len(list(suite.glob("*.yaml"))) == 24
        world.push(work, "ci-triage: gated again")
        answer = world.ask("eval", "ci-triage", "--repo", str(world.config), "--json")
        assert answer.returncode == 0, answer.stderr
        graded = json.loads(answer.stdout)["cases"]
        assert len(graded) == 24
        assert all(case["candidate"]["passed"] == 1 for case in graded)
        assert world.rows("SELECT * FROM pointers WHERE agent = 'ci-triage'") == []
