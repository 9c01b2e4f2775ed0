"""Tool servers as child processes: real ones, and one that does everything wrong."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.keys import Keyring
from gateway.mcp import launch, stdio
from gateway.mcp.fingerprints import observed
from gateway.mcp.upstream import Servers
from gateway.policy import Access, SecretRef, ToolClass, ToolServer
from gateway.providers.upstream import Upstream, build_client
from gateway.refusals import Code, Refusal
from gateway.routing import Failure
from gateway.values import Millis
from tests.gateway.stage import TOOL_KEY, policy
from tests.gateway.stage import Stage as GatewayStage
from tests.support import old_mcp

HERE = Path(old_mcp.__file__).parent
TOKEN = "stdio-SECRET-42"


class Hands:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.time = 1_000_000

    def now(self) -> Millis:
        return Millis(self.time)


class Stage:
    """`Servers` around one command."""

    def __init__(self, *command: str, seconds: int = 20, **env: str) -> None:
        self.clock = Hands()
        self.secrets = {"TOKEN": TOKEN, **env}
        self.server = ToolServer(
            command=command,
            env={name: SecretRef(env=name) for name in self.secrets},
            timeout_seconds=seconds,
        )
        self.servers: Any = None

    def run(self, play: Callable[[], Awaitable[Any]]) -> Any:
        async def whole() -> Any:
            client = build_client()
            upstream = Upstream(client, Keyring(self.secrets))
            self.servers = Servers(upstream, self.clock)
            try:
                return await play()
            finally:
                await self.servers.close()
                await client.close()

        # The loop that the gateway runs on: its subprocesses are not asyncio's own.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(whole())

    async def text(self, tool: str = "do", **arguments: Any) -> str:
        found = await self.servers.call("box", self.server, tool, arguments, effect_key=None)
        return str(found["content"][0]["text"])

    async def failure(self, **arguments: Any) -> Failure:
        with pytest.raises(Failure) as caught:
            await self.text(**arguments)
        return caught.value

    async def opened(self, *, seconds: int) -> None:
        """Open with all the time it takes; from then on a request has so many seconds."""
        await self.servers.catalogue("box", self.server)
        self.server = self.server.model_copy(update={"timeout_seconds": seconds})

    def pid(self) -> int:
        (client,) = self.servers._clients.values()
        return int(client.connection._child._process.pid)


def hostile(mode: str, **more: Any) -> Stage:
    return Stage(sys.executable, str(HERE / "hostile_server.py"), mode, **more)


def alive(pid: int) -> bool:
    try:
        # A zombie that nobody reaps in this container is as dead as it gets.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  what is waited for is another process
            await asyncio.sleep(0.01)


# --- real servers


@pytest.mark.parametrize("line", [1, 2])
def test_servers_of_both_sdk_lines_are_spoken_to(line: int) -> None:
    python = str(old_mcp.interpreter()) if line == 1 else sys.executable
    stage = Stage(python, str(HERE / "sdk_server.py"))

    async def play() -> None:
        assert await stage.text("add", a=1, b=2) == "3"
        texts = [stage.text("echo", text=str(number)) for number in range(20)]
        assert await asyncio.gather(*texts) == [str(number) for number in range(20)]
        (client,) = stage.servers._clients.values()
        assert client.connection.version == ("2025-11-25" if line == 1 else "2026-07-28")

    stage.run(play)


def test_the_git_server_from_pypi_works(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    stage = Stage(str(old_mcp.interpreter()), "-m", "mcp_server_git", "-r", str(tmp_path))

    async def play() -> None:
        names = [tool.name for tool in await stage.servers.catalogue("box", stage.server)]
        assert "git_status" in names
        said = await stage.text("git_status", repo_path=str(tmp_path))
        assert "No commits yet" in said

    stage.run(play)


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_the_everything_server_from_npm_works() -> None:
    stage = Stage(str(shutil.which("node")), str(old_mcp.everything()), "stdio")

    async def play() -> None:
        assert "hello" in await stage.text("echo", message="hello")
        assert "42" in await stage.text("get-sum", a=40, b=2)

    stage.run(play)


# --- isolation


def test_a_child_has_its_own_secrets_a_home_of_its_own_and_limits() -> None:
    stage = hostile("limits")

    async def play() -> Any:
        return json.loads(await stage.text())

    seen = stage.run(play)
    assert set(seen["environment"]) - {"LC_CTYPE"} == {"PATH", "HOME", "TMPDIR", "LANG", "TOKEN"}
    assert seen["home"] == seen["cwd"] != os.environ.get("HOME")
    assert not Path(seen["home"]).exists(), "the home goes with the child"
    assert seen["files"] == [0, 1, 2]
    assert seen["leader"] is True
    assert seen["no_new_privs"] == "1"
    assert seen["umask"] == 0o077
    assert seen["CORE"] == 0
    limits = {
        name: 0 < seen[name] < 1 << 40 for name in ("DATA", "NOFILE", "NPROC", "FSIZE", "CPU")
    }
    assert all(limits.values()), seen


def test_a_child_dies_with_the_gateway_however_that_ends(tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-I', '-S', sys.argv[1], str(os.getpid()),"
        " '--', 'sleep', '1000'])\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    gateway = subprocess.Popen(
        [sys.executable, "-c", program, launch.__file__],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert gateway.stdout is not None
    pid = int(gateway.stdout.readline())

    async def play() -> None:
        became = b"sleep\x001000\x00"
        await until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes() == became)
        gateway.send_signal(signal.SIGKILL)
        gateway.wait()
        await until(lambda: not alive(pid))

    asyncio.run(play())
    gateway.stdout.close()
    assert gateway.stdin is not None
    gateway.stdin.close()


def test_a_launcher_whose_gateway_is_gone_starts_nothing() -> None:
    command = [sys.executable, "-I", "-S", launch.__file__, "1", "--", "echo", "hello"]
    done = subprocess.run(command, capture_output=True)
    assert (done.returncode, done.stdout) == (126, b"")


def test_a_process_can_close_its_memory_to_others_of_its_user() -> None:
    program = (
        "import ctypes, runpy, sys\n"
        "runpy.run_path(sys.argv[1])['hide_process']()\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"  # PR_GET_DUMPABLE
    )
    command = [sys.executable, "-c", program, launch.__file__]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == "0"


def test_everything_a_child_has_started_ends_with_it() -> None:
    stage = hostile("child")

    async def play() -> tuple[int, int]:
        return int(await stage.text()), stage.pid()

    grandchild, child = stage.run(play)
    assert not alive(child)
    assert not alive(grandchild)


def test_an_end_does_not_wait_for_who_has_run_away() -> None:
    stage = hostile("daemon")

    async def play() -> tuple[int, int]:
        return int(await stage.text()), stage.pid()

    daemon, child = stage.run(play)
    assert not alive(child)
    os.kill(daemon, signal.SIGKILL)


def test_a_secret_is_cut_out_of_what_a_child_says() -> None:
    stage = hostile("well")
    assert stage.run(lambda: stage.text(text="token")) == "[redacted]"


def test_a_secret_that_is_missing_starts_nothing() -> None:
    stage = hostile("well")
    stage.secrets["TOKEN"] = ""

    async def play() -> Refusal:
        with pytest.raises(Refusal) as caught:
            await stage.text()
        return caught.value

    assert "TOKEN is empty or missing" in stage.run(play).message


def test_the_real_gateway_starts_one_and_takes_it_along(stage: GatewayStage) -> None:
    program = (sys.executable, str(HERE / "hostile_server.py"), "limits")
    server = ToolServer(
        command=program,
        env={"TOKEN": SecretRef(env="TOOL_KEY")},
        tools={"read": ToolClass(access=(Access.READ,))},
    )
    stage.publish(policy(servers={"effects": server}))
    stage.issue()
    stage.start(TOOL_KEY=TOOL_KEY, PROVIDER_KEY="provider-SECRET")
    answer = stage.tool("read", text="x").json()
    seen = json.loads(answer["result"]["content"][0]["text"])
    assert set(seen["environment"]) - {"LC_CTYPE"} == {"PATH", "HOME", "TMPDIR", "LANG", "TOKEN"}
    assert seen["files"] == [0, 1, 2]
    assert stage.terminate() == 0

    async def play() -> None:
        await until(lambda: not alive(seen["pid"]))

    asyncio.run(play())


# --- what goes wrong


def test_garbage_on_its_output_does_no_harm() -> None:
    stage = hostile("well")
    assert stage.run(stage.text) == "well"


def test_a_child_that_dies_in_a_call_leaves_its_outcome_open_and_says_why() -> None:
    stage = hostile("dies")

    async def play() -> Failure:
        others = [asyncio.create_task(stage.failure(text="wait")) for _ in range(3)]
        await asyncio.sleep(0)
        failure = await stage.failure()
        assert all([(await other).done for other in others])
        return failure

    failure = stage.run(play)
    assert failure.done
    assert "ended by itself (status 7); its last words: fatal [31m: [redacted]" in failure.message


def test_a_child_that_does_not_start_did_nothing() -> None:
    for stage in (hostile("start"), Stage("/no/such/command")):
        failure = stage.run(stage.failure)
        assert not failure.done
        assert any(w in failure.message for w in ("no configuration found", "No such file"))


def test_a_child_that_keeps_dying_is_started_again_after_growing_pauses() -> None:
    stage = hostile("start")

    async def play() -> list[int | None]:
        pauses = []
        for _ in range(8):
            await stage.failure()
            waiting = await stage.failure()
            assert "started again in" in waiting.message
            assert not waiting.done
            pauses.append(waiting.retry_after)
            stage.clock.time += 1000 * (waiting.retry_after or 0)
        return pauses

    assert stage.run(play) == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_child_that_has_lived_long_is_started_again_at_once() -> None:
    stage = hostile("well")

    async def play() -> None:
        await stage.text()
        first = stage.pid()
        stage.clock.time += stdio.STEADY_MS
        (client,) = stage.servers._clients.values()
        os.killpg(first, signal.SIGKILL)
        await until(lambda: client.connection._child.dead is not None)
        assert await stage.text() == "well"
        assert stage.pid() != first

    stage.run(play)


def test_a_child_that_was_started_again_is_looked_at_again(tmp_path: Path) -> None:
    program = tmp_path / "server.py"
    source = (HERE / "hostile_server.py").read_text()
    program.write_text(source)
    stage = Stage(sys.executable, str(program), "well")
    entry = {"name": "do", "description": "Does it.", "inputSchema": {"type": "object"}}
    kind = ToolClass(access=(Access.READ,), fingerprint=observed(entry).fingerprint)
    stage.server = stage.server.model_copy(update={"tools": {"do": kind}})

    async def play() -> Refusal:
        await stage.text()
        program.write_text(source.replace("Does it.", "A new version."))
        (client,) = stage.servers._clients.values()
        stage.clock.time += stdio.STEADY_MS
        os.killpg(stage.pid(), signal.SIGKILL)
        await until(lambda: client.connection._child.dead is not None)
        with pytest.raises(Refusal) as caught:
            await stage.text()
        return caught.value

    assert stage.run(play).code is Code.TOOL_CHANGED


def test_a_changed_command_or_secret_is_another_child() -> None:
    stage = hostile("well", OTHER="other-secret")

    async def play() -> None:
        await stage.text()
        first = stage.pid()
        env = {name: ref for name, ref in stage.server.env.items() if name != "OTHER"}
        stage.server = stage.server.model_copy(update={"env": env})
        await stage.text()
        assert not alive(first)
        stage.server = stage.server.model_copy(
            update={"command": (*stage.server.command[:2], "result")}
        )
        await stage.failure()
        assert len(stage.servers._clients) == 1

    stage.run(play)


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("silent", "did not answer within 1 s"),
        ("wrong-id", "did not answer within 1 s"),
        ("result", "without a result"),
    ],
)
def test_a_child_that_answers_nothing_usable_leaves_the_outcome_open(mode: str, told: str) -> None:
    stage = hostile(mode, NOTES=os.devnull)

    async def play() -> Failure:
        await stage.opened(seconds=1)
        return await stage.failure()

    failure = stage.run(play)
    assert told in failure.message
    assert failure.done


@pytest.mark.parametrize(
    ("mode", "told"), [("flood", "answers nothing"), ("long", "a line of more than 8388608")]
)
def test_a_child_that_floods_is_ended(mode: str, told: str) -> None:
    stage = hostile(mode)

    async def play() -> None:
        failure = await stage.failure()
        assert told in failure.message
        assert failure.done
        assert not alive(stage.pid())

    stage.run(play)


def test_a_child_that_is_deaf_did_nothing() -> None:
    stage = hostile("deaf", seconds=1)
    failure = stage.run(stage.failure)
    assert not failure.done


def test_a_call_that_is_given_up_is_cancelled_at_the_server(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    stage = hostile("well", NOTES=str(notes))

    async def play() -> None:
        await stage.opened(seconds=1)
        await stage.failure(text="wait")
        call = asyncio.create_task(stage.text(text="wait"))
        await asyncio.sleep(0.2)
        call.cancel()
        await until(lambda: notes.is_file() and notes.read_text().count("\n") == 2)

    stage.run(play)
    first, second = (json.loads(line)["params"]["requestId"] for line in notes.open())
    assert first != second


def test_requests_of_a_server_are_answered_that_nothing_was_declared() -> None:
    stage = hostile("asks")
    ping, other = json.loads(stage.run(stage.text))
    assert ping == {"jsonrpc": "2.0", "id": "a", "result": {}}
    assert (other["id"], other["error"]["code"]) == ("b", -32601)


def test_a_list_that_is_said_to_have_changed_is_read_again() -> None:
    stage = hostile("changed")
    entry = {"name": "do", "description": "Does it.", "inputSchema": {"type": "object"}}
    kind = ToolClass(access=(Access.READ,), fingerprint=observed(entry).fingerprint)
    stage.server = stage.server.model_copy(update={"tools": {"do": kind}})

    async def play() -> Refusal:
        assert await stage.text() == "well"
        with pytest.raises(Refusal) as caught:
            await stage.text()
        return caught.value

    assert stage.run(play).code is Code.TOOL_CHANGED
