"""What waits for a person: changes that need an approval, and rollouts that need a decision."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.database import Transaction
from gateway.values import Millis
from reconciler.approvals import store


@dataclass(frozen=True, slots=True)
class WaitingView:
    """One thing to decide. `id` is what `interlock approve` takes.

    `needs` are sets of owners; one of each must say yes. Empty: any operator may (a rollout).
    """

    id: str
    kind: str
    """`change` or `rollout`."""
    scope: str
    what: tuple[str, ...]
    places: tuple[str, ...]
    needs: tuple[tuple[str, ...], ...]
    authors: tuple[str, ...]
    commit: str
    since: Millis


def waiting(tx: Transaction) -> tuple[WaitingView, ...]:
    """Changes first, then rollouts, the oldest first."""
    changes = [
        WaitingView(
            id=one.id,
            kind="change",
            scope=one.subject.scope,
            what=tuple(loosening.text.replace("`", "") for loosening in one.subject.loosenings),
            places=tuple(str(loosening.place) for loosening in one.subject.loosenings),
            needs=one.lacking,
            authors=one.authors,
            commit=one.commit,
            since=one.since,
        )
        for one in store.waiting(tx)
    ]
    rollouts = [
        WaitingView(
            id=row["rollout"],
            kind="rollout",
            scope=f"agent/{row['agent']}",
            what=(row["reason"],),
            places=(),
            needs=(),
            authors=(),
            commit=row["commit_id"],
            since=Millis(row["since"]),
        )
        for row in tx.read(
            "SELECT * FROM rollouts WHERE state IN ('held', 'awaiting_approval')"
            " ORDER BY since, rollout"
        )
    ]
    return (*sorted(changes, key=lambda one: (one.since, one.scope)), *rollouts)
