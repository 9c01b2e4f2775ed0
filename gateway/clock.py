"""The machine's clock: the one place of the whole program that asks the system for the time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.values import Clock, Millis

OFFSET = "INTERLOCK_CLOCK_OFFSET"


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's clock, moved by `offset` milliseconds.

    The offset is for demonstrations and tests (INTERLOCK_CLOCK_OFFSET, in seconds): all processes
    of one state directory must be given the same.
    """

    offset: int = 0

    def now(self) -> Millis:
        """Milliseconds since the epoch, UTC."""
        return Millis(time.time_ns() // 1_000_000 + self.offset)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Clock:
        """The clock every process of this program uses. ValueError for a strange offset."""
        return cls(int(environment.get(OFFSET, "0")) * 1000)
