"""The sandbox on the real engine: steps, files, recovery, and what hostile code tries."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from gateway.values import RunId
from runner.sandbox import (
    Existing,
    PathRefused,
    Sandbox,
    SandboxConflict,
    SandboxError,
    SandboxLost,
    container_name,
)
from runner.spec import SandboxSpec
from runner.workspace import Entry, SizeLimits, WorkspaceError
from tests.support.sandbox import Engine, engine, sandbox_image, tree

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def image() -> str:
    return sandbox_image()


async def sh(on: Engine, box: Sandbox, step: str, script: str, timeout_ms: int = 20_000) -> str:
    """Run a shell script as a step; its output, stderr after stdout."""
    result = await box.exec(on.key(step), ["sh", "-c", script], timeout_ms=timeout_ms)
    return result.stdout + result.stderr


def test_a_step_sees_its_files_and_stdin_and_nothing_of_the_host(
    image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-host-secret")

    async def story() -> None:
        async with engine(image) as on:
            files = {**tree(src__a="hello\n"), "go.sh": Entry(b"#!/bin/sh\ncat src/a -\n", True)}
            box = await on.boxes.open(on.run, on.spec, files=files)
            result = await box.exec(on.key("1"), ["./go.sh"], timeout_ms=5000, stdin=b"piped")
            assert (result.exit_code, result.stdout) == (0, "hello\npiped")
            assert (await sh(on, box, "2", "env | sort")).split("\n") == [
                "HOME=/tmp",
                "LANG=C.UTF-8",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "PWD=/workspace",
                "PYTHONDONTWRITEBYTECODE=1",
                "",
            ]
            assert "sk-host" not in await sh(on, box, "3", "cat /proc/[0-9]*/environ")
            result = await box.exec(on.key("4"), ["no-such-program"], timeout_ms=5000)
            assert result.exit_code == 127
            result = await box.exec(on.key("5"), ["sh", "-c", "kill -TERM $$"], timeout_ms=5000)
            assert result.exit_code == 128 + 15

    asyncio.run(story())


@pytest.mark.parametrize(
    "attempt, refusal",
    [
        ("echo x > /etc/x", "Read-only file system"),
        ("echo x > /usr/bin/x", "Read-only file system"),
        ("cp /bin/true /tmp/t && /tmp/t", "Permission denied"),
        ("cp /bin/true /run/steps/t && /run/steps/t", "Permission denied"),
        ("mount -t tmpfs none /mnt", "must be superuser"),
        ("chown root /workspace/f", "not permitted"),
        ("unshare -r true", "not permitted"),
        ("mknod /workspace/d b 8 0", "not permitted"),
        ("kill -9 1; echo still here", "still here"),
        ("su -c id", "uthentication"),
        (
            "python3 -c \"import socket; socket.create_connection(('1.1.1.1', 53), 2)\"",
            "unreachable",
        ),
        ("cat /proc/1/environ | tr '\\0' '\\n' | grep -c KEY", "0"),
        ("echo 1 > /proc/sys/kernel/panic", "Read-only file system"),
        ("dmesg", "not permitted"),
        ("ls /var/run/docker.sock", "No such file"),
    ],
)
def test_hostile_code_is_refused(image: str, attempt: str, refusal: str) -> None:
    async def story() -> None:
        async with engine(image) as on:
            box = await on.boxes.open(on.run, on.spec, files=tree(f="x"))
            assert refusal in await sh(on, box, "1", attempt)
            assert "alive" in await sh(on, box, "2", "echo alive")

    asyncio.run(story())


def test_nothing_of_a_step_outlives_its_time_out_or_its_end(image: str) -> None:
    async def story() -> None:
        async with engine(image) as on:
            box = await on.boxes.open(on.run, on.spec, files={})
            script = "sleep 871 & sleep 872 & echo started; wait"
            result = await box.exec(on.key("1"), ["sh", "-c", script], timeout_ms=500)
            assert result.timed_out
            assert result.stdout == "started\n"
            assert 500 <= result.duration_ms < 5000
            await sh(on, box, "background", "sleep 873 &")
            left = await sh(on, box, "2", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
            assert "sleep" not in left

    asyncio.run(story())


def test_killing_everything_inside_leaves_the_sandbox_working(image: str) -> None:
    async def story() -> None:
        async with engine(image) as on:
            box = await on.boxes.open(on.run, on.spec, files={})
            assert await sh(on, box, "1", "sleep 99 & kill -9 -1; echo killed") == "killed\n"
            assert await sh(on, box, "2", "echo on") == "on\n"

    asyncio.run(story())


def test_a_fork_bomb_stays_inside_its_limit_and_ends(image: str) -> None:
    async def story() -> None:
        async with engine(image, pids=48) as on:
            box = await on.boxes.open(on.run, on.spec, files={})
            bomb = "b() { b | b & b; }; b"
            result = await box.exec(on.key("1"), ["sh", "-c", bomb], timeout_ms=1500)
            assert "Cannot fork" in result.stderr
            assert await sh(on, box, "2", "echo on") == "on\n"

    asyncio.run(story())


def test_filling_the_disk_ends_at_the_limit(image: str) -> None:
    async def story() -> None:
        async with engine(image, disk_bytes=8 << 20) as on:
            box = await on.boxes.open(on.run, on.spec, files={})
            said = await sh(on, box, "1", "dd if=/dev/zero of=big bs=1M count=64; wc -c < big")
            assert "No space left" in said
            assert str(8 << 20) in said
            with pytest.raises(PathRefused, match="No space"):
                await box.write_file("more", b"x" * 8192)

    asyncio.run(story())


def test_using_all_memory_ends_the_step_not_the_sandbox(image: str) -> None:
    async def story() -> None:
        async with engine(image, memory_bytes=96 << 20) as on:
            box = await on.boxes.open(on.run, on.spec, files={})
            eat = ["python3", "-c", "x = bytearray(400 << 20)"]
            result = await box.exec(on.key("1"), eat, timeout_ms=20_000)
            assert result.exit_code in (1, 137)
            assert await sh(on, box, "2", "echo on") == "on\n"

    asyncio.run(story())


def test_a_flood_of_output_keeps_its_first_and_last_bytes(image: str) -> None:
    async def story() -> None:
        async with engine(image) as on:
            box = await on.boxes.open(on.run, on.spec, files={})
            flood = "echo first; yes line | head -c 30000000; echo; echo last; echo err >&2"
            result = await box.exec(on.key("1"), ["sh", "-c", flood], timeout_ms=20_000)
            assert result.truncated
            assert result.stdout.startswith("first\n")
            assert result.stdout.endswith("\nlast\n")
            assert "bytes left out" in result.stdout
            assert len(result.stdout) < 66_000
            assert result.stderr == "err\n"

    asyncio.run(story())


def test_a_step_that_outlives_its_runner_is_adopted_with_its_result(image: str) -> None:
    async def story() -> None:
        async with engine(image) as on, engine(image) as later:
            first = await on.boxes.open(on.run, on.spec, files=tree(a="a"))
            done = await first.exec(on.key("1"), ["echo", "one"], timeout_ms=5000)
            script = "echo begun > begun; while [ ! -e go ]; do sleep 0.05; done; echo ended"
            running = asyncio.create_task(
                first.exec(on.key("2"), ["sh", "-c", script], timeout_ms=30_000)
            )
            await sh(on, first, "wait", "while [ ! -e begun ]; do sleep 0.05; done")
            running.cancel()
            await first.detach()

            second = await later.boxes.open(on.run, on.spec, files=tree(a="other"))
            assert second.adopted
            assert await second.read_file("a") == b"a"
            assert await second.adopt(on.key("1")) == done
            assert await second.adopt(on.key("never")) is None
            waiting = asyncio.create_task(second.adopt(on.key("2")))
            await second.write_file("go", b"")
            found = await waiting
            assert found is not None
            assert (found.exit_code, found.stdout) == (0, "ended\n")
            with pytest.raises(SandboxError, match="started before"):
                await second.exec(on.key("2"), ["true"], timeout_ms=5000)

    asyncio.run(story())


def test_the_runner_that_was_taken_over_cannot_act_any_more(image: str) -> None:
    async def story() -> None:
        async with engine(image) as on, engine(image) as later:
            stale = await on.boxes.open(on.run, on.spec, files={})
            fresh = await later.boxes.open(on.run, on.spec, files={})
            with pytest.raises(SandboxError, match="fenced"):
                await stale.exec(on.key("1"), ["touch", "evidence"], timeout_ms=5000)
            with pytest.raises(PathRefused, match="fenced"):
                await stale.write_file("evidence", b"")
            assert (await fresh.list_files()).files == ()

    asyncio.run(story())


def test_a_step_goes_on_when_the_session_of_an_adopted_sandbox_is_killed(image: str) -> None:
    async def story() -> None:
        async with engine(image) as on, engine(image) as later:
            first = await on.boxes.open(on.run, on.spec, files={})
            await first.detach()
            second = await later.boxes.open(on.run, on.spec, files={})
            with pytest.raises(SandboxLost, match="result is gone"):
                await second.exec(
                    on.key("1"), ["sh", "-c", "kill -9 $PPID; sleep 9"], timeout_ms=99
                )
            assert await sh(on, second, "2", "echo on") == "on\n"

    asyncio.run(story())


def test_a_name_is_a_fence(image: str) -> None:
    async def story() -> None:
        async with engine(image) as on:
            first = await on.boxes.open(on.run, on.spec, files=tree(a="1"))
            with pytest.raises(SandboxConflict, match="another runner"):
                await on.boxes.open(on.run, on.spec, files={}, existing=Existing.REFUSE)
            second = await on.boxes.open(
                on.run, on.spec, files=tree(a="2"), existing=Existing.REPLACE
            )
            assert not second.adopted
            assert await second.read_file("a") == b"2"
            with pytest.raises(SandboxError):
                await first.read_file("a")

    asyncio.run(story())


def test_a_stopped_container_is_not_adopted(image: str) -> None:
    async def story() -> None:
        async with engine(image) as on:
            await on.boxes.open(on.run, on.spec, files=tree(a="1"))
            on.client.kill(container_name(on.run))
            again = await on.boxes.open(on.run, on.spec, files=tree(a="2"))
            assert not again.adopted
            assert await again.read_file("a") == b"2"

    asyncio.run(story())


def test_a_foreign_container_of_the_same_name_is_left_alone(image: str) -> None:
    async def story() -> None:
        async with engine(image) as on:
            name = container_name(on.run)
            made = on.client.create_container(image, ["true"], name=name)
            try:
                with pytest.raises(SandboxConflict, match="not Interlock's"):
                    await on.boxes.open(on.run, on.spec, files={}, existing=Existing.REPLACE)
                assert on.client.inspect_container(name)["Id"] == made["Id"]
            finally:
                on.client.remove_container(made["Id"], force=True)

    asyncio.run(story())


def test_a_mutable_tag_and_an_absent_image_are_refused(image: str) -> None:
    async def story() -> None:
        async with engine(image) as on:
            tag = SandboxSpec(image="python:3.11-slim")
            with pytest.raises(SandboxError, match="not pinned"):
                await on.boxes.open(on.run, tag, files={})
            gone = SandboxSpec(image="sha256:" + "0" * 64)
            with pytest.raises(SandboxError, match="not on this machine"):
                await on.boxes.open(on.run, gone, files={})
            assert await on.boxes.count(boot=on.label) == 0

    asyncio.run(story())


def test_file_tools_follow_no_link_out_of_the_workspace(image: str) -> None:
    async def story() -> None:
        async with engine(image) as on:
            box = await on.boxes.open(on.run, on.spec, files=tree(a="x"))
            await sh(
                on,
                box,
                "1",
                "ln -s /etc/passwd link; ln -s /etc folder; mkfifo pipe; ln -s /dev/zero zero",
            )
            for path in ("link", "folder/passwd", "pipe", "zero", "../etc/passwd", "/etc/passwd"):
                with pytest.raises(PathRefused):
                    await box.read_file(path)
            for path in ("folder/new", "../tmp/x", "/tmp/x", "a/b", ""):
                with pytest.raises(PathRefused):
                    await box.write_file(path, b"x")
            await box.write_file("/workspace/new/deep/file", b"\0\xff")
            assert await box.read_file("new/deep/file") == b"\0\xff"
            with pytest.raises(PathRefused, match="more than 1 bytes"):
                await box.read_file("new/deep/file", limit_bytes=1)
            listing = await box.list_files(limit=3)
            assert listing.truncated
            assert (await box.list_files("new")).files == (("new/deep/file", 2),)

    asyncio.run(story())


def test_a_hostile_workspace_comes_out_as_plain_files_or_not_at_all(image: str) -> None:
    async def story() -> None:
        async with engine(image) as on:
            box = await on.boxes.open(on.run, on.spec, files=tree(a="x", b="y"))
            await sh(
                on,
                box,
                "1",
                "rm b; echo n > new; ln -s /etc/shadow shadow; mkfifo pipe; truncate -s 1T sparse;"
                "mkdir -p d/e; echo z > d/e/z; chmod 755 new;"
                "printf x > \"$(printf 'bad\\377name')\"",
            )
            found = await box.snapshot()
            assert found.files == {
                "a": Entry(b"x"),
                "new": Entry(b"n\n", True),
                "d/e/z": Entry(b"z\n"),
            }
            assert sorted(why for _, why in found.skipped) == [
                "link",
                "name",
                "special",
                "too large",
            ]
            with pytest.raises(WorkspaceError, match="more than 2 files"):
                await box.snapshot(limits=SizeLimits(files=2))
            with pytest.raises(WorkspaceError, match="more than 4 bytes"):
                await box.snapshot(limits=SizeLimits(total_bytes=4))

    asyncio.run(story())


def test_a_checker_cannot_write_its_workspace(image: str) -> None:
    async def story() -> None:
        async with engine(image) as on:
            files = {**tree(src__a="x"), "run.sh": Entry(b"#!/bin/sh\necho ran\n", True)}
            box = await on.boxes.open(on.run, on.spec, files=files, read_only_workspace=True)
            assert await sh(on, box, "1", "cat src/a; ./run.sh; id -u") == "xran\n65534\n"
            tries = "echo y > src/a; touch new; rm src/a; chmod 777 src; mv src s; : > run.sh"
            said = await sh(on, box, "2", tries)
            assert said.count("denied") + said.count("not permitted") == 6
            with pytest.raises(PathRefused):
                await box.write_file("src/a", b"y")
            assert (await box.snapshot()).files == files

    asyncio.run(story())


def test_orphans_are_reaped_and_live_ones_kept(image: str) -> None:
    async def story() -> None:
        async with engine(image) as on, engine(image) as other:
            orphan = RunId(f"{on.run}-orphan")
            await on.boxes.open(on.run, on.spec, files={}, labels={"lease": "7"})
            await on.boxes.open(orphan, on.spec, files={})
            await on.boxes.open(orphan, on.spec, files={}, suffix="reviewer")
            await other.boxes.open(other.run, other.spec, files={})
            assert await on.boxes.count(boot=on.label) == 3
            assert await on.boxes.count(lease="7", boot=on.label) == 1
            removed = await on.boxes.reap(lambda run: run == on.run, boot=on.label)
            assert removed == (f"interlock-{orphan}", f"interlock-{orphan}-reviewer")
            assert await on.boxes.count(boot=on.label) == 1
            assert await other.boxes.count(boot=other.label) == 1

    asyncio.run(story())


def test_two_steps_run_beside_each_other(image: str) -> None:
    async def story() -> None:
        async with engine(image) as on:
            box = await on.boxes.open(on.run, on.spec, files={})
            wait = "while [ ! -e go ]; do sleep 0.05; done; cat go"
            slow = asyncio.create_task(box.exec(on.key("1"), ["sh", "-c", wait], timeout_ms=20_000))
            await box.exec(on.key("2"), ["sh", "-c", "echo now > .go; mv .go go"], timeout_ms=9000)
            assert (await slow).stdout == "now\n"

    asyncio.run(story())


def test_the_gateway_socket_is_reached_and_its_folder_cannot_be_written(
    image: str, tmp_path: Path
) -> None:
    async def story() -> None:
        folder = tmp_path / "sock"
        folder.mkdir()
        for parent in (folder, *folder.parents):
            if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
                parent.chmod(0o755)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello from the gateway")
            writer.close()

        server = await asyncio.start_unix_server(answer, folder / "gateway.sock")
        (folder / "gateway.sock").chmod(0o666)
        async with server, engine(image) as on:
            box = await on.boxes.open(on.run, on.spec, files={}, socket_dir=folder)
            ask = (
                "import socket; s = socket.socket(socket.AF_UNIX);"
                "s.connect('/run/interlock/gateway.sock'); print(s.recv(99).decode())"
            )
            result = await box.exec(on.key("1"), ["python3", "-c", ask], timeout_ms=9000)
            assert result.stdout == "hello from the gateway\n"
            said = await sh(on, box, "2", "rm /run/interlock/gateway.sock; touch /run/interlock/x")
            assert said.count("Read-only file system") == 2

    asyncio.run(story())


def test_nothing_is_logged_on_the_host(image: str) -> None:
    async def story() -> None:
        async with engine(image) as on:
            await on.boxes.open(on.run, on.spec, files={})
            config = on.client.inspect_container(container_name(on.run))["HostConfig"]
            assert json.dumps(config["LogConfig"]) == '{"Type": "none", "Config": {}}'

    asyncio.run(story())
