"""The machine's clock: the only place of the reconciler that asks the system for the time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.values import Clock, Millis


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's clock, moved by `offset` milliseconds.

    The offset is for demonstrations and tests (INTERLOCK_CLOCK_OFFSET, seconds): all processes of
    one state directory must be given the same.
    """

    offset: int = 0

    def now(self) -> Millis:
        """Milliseconds since the epoch, UTC."""
        return Millis(time.time_ns() // 1_000_000 + self.offset)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Clock:
        """The clock every process of this program uses."""
        return cls(int(environment.get("INTERLOCK_CLOCK_OFFSET", "0")) * 1000)
