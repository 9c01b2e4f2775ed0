"""What is known of one target: whether it is well, and how fast it answers.

A breaker keeps calls away from a target that does not answer. It is *closed* as long as all is
well; it *opens* on failures; when it has been open for a while one call may try, and its answer
closes the breaker again (M. Nygard, Release It!, chapter on stability patterns).
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import Final

IN_A_ROW: Final = 5
"""Failures one after the other that open the breaker."""
RECENT: Final = 20
"""Outcomes that are looked back at; the breaker opens when half of them failed …"""
RECENT_MS: Final = 60_000
"""… and all of them are from this span."""
COOL_DOWN_MS: Final = 10_000
"""How long an open breaker waits before one call may try; doubled by every try that fails …"""
LONGEST_COOL_DOWN_MS: Final = 300_000
"""… up to this."""
SMOOTHING: Final = 0.3
"""Weight of the newest answer in the average time to the first token."""
STALE_MS: Final = 60_000
"""A time measured longer ago than this says nothing about now: the next one replaces it."""


class State(StrEnum):
    """Of a breaker. `half_open`: one call may try."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Health:
    """One target's breaker and speed. Whoever tries a target says afterwards what came of it."""

    __slots__ = (
        "_cool_down",
        "_in_a_row",
        "_open_until",
        "_probe_until",
        "_recent",
        "explored_at",
        "first_token_ms",
        "last_failure",
        "measured_at",
    )

    def __init__(self) -> None:
        self._recent: deque[tuple[int, bool]] = deque(maxlen=RECENT)
        self._in_a_row = 0
        self._cool_down = COOL_DOWN_MS
        self._open_until: int | None = None
        self._probe_until: int | None = None
        self.last_failure = ""
        self.first_token_ms: float | None = None
        """Exponentially weighted average; None: never measured."""
        self.measured_at = 0
        self.explored_at: int | None = None
        """When a call was last sent here in order to measure."""

    def state(self, now: int) -> State:
        """Of the breaker, now."""
        if self._open_until is None:
            return State.CLOSED
        # A clock that was set back does not prolong anything.
        waits = self._open_until - self._cool_down <= now < self._open_until
        return State.OPEN if waits else State.HALF_OPEN

    def rests_ms(self, now: int) -> int:
        """How long the breaker stays open; 0 when a call may try."""
        if self._open_until is None or self.state(now) is not State.OPEN:
            return 0
        return self._open_until - now

    def claim(self, now: int, for_ms: int) -> bool:
        """May this call be the one that tries? Then nobody else may before it has said what came
        of it, or `for_ms` have passed."""
        if self._probe_until is not None and self._probe_until - for_ms <= now < self._probe_until:
            return False
        self._probe_until = now + for_ms
        return True

    def unclaim(self) -> None:
        """The call that was to try came to no end that says anything."""
        self._probe_until = None

    def answered(self, now: int, first_token_ms: int, *, probe: bool) -> None:
        """It answered. An open breaker is closed by its probe only: other calls began before."""
        self._measure(now, first_token_ms)
        if probe:
            self._close()
        else:
            self._in_a_row = 0
            self._recent.append((now, True))

    def refused(self, *, probe: bool) -> None:
        """It refused the request as such. That is the caller's fault, and a sign of life."""
        if probe:
            self._close()

    def failed(self, now: int, why: str, *, probe: bool, unusable: bool) -> None:
        """It did not answer. `unusable`: nor will it for anybody (no such model, no valid key)."""
        self.last_failure = why
        if self._open_until is not None:
            if probe:
                self._probe_until = None
                # A try in the last resort, before its time, makes nothing worse.
                if self.state(now) is State.HALF_OPEN:
                    self._open(now, min(2 * self._cool_down, LONGEST_COOL_DOWN_MS))
            return
        self._in_a_row += 1
        self._recent.append((now, False))
        if unusable or self._in_a_row >= IN_A_ROW or self._half_failed(now):
            self._open(now, COOL_DOWN_MS)

    def _half_failed(self, now: int) -> bool:
        if len(self._recent) < RECENT or self._recent[0][0] < now - RECENT_MS:
            return False
        return 2 * sum(not well for _, well in self._recent) >= RECENT

    def _open(self, now: int, cool_down: int) -> None:
        self._cool_down = cool_down
        self._open_until = now + cool_down

    def _close(self) -> None:
        self._open_until = self._probe_until = None
        self._in_a_row = 0
        self._recent.clear()

    def _measure(self, now: int, first_token_ms: int) -> None:
        if self.first_token_ms is None or now - self.measured_at > STALE_MS:
            self.first_token_ms = float(first_token_ms)
        else:
            self.first_token_ms += SMOOTHING * (first_token_ms - self.first_token_ms)
        self.measured_at = now
