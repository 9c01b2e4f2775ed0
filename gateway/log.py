"""Structured log lines: one JSON object a line on stderr, never a body, a header or a key."""

from __future__ import annotations

import json
import logging
from typing import Any, TextIO

from gateway.live import Finished, LiveCall
from gateway.refusals import Refusal
from gateway.values import Clock


class Log:
    """Writes events. What is logged is named here, so that nothing else can slip in."""

    def __init__(self, clock: Clock, stream: TextIO) -> None:
        self._clock = clock
        self._stream = stream

    def write(self, event: str, **facts: Any) -> None:
        """One line: time (milliseconds), event, facts."""
        line = {"at": self._clock.now(), "event": event, **facts}
        print(json.dumps(line, default=str), file=self._stream, flush=True)

    def answered(self, call: LiveCall, end: Finished) -> None:
        """A call that was answered to a client."""
        self.write(
            "answered",
            call=str(call.key),
            target=call.target,
            cost_nano=end.cost_nano,
            tokens=[end.input_tokens, end.output_tokens],
            replayed=end.replayed,
        )

    def refused(self, call: LiveCall, refusal: Refusal) -> None:
        """A call that was not. A fault of ours is told with its kind and place."""
        fault = None
        if call.fault is not None:
            fault = f"{type(call.fault).__name__} at {place(call.fault)}"
        self.write("refused", call=str(call.key), code=str(refusal.code), fault=fault)


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
        self._log.write("server", level=record.levelname, text=record.getMessage(), fault=kind)
