"""Reading the ledger, for everyone: of one call, and of one run."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.database import Database, Row, Transaction
from gateway.values import CallKey, Label, RunId


def attempts(tx: Database | Transaction, key: CallKey) -> list[Row]:
    """All attempts of a call, oldest first."""
    return tx.read(
        "SELECT * FROM calls WHERE run = :run AND step = :step AND call = :call ORDER BY attempt",
        run=key.run,
        step=key.step,
        call=key.call,
    )


def run_label(tx: Transaction, run: RunId) -> Label:
    """The join of the labels of everything that was settled for this run."""
    joined = Label()
    for row in tx.read(
        "SELECT DISTINCT label FROM calls WHERE run = :run AND state = 'settled'", run=run
    ):
        joined = joined.join(Label.parse(row["label"]))
    return joined


def of_run(tx: Transaction, run: RunId) -> list[Row]:
    """Every attempt of a run that was sent or may have been, in order, by whatever way it came:
    the runner's own calls, and those of commands in the container through the run's socket."""
    return tx.read(
        "SELECT * FROM calls WHERE run = :run AND state <> 'released'"
        " ORDER BY reserved_at, step, call, attempt",
        run=run,
    )


def summary(rows: Sequence[Row]) -> tuple[int, int, int]:
    """(nano-dollars, input tokens, output tokens) of all attempts of one call."""
    return (
        sum(row["cost_nano"] or 0 for row in rows),
        sum(row["input_tokens"] or 0 for row in rows),
        sum(row["output_tokens"] or 0 for row in rows),
    )
