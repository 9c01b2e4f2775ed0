"""Alerts: what a person should hear of, once."""

from __future__ import annotations

from gateway.database import Transaction
from gateway.values import Millis, derived_id


def alert(
    tx: Transaction,
    *,
    kind: str,
    agent: str | None,
    identity: tuple[str | int, ...],
    text: str,
    now: Millis,
) -> None:
    """Record an alert once: the same identity is never recorded twice."""
    tx.execute(
        "INSERT INTO alerts (id, at, kind, agent, text) VALUES (:id, :at, :kind, :agent, :text)"
        " ON CONFLICT (id) DO NOTHING",
        id=derived_id("alert", kind, *identity),
        at=now,
        kind=kind,
        agent=agent,
        text=text,
    )
