"""Structured log lines: one JSON object a line on stderr, never a body, a header or a key.

Three things keep secrets out. What may be logged is named here (`EVENTS`): a fact that is not is
left out. No event has a fact for a prompt, an answer, an argument or a header. And every text goes
through a redactor on its way out, which knows the values of the keys this process has used and
the shapes of those it has not.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, TextIO, get_args

from gateway.live import Finished, LiveCall
from gateway.redact import SUSPECTS, Redactor
from gateway.refusals import Code, Refusal
from gateway.values import Clock

Level = Literal["debug", "info", "warning", "error"]
LEVELS: Final[tuple[Level, ...]] = get_args(Level)

ANSWERED_PER_SECOND: Final = 50
"""Lines about answered calls, by default. Refusals and faults are always written."""


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of line: how loud it is, and the facts it may state."""

    level: Level
    facts: frozenset[str]


def _event(level: Level, *facts: str) -> Event:
    return Event(level, frozenset(facts))


EVENTS: Final = {
    "ready": _event("info", "host", "port", "pid"),
    "recovered": _event("warning", "unknown"),
    "answered": _event("info", "call", "target", "cost_nano", "tokens", "replayed", "suppressed"),
    "suppressed": _event("info", "answered"),
    "refused": _event("warning", "call", "code", "path", "fault", "text"),
    "fault": _event("error", "path", "kind", "where"),
    "telemetry": _event("warning", "text"),
    "server": _event("warning", "text", "fault"),
    "stopped": _event("info", "cut"),
}
"""Every line there is; docs/telemetry.md says what they mean."""


class Log:
    """Writes events. Thread-safe; a stream that is gone costs the line and nothing else."""

    def __init__(
        self,
        clock: Clock,
        stream: TextIO,
        *,
        level: Level = "info",
        answered_per_second: int = ANSWERED_PER_SECOND,
    ) -> None:
        self.redactor = Redactor(shapes=SUSPECTS)
        """What cuts secrets out of lines; `gateway.telemetry` uses the same."""
        self._clock = clock
        self._stream = stream
        self._quietest = LEVELS.index(level)
        self._most = answered_per_second
        self._second = 0
        self._written = 0
        self._suppressed = 0
        self._lock = threading.Lock()
        self._encoder = json.JSONEncoder(default=self._text)

    def redact(self, values: Iterable[str]) -> None:
        """These are secrets: from now on no line holds them (8 characters or longer)."""
        self.redactor.learn(values)

    def write(self, event: str, *, level: Level | None = None, **facts: Any) -> None:
        """One line: time (milliseconds), level, event, and the facts that are not None.

        A fact or an event that `EVENTS` does not name is left out, and its name stands in
        `unnamed`. Never raises.
        """
        known = EVENTS.get(event)
        loud = level or (known.level if known else "warning")
        if LEVELS.index(loud) < self._quietest:
            return
        line: dict[str, Any] = {"at": self._clock.now(), "level": loud, "event": event}
        allowed = known.facts if known else frozenset()
        unnamed = [name for name in facts if name not in allowed]
        for name, value in facts.items():
            if value is not None and name in allowed:
                line[name] = value if type(value) in _PLAIN else self.redactor.json(value)
        if unnamed:
            line["unnamed"] = unnamed
        try:
            text = self._encoder.encode(line)
            with self._lock:
                self._stream.write(text + "\n")
                self._stream.flush()
        except (OSError, ValueError):
            # The reader of stderr has gone: calls go on.
            return

    def answered(self, call: LiveCall, end: Finished) -> None:
        """A call that was answered to a client; one of many is as good as all of them."""
        second = self._clock.now() // 1000
        if second != self._second:
            self._second, self._written = second, 0
        if self._written >= self._most:
            self._suppressed += 1
            return
        self._written += 1
        suppressed, self._suppressed = self._suppressed, 0
        self.write(
            "answered",
            call=str(call.key),
            target=call.target,
            cost_nano=end.cost_nano,
            tokens=[end.input_tokens, end.output_tokens],
            replayed=end.replayed,
            suppressed=suppressed or None,
        )

    def refused(self, call: LiveCall, refusal: Refusal) -> None:
        """A call that was not. A fault of ours is told with its kind and place."""
        fault = None
        if call.fault is not None:
            fault = f"{type(call.fault).__name__} at {place(call.fault)}"
        self.write(
            "refused",
            level="error" if refusal.code is Code.INTERNAL_ERROR else None,
            call=str(call.key),
            code=str(refusal.code),
            fault=fault,
        )

    def close(self) -> None:
        """Tell how many answered calls nobody has heard of yet."""
        if self._suppressed:
            suppressed, self._suppressed = self._suppressed, 0
            self.write("suppressed", answered=suppressed)

    def _text(self, value: object) -> str:
        # What JSON does not know becomes text only now, so it has not been looked at yet.
        return self.redactor.text(str(value))


_PLAIN = frozenset({int, bool, float})


def place(error: BaseException) -> str:
    """Where an exception was raised, `file:line`."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"


class LogHandler(logging.Handler):
    """Brings the server library's own messages into the same stream."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Message and, for exceptions, the kind; never the exception's text."""
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        level: Level = "error" if record.levelno >= logging.ERROR else "warning"
        self._log.write("server", level=level, text=record.getMessage(), fault=kind)
