"""The only way out of a run's container: its own gateway socket, as that run and nobody else.

Gateway, runner and containers are real; what is asked in the container is asked with the standard
library, by the user that every command of a run has.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from gateway.clock import SystemClock
from gateway.policy import (
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
    When,
)
from gateway.values import NanoUSD, Purpose, RunId
from runner import queue
from runner.journal import Kind, read
from runner.process import installation
from runner.sandbox import connect, container_name
from runner.spec import RunOutcome, RunSpec, SandboxSpec, StopReason, Workspace
from tests.gateway.stage import ROOT, Stage
from tests.support.runner_world import role, run_spec
from tests.support.sandbox import sandbox_image
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

ASK = '''"""Asks the gateway over the run's socket; says what it heard as JSON lines."""
import http.client, json, os, socket, stat, sys, time

class Gateway(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect("/run/interlock/gateway.sock")

def ask(method, path, body=None):
    gateway = Gateway("gateway")
    try:
        # Whoever it claims to be, it is its run.
        gateway.request(method, path, body, {"authorization": "Bearer another-run"})
        answer = gateway.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        gateway.close()

def until(wanted):
    """Ask until the gateway answers like this: a status, or None for no answer at all."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            status, body = ask("GET", "/v1/models")
        except (OSError, http.client.HTTPException):
            status, body = None, None
        if status == wanted:
            return body
        time.sleep(0.02)
    sys.exit(f"never heard {wanted}")

def note(word):
    with open("heard.txt", "a") as file:
        file.write(word + "\\n")
'''
LOOK = """from ask import *

def sockets():
    # Every one in the whole file system that this user can see.
    for folder, folders, names in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(folder, name) != "/proc"]
        for path in (os.path.join(folder, name) for name in names):
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                yield path

status, models = ask("GET", "/v1/models")
print("LOOKED " + json.dumps({
    "uid": os.getuid(),
    "interfaces": os.listdir("/sys/class/net"),
    "folder": os.listdir("/run/interlock"),
    "models": [model["id"] for model in models["data"]],
    "control": [ask("GET", "/runs")[0], ask("PUT", f"/runs/{sys.argv[2]}", "{}")[0]],
    "sockets": list(sockets()),
    "state": os.path.lexists(sys.argv[1]),
}))
"""
WAIT = """from ask import *
for wanted in (200, None, 200, 403):
    body = until(wanted)
    note(str(wanted))
print("WAITED " + body["error"]["code"])
"""


def shell(command: str) -> ScriptedCall:
    return ScriptedCall(tool="shell", args={"command": command})


def script(state: Path, run: RunId) -> Script:
    """Looks around; a run whose task says so then waits for what happens to its socket."""
    look = shell(f"python3 look.py '{state}' {run}")
    finish = ScriptedCall(tool="finish", args={"outcome": "seen", "evidence": "none"})
    return Script(
        rules=(
            Rule(name="look", when=When(first=True), call=look),
            Rule(
                name="wait",
                when=When(user="and wait", last_tool="shell", last="LOOKED"),
                call=shell("python3 wait.py"),
            ),
            Rule(name="done", when=When(last_tool="shell"), call=finish),
        )
    )


class Scene:
    """A gateway, a runner, a live run that waits and an eval, each granted another model."""

    def __init__(self, directory: Path) -> None:
        # Deeper than a Unix socket's address may be long.
        self.directory = directory / ("d" * 60) / ("e" * 60)
        self.directory.mkdir(parents=True)
        self.stage = Stage(self.directory).__enter__()
        self.state, self.database = self.stage.state, self.stage.database
        assert len(os.fsencode(self.state)) > 108
        self.database.migrate(queue.MIGRATIONS)
        self.live = self.spec("red", "Look and wait.")
        self.trial = self.spec("blue", "Look.", purpose=Purpose.EVAL, recorded=())
        self.runs = queue.run_id(self.live), queue.run_id(self.trial)
        price = Price(input=NanoUSD(1), output=NanoUSD(1))
        both = Grants(models=("red", "blue"))
        self.stage.publish(
            Policy(
                providers={
                    "script": Provider(kind="scripted", script=script(self.state, self.runs[0]))
                },
                models={n: Model(provider="script", id=n, price=price) for n in ("red", "blue")},
            ),
            {"fixer": AgentPolicy(team="platform", roles={"main": both})},
        )
        self.stage.start()
        with self.database.transaction() as tx:
            for spec in (self.live, self.trial):
                queue.enqueue(tx, spec, now=SystemClock().now())
        self.log = (self.directory / "runner.log").open("wb")
        self.runner = subprocess.Popen(
            [sys.executable, "-m", "runner", "--state", str(self.state), "--slots", "2"],
            cwd=ROOT,
            stderr=self.log,
        )

    def spec(self, model: str, task: str, **changes: Any) -> RunSpec:
        source = self.directory / "source"
        source.mkdir(exist_ok=True)
        for name, text in (("ask.py", ASK), ("look.py", LOOK), ("wait.py", WAIT)):
            (source / name).write_text(text)
        main = role(model=model, grants=Grants(models=(model,)))
        return run_spec(
            roles={"main": main},
            input=task,
            limits=Limits(max_steps=10, max_wall_ms=300_000),
            sandbox=SandboxSpec(image=sandbox_image()),
            workspace=Workspace(path=str(source)),
            **changes,
        )

    def close(self) -> None:
        self.runner.kill()
        self.runner.wait()
        self.log.close()
        asyncio.run(self._reap())
        self.stage.__exit__()

    async def _reap(self) -> None:
        boxes = connect(labels={})
        await boxes.reap(lambda run: False, installation=installation(self.state))
        await boxes.close()

    def seen(self, run: RunId) -> dict[str, Any]:
        """What a run's `look.py` printed."""
        said = wait_for("the first look", lambda: self.said(run, "LOOKED"))
        found: dict[str, Any] = json.loads(said)
        return found

    def said(self, run: RunId, word: str) -> str | None:
        for entry in read(self.database, run):
            if entry.kind is Kind.EXEC and entry.event == "outcome":
                text = str(entry.body["result"])
                assert text.startswith("exit 0"), text
                if word in text:
                    return text.partition(word)[2].strip()
        return None

    def heard(self, run: RunId) -> list[str]:
        """What a run's `wait.py` has noted so far, read in its container."""
        client = docker.APIClient(base_url=os.environ.get("DOCKER_HOST"), version="auto")
        try:
            asked = client.exec_create(container_name(run), ["cat", "/workspace/heard.txt"])
            return client.exec_start(asked["Id"]).decode().split()
        except docker.errors.APIError:
            return []
        finally:
            client.close()

    def outcome(self, run: RunId) -> RunOutcome:
        row = wait_for(
            "the end of the run",
            lambda: self.database.one(
                "SELECT outcome FROM runs WHERE status = 'finished' AND run = :run", run=run
            ),
        )
        return RunOutcome.model_validate_json(row["outcome"])


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


def test_a_command_in_the_container_is_its_run_and_reaches_nothing_else(scene: Scene) -> None:
    live, trial = scene.runs
    for run, model in ((live, "red"), (trial, "blue")):
        assert scene.seen(run) == {
            "uid": 65534,
            "interfaces": ["lo"],
            "folder": ["gateway.sock"],
            "models": [model],
            "control": [404, 404],
            "sockets": ["/run/interlock/gateway.sock"],
            "state": False,
        }
    assert scene.outcome(trial).stop is StopReason.DONE
    gone = scene.state / "sockets" / trial
    wait_for("the end of the eval's socket", lambda: not gone.exists())

    # The gateway dies and comes back: the same folder has a new socket.
    wait_for("the first answer", lambda: scene.heard(live) == ["200"])
    scene.stage.kill()
    wait_for("no answer", lambda: scene.heard(live) == ["200", "None"])
    scene.stage.start()
    wait_for("another answer", lambda: scene.heard(live) == ["200", "None", "200"])

    scene.stage.revoke(live)
    outcome = scene.outcome(live)
    assert scene.said(live, "WAITED") == "revoked"
    assert (outcome.stop, "harm seen" in outcome.detail) == (StopReason.KILLED, True), outcome
    wait_for("the end of all sockets", lambda: not any((scene.state / "sockets").iterdir()))
    wait_for("no trace", lambda: not scene.database.read("SELECT run FROM sockets"))
