"""What this database remembers of the record it last wrote or read: rows of `facts`.

By the remembered head a reconciler knows its own work, and sees when another one has moved the
state. A commit is remembered as *pending* before it is pushed, because a push may arrive although
nobody saw it arrive.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from gateway.database import Transaction
from gateway.values import Millis

HEAD = "reports_head"
_MARK = "reports_mark"
_PENDING = "reports_pending"


@dataclass(frozen=True, slots=True)
class Mark:
    """Up to where the record goes: commit, tick, when, the last audit line, and each agent's
    declaration (a hash) as its page shows it."""

    head: str
    tick: int
    at: Millis
    audit: int
    desired: dict[str, str] = field(default_factory=dict)


def last(tx: Transaction) -> Mark | None:
    """The record this database goes on from; None when it has neither written nor read one."""
    return _get(tx, _MARK)


def pending(tx: Transaction) -> Mark | None:
    """What was about to be pushed last, if nobody has said since what became of it."""
    return _get(tx, _PENDING)


def remember(tx: Transaction, mark: Mark) -> None:
    """This is the record now."""
    _put(tx, HEAD, mark.head)
    _put(tx, _MARK, json.dumps(asdict(mark), sort_keys=True))
    tx.execute("DELETE FROM facts WHERE name = :name", name=_PENDING)


def intend(tx: Transaction, mark: Mark) -> None:
    """This will be the record if the push arrives."""
    _put(tx, _PENDING, json.dumps(asdict(mark), sort_keys=True))


def _get(tx: Transaction, name: str) -> Mark | None:
    row = tx.one("SELECT value FROM facts WHERE name = :name", name=name)
    return Mark(**json.loads(row["value"])) if row else None


def _put(tx: Transaction, name: str, value: str) -> None:
    tx.execute(
        "INSERT INTO facts (name, value) VALUES (:name, :value)"
        " ON CONFLICT (name) DO UPDATE SET value = :value",
        name=name,
        value=value,
    )
