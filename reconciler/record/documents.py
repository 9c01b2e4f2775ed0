"""Reports as JSON: the exact rows of one live run, or of one rollout, and back.

The JSON beside a report is not a second telling of it but the rows themselves, so that a fresh
machine has the same run history as the one that is gone (formats interlock.run-report/1 and
interlock.rollout-report/1, docs/formats/run-report.md). Two things are left out: the gateway's raw
responses (the journal has what the agent read of them, redacted) and the release's texts inside a
run's spec (they are in `state/releases`, once).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.database import Row, Transaction
from gateway.values import Millis
from reconciler.record import ledger
from reconciler.record.calendar import month
from runner.redact import Redactor
from runner.spec import RunSpec

RUN = "interlock.run-report/1"
ROLLOUT = "interlock.rollout-report/1"
_REDACT = Redactor()
_JSON = {
    "runs": ("spec", "outcome"),
    "journal": ("body",),
    "rollouts": ("policy",),
    "receipts": ("document",),
}
"""Columns that hold JSON: written as JSON and not as a string of it, so that people can read."""


class ReportError(Exception):
    """A report cannot be read back; the text names the file and what to do."""


def run_path(row: Mapping[str, Any]) -> str:
    """`agents/<agent>/runs/YYYY/MM/<run>`, by the month in which the run ended. No ending."""
    year, _, number = month(row["finished_at"]).partition("-")
    return f"agents/{row['agent']}/runs/{year}/{number}/{row['run']}"


def finished_runs(tx: Transaction, *, since: int = 0) -> list[Row]:
    """Live runs that ended, or whose calls were settled, at or after `since`; oldest first."""
    return tx.read(
        "SELECT * FROM runs WHERE purpose = 'live' AND status = 'finished' AND (finished_at >="
        " :since OR run IN (SELECT run FROM calls WHERE purpose = 'live' AND settled_at >= :since))"
        " ORDER BY finished_at, run",
        since=since,
    )


def of_run(tx: Transaction, row: Row) -> bytes:
    """The JSON report of a finished live run."""
    kept = _opened("runs", {**row, "spec": slim(row["spec"])}, "owner", "lease_until")
    journal = tx.read("SELECT * FROM journal WHERE run = :run ORDER BY seq", run=row["run"])
    calls = tx.read(
        "SELECT * FROM calls WHERE run = :run ORDER BY reserved_at, step, call, attempt",
        run=row["run"],
    )
    return _bytes(
        {
            "format": RUN,
            "run": kept,
            "journal": [_opened("journal", entry, "seq", "run") for entry in journal],
            "calls": [_opened("calls", call, "response", "run") for call in calls],
        }
    )


def slim(spec: str) -> str:
    """A run's spec without the release's texts and this machine's paths; still a RunSpec."""
    full = RunSpec.model_validate_json(spec)
    roles = {
        name: role.model_copy(update={"instructions": "", "skills": ()})
        for name, role in full.roles.items()
    }
    workspace = full.workspace.model_copy(update={"path": None})
    return full.model_copy(update={"roles": roles, "workspace": workspace}).model_dump_json()


def restore_run(tx: Transaction, path: str, body: bytes) -> tuple[str, int]:
    """Put a run's rows back; returns its id and its cost. Raises ReportError."""
    document = _read(path, body, RUN)
    try:
        run = document["run"]["run"]
        _insert(tx, "runs", {**document["run"], "owner": None, "lease_until": None}, path)
        for entry in document["journal"]:
            _insert(tx, "journal", {**entry, "run": run}, path, optional=("seq",))
        for call in document["calls"]:
            _insert(tx, "calls", {**call, "run": run, "response": None}, path)
    except (KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"{path} is not a whole run report: {error!r}") from None
    cost = sum(ledger.cost_of(call) for call in document["calls"])
    return run, cost


def of_rollout(tx: Transaction, row: Row) -> bytes:
    """The JSON report of a rollout: its row, every attempt of its gate, every receipt."""
    attempts = tx.read(
        "SELECT * FROM attempts WHERE rollout = :id ORDER BY arm, case_id, attempt",
        id=row["rollout"],
    )
    receipts = tx.read(
        "SELECT * FROM receipts WHERE rollout = :id ORDER BY at, receipt", id=row["rollout"]
    )
    return _bytes(
        {
            "format": ROLLOUT,
            "rollout": _opened("rollouts", row),
            "attempts": [_opened("attempts", attempt, "rollout") for attempt in attempts],
            "receipts": [_opened("receipts", receipt, "rollout") for receipt in receipts],
        }
    )


def restore_attempts(tx: Transaction, path: str, body: bytes) -> None:
    """Put a closed rollout's attempts back; everything else of it stands in `state/`."""
    document = _read(path, body, ROLLOUT)
    try:
        rollout = document["rollout"]["rollout"]
        if document["rollout"]["closed_at"] is None:
            return  # an open rollout goes on from state/attempts
        for attempt in document["attempts"]:
            _insert(tx, "attempts", {**attempt, "rollout": rollout}, path)
    except (KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"{path} is not a whole rollout report: {error!r}") from None


def rollouts_touched(tx: Transaction, *, since: Millis | int) -> list[Row]:
    """Rollouts that are open, or changed since then, or whose late runs ended since then."""
    return tx.read(
        "SELECT * FROM rollouts WHERE closed_at IS NULL OR since >= :since OR rollout IN"
        " (SELECT rollout FROM runs WHERE purpose = 'live' AND finished_at >= :since"
        " AND rollout IS NOT NULL) ORDER BY opened_at, rollout",
        since=since,
    )


def _bytes(document: dict[str, Any]) -> bytes:
    # The journal was redacted when it was written; a spec's input and a gateway's error text were
    # not, so everything passes once more. Redacting twice changes nothing.
    clean = _REDACT.json(document)
    text = json.dumps(clean, ensure_ascii=False, sort_keys=True, indent=1)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _opened(table: str, row: Row, *without: str) -> dict[str, Any]:
    found: dict[str, Any] = {name: row[name] for name in row if name not in without}
    for name in _JSON.get(table, ()):
        if isinstance(found.get(name), str):
            found[name] = json.loads(found[name])
    return found


def _read(path: str, body: bytes, wanted: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
        found = document.get("format")
    except (ValueError, AttributeError) as error:
        raise ReportError(f"{path} is not a report: {error}") from None
    if found != wanted:
        raise ReportError(
            f"{path} has the format {found!r}; this program reads {wanted!r}. Upgrade Interlock."
        )
    return dict(document)


def _insert(
    tx: Transaction, table: str, row: Row, path: str, *, optional: tuple[str, ...] = ()
) -> None:
    wrong = set(row) ^ (tx.columns(table) - set(optional))
    if wrong:
        raise ReportError(
            f"{path}: columns {sorted(wrong)} are not those of {table}; it was written by another "
            "version of Interlock"
        )
    closed = {
        name: json.dumps(value, ensure_ascii=False, sort_keys=True)
        if name in _JSON.get(table, ()) and value is not None
        else value
        for name, value in row.items()
    }
    tx.execute(
        f"INSERT INTO {table} ({', '.join(closed)})"  # noqa: S608 - columns checked above
        f" VALUES ({', '.join(':' + name for name in closed)})",
        **closed,
    )
