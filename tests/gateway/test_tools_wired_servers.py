"""Tool servers of a real gateway process: children, tokens and delegations, the control socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import access
from gateway.mcp.fingerprints import fingerprint
from gateway.policy import OAuth, SecretRef, ToolServer
from tests.gateway.stage import NOW, ROOT, Answer, Stage, over_socket, principal
from tests.gateway.tool_stage import READ, WRITE, at, call, publish, refused, said, start
from tests.support import old_mcp
from tests.support.mcp_fake import FakeServer, Say, tool

SUPPORT = Path(old_mcp.__file__).parent
PERSON_TOKEN = "refresh-of-ines-SECRET-77"


@pytest.fixture
def hub() -> Iterator[FakeServer]:
    with FakeServer() as server:
        server.tools = [tool("open"), tool("list")]
        yield server


def alive(pid: int) -> bool:
    try:
        # A zombie that nobody reaps in this container is as dead as it gets.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    """Waits for the end of a process that is no child of this one."""
    end = time.monotonic() + 20
    while alive(pid) and time.monotonic() < end:
        os.sched_yield()
    return not alive(pid)


# --- on stdio


def child(mode: str) -> ToolServer:
    command = (sys.executable, str(SUPPORT / "hostile_server.py"), mode)
    return ToolServer(
        command=command, env={"TOKEN": SecretRef(env="BOX_TOKEN")}, tools={"do": READ}
    )


def test_a_child_gets_its_own_secret_and_nothing_else_of_the_gateways_environment(
    stage: Stage,
) -> None:
    secrets = {"BOX_TOKEN": "box-SECRET-12345", "OPENAI_API_KEY": "sk-SECRET-67890"}
    start(stage, {"box": child("limits"), "echo": child("well")}, **secrets)
    seen = json.loads(said(call(stage, "box__do")))
    assert set(seen["environment"]) - {"LC_CTYPE"} == {"PATH", "HOME", "TMPDIR", "LANG", "TOKEN"}
    assert said(call(stage, "echo__do", text="token")) == "[redacted]", "it has it, and cannot tell"
    stage.terminate()
    for path in (stage.log, *stage.state.glob("interlock.sqlite*")):
        assert not any(secret.encode() in path.read_bytes() for secret in secrets.values())


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_children_and_what_they_started_end_with_the_gateway(stage: Stage, how: str) -> None:
    start(stage, {"box": child("limits"), "tree": child("child")}, BOX_TOKEN="box-SECRET-12345")
    leader = json.loads(said(call(stage, "box__do")))["pid"]
    grandchild = int(said(call(stage, "tree__do")))
    assert alive(leader)
    assert alive(grandchild)
    getattr(stage, how)()
    assert gone(leader)
    if how == "terminate":
        assert gone(grandchild)
        assert stage.process is not None
        assert stage.process.returncode == 0
    else:
        # Nobody is left to end it; docs/policies/mcp.md says what a child may leave behind.
        os.kill(grandchild, 9)


# --- OAuth


def with_oauth(hub: FakeServer, **changes: Any) -> ToolServer:
    """A server that takes the access token given last; `hub.forms` has what was asked for it."""
    given: list[str] = []

    def token(form: dict[str, str]) -> Any:
        given.append(f"access-SECRET-{len(hub.forms)}")
        return {"access_token": given[-1], "token_type": "Bearer", "expires_in": 3600}

    def answer(params: Any, headers: Any) -> Any:
        if not given or headers.get("authorization") != f"Bearer {given[-1]}":
            raise Say(401)
        return {"content": [{"type": "text", "text": f"as {headers['authorization']}"}]}

    hub.token = token
    hub.plan["tools/call"] = answer
    settings = OAuth(token_url=f"{hub.address}/token", client_id="interlock", **changes)
    return at(hub, oauth=settings)


def test_a_server_is_used_with_client_credentials(stage: Stage, hub: FakeServer) -> None:
    server = with_oauth(hub, client_secret=SecretRef(env="CLIENT"))
    start(stage, {"hub": server}, CLIENT="client-SECRET-4711")
    for _ in range(2):
        assert said(call(stage, "hub__open")) == "as Bearer [redacted]"
    (form,) = hub.forms
    assert form["grant_type"] == "client_credentials"
    stage.terminate()
    for path in (stage.log, *stage.state.glob("interlock.sqlite*")):
        assert b"SECRET" not in path.read_bytes()


def test_a_server_that_is_used_as_a_person_needs_that_persons_word(
    stage: Stage, hub: FakeServer
) -> None:
    allowed = publish(stage, {"hub": with_oauth(hub, per_user=True)})
    stage.issue(principal(user="ines"), allowed, token="ines")
    stage.start()
    assert refused(call(stage, "hub__open")) == "no_delegation"
    told = call(stage, "hub__open", token="ines")
    assert refused(told) == "no_delegation"
    command = "`interlock token delegate hub --user ines`"
    assert command in told.json()["error"]["message"]
    assert hub.asked == []
    with stage.database.transaction() as tx:
        access.delegate(tx, server="hub", user="ines", refresh_token=PERSON_TOKEN, now=NOW)
    done = call(stage, "hub__open", token="ines", key="run-1/1/0")
    assert said(done) == "as Bearer [redacted]"
    assert hub.forms[0]["refresh_token"] == PERSON_TOKEN
    with stage.database.transaction() as tx:
        assert access.withdraw(tx, server="hub", user="ines")
    assert refused(call(stage, "hub__open", token="ines")) == "no_delegation"
    again = call(stage, "hub__open", token="ines", key="run-1/1/0")
    assert again.headers["x-interlock-replayed"] == "1"
    assert hub.methods().count("tools/call") == 1


# --- the control socket


def catalogue(stage: Stage, document: Any) -> Answer:
    return over_socket(stage.state / "gateway-control.sock", "POST", "/catalogue", document)


def test_the_control_socket_tells_what_a_server_offers_now(stage: Stage, hub: FakeServer) -> None:
    start(stage, {"hub": at(hub)})
    answer = catalogue(stage, {"server": "hub"})
    assert answer.status == 200
    assert [each["name"] for each in answer.json()["tools"]] == ["list", "open"]
    hub.tools = [tool("open", "Says more.")]
    (only,) = catalogue(stage, {"server": "hub"}).json()["tools"]
    assert only == {
        "name": "open",
        "description": "Says more.",
        "input_schema": {"type": "object"},
        "fingerprint": fingerprint("open", "Says more.", {"type": "object"}),
    }


def test_a_catalogue_that_cannot_be_had_says_why(stage: Stage, hub: FakeServer) -> None:
    dead = ToolServer(url="http://127.0.0.1:9/mcp", tools={"open": WRITE})
    publish(stage, {"hub": at(hub), "dead": dead, "mine": with_oauth(hub, per_user=True)})
    stage.start()
    unknown = catalogue(stage, {"server": "nowhere"})
    assert (unknown.status, unknown.code) == (404, "not_found")
    down = catalogue(stage, {"server": "dead"})
    assert (down.status, down.code) == (502, "provider_error")
    person = catalogue(stage, {"server": "mine"})
    assert (person.status, person.code) == (403, "no_delegation")
    for wrong in ({}, {"server": 3}, []):
        assert catalogue(stage, wrong).status == 400
    assert stage.get("/catalogue").status == 404, "the control socket's, not everybody's"


def test_the_gateway_closes_its_memory_and_environment_to_its_children(tmp_path: Path) -> None:
    """Asked of the process itself: root may look all the same, and tests may run as root."""
    program = (
        "import ctypes, sys\n"
        "from gateway import process\n"
        "async def serve(*_):\n"
        "    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE\n"
        "process.serve = serve\n"
        "process.main(['--state', sys.argv[1]])\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
