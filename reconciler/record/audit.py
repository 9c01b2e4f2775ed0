"""Who did what, when and why: an append-only chain of hashes.

Each row's hash covers the row and the hash before it, so a line that is changed or left out later
breaks every line after it. The chain is exported to `audit/YYYY-MM.jsonl` as it stands.
"""

from __future__ import annotations

import hashlib

from gateway.database import Row, Transaction
from gateway.values import Json, Millis, canonical_json

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
    tx.execute(
        "INSERT INTO audit (seq, at, actor, action, agent, subject, reason, previous, hash)"
        " VALUES (:seq, :at, :actor, :action, :agent, :subject, :reason, :previous, :hash)",
        **row,
        hash=row_hash(row),
    )


def row_hash(row: Row) -> str:
    """SHA-256 over the canonical form of everything in the row but its own hash."""
    body: Json = {
        name: row[name]
        for name in ("seq", "at", "actor", "action", "agent", "subject", "reason", "previous")
    }
    return hashlib.sha256(canonical_json(body)).hexdigest()


def first_break(rows: list[Row]) -> int | None:
    """The seq of the first line that does not follow from the one before it; None when whole."""
    previous = GENESIS
    for expected, row in enumerate(rows, start=1):
        if row["seq"] != expected or row["previous"] != previous or row["hash"] != row_hash(row):
            return expected
        previous = row["hash"]
    return None
