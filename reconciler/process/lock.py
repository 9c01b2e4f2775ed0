"""One reconciler per state directory: an advisory lock that the kernel drops when we die."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

Mode = Literal["job", "service", "other"]
"""`job`: runs need a pushed claim before they begin. `service`: the database is the authority.
`other`: somebody works here who writes no record (an evaluation, a rebuild)."""

PATIENCE_S = 1.0
"""A quick look (`holder`) takes the lock for a moment; that is not another reconciler."""


class Busy(Exception):
    """Another reconciler works on this state directory."""


@contextmanager
def sole(state: Path, mode: Mode = "job") -> Iterator[None]:
    """Hold the state directory: one reconciler at a time. Raises Busy."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "reconciler.lock").open("a+") as lock:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Busy(
                        f"another reconciler works on {state}; wait for it, or use another --state"
                    ) from None
                time.sleep(0.05)
        lock.truncate(0)
        lock.write(mode)
        lock.flush()
        yield


def holder(state: Path) -> Mode | None:
    """How the reconciler that holds the state directory runs; None when nobody holds it."""
    path = state / "reconciler.lock"
    if not path.exists():
        return None
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            said = lock.read().strip()
            return "service" if said == "service" else "job" if said == "job" else "other"
    return None
