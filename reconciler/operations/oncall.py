"""The on-call's verbs: take back, hold, stop, resume, run.

Each operation is one transaction with its audit line. `actor` is who did it, as the face that was
used knows them; `reason` is required, because the next person on call will ask.
"""

from __future__ import annotations

from gateway import access
from gateway.database import Database, Row, Transaction
from gateway.values import AgentName, Clock, Millis, Occurrence, derived_id
from reconciler.operations.outcome import Done, Refused
from reconciler.record import audit
from reconciler.rollout import store
from reconciler.rollout.model import Hold, State
from reconciler.tick import assign, evals, rollouts
from reconciler.tick.context import Context
from reconciler.tick.declare import declare
from runner import queue


def rollback(
    database: Database, clock: Clock, agent: str, *, to: str | None, reason: str, actor: str
) -> Done:
    """Take back what is live (or in the canary) now. One transaction; needs no git and no model.

    With a canary open and no `to`, the candidate is taken back: stable is still what it was.
    Otherwise stable goes back to `to`, or to the promoted release before it, and an open rollout is
    cancelled. What is taken back is quarantined, and automatic promotion is held until `resume`.
    Raises Refused when there is nothing to go back to.
    """
    _need_reason(reason)
    now = clock.now()
    with database.transaction() as tx:
        pointer = store.pointer(tx, agent)
        if pointer is None:
            raise Refused(f"{agent} has no release yet; `interlock agents` lists what there is")
        if pointer["rollout"] is not None and to is None:
            rollout = next(r for r in store.of_agent(tx, agent) if r.id == pointer["rollout"])
            store.save(tx, rollouts.closed(rollout, State.ROLLED_BACK, reason, now))
            store.roll_back(tx, rollout, reason=reason, stop_runs=False, actor=actor, now=now)
            rollouts.reassign_waiting(tx, agent, rollout.candidate, rollout.stable)
            bad, target = str(rollout.candidate), str(rollout.stable)
        else:
            bad, target = pointer["stable"], _target(tx, agent, pointer, to)
            _flip(tx, agent, pointer, bad=bad, target=target, reason=reason, actor=actor, now=now)
        audit.append(
            tx,
            now=now,
            actor=actor,
            action="rollback",
            agent=agent,
            subject=str(bad),
            reason=f"{reason} (back to {target})",
        )
    return Done(f"{agent}: {bad} is taken back and quarantined; {target} is assigned now", str(bad))


def _target(tx: Transaction, agent: str, pointer: Row, to: str | None) -> str:
    target = to or _one_before(tx, agent, str(pointer["stable"]))
    if target is None:
        raise Refused(f"{agent} has no other release; use `interlock stop {agent}` or --to")
    known = tx.one(
        "SELECT rollout FROM rollouts WHERE agent = :agent AND candidate = :digest"
        " AND state = 'promoted'",
        agent=agent,
        digest=target,
    )
    if known is None:
        raise Refused(f"{target} was never promoted for {agent}; `interlock status` lists releases")
    barred = store.quarantined(tx, str(target))
    if barred is not None:
        raise Refused(f"{target} is quarantined: {barred['reason']}")
    if target == pointer["stable"]:
        raise Refused(f"{target} is already what {agent} runs on")
    return str(target)


def _one_before(tx: Transaction, agent: str, stable: str) -> str | None:
    """The newest promoted release of the agent that is neither live now nor quarantined."""
    row = tx.one(
        "SELECT candidate FROM rollouts WHERE agent = :agent AND state = 'promoted'"
        " AND candidate <> :stable AND candidate NOT IN (SELECT digest FROM quarantine)"
        " ORDER BY since DESC, rollout LIMIT 1",
        agent=agent,
        stable=stable,
    )
    return str(row["candidate"]) if row else None


def _flip(
    tx: Transaction,
    agent: str,
    pointer: Row,
    *,
    bad: str,
    target: str,
    reason: str,
    actor: str,
    now: Millis,
) -> None:
    tx.execute(
        "UPDATE pointers SET stable = :target, previous = NULL, candidate = NULL, rollout = NULL,"
        " anchor = CASE WHEN anchor = :bad THEN :target ELSE anchor END,"
        " generation = generation + 1, since = :now WHERE agent = :agent",
        target=target,
        bad=bad,
        agent=agent,
        now=now,
    )
    for rollout in store.of_agent(tx, agent):
        if not rollout.final:
            closed = rollouts.closed(rollout, State.CANCELLED, f"rollback by {actor}", now)
            store.save(tx, closed)
            evals.withdraw(tx, closed.id)
    store.quarantine(tx, bad, agent=agent, rollout=None, reason=reason, actor=actor, now=now)
    store.place_hold(
        tx,
        Hold(
            id=derived_id("hold", agent, bad, now),
            agent=agent,
            kind="promotion",
            reason=f"{bad} was rolled back: {reason}",
            actor=actor,
            at=now,
        ),
    )
    for withdrawn in (bad, pointer["candidate"]):
        if withdrawn is not None:
            rollouts.reassign_waiting(tx, agent, str(withdrawn), target)


def hold(
    database: Database,
    clock: Clock,
    agent: str,
    *,
    reason: str,
    actor: str,
    expires_in_ms: int | None = None,
) -> Done:
    """No new run and no promotion of an agent (`*`: all) until `resume` or expiry.

    Runs that are open go on.
    """
    _need_reason(reason)
    now = clock.now()
    with database.transaction() as tx:
        _known(tx, agent)
        for kind in ("assignment", "promotion"):
            store.place_hold(
                tx,
                Hold(
                    id=derived_id("hold", agent, kind, now),
                    agent=agent,
                    kind=kind,
                    reason=reason,
                    actor=actor,
                    at=now,
                    expires_at=Millis(now + expires_in_ms) if expires_in_ms else None,
                ),
            )
        audit.append(
            tx, now=now, actor=actor, action="hold", agent=agent, subject=agent, reason=reason
        )
    return Done(f"{_who(agent)} held: no new runs, no promotions", agent)


def stop(
    database: Database, clock: Clock, agents: tuple[str, ...], *, reason: str, actor: str
) -> Done:
    """Refuse every call of these agents (none given: of all) from now on, and end their runs."""
    _need_reason(reason)
    now = clock.now()
    targets = agents or ("*",)
    ended = 0
    with database.transaction() as tx:
        for agent in targets:
            _known(tx, agent)
            access.stop(tx, agent, reason=reason, actor=actor, now=now)
            ended += queue.kill(
                tx, agent=None if agent == "*" else AgentName(agent), reason=f"stopped: {reason}"
            )
            audit.append(
                tx, now=now, actor=actor, action="stop", agent=agent, subject=agent, reason=reason
            )
    names = ", ".join(_who(agent) for agent in targets)
    return Done(f"{names} stopped: every call is refused; {ended} open runs are being ended", names)


def resume(context: Context, agent: str, *, reason: str, actor: str) -> Done:
    """Lift holds and stops of an agent (`*`: those on the fleet), and let a held rollout go on.

    Going on with a held rollout is a human's decision that the evidence suffices; the audit line
    says whose.
    """
    _need_reason(reason)
    declared = declare(context)
    now = context.clock.now()
    with context.database.transaction() as tx:
        _known(tx, agent)
        lifted = store.lift_holds(tx, agent, actor=actor, now=now)
        unstopped = access.unstop(tx, agent)
        waiting = [
            r
            for r in store.open_rollouts(tx)
            if r.agent == agent and r.state in (State.HELD, State.AWAITING_APPROVAL)
        ]
        if not lifted and not unstopped and not waiting:
            raise Refused(f"{_who(agent)}: no hold, no stop and no held rollout to resume")
        audit.append(
            tx, now=now, actor=actor, action="resume", agent=agent, subject=agent, reason=reason
        )
        again = {r.id: lost for r in waiting if (lost := evals.lost_attempts(tx, r.id))}
        for rollout in waiting:
            if rollout.id in again:
                # Attempts were lost to the environment: resuming has them made again and decides
                # nothing, because there is no evidence yet that could be decided on.
                allowed = rollouts.reopened(rollout, again[rollout.id], actor, now)
                store.save(tx, allowed)
    moved = [
        r.id
        for r in waiting
        if r.id in again or rollouts.move_one(context, declared, r, resumed_by=actor)
    ]
    parts = []
    if lifted:
        parts.append(f"{lifted} hold{'s' * (lifted != 1)} lifted")
    if unstopped:
        parts.append("stop lifted")
    if moved:
        parts.append(f"rollout {moved[0]} goes on")
    return Done(f"{_who(agent)}: " + ", ".join(parts), agent)


def run(context: Context, agent: str, *, text: str, actor: str, token: str) -> Done:
    """Start a live run now, on whatever release is the agent's turn. Raises Refused.

    `token` names the occurrence: the same one twice is one run.
    """
    declared = declare(context)
    if declared is None:
        raise Refused(
            "the config repo has no commit that can be used: "
            + ("; ".join(context.problems) or "run `interlock validate` there")
        )
    if agent not in declared.fleet.agents:
        known = ", ".join(sorted(declared.fleet.agents))
        raise Refused(f"there is no agent {agent!r} at {declared.commit[:12]}; there are: {known}")
    started = assign.start(
        context,
        declared,
        AgentName(agent),
        Occurrence(f"manual:{token}"),
        text=text,
        actor=actor,
    )
    if started.run is None:
        raise Refused(f"{agent}: {started.reason}")
    return Done(f"{agent}: {started.run} on {started.release}", started.run)


def _need_reason(reason: str) -> None:
    if not reason.strip():
        raise Refused("a reason is needed: the next person on call will ask")


def _known(tx: Transaction, agent: str) -> None:
    if agent == "*":
        return
    names = {
        row["agent"]
        for row in tx.read(
            "SELECT agent FROM desired UNION SELECT agent FROM pointers UNION SELECT agent"
            " FROM ceilings WHERE agent LIKE 'user:%' OR agent LIKE 'service:%'"
        )
    }
    if agent not in names:
        known = ", ".join(sorted(names)) or "none has been seen; run `interlock reconcile --once`"
        raise Refused(f"there is no agent {agent!r}; there are: {known}")


def _who(agent: str) -> str:
    return "the fleet" if agent == "*" else agent
