"""`interlock plan` beside a ledger: what recent calls say of a change.

The files in tests/reconciler/backtests/ are written anew by

    WRITE_GOLDEN=1 .venv/bin/python -m pytest -q tests/reconciler/test_plan_backtest.py

Read the difference before you commit it: it is what every reviewer will read.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.clock import SystemClock
from gateway.values import Millis
from reconciler.cli.planning import plan_command
from reconciler.plan import diff, side_of
from reconciler.plan.backtest import Backtest, enforced_differs, policies_of
from reconciler.plan.render import comment, terminal
from reconciler.record.recorded import replay
from reconciler.release import compile_fleet
from tests.support import small_fleet
from tests.support.record import add_call, add_run, add_step, new_database

GOLDEN = Path(__file__).parent / "backtests"
NOW = Millis(1_795_500_000_000)
HOUR = 3_600_000
AGENT = "agents/triage/agent.yaml"
MODELS = "gateway/models.yaml"


def record(state: Path, now: int = NOW) -> None:
    """Two runs of the agent, yesterday and today, and a call of somebody who is not declared."""
    state.mkdir(exist_ok=True)
    with new_database(state / "interlock.sqlite").transaction() as tx:
        for hours in (26, 2):
            at = now - hours * HOUR
            run = add_run(tx, "triage", f"manual:{hours}", "rel-1", at=at, outcome=None)
            tx.execute("UPDATE runs SET run = :new WHERE run = :run", new=f"run-{hours}", run=run)
            run = f"run-{hours}"
            for step in range(4):
                add_call(tx, run, f"{step}", at=at + step, target="large", asked="smart",
                         cost=8_100_000)  # fmt: skip
            for step, project in ((4, "northwind-web"), (5, "northwind-api")):
                add_step(tx, run, f"{step}", "tool", "tracker__list", at=at + step,
                         intent={"tool": "tracker.list", "arguments": {"project": project}}
                         )  # fmt: skip
                add_call(tx, run, f"{step}", at=at + step, kind="tool", target="tracker.list",
                         cost=0)  # fmt: skip
            add_step(tx, run, "6", "tool", "tracker__list", at=at + 6, status="denied",
                     intent={"tool": "tracker.list", "arguments": {"project": "southwind"}},
                     outcome={"error": {"code": "not_granted", "message": "no"}})  # fmt: skip
        old = add_run(tx, "gone", "manual:9", "rel-1", at=now - HOUR, outcome=None)
        add_call(tx, old, "0", at=now - HOUR, target="large", asked="smart")


CHANGES = {
    "tighter": [(AGENT, "project: northwind-*", "project: northwind-web")],
    "wider": [(AGENT, "project: northwind-*", 'project: "*"')],
    "gone": [(AGENT, "tools: [open, list]", "tools: [open]")],
    "cheaper": [(MODELS, "price: {input: 3.00, output: 15.00}", "price: {input: 1, output: 5}")],
    "order": [(MODELS, "targets: [large, small]", "targets: [small, large]")],
    "unpriced": [(MODELS, ", price: {input: 3.00, output: 15.00}", "")],
    "budget": [
        ("gateway/budgets.yaml", "window: month, limit: 200", "window: day, limit: 0.02"),
        (AGENT, "harness: {max_steps: 30,", "harness: {max_steps: 30, max_cost_per_run: 0.02,"),
    ],
}


def told(name: str, tmp_path: Path) -> dict[str, str]:
    """The three renderings of one change."""
    files: dict[str, str | bytes | None] = {}
    for path, old, new in CHANGES[name]:
        text = files.get(path) or small_fleet.FILES[path]
        assert isinstance(text, str)
        assert old in text
        files[path] = text.replace(old, new)
    before, after = small_fleet.fleet(), small_fleet.fleet(small_fleet.tree(files))
    plan = diff(
        side_of(before, compile_fleet(before), {}, "a"),
        side_of(after, compile_fleet(after), {}, "b"),
    )
    one = policies_of(before)
    two = policies_of(after, live=one)
    assert enforced_differs(one, two, plan)
    record(tmp_path)
    with new_database(tmp_path / "interlock.sqlite").snapshot() as tx:
        found = replay(tx, one, two, now=NOW)
    assert isinstance(found, Backtest)
    return {
        "md": comment(plan, live="main", backtest=found),
        "txt": terminal(plan, backtest=found),
        "json": json.dumps(found.as_json(), indent=1) + "\n",
    }


@pytest.mark.parametrize("name", CHANGES)
def test_what_recent_calls_say_is_the_golden_one(name: str, tmp_path: Path) -> None:
    for suffix, text in told(name, tmp_path).items():
        file = GOLDEN / f"{name}.{suffix}"
        if os.environ.get("WRITE_GOLDEN"):
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert text == file.read_text(encoding="utf-8"), f"{file.name}: see above"


def test_there_is_no_golden_backtest_of_nothing() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(CHANGES)


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    directory = tmp_path / "config"
    for path, text in small_fleet.FILES.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for args in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *args], cwd=directory, check=True
        )
    state = tmp_path / "state"

    def call(*args: str, ledger: bool = True) -> Result:
        if ledger and not state.exists():
            record(state, SystemClock().now())
        command = [str(directory), "--state", str(state), *args]
        return CliRunner().invoke(plan_command, command, catch_exceptions=False)

    return call


def change(tmp_path: Path, name: str) -> None:
    for path, old, new in CHANGES[name]:
        file = tmp_path / "config" / path
        file.write_text(file.read_text().replace(old, new))


def document(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_command_replays_what_the_state_directory_recorded(run: Run, tmp_path: Path) -> None:
    change(tmp_path, "gone")
    result = run()
    assert "tool tracker.list is not granted any more" in result.stdout
    found = document(run("--json"))["backtest"]
    (agent,) = found["agents"]
    assert [told["calls"] for told in agent["newly_denied"]] == [4]
    assert agent["newly_denied"][0]["examples"][0] == "run-26/4/0"
    assert found["calls_of_others"] == 1


def test_the_plan_and_its_digest_are_the_same_with_and_without_a_ledger(
    run: Run, tmp_path: Path
) -> None:
    change(tmp_path, "cheaper")
    without = document(run("--json", ledger=False))
    beside = document(run("--json"))
    assert without["backtest"] is None
    assert beside["backtest"] is not None
    assert beside["plan"] == without["plan"]


def test_a_change_that_the_gateway_does_not_enforce_is_not_replayed_unless_asked(
    run: Run, tmp_path: Path
) -> None:
    text = tmp_path / "config" / "agents/triage/subagents/reviewer.md"
    text.write_text("Judge the patch.\n")
    assert "Backtest" not in run().stdout
    asked = run("--backtest", "30d").stdout
    assert "none would come off otherwise" in asked


def test_how_far_to_look_back_can_be_said(run: Run, tmp_path: Path) -> None:
    change(tmp_path, "cheaper")
    assert document(run("--json", "--backtest", "3h"))["backtest"]["runs"] == 1
    assert document(run("--json", "--backtest", "30d"))["backtest"]["runs"] == 2


def test_a_backtest_without_a_ledger_says_what_is_missing(run: Run) -> None:
    result = run("--backtest", "7d", ledger=False)
    assert result.exit_code == 1
    assert "nothing has been reconciled here yet" in result.output


def test_an_age_that_is_none_is_a_wrong_usage(run: Run) -> None:
    assert run("--backtest", "soon").exit_code == 2


def test_an_agent_in_error_keeps_what_is_live_and_is_not_told_of(run: Run, tmp_path: Path) -> None:
    change(tmp_path, "cheaper")
    file = tmp_path / "config" / AGENT
    file.write_text(file.read_text().replace("skills: [python]", "skills: [pithon]"))
    (agent,) = document(run("--json"))["backtest"]["agents"]
    assert agent["newly_denied"] == []


def test_a_renamed_agent_is_found_by_the_name_that_its_calls_have() -> None:
    renamed = small_fleet.FILES[AGENT].replace("name: triage", "name: sorting\n  formerly: triage")
    after = policies_of(small_fleet.fleet(small_fleet.tree({AGENT: renamed})))
    found = after.agent("triage")
    assert found is not None
    assert found.name == "sorting"


def test_callers_from_outside_are_held_against_what_is_declared_for_them() -> None:
    path = "gateway/principals.yaml"
    text = "principals:\n  - {name: ines, kind: person, team: payments, models: [smart, small]}\n"
    before = small_fleet.fleet(small_fleet.tree({path: text}))
    after = small_fleet.fleet(small_fleet.tree({path: text.replace("smart, small", "small")}))
    one, two = policies_of(before), policies_of(after)
    plan = diff(
        side_of(before, compile_fleet(before), {}, "a"),
        side_of(after, compile_fleet(after), {}, "b"),
    )
    assert enforced_differs(one, two, plan)
    then, now = one.agent("user:ines"), two.agent("user:ines")
    assert then is not None
    assert now is not None
    assert "smart" in then.policy.roles["main"].models
    assert "smart" not in now.policy.roles["main"].models


def test_a_new_agent_has_no_calls_to_replay() -> None:
    path = "agents/other/agent.yaml"
    new = small_fleet.fleet(
        small_fleet.tree(
            {
                path: "agent: {name: other, team: payments, instructions: ./other.md,"
                " rollout: ungated}\n"
                "trigger: manual\n",
                "agents/other/other.md": "Look around.\n",
            }
        )
    )
    old = small_fleet.fleet()
    plan = diff(
        side_of(old, compile_fleet(old), {}, "a"), side_of(new, compile_fleet(new), {}, "b")
    )
    assert not enforced_differs(policies_of(old), policies_of(new), plan)
