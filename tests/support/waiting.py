"""Waiting for other processes, which tell a test nothing unless it asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(what: str, ready: Callable[[], T | None], seconds: float = 60) -> T:
    """Ask until there is an answer that is true."""
    pause, deadline = threading.Event(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = ready()
        if found:
            return found
        pause.wait(0.02)
    raise AssertionError(f"{what} did not happen within {seconds} s")
