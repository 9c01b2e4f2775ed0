"""Each restriction, switched off one at a time on the real engine: the probe must notice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.sandbox import ProbeFailed, hardening
from runner.sandbox.hardening import STEPS, WORKSPACE, Shape
from tests.support.sandbox import engine, sandbox_image

pytestmark = pytest.mark.system

Config = dict[str, Any]


def without(*names: str) -> Callable[[Config], Config]:
    return lambda config: {name: value for name, value in config.items() if name not in names}


def also(**changes: Any) -> Callable[[Config], Config]:
    return lambda config: {**config, **changes}


def mount(point: str, options: str | None) -> Callable[[Config], Config]:
    def change(config: Config) -> Config:
        tmpfs = {k: v for k, v in config["tmpfs"].items() if k != point}
        return {**config, "tmpfs": tmpfs if options is None else {**tmpfs, point: options}}

    return change


LOOSENED: list[tuple[str, Callable[[Config], Config]]] = [
    ("capabilities", without("cap_drop")),
    ("capabilities", also(cap_add=["SYS_PTRACE"], cap_drop=None)),
    ("capabilities", also(privileged=True)),
    ("no_new_privileges", without("security_opt")),
    ("seccomp", also(security_opt=["no-new-privileges", "seccomp=unconfined"])),
    ("network", also(network_mode="bridge")),
    ("network", also(network_mode="host")),
    ("process id", also(pid_mode="host")),
    ("mount /", without("read_only")),
    ("mount /tmp", mount("/tmp", "rw,exec,nosuid,nodev,size=64m")),
    ("mount /tmp", mount("/tmp", "rw,noexec,nosuid,nodev,size=65m")),
    ("mount /tmp", mount("/tmp", None)),
    ("mount /run/steps", mount(STEPS, "rw,exec,size=16m,uid=65534,mode=0700")),
    ("mount /workspace", mount(WORKSPACE, "rw,exec,nosuid,nodev,uid=65534")),
    ("workspace writable", mount(WORKSPACE, f"rw,exec,nosuid,nodev,size={256 << 20},mode=0755")),
    ("pids limit", without("pids_limit")),
    ("memory limit", without("mem_limit", "memswap_limit")),
    ("swap limit", also(memswap_limit=1 << 30)),
    ("cpu limit", without("cpu_quota", "cpu_period")),
    ("open files", without("ulimits")),
    ("other groups", also(group_add=["27"])),
    ("devices", also(devices=["/dev/loop-control:/dev/loop-control:rwm"])),
    ("mounts from the host", also(binds={"/etc": {"bind": "/mnt/etc", "mode": "ro"}})),
    ("mounts from the host", also(binds={"/var/run": {"bind": "/run/interlock", "mode": "ro"}})),
]


@pytest.fixture(scope="module")
def image() -> str:
    return sandbox_image()


@pytest.mark.parametrize("which, loosen", LOOSENED)
def test_a_loosened_container_is_refused_and_removed(
    image: str,
    monkeypatch: pytest.MonkeyPatch,
    which: str,
    loosen: Callable[[Config], Config],
) -> None:
    real = hardening.host_config

    def loosened(shape: Shape) -> Config:
        return loosen(real(shape))

    monkeypatch.setattr(hardening, "host_config", loosened)

    async def story() -> None:
        async with engine(image) as on:
            with pytest.raises(ProbeFailed) as caught:
                await on.boxes.open(on.run, on.spec, files={})
            assert which in caught.value.which
            assert await on.boxes.count(boot=on.label) == 0
            with pytest.raises(ProbeFailed):
                await on.boxes.run_once(
                    on.run, on.spec, "true", files={}, timeout_ms=5000, suffix="once"
                )

    asyncio.run(story())


def test_a_gateway_folder_that_can_be_written_is_refused(
    image: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = hardening.host_config

    def writable(shape: Shape) -> Config:
        return {**real(shape), "binds": {shape.socket_dir: {"bind": "/run/interlock"}}}

    monkeypatch.setattr(hardening, "host_config", writable)

    async def story() -> None:
        tmp_path.chmod(0o777)
        async with engine(image) as on:
            with pytest.raises(ProbeFailed, match=r"gateway directory writable|mount /run"):
                await on.boxes.open(on.run, on.spec, files={}, socket_dir=tmp_path)

    asyncio.run(story())


def test_a_gateway_socket_that_nobody_answers_is_refused(image: str, tmp_path: Path) -> None:
    async def story() -> None:
        server = await asyncio.start_unix_server(lambda r, w: w.close(), tmp_path / "gateway.sock")
        (tmp_path / "gateway.sock").chmod(0o600)  # there, but not for the container's user
        for parent in (tmp_path, *tmp_path.parents):
            if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
                parent.chmod(0o755)
        async with server, engine(image) as on:
            with pytest.raises(ProbeFailed, match="gateway sockets"):
                await on.boxes.open(on.run, on.spec, files={}, socket_dir=tmp_path)
            assert await on.boxes.count(boot=on.label) == 0

    asyncio.run(story())
