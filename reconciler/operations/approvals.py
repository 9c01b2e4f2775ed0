"""Saying yes or no: to what a change may newly do, and to rollouts that wait for a person.

For the command line; comments on pull requests are `reconciler.tick.comments`. Whether a person's
word counts, and how it is kept, is the same for both: `reconciler.tick.approving`.
"""

from __future__ import annotations

from gateway.database import Transaction
from reconciler.approvals import decide, store
from reconciler.approvals.store import Waiting
from reconciler.operations import Done, Refused
from reconciler.record import audit
from reconciler.rollout import store as rollouts
from reconciler.rollout.model import Rollout, State
from reconciler.tick import approving
from reconciler.tick import rollouts as moving
from reconciler.tick.context import Context
from reconciler.tick.declare import declare
from reconciler.tick.force import teams_in_force


def approve(context: Context, name: str, *, reason: str, actor: str) -> Done:
    """Say yes to what waits under an id that `interlock approvals` shows.

    `wait-…` is something a change may newly do; `rollout-…` a rollout that waits for a person.
    Raises Refused when there is no such thing, or the actor may not.
    """
    _need_reason(reason)
    declared = declare(context)
    now = context.clock.now()
    rollout: Rollout | None = None
    with context.database.transaction() as tx:
        found = _waiting(tx, name)
        if found is not None:
            objection = approving.approve(
                tx,
                found.subject,
                actor=actor,
                reason=reason,
                authors=found.authors,
                head=found.commit,
                pull=None,
                now=now,
            )
            if objection is not None:
                raise Refused(f"{found.subject.scope}: {objection}")
            lacking = decide.lacking(
                found.subject, store.usable(tx, now), teams=teams_in_force(tx), now=now
            )
            if lacking:
                rest = " and ".join(" or ".join(owners) for owners in lacking)
                return Done(f"{found.subject.scope}: approved; still needs {rest}", name)
        else:
            rollout = _rollout(tx, name)
    if rollout is None:
        assert found is not None
        declare(context)  # what was approved comes into force now
        return Done(f"{found.subject.scope}: approved", name)
    if not moving.move_one(context, declared, rollout, resumed_by=actor):
        raise Refused(f"{name} cannot go on now; `interlock status` says what keeps it")
    return Done(f"{rollout.agent}: {name} is approved and goes on", name)


def reject(context: Context, name: str, *, reason: str, actor: str) -> Done:
    """Say no: a rollout that waits is rejected; approvals given so far for a change are void.

    What a rejected change asks for stays out of force until somebody approves it anew. Raises
    Refused when there is nothing of that name.
    """
    _need_reason(reason)
    now = context.clock.now()
    with context.database.transaction() as tx:
        found = _waiting(tx, name)
        if found is not None:
            void = store.void(tx, found.subject.digest)
            scope, agent = found.subject.scope, found.subject.agent
            said = f"{scope}: rejected; {void} approvals are void, what was in force stays"
        else:
            rollout = _rollout(tx, name)
            rollouts.save(tx, moving.closed(rollout, State.REJECTED, f"{actor}: {reason}", now))
            agent = rollout.agent
            said = f"{agent}: {name} is rejected; {rollout.stable or 'nothing'} stays live"
        audit.append(
            tx, now=now, actor=actor, action="reject", agent=agent, subject=name, reason=reason
        )
    return Done(said, name)


def _waiting(tx: Transaction, name: str) -> Waiting | None:
    return next((one for one in store.waiting(tx) if one.id == name), None)


def _rollout(tx: Transaction, name: str) -> Rollout:
    for rollout in rollouts.open_rollouts(tx):
        if rollout.id == name and rollout.state in (State.HELD, State.AWAITING_APPROVAL):
            return rollout
    known = [one.id for one in store.waiting(tx)]
    known += [
        r.id for r in rollouts.open_rollouts(tx) if r.state in (State.HELD, State.AWAITING_APPROVAL)
    ]
    waiting = ", ".join(known) if known else "nothing waits for a person"
    raise Refused(f"there is no {name!r} to decide about; {waiting}")


def _need_reason(reason: str) -> None:
    if not reason.strip():
        raise Refused("a reason is needed: the next person on call will ask")


def listed(context: Context) -> list[Waiting]:
    """What waits for an approval, as of the last look."""
    with context.database.snapshot() as tx:
        return store.waiting(tx)
