from __future__ import annotations

import copy
from typing import Any

import pytest

from gateway.values import RunId
from runner.sandbox.contract import ProbeFailed, SandboxError
from runner.sandbox.hardening import Shape, check_image, container_name
from runner.sandbox.probe import judge
from runner.spec import SandboxSpec

SHAPE = Shape(SandboxSpec(image="sha256:" + "0" * 64))
TMPFS = "rw,nosuid,nodev,noexec,relatime,rw,size="
NONE = ["0000000000000000"]
CLOSED: dict[str, Any] = {
    "pid": 1,
    "status": {
        **dict.fromkeys(("CapEff", "CapBnd", "CapPrm", "CapInh", "CapAmb"), NONE),
        "NoNewPrivs": ["1"],
        "Seccomp": ["2"],
        "Uid": ["65534"] * 4,
        "Gid": ["65534"] * 4,
    },
    "groups": [65534],
    "mounts": [
        ["/", "overlay", "ro,relatime,rw"],
        ["/proc", "proc", "rw,nosuid"],
        ["/sys", "sysfs", "ro,nosuid"],
        ["/dev/shm", "tmpfs", "rw"],
        ["/etc/hosts", "ext4", "ro"],
        ["/tmp", "tmpfs", TMPFS + "65536k"],
        ["/run/steps", "tmpfs", TMPFS + "16384k"],
        ["/workspace", "tmpfs", "rw,nosuid,nodev,size=262144k"],
    ],
    "interfaces": ["lo"],
    "routes": [],
    "limits": {"Max open files": "1024", "Max core file size": "0"},
    "devices": ["null", "zero"],
    "environment": ["PATH"],
    "pids_max": "128",
    "memory_max": str(512 << 20),
    "swap_max": None,
    "memsw_max": str(512 << 20),
    "swap_total": "0",
    "cpu": "100000 100000",
    "root_writable": False,
    "workspace_writable": True,
    "socket_dir": False,
    "socket_dir_writable": False,
    "sockets": {},
}
V2 = {"swap_max": "0", "memsw_max": None}


def test_a_closed_container_passes_on_either_version_of_cgroups() -> None:
    judge(CLOSED, SHAPE)
    judge({**CLOSED, **V2}, SHAPE)
    judge({**CLOSED, "memsw_max": None}, SHAPE)  # no swap accounting, and no swap


@pytest.mark.parametrize(
    "which, change",
    [
        ("seccomp", {"status": {**CLOSED["status"], "Seccomp": ["0"]}}),
        ("user", {"status": {**CLOSED["status"], "Uid": ["0"] * 4}}),
        ("swap limit", {"swap_max": "max", "memsw_max": None}),
        ("swap limit", {"memsw_max": None, "swap_total": "1024"}),
        ("memory and swap limit", {"memsw_max": "9223372036854771712"}),
        ("memory limit", {"memory_max": "max"}),
        ("memory limit", {"memory_max": None}),
        ("cpu limit", {"cpu": "max 100000"}),
        ("cpu limit", {"cpu": "-1 100000"}),
        ("cpu limit", {"cpu": "200000 100000"}),
        ("pids limit", {"pids_max": "max"}),
        ("network routes", {"routes": ["eth0 default"]}),
        ("environment", {"environment": ["PATH", "AWS_SECRET_ACCESS_KEY"]}),
        ("root writable", {"root_writable": True}),
        ("root writable", {"root_writable": 0}),
        ("gateway sockets", {"sockets": {"gateway.sock": "ok"}}),
        ("swap limit", {"memsw_max": None, "swap_total": None}),
        ("probe", {"cpu": None}),
        ("probe", {"mounts": 7}),
        ("probe", {"devices": {"a": 1}, "limits": None}),
    ],
)
def test_one_difference_is_enough(which: str, change: dict[str, Any]) -> None:
    with pytest.raises(ProbeFailed) as caught:
        judge({**copy.deepcopy(CLOSED), **change}, SHAPE)
    assert which in caught.value.which


@pytest.mark.parametrize("missing", sorted({*CLOSED} - {"socket_dir", "swap_total"}))
def test_what_is_not_reported_counts_as_different(missing: str) -> None:
    with pytest.raises(ProbeFailed):
        judge({name: value for name, value in CLOSED.items() if name != missing}, SHAPE)


def test_another_runtime_than_gvisor_must_show_seccomp() -> None:
    seen = {**CLOSED, "status": {**CLOSED["status"], "Seccomp": ["0"]}}
    judge(seen, Shape(SHAPE.spec, runtime="runsc"))
    with pytest.raises(ProbeFailed):
        judge(seen, Shape(SHAPE.spec, runtime="runc"))


@pytest.mark.parametrize("image", ["python", "python:3.11", "sha256:12", "x@sha256:", "a:b@c"])
def test_a_tag_is_no_image(image: str) -> None:
    with pytest.raises(SandboxError, match="not pinned"):
        check_image(image)


def test_a_pinned_reference_is_an_image() -> None:
    assert check_image("host:5000/a/b@sha256:" + "a" * 64)
    assert check_image("sha256:" + "a" * 64)


@pytest.mark.parametrize("suffix", ["a b", "../x", "x/y", "ü"])
def test_a_name_that_the_engine_would_refuse_is_refused_first(suffix: str) -> None:
    with pytest.raises(SandboxError, match="container's name"):
        container_name(RunId("run-1"), suffix)
