"""The ledger: one row per request attempt that goes through the gateway.

`calls` is the truth for money; the runner's journal is the truth for steps; `CallKey` joins them.
A row is born `reserved`, durable before the request leaves the machine, and ends `settled`,
`released` (not sent, or the other side refused it and did nothing) or `unknown` (sent, answer
lost: charged at worst case). The row format is frozen as interlock.calls/1
(docs/formats/calls.md).
"""

from __future__ import annotations

from gateway.calls.ledger import (
    Ask,
    Settlement,
    alert,
    attempts,
    charge,
    lose,
    of_run,
    recover,
    release,
    reserve,
    run_label,
    settle,
    summary,
)
from gateway.calls.schema import MIGRATIONS, CallState
from gateway.calls.standing import Next, Stored, standing
from gateway.calls.windows import audit
from gateway.calls.windows import read as totals

__all__ = [
    "MIGRATIONS",
    "Ask",
    "CallState",
    "Next",
    "Settlement",
    "Stored",
    "alert",
    "attempts",
    "audit",
    "charge",
    "lose",
    "of_run",
    "recover",
    "release",
    "reserve",
    "run_label",
    "settle",
    "standing",
    "summary",
    "totals",
]
