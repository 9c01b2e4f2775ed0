"""From what a run needs to how its container is restricted: one pure function, one place.

Every line here has its counterpart in probe.py, which proves from inside that it is in force.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from gateway.values import RunId
from runner.sandbox.contract import SandboxError
from runner.spec import SandboxSpec

UID = 65534
"""nobody: owns nothing in any image. Every container and every command in it runs as this."""
WORKSPACE = "/workspace"
STEPS = "/run/steps"
GATEWAY = "/run/interlock"
TMP_BYTES = 64 * 1024 * 1024
STEPS_BYTES = 16 * 1024 * 1024
OPEN_FILES = 1024
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_PINNED = re.compile(r"(?:.+@)?sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Shape:
    """What makes one container different from another, besides its labels and name."""

    spec: SandboxSpec
    socket_dir: str | None = None
    """Host directory that holds the run's gateway socket. The directory is bound, not the
    socket: a restarted gateway makes a new socket under the same name."""
    read_only_workspace: bool = False
    runtime: str | None = None
    image_environment: tuple[str, ...] = ()
    """Names of variables that the image itself sets: content, pinned like its files. Steps do
    not see them; they run with `ENVIRONMENT` alone."""


def check_image(image: str) -> str:
    """The image itself when it names content. Raises SandboxError for a tag, which could mean
    something else tomorrow than what the release was tested with."""
    if not _PINNED.fullmatch(image):
        raise SandboxError(
            f"image {image!r} is not pinned: give an image id (sha256:…) or name@sha256:…; "
            "`interlock lock` resolves tags"
        )
    return image


def container_name(run: RunId, suffix: str = "") -> str:
    """`interlock-<run>[-suffix]`. Raises SandboxError for what cannot be a container's name."""
    name = f"interlock-{run}" + (f"-{suffix}" if suffix else "")
    if not _NAME.fullmatch(name):
        raise SandboxError(f"{name!r} cannot be a container's name: letters, digits, . _ - only")
    return name


def host_config(shape: Shape) -> dict[str, Any]:
    """The engine's HostConfig, as keyword arguments of docker-py's `create_host_config`."""
    spec = shape.spec
    owner, mode = (0, "0755") if shape.read_only_workspace else (UID, "0755")
    config: dict[str, Any] = {
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": spec.pids,
        "mem_limit": spec.memory_bytes,
        "memswap_limit": spec.memory_bytes,
        "cpu_period": 100_000,
        "cpu_quota": spec.cpus_milli * 100,
        "ulimits": [
            {"Name": "nofile", "Soft": OPEN_FILES, "Hard": OPEN_FILES},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
        # Nothing is logged: output goes to the runner, or nowhere. A log file on the host would
        # be a disk that the container can fill.
        "log_config": {"type": "none", "config": {}},
        "ipc_mode": "private",
        "shm_size": 16 * 1024 * 1024,
        # No `init`: our own process 1 reaps orphans, and unlike tini it is the one process that
        # matters, so it must be the one that cannot be killed from inside.
        "tmpfs": {
            "/tmp": f"rw,noexec,nosuid,nodev,size={TMP_BYTES},mode=1777",
            STEPS: f"rw,noexec,nosuid,nodev,size={STEPS_BYTES},uid={UID},gid={UID},mode=0700",
            WORKSPACE: f"rw,exec,nosuid,nodev,size={spec.disk_bytes},"
            f"uid={owner},gid={owner},mode={mode}",
        },
    }
    if shape.socket_dir is not None:
        config["binds"] = {shape.socket_dir: {"bind": GATEWAY, "mode": "ro"}}
    if shape.runtime is not None:
        config["runtime"] = shape.runtime
    return config
