"""One reconciler per state directory: an advisory lock that the kernel drops when we die."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Busy(Exception):
    """Another reconciler works on this state directory."""


@contextmanager
def sole(state: Path) -> Iterator[None]:
    """Hold the state directory: one reconciler at a time. Raises Busy."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "reconciler.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(
                f"another reconciler works on {state}; wait for it, or use another --state"
            ) from None
        yield


def in_use(state: Path) -> bool:
    """Whether a reconciler holds the state directory now."""
    path = state / "reconciler.lock"
    if not path.exists():
        return False
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
