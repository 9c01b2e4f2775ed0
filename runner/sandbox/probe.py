"""Decides whether a container is as closed as it was asked to be. Pure; fails closed.

Asking the engine for a restriction does not mean that it is in force: old engines ignore options
they do not know, kernels lack controllers, an administrator's defaults override. So the first
thing that runs in every container reports what it sees (inside/facts.py), and a single difference
ends it. What cannot be read counts as different.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runner.sandbox.contract import ProbeFailed
from runner.sandbox.hardening import (
    GATEWAY,
    OPEN_FILES,
    STEPS,
    STEPS_BYTES,
    TMP_BYTES,
    UID,
    WORKSPACE,
    Shape,
)

_NO_CAPABILITY = ["0000000000000000"]
_DEVICES = frozenset(
    {"console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm"}
    | {"stderr", "stdin", "stdout", "tty", "urandom", "zero"}
)
_ENVIRONMENT = frozenset({"HOME", "HOSTNAME", "LC_CTYPE", "PATH", "PWD", "TERM"})
_SYSTEM_MOUNTS = ("/proc", "/sys", "/dev")
_FILES_OF_THE_ENGINE = frozenset({"/etc/resolv.conf", "/etc/hostname", "/etc/hosts"})


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A restriction that is not in force: its name, what was seen, what was asked for."""

    which: str
    seen: object
    expected: object


def judge(seen: Mapping[str, Any], shape: Shape, *, sockets: tuple[str, ...] = ()) -> None:
    """Raise ProbeFailed for the first difference. `seen` is hostile JSON: any shape of it is
    either exactly right or refused."""
    try:
        for mismatch in mismatches(seen, shape, sockets=sockets):
            raise ProbeFailed(mismatch.which, mismatch.seen, mismatch.expected)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ProbeFailed("probe", f"unreadable ({error!r})", "a readable report") from error


def mismatches(
    seen: Mapping[str, Any], shape: Shape, *, sockets: tuple[str, ...]
) -> Iterator[Mismatch]:
    """Every difference between what was asked for and what is so, most dangerous first."""
    exact: dict[str, tuple[object, object]] = {}
    status = seen["status"]
    for name in ("CapEff", "CapBnd", "CapPrm", "CapInh", "CapAmb"):
        exact[f"capabilities {name}"] = (status[name], _NO_CAPABILITY)
    exact["no_new_privileges"] = (status["NoNewPrivs"], ["1"])
    if shape.runtime != "runsc":
        # gVisor is the filter itself and reports no seccomp mode of the kernel beneath it.
        exact["seccomp"] = (status["Seccomp"], ["2"])
    exact["user"] = (status["Uid"], [str(UID)] * 4)
    exact["group"] = (status["Gid"], [str(UID)] * 4)
    exact["other groups"] = (sorted({*seen["groups"]} - {UID}), [])
    exact["process id"] = (seen["pid"], 1)
    exact["network interfaces"] = (seen["interfaces"], ["lo"])
    exact["network routes"] = (seen["routes"], [])
    exact["root writable"] = (seen["root_writable"], False)
    exact["workspace writable"] = (seen["workspace_writable"], not shape.read_only_workspace)
    exact["devices beyond the standard ones"] = (sorted({*seen["devices"]} - _DEVICES), [])
    foreign = {*seen["environment"]} - _ENVIRONMENT - {*shape.image_environment}
    exact["environment from outside"] = (sorted(foreign), [])
    exact["open files"] = (seen["limits"]["Max open files"], str(OPEN_FILES))
    exact["core dumps"] = (seen["limits"]["Max core file size"], "0")
    if shape.socket_dir is not None:
        exact["gateway directory present"] = (seen["socket_dir"], True)
    exact["gateway directory writable"] = (seen["socket_dir_writable"], False)
    exact["gateway sockets"] = (seen["sockets"], dict.fromkeys(sockets, "ok"))
    for which, (found, expected) in exact.items():
        if found != expected or type(found) is not type(expected):
            yield Mismatch(which, found, expected)
    yield from _mounts(seen["mounts"], shape)
    yield from _limits(seen, shape)


def _mounts(mounts: list[list[str]], shape: Shape) -> Iterator[Mismatch]:
    options = {point: set(words.split(",")) for point, _, words in mounts}
    kinds = {point: kind for point, kind, _ in mounts}
    wanted: dict[str, tuple[str, ...]] = {
        "/": ("ro",),
        "/tmp": ("noexec", "nosuid", "nodev", f"size={TMP_BYTES // 1024}k"),
        STEPS: ("noexec", "nosuid", "nodev", f"size={STEPS_BYTES // 1024}k"),
        WORKSPACE: ("nosuid", "nodev", f"size={shape.spec.disk_bytes // 1024}k"),
    }
    if shape.socket_dir is not None:
        wanted[GATEWAY] = ("ro",)
    for point, words in wanted.items():
        have = options.get(point)
        missing = sorted(set(words) - have) if have is not None else ["mount"]
        if missing:
            yield Mismatch(f"mount {point}", sorted(have or ()), list(words))
    for point in ("/tmp", STEPS, WORKSPACE):
        if kinds.get(point) != "tmpfs":
            yield Mismatch(f"file system of {point}", kinds.get(point), "tmpfs")
    for point in options:
        system = any(point == top or point.startswith(top + "/") for top in _SYSTEM_MOUNTS)
        if not system and point not in wanted and point not in _FILES_OF_THE_ENGINE:
            yield Mismatch("mounts from the host", point, "none")
        if point == "/sys" and "ro" not in options[point]:
            yield Mismatch("mount /sys", sorted(options[point]), ["ro"])


def _limits(seen: Mapping[str, Any], shape: Shape) -> Iterator[Mismatch]:
    spec = shape.spec
    if seen["pids_max"] != str(spec.pids):
        yield Mismatch("pids limit", seen["pids_max"], str(spec.pids))
    page = 4096  # the kernel rounds down to pages
    memory = str(spec.memory_bytes // page * page)
    if seen["memory_max"] != memory:
        yield Mismatch("memory limit", seen["memory_max"], memory)
    swap, total = seen["swap_max"], seen["memsw_max"]
    # cgroup v2 limits swap by itself, v1 the sum; a kernel without swap accounting shows neither,
    # which is only harmless on a machine without swap.
    if swap is not None:
        if swap != "0":
            yield Mismatch("swap limit", swap, "0")
    elif total is not None:
        if total != memory:
            yield Mismatch("memory and swap limit", total, memory)
    elif seen["swap_total"] != "0":
        yield Mismatch("swap limit", "not accounted", "0")
    quota, period = str(seen["cpu"]).split()
    if quota in ("max", "-1") or int(quota) * 1000 != spec.cpus_milli * int(period):
        yield Mismatch("cpu limit", seen["cpu"], f"{spec.cpus_milli} milli-CPUs")
