"""Rollouts: open what the watched branch newly asks for, and move what is open.

The deciding is in `rollout.advance` (pure). Here the facts are gathered, and what it asks for is
carried out in the same transaction that stores the new state: there is no moment at which the
decision is known and the pointer is not flipped, or the other way round.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from gateway.database import Transaction
from gateway.values import (
    AgentName,
    Millis,
    Purpose,
    ReleaseDigest,
    canonical_json,
    derived_id,
)
from reconciler.gates.live import judge_run
from reconciler.record import audit
from reconciler.release import parse_document, run_spec
from reconciler.rollout import store
from reconciler.rollout.advance import advance
from reconciler.rollout.model import (
    Action,
    CanaryReading,
    CloseCanary,
    Facts,
    GateReading,
    HardStop,
    OpenCanary,
    Promote,
    RollBack,
    Rollout,
    StartEvals,
    State,
    Verdict,
    WriteReceipt,
)
from reconciler.source.errors import SourceError
from reconciler.tick import evals
from reconciler.tick.ceilings import publish_ceilings
from reconciler.tick.context import Context, Declared
from reconciler.tick.declare import rollout_policy
from reconciler.tick.evaluation import evaluation_of, remember_sentinels
from reconciler.tick.judging import declared_for
from reconciler.tick.renames import names_of
from runner import queue
from runner.spec import RunOutcome, RunSpec

ACTOR = "interlock"


AT_ONCE = 200
"""Rollouts that are opened in one transaction: nobody else can write while it lasts."""


def open_new(context: Context, declared: Declared, look: Collection[AgentName] | None) -> int:
    """A rollout for every agent whose declared release is not live yet; returns how many.

    `look` are the agents to which something happened since this was asked before, None everyone.
    An agent that wants no rollout now wants none before its declaration, its pointer, a rollout of
    its own or the quarantine of its release changes, and the audit tells of each.
    """
    now = context.clock.now()
    with context.database.snapshot() as tx:
        candidates = _not_live(tx, declared, look)
    opened = 0
    for start in range(0, len(candidates), AT_ONCE):
        with context.database.transaction() as tx:
            fresh = [
                rollout
                for agent in candidates[start : start + AT_ONCE]
                if (rollout := _wanted_rollout(tx, declared, agent, now)) is not None
            ]
            for rollout in fresh:
                store.save(tx, rollout)
                audit.append(
                    tx,
                    now=now,
                    actor=ACTOR,
                    action="rollout.open",
                    agent=rollout.agent,
                    subject=rollout.id,
                    reason=f"{rollout.stable or 'nothing'} → {rollout.candidate}",
                )
            # What the gate needs is admitted together with the rollout that asks for it.
            publish_ceilings(tx, declared, [rollout.agent for rollout in fresh])
        opened += len(fresh)
    return opened


def _not_live(
    tx: Transaction, declared: Declared, look: Collection[AgentName] | None
) -> list[AgentName]:
    """Agents among `look` whose declared release is not stable, by name."""
    if look is None:
        rows = tx.read("SELECT agent, stable FROM pointers")
        stable = {row["agent"]: row["stable"] for row in rows}
        names: Collection[AgentName] = declared.releases.keys()
    else:
        names = [agent for agent in look if agent in declared.releases]
        found = {agent: store.pointer(tx, agent) for agent in names}
        stable = {agent: row["stable"] for agent, row in found.items() if row is not None}
    return sorted(n for n in names if declared.releases[n].digest != stable.get(n))


def _wanted_rollout(
    tx: Transaction, declared: Declared, agent: AgentName, now: Millis
) -> Rollout | None:
    release = declared.releases[agent]
    pointer = store.pointer(tx, agent)
    stable = pointer["stable"] if pointer else None
    if release.digest == stable or store.quarantined(tx, release.digest):
        return None
    config = declared.fleet.agents[agent]
    policy = rollout_policy(config)
    suite = config.suite.digest if policy.gate is not None and config.suite is not None else ""
    earlier = store.of_agent(tx, agent)
    if any(not r.final and r.pull is None for r in earlier):
        return None  # an open canary finishes first; the newest waits in this one slot
    same = [
        r for r in earlier if (r.candidate, r.stable, r.suite) == (release.digest, stable, suite)
    ]
    if any(r.state is State.REJECTED for r in same):
        return None  # never gated again from scratch: a second throw of the dice is not evidence
    held = next((r for r in same if r.verdict is Verdict.HOLD), None)
    # Judged as a pull request's head, by the same policy: that verdict counts, and is not bought
    # a second time.
    judged = next(
        (r for r in same if r.state is State.JUDGED and r.policy.gate == policy.gate), None
    )
    passed = judged if held is None and judged is not None else None
    return Rollout(
        id=derived_id("rollout", agent, release.digest, stable or "", suite, len(same)),
        agent=agent,
        candidate=release.digest,
        stable=stable,
        anchor=pointer["anchor"] if pointer else None,
        policy=policy,
        suite=suite,
        commit=declared.commit,
        state=State.HELD if held else State.EVALUATING,
        look=policy.gate.looks[0] if policy.gate is not None else 0,
        reason=_opened(held, passed),
        opened_at=now,
        since=now,
        verdict=Verdict.HOLD if held else passed.verdict if passed else None,
    )


def _opened(held: Rollout | None, passed: Rollout | None) -> str:
    if held is not None:
        return f"held before as {held.id}: {held.reason}"
    if passed is not None:
        return f"gate passed on pull request #{passed.pull}: {passed.reason}"
    return "opened"


def move(context: Context, declared: Declared | None, look: Collection[AgentName] | None) -> int:
    """Advance every open rollout once; returns how many came to another state or look.

    Those that wait for a person or for git are looked at when something happened to their agent
    (`look`, None: everyone): neither time nor runs move them.
    """
    with context.database.snapshot() as tx:
        if look is None:
            rollouts = store.open_rollouts(tx)
        else:
            rollouts = store.active_rollouts(tx)
            active = {rollout.id for rollout in rollouts}
            for agent in sorted(look):
                rollouts += [r for r in store.open_of_agent(tx, agent) if r.id not in active]
    moved = 0
    for rollout in rollouts:
        if rollout.pull is not None and (
            context.pulls_mark is None or rollout.pull in context.pulls_unread
        ):
            continue  # nobody has looked at the pull request, so nobody knows what it is about
        try:
            moved += move_one(context, declared, rollout)
        except (SourceError, LookupError, ValueError, OSError) as error:
            # One agent's suite must not keep the others from being looked at.
            context.problems.append(f"{rollout.agent}: {rollout.id} cannot go on: {error}")
    return moved


def move_one(
    context: Context, declared: Declared | None, rollout: Rollout, *, resumed_by: str | None = None
) -> bool:
    """Gather facts, decide, and carry out; True when it came to another state or look."""
    declared = declared_for(context, declared, rollout)
    evaluation = evaluation_of(context, declared, rollout)
    now = context.clock.now()
    with context.database.transaction() as tx:
        current = store.of_agent(tx, rollout.agent)
        fresh = next((r for r in current if r.id == rollout.id), None)
        if fresh is None or fresh.final:
            return False
        facts = _facts(context, tx, declared, fresh, evaluation, resumed_by, now)
        after, actions = advance(fresh, facts, now)
        for action in actions:
            _carry_out(context, tx, after, action, now)
        if after != fresh:
            store.save(tx, after)
            if after.state is not fresh.state:
                audit.append(
                    tx,
                    now=now,
                    actor=resumed_by or ACTOR,
                    action=f"rollout.{after.state}",
                    agent=after.agent,
                    subject=after.id,
                    reason=after.reason,
                )
                if after.final or after.state is State.HELD:
                    evals.withdraw(tx, after.id)
    for action in actions:
        if isinstance(action, StartEvals) and declared is not None and evaluation is not None:
            assert after.policy.gate is not None
            evals.start(context, declared, evaluation, after.policy.gate, action.attempts)
    return (after.state, after.look) != (fresh.state, fresh.look)


def _facts(
    context: Context,
    tx: Transaction,
    declared: Declared | None,
    rollout: Rollout,
    evaluation: evals.Evaluation | None,
    resumed_by: str | None,
    now: Millis,
) -> Facts:
    release = declared.releases.get(rollout.agent) if declared else None
    gate: GateReading | None = None
    suite_changed = False
    if declared and rollout.agent in declared.releases and rollout.policy.gate is not None:
        suite = declared.fleet.agents[rollout.agent].suite
        suite_changed = (suite.digest if suite else "") != rollout.suite
    if (
        rollout.state is State.EVALUATING
        and evaluation is not None
        and rollout.policy.gate is not None
    ):
        reading = evals.read(context, tx, evaluation, rollout.policy.gate, rollout.look)
        gate = GateReading(reading.decision, reading.summary, reading.document())  # type: ignore[arg-type]
        if declared is not None:
            remember_sentinels(tx, rollout, declared, reading, now)
    return Facts(
        desired=release.digest if release else None,
        suite_changed=suite_changed,
        quarantined=store.quarantined(tx, rollout.candidate) is not None,
        holds=store.holds(tx, now),
        gate=gate,
        canary=canary_reading(tx, rollout, now),
        resumed_by=resumed_by,
    )


def canary_reading(tx: Transaction, rollout: Rollout, now: Millis) -> CanaryReading:
    """The candidate's runs of this rollout against stable's record from before the canary."""
    before = rollout.since if rollout.state is State.CANARY else now
    stable = [
        row
        for name in names_of(tx, rollout.agent)
        for row in tx.read(
            "SELECT outcome FROM runs WHERE agent = :agent AND release = :stable"
            " AND purpose = 'live' AND status = 'finished' AND finished_at <= :before",
            agent=name,
            stable=rollout.stable,
            before=before,
        )
    ]
    words = [judge_run(RunOutcome.model_validate_json(row["outcome"])).word for row in stable]
    return replace(
        canary_runs(tx, rollout.id),
        stable_fails=words.count("bad"),
        stable_passes=words.count("good"),
    )


def canary_runs(tx: Transaction, rollout: str) -> CanaryReading:
    """What the candidate's live runs of this rollout say; stable's record is left at nothing."""
    candidate = tx.read(
        "SELECT run, status, outcome FROM runs WHERE rollout = :id AND purpose = 'live'"
        " ORDER BY created_at, run",
        id=rollout,
    )
    graded = fails = open_runs = silent = 0
    stops: list[HardStop] = []
    for row in candidate:
        if row["status"] != "finished":
            open_runs += 1
            continue
        verdict = judge_run(RunOutcome.model_validate_json(row["outcome"]))
        if verdict.hard_stop is not None:
            stops.append(HardStop(row["run"], verdict.hard_stop, verdict.detail))
        graded += verdict.word is not None
        silent += verdict.word is None
        fails += verdict.word == "bad"
    return CanaryReading(
        assigned=len(candidate),
        graded=graded,
        fails=fails,
        open_runs=open_runs,
        silent=silent,
        stable_fails=0,
        stable_passes=0,
        hard_stops=tuple(stops),
    )


def _carry_out(
    context: Context, tx: Transaction, rollout: Rollout, action: Action, now: Millis
) -> None:
    match action:
        case OpenCanary():
            store.open_canary(tx, rollout, now)
        case CloseCanary():
            store.close_canary(tx, rollout, now)
        case Promote(anchor=anchor):
            store.promote(tx, rollout, anchor=anchor, now=now)
        case RollBack(reason=reason, stop_runs=stop):
            store.roll_back(tx, rollout, reason=reason, stop_runs=stop, actor=ACTOR, now=now)
            reassign_waiting(tx, rollout.agent, rollout.candidate, rollout.stable)
        case WriteReceipt(kind=kind, document=document):
            body = {
                "format": "interlock.receipt/1",
                "kind": kind,
                "rollout": rollout.id,
                "agent": rollout.agent,
                "candidate": rollout.candidate,
                "stable": rollout.stable,
                "anchor": rollout.anchor,
                "suite": rollout.suite,
                "policy": rollout.policy.model_dump(mode="json"),
                "look": rollout.look,
                "state": str(rollout.state),
                "decided_at": now,
                "evidence": document,
            }
            tx.execute(
                "INSERT INTO receipts (receipt, rollout, kind, document, at) VALUES"
                " (:receipt, :rollout, :kind, :document, :now) ON CONFLICT DO NOTHING",
                receipt=derived_id("receipt", rollout.id, kind, rollout.state, now),
                rollout=rollout.id,
                kind=kind,
                document=canonical_json(body).decode(),
                now=now,
            )
        case StartEvals():
            pass  # enqueued after the commit: laying out files must not hold the write lock


def last_notes(tx: Transaction, agent: str) -> str:
    """What the agent's newest run left for the next one; none of a release that did harm."""
    row = tx.one(
        "SELECT outcome FROM runs WHERE agent = :agent AND purpose = 'live'"
        " AND status = 'finished' AND release NOT IN (SELECT digest FROM quarantine)"
        " ORDER BY finished_at DESC, run LIMIT 1",
        agent=agent,
    )
    return RunOutcome.model_validate_json(row["outcome"]).notes if row else ""


def closed(rollout: Rollout, state: State, reason: str, now: Millis) -> Rollout:
    """The rollout ended by a person's decision instead of by `advance`."""
    return replace(rollout, state=state, reason=reason, since=now)


def reopened(rollout: Rollout, lost: int, actor: str, now: Millis) -> Rollout:
    """A gate held for lost attempts goes on: as many again may be lost, and no verdict stands."""
    gate = rollout.policy.gate
    if gate is None:
        return rollout
    allowed = gate.model_copy(update={"max_errors": gate.max_errors + lost})
    return replace(
        rollout,
        state=State.EVALUATING,
        verdict=None,
        policy=rollout.policy.model_copy(update={"gate": allowed}),
        reason=f"resumed by {actor}: {lost} lost attempts are made again",
        since=now,
    )


def reassign_waiting(tx: Transaction, agent: str, bad: str, stable: str | None) -> int:
    """Give runs that wait with a withdrawn release the stable one; returns how many.

    Without a stable release that may be assigned they are ended: a withdrawn one never runs.
    """
    row = tx.one("SELECT document FROM releases WHERE digest = :digest", digest=stable or "")
    if row is None or store.quarantined(tx, stable or "") is not None:
        return queue.kill_waiting(
            tx, agent=AgentName(agent), release=ReleaseDigest(bad), reason=f"{bad} was withdrawn"
        )
    release = parse_document(row["document"])
    waiting = queue.waiting(tx, agent=AgentName(agent), release=ReleaseDigest(bad))
    for item in waiting:
        old = RunSpec.model_validate_json(item["spec"])
        queue.reassign(
            tx,
            item["run"],
            run_spec(
                release,
                agent=old.agent,
                team=old.team,
                purpose=Purpose.LIVE,
                occurrence=old.occurrence,
                input=old.input,
                workspace=old.workspace,
                notes=last_notes(tx, agent),
                tags=old.tags,
            ),
        )
        tx.execute(
            "UPDATE claims SET release = :release WHERE run = :run",
            release=release.digest,
            run=item["run"],
        )
    return len(waiting)
