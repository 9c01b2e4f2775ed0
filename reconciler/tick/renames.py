"""An agent under another name: what is live of it goes with it, and so does what was decided.

Runs, calls and lines of the audit stay under the name they happened under: they are history, and
reports of them stand in git. What is in force, and what keeps something from being in force, is
looked up by name and moves.
"""

from __future__ import annotations

from gateway.database import Transaction
from gateway.values import AgentName, Millis
from reconciler.approvals import store as approvals
from reconciler.record import audit

MOVING = ("pointers", "rollouts", "schedules", "holds", "stops", "quarantine")
"""Tables of what holds for an agent, by its name in the column `agent`."""


def rename(tx: Transaction, old: AgentName, new: AgentName, *, now: Millis) -> None:
    """Everything that holds for `old` holds for `new`; of `old` nothing is left in force."""
    for table in MOVING:
        tx.execute(
            f"UPDATE {table} SET agent = :new WHERE agent = :old",  # noqa: S608 - our constants
            new=new,
            old=old,
        )
    approvals.take_out_of_force(tx, approvals.AGENT + old)
    for agent in (old, new):
        audit.append(
            tx,
            now=now,
            actor="interlock",
            action="agent.renamed",
            agent=agent,
            subject=new,
            reason=f"formerly {old}",
        )


def names_of(tx: Transaction, agent: str) -> tuple[str, ...]:
    """The agent's name and those it had, the newest first: its runs are under all of them."""
    found = [agent]
    while True:
        row = tx.one(
            "SELECT reason FROM audit WHERE action = 'agent.renamed' AND agent = :agent"
            " AND subject = :agent ORDER BY seq DESC LIMIT 1",
            agent=found[-1],
        )
        former = str(row["reason"]).removeprefix("formerly ") if row is not None else ""
        if not former or former in found:
            return tuple(found)
        found.append(former)
