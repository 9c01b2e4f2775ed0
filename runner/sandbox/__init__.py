"""Where a run's commands are executed: one container per run, closed on every side.

The face of the room. Nothing outside it knows Docker.
"""

from runner.sandbox.containers import DockerSandboxes, connect
from runner.sandbox.contract import (
    ExecResult,
    Existing,
    Listing,
    OnceResult,
    PathRefused,
    ProbeFailed,
    Sandbox,
    SandboxConflict,
    SandboxError,
    Sandboxes,
    SandboxLost,
    SandboxUnavailable,
)
from runner.sandbox.hardening import container_name

__all__ = [
    "DockerSandboxes",
    "ExecResult",
    "Existing",
    "Listing",
    "OnceResult",
    "PathRefused",
    "ProbeFailed",
    "Sandbox",
    "SandboxConflict",
    "SandboxError",
    "SandboxLost",
    "SandboxUnavailable",
    "Sandboxes",
    "connect",
    "container_name",
]
