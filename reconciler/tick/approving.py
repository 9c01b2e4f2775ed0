"""One person's yes: whether it counts, kept with its line in the audit.

The one implementation for comments on pull requests and for the command line.
"""

from __future__ import annotations

from collections.abc import Collection

from gateway.database import Transaction
from gateway.values import Millis
from reconciler.approvals import decide, store
from reconciler.forge.people import is_author
from reconciler.plan import Subject
from reconciler.record import audit
from reconciler.tick.force import teams_in_force


def approve(
    tx: Transaction,
    subject: Subject,
    *,
    actor: str,
    reason: str,
    authors: Collection[str],
    head: str,
    pull: int | None,
    now: Millis,
) -> str | None:
    """Keep the yes; or say why the actor may not give it, and keep nothing.

    `pull` None: said on the reconciler's own command line, at the commit `head`. `authors` are
    everybody who made the change. Who decides are the owners in force.
    """
    objection = decide.objection(
        subject,
        actor,
        teams=teams_in_force(tx),
        author=is_author(actor, authors),
        operator=pull is None,
    )
    if objection is not None:
        return objection
    store.approve(tx, subject, actor=actor, reason=reason, pull=pull, head=head, now=now)
    where = f"#{pull} " if pull is not None else ""
    audit.append(
        tx,
        now=now,
        actor=actor,
        action="approve",
        agent=subject.agent,
        subject=store.waiting_id(subject),
        reason=f"{where}{subject.scope}: {subject.told}",
    )
    return None
