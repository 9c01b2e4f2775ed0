"""The ledger: one row per request attempt that goes through the gateway.

`calls` is the truth for money; the runner's journal is the truth for steps; `CallKey` joins them.
A row is born `reserved`, durable before the request leaves the machine, and ends `settled`,
`released` (not sent, or the other side refused it and did nothing) or `unknown` (sent, answer
lost: charged at worst case). The row format is frozen as interlock.calls/2
(docs/formats/calls.md).
"""

from __future__ import annotations

from gateway.calls.alerts import alert
from gateway.calls.ledger import Ask, Ledger, Settlement, charge_of, stored
from gateway.calls.reading import attempts, of_run, run_label, summary
from gateway.calls.schema import MIGRATIONS, CallState
from gateway.calls.standing import Next, Stored, standing
from gateway.calls.windows import audit, count_again

__all__ = [
    "MIGRATIONS",
    "Ask",
    "CallState",
    "Ledger",
    "Next",
    "Settlement",
    "Stored",
    "alert",
    "attempts",
    "audit",
    "charge_of",
    "count_again",
    "of_run",
    "run_label",
    "standing",
    "stored",
    "summary",
]
