"""A run for real: gateway and runner as processes, Docker, a tool server that keeps a witness."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.policy import (
    Access,
    AgentPolicy,
    Grants,
    Limits,
    Model,
    Policy,
    Price,
    Provider,
    Rule,
    Script,
    ScriptedCall,
    ToolClass,
    ToolGrant,
    ToolServer,
    When,
)
from gateway.values import NanoUSD
from runner import queue
from runner.process import installation
from runner.sandbox import connect
from runner.spec import (
    ChangeCheck,
    CommandCheck,
    RoleKind,
    RunOutcome,
    RunSpec,
    SandboxSpec,
    StopReason,
    ToolCheck,
    Until,
    Workspace,
)
from runner.trace import trace
from tests.gateway.stage import ROOT, Stage
from tests.support.effects_server import effects
from tests.support.runner_world import role, run_spec
from tests.support.sandbox import sandbox_image
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

TEST = "python3 -m unittest -q test_add 2>&1"
CODE = "def add(a, b):\n    return a - b\n"
CASE = """import unittest
from add import add

class Case(unittest.TestCase):
    def test_add(self):
        self.assertEqual(add(2, 3), 5)
"""


def call(tool: str, **args: Any) -> ScriptedCall:
    return ScriptedCall(tool=tool, args=args)


SCRIPT = Script(
    rules=(
        Rule(
            name="accept",
            when=When(system="^You are judge", last="^OK$"),
            call=call("finish", verdict="accept", reasons="the tests pass"),
        ),
        Rule(
            name="reject",
            when=When(system="^You are judge", last_tool="shell"),
            call=call("finish", verdict="reject", reasons="the tests fail"),
        ),
        Rule(name="judge", when=When(system="^You are judge"), call=call("shell", command=TEST)),
        Rule(
            name="done",
            when=When(last_tool="effects__write"),
            call=call("finish", outcome="fixed", evidence="tests pass"),
        ),
        Rule(
            name="tell",
            when=When(last_tool="shell", last="^OK$"),
            call=call("effects__write", text="fixed add"),
        ),
        Rule(name="test again", when=When(last_tool="edit_file"), call=call("shell", command=TEST)),
        Rule(
            name="fix",
            when=When(last_tool="shell", last="FAILED"),
            call=call("edit_file", path="add.py", old="a - b", new="a + b"),
        ),
        Rule(
            name="begin",
            when=When(first=True),
            # Slow, so that a blow can fall in the middle; it leaves a trace each time it runs.
            call=call("shell", command=f"echo began >> log.txt; sleep 1; {TEST}"),
        ),
    )
)


class Yard:
    """A state directory with a gateway, runners as they are started, and one run."""

    def __init__(self, directory: Path) -> None:
        self.stage = Stage(directory).__enter__()
        self.directory = directory
        self.state = self.stage.state
        self.database = self.stage.database
        self.database.migrate(queue.MIGRATIONS)
        url, self.effects_file = self.stage.effects_server()
        price = Price(input=NanoUSD(10), output=NanoUSD(100))
        tools = Grants(models=("smart",), tools={"effects.write": ToolGrant()})
        self.roles = {
            "main": role(grants=tools),
            "judge": role("judge", kind=RoleKind.CHECKER, grants=Grants(models=("smart",))),
        }
        self.stage.publish(
            Policy(
                providers={"script": Provider(kind="scripted", script=SCRIPT)},
                models={"smart": Model(provider="script", id="scripted", price=price)},
                servers={
                    "effects": ToolServer(
                        url=url, tools={"write": ToolClass(access=(Access.WRITE,))}
                    )
                },
            ),
            {
                "fixer": AgentPolicy(
                    team="platform",
                    roles={name: each.grants for name, each in self.roles.items()},
                )
            },
        )
        self.stage.start()
        self.runner: subprocess.Popen[bytes] | None = None
        self.log = (directory / "runner.log").open("ab")

    def close(self) -> None:
        self.kill_runner()
        self.log.close()
        asyncio.run(self._reap())
        self.stage.__exit__()

    async def _reap(self) -> None:
        boxes = connect(labels={})
        await boxes.reap(lambda run: False, installation=installation(self.state))
        await boxes.close()

    def containers(self) -> int:
        async def count() -> int:
            boxes = connect(labels={})
            try:
                return await boxes.count(installation=installation(self.state))
            finally:
                await boxes.close()

        return asyncio.run(count())

    def spec(self, **changes: Any) -> RunSpec:
        source = self.directory / "source"
        source.mkdir(exist_ok=True)
        (source / "add.py").write_text(CODE)
        (source / "test_add.py").write_text(CASE)
        values: dict[str, Any] = {
            "roles": self.roles,
            "limits": Limits(max_steps=30, max_wall_ms=120_000),
            "sandbox": SandboxSpec(image=sandbox_image()),
            "workspace": Workspace(path=str(source), protect=("test_*.py",)),
            "until": Until(checker="judge"),
            "checks": (
                CommandCheck(id="tests", command=TEST),
                ChangeCheck(id="only", exclude=("test_*.py",), safety=True),
                ToolCheck(id="told", include=("effects.write",)),
            ),
        }
        return run_spec(**{**values, **changes})

    def enqueue(self, spec: RunSpec) -> None:
        with self.database.transaction() as tx:
            queue.enqueue(tx, spec, now=SystemClock().now())

    def start_runner(self, *arguments: str) -> None:
        self.runner = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "runner",
                "--state",
                str(self.state),
                "--slots",
                "1",
                *arguments,
            ],
            cwd=ROOT,
            stderr=self.log,
        )

    def kill_runner(self) -> None:
        if self.runner is not None:
            self.runner.kill()
            self.runner.wait()

    def begun(self) -> None:
        """Wait until the first command is on its way into its container."""
        opened = "SELECT * FROM journal WHERE kind = 'sandbox' AND event = 'outcome'"
        wait_for("the sandbox", lambda: self.database.one(opened))

    def outcome(self) -> RunOutcome:
        sql = "SELECT outcome FROM runs WHERE status = 'finished'"
        row = wait_for("the end of the run", lambda: self.database.one(sql))
        return RunOutcome.model_validate_json(row["outcome"])


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.close()


def check_the_run(yard: Yard, outcome: RunOutcome) -> None:
    assert (outcome.stop, outcome.accepted) == (StopReason.UNTIL_MET, True), outcome
    assert outcome.changed == ("add.py", "log.txt")
    assert "+    return a + b" in outcome.diff
    assert [grade.status for grade in outcome.grades] == ["passed"] * 3, outcome.grades
    assert [line["text"] for line in effects(yard.effects_file)] == ["fixed add"]
    # The command that was under way was not carried out twice.
    assert outcome.diff.count("+began") == 1


def test_a_maker_fixes_and_a_checker_accepts_and_every_cost_is_in_the_ledger(yard: Yard) -> None:
    yard.enqueue(yard.spec())
    yard.start_runner()
    outcome = yard.outcome()
    check_the_run(yard, outcome)
    rows = yard.stage.rows()
    assert {row["role"] for row in rows} == {"main", "judge"}
    assert outcome.cost_nano == sum(row["cost_nano"] for row in rows) > 0
    run = rows[0]["run"]
    seen = trace(yard.database, run)
    assert {str(s.path) for s in seen.walk() if s.kind in ("model", "tool")} == {
        row["step"] for row in rows
    }
    wait_for("the container's end", lambda: yard.containers() == 0)
    revoked = yard.database.read("SELECT revoked_at FROM tokens")
    assert len(revoked) == 2
    assert all(row["revoked_at"] for row in revoked)


def test_a_killed_runner_is_continued_and_nothing_happens_twice(yard: Yard) -> None:
    yard.enqueue(yard.spec())
    yard.start_runner()
    yard.begun()
    yard.kill_runner()
    yard.start_runner()
    outcome = yard.outcome()
    check_the_run(yard, outcome)
    assert yard.database.one("SELECT fence FROM runs") == {"fence": 2}
    (opening, again) = yard.database.read(
        "SELECT body FROM journal WHERE kind='sandbox' AND step='0' AND event='outcome'"
    )
    assert not json.loads(opening["body"])["adopted"]
    assert json.loads(again["body"])["adopted"]


def test_a_killed_gateway_is_waited_for(yard: Yard) -> None:
    yard.enqueue(yard.spec())
    yard.start_runner()
    yard.begun()
    yard.stage.kill()
    yard.stage.start()
    check_the_run(yard, yard.outcome())


def test_sigterm_gives_the_run_back_and_the_next_runner_finds_its_container(yard: Yard) -> None:
    yard.enqueue(yard.spec())
    yard.start_runner()
    yard.begun()
    assert yard.runner is not None
    yard.runner.send_signal(signal.SIGTERM)
    assert yard.runner.wait(timeout=30) == 0
    assert yard.database.one("SELECT status FROM runs") == {"status": "queued"}
    assert yard.containers() == 1
    yard.start_runner("--owner", "another")
    check_the_run(yard, yard.outcome())


def test_a_lost_container_is_rebuilt(yard: Yard) -> None:
    yard.enqueue(yard.spec())
    yard.start_runner()
    sql = "SELECT * FROM journal WHERE kind = 'tool' AND event = 'intent'"
    wait_for("the tool call", lambda: yard.database.one(sql))
    yard.kill_runner()
    asyncio.run(yard._reap())
    yard.start_runner()
    outcome = yard.outcome()
    check_the_run(yard, outcome)
    rows = yard.database.read(
        "SELECT body FROM journal WHERE kind='sandbox' AND step='0' AND event='outcome'"
    )
    assert json.loads(rows[-1]["body"])["repeated"] == 3


def test_a_runner_whose_parent_dies_leaves(yard: Yard) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time;"
            "p = subprocess.Popen([sys.executable, '-m', 'runner', '--state', sys.argv[1]]);"
            "print(p.pid, flush=True); time.sleep(600)",
            str(yard.state),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=yard.log,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    log = yard.directory / "runner.log"
    wait_for("the runner", lambda: "ready" in log.read_text())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for("the runner's end", lambda: _gone(child))


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "Z"
