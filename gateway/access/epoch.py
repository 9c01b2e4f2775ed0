"""A number that moves with every change of what a call may do.

The gateway keeps tokens, stops, policy and ceilings in memory and looks at this number in the
transaction of every reservation: as long as it stands still, what memory says is what is on disk.
Whoever revokes, stops or publishes moves it in the same transaction. A new token moves nothing:
nobody can have looked it up before.
"""

from __future__ import annotations

from gateway.database import Database, Transaction


def move(tx: Transaction) -> None:
    """Say that something has changed."""
    tx.execute("UPDATE access_epoch SET epoch = epoch + 1 WHERE id = 1")


def current(reader: Database | Transaction) -> int:
    """The number now."""
    row = reader.one("SELECT epoch FROM access_epoch WHERE id = 1")
    return int(row["epoch"]) if row is not None else 0
