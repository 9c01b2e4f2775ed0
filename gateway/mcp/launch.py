"""Starts a stdio tool server with little to break: run as a program, never imported for its work.

`python -I -S launch.py PARENT -- COMMAND…` gives itself limits, sees to it that it dies with the
gateway, and becomes the command. A program of its own, because code between fork and exec of a
process that has threads may hang; only the standard library, because it runs without any other.

What it does not do: hide files. The command runs as the gateway's user and can read what that user
can; a server that is not trusted so far belongs into a container (docs/policies/mcp.md).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys

GIB = 1 << 30
LIMITS = (
    # Not RLIMIT_AS: JavaScript engines reserve far more addresses than they ever use.
    (resource.RLIMIT_DATA, 4 * GIB),
    (resource.RLIMIT_NOFILE, 1024),
    # Counted over all processes of the user: high enough for a busy machine, not for a fork bomb.
    (resource.RLIMIT_NPROC, 4096),
    (resource.RLIMIT_FSIZE, 1 * GIB),
    (resource.RLIMIT_CORE, 0),
    # Seconds of computing over its life; a server that spends them is started again.
    (resource.RLIMIT_CPU, 3600),
)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38


def hide_process() -> None:
    """Close this process's memory and environment to other processes of the same user.

    For the gateway itself: its environment holds every key, and a stdio server runs as its user.
    (As root it protects nothing: run the gateway as somebody else.)
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def main(arguments: list[str]) -> int:
    """Does not return when all goes well. 126: the system refused; 127: no such command."""
    parent, command = int(arguments[0]), arguments[2:]
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 126  # the gateway died before it could be noticed
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    for which, most in LIMITS:
        hard = resource.getrlimit(which)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (value, value))
    os.umask(0o077)
    # uvloop hands on whatever descriptors are inheritable, the gateway's sockets among them.
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  pathlib takes longer to load
        if int(name) > 2:
            with contextlib.suppress(OSError):
                os.close(int(name))
    try:
        os.execvp(command[0], command)  # noqa: S606  the command of the policy
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
    return 127


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
