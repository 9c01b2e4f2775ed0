"""What goes wrong around Interlock: each time a clear error or a clean continuation."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.demo.world import World
from reconciler.source.signing import generate_key
from tests.system.story_world import mirror, ungated_world

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

REPORTS = "interlock/reports"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ungated_world(tmp_path / "world") as built:
        yield built


def live_runs(world: World) -> list[dict[str, object]]:
    return world.rows("SELECT * FROM runs WHERE purpose = 'live' ORDER BY created_at, run")


def test_docker_absent_is_said_and_the_run_waits_for_it(world: World) -> None:
    world.reconcile()
    world.interlock("run", "ci-triage", "--key", "a", "--input", "Red again.")
    world.environment["DOCKER_HOST"] = f"unix://{world.folder}/no-docker.sock"
    answer = world.ask(*world.job())
    assert answer.returncode == 3
    assert "Docker" in answer.stderr
    assert live_runs(world)[0]["status"] != "finished"
    del world.environment["DOCKER_HOST"]
    world.reconcile()
    assert live_runs(world)[0]["stop"] == "until_met"


def test_a_remote_that_is_down_stops_a_fresh_start_with_a_clear_error(world: World) -> None:
    world.config.rename(world.folder / "away.git")
    answer = world.ask(*world.job())
    assert answer.returncode == 3
    assert str(world.config) in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_remote_that_goes_down_later_starts_no_run_without_its_claim(world: World) -> None:
    world.reconcile()
    world.clock("tue 06:01")
    world.config.rename(world.folder / "away.git")
    answer = world.ask(*world.job())
    assert answer.returncode == 1
    assert "not fetched" in answer.stdout
    assert all(run["status"] == "claimed" for run in live_runs(world))
    (world.folder / "away.git").rename(world.config)
    world.reconcile()
    ended = [run for run in live_runs(world) if run["status"] == "finished"]
    assert any(run["agent"] == "ci-triage" and run["stop"] == "until_met" for run in ended)


def test_a_rejected_push_starts_no_run_and_says_why(world: World) -> None:
    hook = world.config / "hooks" / "pre-receive"
    world.reconcile()
    hook.write_text("#!/bin/sh\necho 'the branch is protected' >&2\nexit 1\n")
    hook.chmod(0o755)
    world.clock("tue 06:01")
    answer = world.ask(*world.job())
    assert answer.returncode == 1
    assert "pre-receive hook declined" in answer.stdout
    assert all(run["status"] == "claimed" for run in live_runs(world))
    hook.unlink()
    world.reconcile()
    assert all(run["status"] == "finished" for run in live_runs(world))


def test_a_forged_state_commit_is_refused_and_nothing_is_built_on_it(world: World) -> None:
    world.reconcile()
    look = mirror(world)
    head = look.resolve(REPORTS)
    assert head is not None
    forged = look.write_commit(
        head,
        {"state/pointers.json": b'{"format":"interlock.state/1","table":"pointers","rows":[]}\n'},
        message="state",
        when_ms=look.commit_info(head).time_ms,
        signer=generate_key(world.folder / "somebody-else"),
    )
    assert look.push({REPORTS: (head, forged)}).pushed
    answer = world.ask(*world.job())
    assert answer.returncode == 1
    assert "signed by a key" in answer.stderr
    assert forged[:12] in answer.stderr
    fresh = world.ask("rebuild", "--repo", str(world.config), "--state", str(world.folder / "s2"))
    assert fresh.returncode == 1
    assert "nothing is restored" in fresh.stderr


def test_one_broken_agent_keeps_its_stable_release_and_the_others_go_on(world: World) -> None:
    world.reconcile()
    work = world.folder / "config-work"
    agent = work / "agents" / "ci-triage" / "agent.yaml"
    agent.write_text(agent.read_text().replace("model: smart", "model: smrt", 1))
    notes = work / "agents" / "release-notes" / "notes.md"
    notes.write_text(notes.read_text() + "\nKeep it short.\n")
    world.push(work, "A typo, and a better text")
    before = {r["agent"]: r["stable"] for r in world.rows("SELECT agent, stable FROM pointers")}
    world.clock("tue 06:01")
    world.reconcile()
    after = {r["agent"]: r["stable"] for r in world.rows("SELECT agent, stable FROM pointers")}
    assert after["ci-triage"] == before["ci-triage"]
    assert after["release-notes"] != before["release-notes"]
    status = world.ask("status").stdout
    assert "agents/ci-triage/agent.yaml" in status
    assert 'did you mean "smart"?' in status
    triage = [r for r in live_runs(world) if r["agent"] == "ci-triage"]
    assert triage[-1]["stop"] == "until_met"


def test_malformed_shared_yaml_changes_nothing_at_all(world: World) -> None:
    world.reconcile()
    before = world.rows("SELECT digest FROM current_policy")
    work = world.folder / "config-work"
    (work / "gateway" / "models.yaml").write_text("providers: [\n")
    world.push(work, "Broken")
    answer = world.ask(*world.job())
    assert answer.returncode == 1
    assert "is acted upon: gateway/models.yaml:" in answer.stdout
    assert world.rows("SELECT digest FROM current_policy") == before
    assert "gateway/models.yaml:" in world.ask("status").stdout


def test_a_second_reconciler_on_the_same_state_is_refused(world: World) -> None:
    world.reconcile()
    script = (
        "import sys; from pathlib import Path; from reconciler.process.lock import sole\n"
        f"with sole(Path({str(world.state)!r})):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    import sys

    holder = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    answer = world.ask(*world.job())
    holder.communicate(b"")
    assert answer.returncode == 1
    assert "another reconciler works on" in answer.stderr


def test_an_overtaken_machine_goes_on_from_git(world: World) -> None:
    world.reconcile()
    elsewhere = World(
        world.folder, {**world.environment}, at=world.at, offset=world.offset, quiet=True
    )
    first, second = world.folder / "state", world.folder / "other-state"
    world.interlock(*world.job(), "--state", str(second))
    elsewhere.clock("tue 06:01")
    elsewhere.interlock(*elsewhere.job(), "--state", str(second))
    world.clock("tue 06:05")
    answer = world.ask(*world.job(), "--state", str(first))
    assert answer.returncode == 0, answer.stderr
    triage = [r for r in live_runs(world) if r["agent"] == "ci-triage"]
    assert len(triage) == 1
    assert triage[0]["stop"] == "until_met"


def test_a_verb_from_an_empty_state_holds_and_freezes_nothing_else(world: World) -> None:
    world.reconcile()
    laptop = str(world.folder / "laptop")
    held = world.ask(
        *("hold", "ci-triage", "--reason", "freeze", "--as", "jun"),
        *("--repo", str(world.config), "--state", laptop),
    )
    assert held.returncode == 0, held.stderr
    world.clock("tue 06:01")
    job = world.ask(*world.job(), "--state", str(world.folder / "ci-1"))
    assert "held by jun: freeze" in job.stdout
    assert "dependency-audit" in job.stdout
    assert "assignment is held" not in job.stdout
    lifted = world.ask(
        *("resume", "ci-triage", "--reason", "over", "--as", "jun"),
        *("--repo", str(world.config), "--state", laptop),
    )
    assert lifted.returncode == 0, lifted.stderr
    last = world.ask(*world.job(), "--state", str(world.folder / "ci-2"))
    assert last.returncode == 0, last.stdout + last.stderr
    assert "until_met" in last.stdout


def test_with_a_broken_head_schedules_go_on_and_on_call_can_act_from_nothing(
    world: World,
) -> None:
    world.reconcile()
    work = world.folder / "config-work"
    (work / "interlock.yaml").write_text("fleet: [\n")
    world.push(work, "Broken")
    world.clock("tue 06:01")
    job = world.ask(*world.job(), "--state", str(world.folder / "fresh-job"))
    assert job.returncode == 1
    assert "is acted upon: interlock.yaml:" in job.stdout
    assert "until_met" in job.stdout
    stopped = world.ask(
        *("stop", "ci-triage", "--reason", "odd", "--as", "jun"),
        *("--repo", str(world.config), "--state", str(world.folder / "laptop")),
    )
    assert stopped.returncode == 0, stopped.stderr
