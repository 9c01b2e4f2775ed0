"""What a container looks like from inside: plain facts for runner/sandbox/probe.py to judge."""
# ruff: noqa: PTH108, PTH112, PTH123, PTH208
# (pathlib and contextlib cost more than the rest of the start; old Pythons are served.)

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing typing would cost 5 ms at every start
if TYPE_CHECKING:
    from typing import Any

WORKSPACE = "/workspace"
GATEWAY = "/run/interlock"
NAMES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid")


def text(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def first(*paths: str) -> str | None:
    for path in paths:
        value = text(path)
        if value is not None:
            return value.strip()
    return None


def can_create(directory: str) -> bool:
    path = directory + "/.interlock-probe"
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError:
        return False
    os.unlink(path)
    return True


def connects(path: str) -> str:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        try:
            client.connect(path)
        except OSError as error:
            return str(error)
    return "ok"


def observe(sockets: list[str]) -> dict[str, Any]:
    """Plain facts; the deciding is done outside (runner/sandbox/probe.py)."""
    status = {}
    for line in (text("/proc/self/status") or "").splitlines():
        name, _, value = line.partition(":")
        if name in NAMES:
            status[name] = value.split()
    mounts = []
    for line in (text("/proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        fields, more = left.split(), right.split()
        mounts.append([fields[4], more[0], fields[5] + "," + more[-1]])
    interfaces = [
        line.partition(":")[0].strip() for line in (text("/proc/net/dev") or "").splitlines()[2:]
    ]
    routes = (text("/proc/net/route") or "").splitlines()[1:]
    routes += [
        line
        for line in (text("/proc/net/ipv6_route") or "").splitlines()
        if not line.endswith(" lo")
    ]
    limits = {}
    for line in (text("/proc/self/limits") or "").splitlines()[1:]:
        limits[line[:26].strip()] = line[26:].split()[1]
    swap = [
        line.split()[1]
        for line in (text("/proc/meminfo") or "").splitlines()
        if line.startswith("SwapTotal:")
    ]
    group = "/sys/fs/cgroup"
    quota = first(group + "/cpu.max")
    if quota is None:
        parts = [first(group + "/cpu/cpu.cfs_" + name) or "?" for name in ("quota_us", "period_us")]
        quota = " ".join(parts)
    return {
        "pid": os.getpid(),
        "status": status,
        "groups": os.getgroups(),
        "mounts": mounts,
        "interfaces": interfaces,
        "routes": routes,
        "limits": limits,
        "devices": sorted(os.listdir("/dev")),
        "environment": sorted(os.environ),
        "pids_max": first(group + "/pids.max", group + "/pids/pids.max"),
        "memory_max": first(group + "/memory.max", group + "/memory/memory.limit_in_bytes"),
        "swap_max": first(group + "/memory.swap.max"),
        "memsw_max": first(group + "/memory/memory.memsw.limit_in_bytes"),
        "swap_total": swap[0] if swap else None,
        "cpu": quota,
        "root_writable": can_create(""),
        "workspace_writable": can_create(WORKSPACE),
        "socket_dir": os.path.isdir(GATEWAY),
        "socket_dir_writable": can_create(GATEWAY),
        "sockets": {name: connects(GATEWAY + "/" + name) for name in sockets},
    }
