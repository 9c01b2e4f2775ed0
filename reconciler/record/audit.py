"""Who did what, when and why: an append-only chain of hashes.

Each row's hash covers the row and the hash before it, so a line that is changed or left out later
breaks every line after it. The chain is exported to `audit/YYYY-MM.jsonl` as it stands.
"""

from __future__ import annotations

import hashlib

from gateway.database import Row, Transaction
from gateway.values import AgentName, Json, Millis, canonical_json
from reconciler.record.calendar import DAY_MS, day_start, month

GENESIS = "0" * 64


def append(
    tx: Transaction,
    *,
    now: Millis,
    actor: str,
    action: str,
    subject: str,
    reason: str,
    agent: str | None = None,
) -> None:
    """Add one line, in the transaction of the deed itself: no deed without its line."""
    last = tx.one("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
    seq, previous = (last["seq"] + 1, last["hash"]) if last else (1, GENESIS)
    row: Row = {
        "seq": seq,
        "at": now,
        "actor": actor,
        "action": action,
        "agent": agent,
        "subject": subject,
        "reason": reason,
        "previous": previous,
    }
    insert(tx, {**row, "hash": row_hash(row)})


def insert(tx: Transaction, row: Row) -> None:
    """A line as it stands, hash included: `append`'s last step, and how a record is read back."""
    tx.execute(
        "INSERT INTO audit (seq, at, actor, action, agent, subject, reason, previous, hash)"
        " VALUES (:seq, :at, :actor, :action, :agent, :subject, :reason, :previous, :hash)",
        **row,
    )


def row_hash(row: Row) -> str:
    """SHA-256 over the canonical form of everything in the row but its own hash."""
    body: Json = {
        name: row[name]
        for name in ("seq", "at", "actor", "action", "agent", "subject", "reason", "previous")
    }
    return hashlib.sha256(canonical_json(body)).hexdigest()


def last_seq(tx: Transaction) -> int:
    """The newest line's number; 0 when there is none."""
    row = tx.one("SELECT coalesce(max(seq), 0) AS seq FROM audit")
    return int(row["seq"]) if row else 0


def agents_since(tx: Transaction, after: int) -> frozenset[AgentName]:
    """Every agent that a line after seq `after` is about; `*` where one is about all of them."""
    rows = tx.read(
        "SELECT DISTINCT agent FROM audit WHERE seq > :after AND agent IS NOT NULL", after=after
    )
    return frozenset(AgentName(row["agent"]) for row in rows)


def months(tx: Transaction, *, after: int) -> dict[str, bytes]:
    """`audit/YYYY-MM.jsonl` of every month that got a line after seq `after`, whole files.

    A line lies in the month of its own time; within a file lines are in order of seq.
    """
    changed = {
        month(row["at"]) for row in tx.read("SELECT at FROM audit WHERE seq > :after", after=after)
    }
    files: dict[str, bytes] = {}
    for name in sorted(changed):
        start = day_start(f"{name}-01")
        rows = tx.read(
            "SELECT * FROM audit WHERE at >= :start AND at < :end ORDER BY seq",
            start=start,
            end=start + 32 * DAY_MS,
        )
        lines = [canonical_json(row) + b"\n" for row in rows if month(row["at"]) == name]
        files[f"audit/{name}.jsonl"] = b"".join(lines)
    return files


def first_break(rows: list[Row]) -> int | None:
    """The seq of the first line that does not follow from the one before it; None when whole."""
    previous = GENESIS
    for expected, row in enumerate(rows, start=1):
        if row["seq"] != expected or row["previous"] != previous or row["hash"] != row_hash(row):
            return expected
        previous = row["hash"]
    return None
