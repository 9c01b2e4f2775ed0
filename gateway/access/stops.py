"""Stops: agents, or the whole fleet, that may not call at all. Deny beats allow."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.access import epoch
from gateway.database import Row, Transaction
from gateway.refusals import Code, Refusal
from gateway.values import Millis


def stop(
    tx: Transaction,
    agent: str,
    *,
    reason: str,
    actor: str,
    now: Millis,
    expires_at: Millis | None = None,
) -> None:
    """Refuse every call of an agent (`*`: of everyone) until `unstop` or expiry.

    Works from the next call on, and cuts running streams.
    """
    epoch.move(tx)
    tx.execute(
        "INSERT INTO stops (agent, reason, actor, at, expires_at)"
        " VALUES (:agent, :reason, :actor, :now, :expires_at) ON CONFLICT (agent) DO UPDATE"
        " SET reason = :reason, actor = :actor, at = :now, expires_at = :expires_at",
        agent=agent,
        reason=reason,
        actor=actor,
        now=now,
        expires_at=expires_at,
    )


def unstop(tx: Transaction, agent: str) -> bool:
    """Lift a stop; False when there was none."""
    epoch.move(tx)
    return tx.execute("DELETE FROM stops WHERE agent = :agent", agent=agent) == 1


def check(stops: Iterable[Row], agent: str, now: Millis) -> None:
    """Raises Refusal (stopped) when one of these rows of `stops` is about the agent now."""
    for stopped in stops:
        if stopped["agent"] not in ("*", agent):
            continue
        if stopped["expires_at"] is None or stopped["expires_at"] > now:
            what = "the fleet" if stopped["agent"] == "*" else f"agent {stopped['agent']}"
            raise Refusal(
                Code.STOPPED,
                f"{what} is stopped by {stopped['actor']}: {stopped['reason']}. "
                "Lift it with `interlock resume`.",
                resets_at=stopped["expires_at"],
            )
