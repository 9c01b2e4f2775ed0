"""One agent's rollouts over the real store, moved the way a tick moves them, without git or YAML.

Only what a tick gathers and carries out is written anew here, because it is short; deciding,
storing, assigning and queueing are the real rooms.
"""

from __future__ import annotations

from pathlib import Path

from gateway import schema as gateway_schema
from gateway.database import Database, Transaction
from gateway.policy import Grants, Limits
from gateway.values import (
    AgentName,
    Millis,
    Occurrence,
    Purpose,
    ReleaseDigest,
    TeamName,
    derived_id,
)
from reconciler import schema
from reconciler.gates.live import judge_run
from reconciler.rollout import store
from reconciler.rollout.advance import advance
from reconciler.rollout.assignment import Assigned, Pointer, Unassigned, assign
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
    RolloutPolicy,
    State,
)
from runner import queue
from runner.spec import Role, RunOutcome, RunSpec, SandboxSpec

AGENT = AgentName("triage")
MIGRATIONS = (*gateway_schema.MIGRATIONS, *queue.MIGRATIONS, *schema.MIGRATIONS)
HISTORY = (2, 48)
"""Stable's bad and good runs from before the story begins, so that a canary can fire."""


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self, at: int = 1_800_000_000_000) -> None:
        self.at = at

    def now(self) -> Millis:
        """The time it was set to."""
        return Millis(self.at)


def opened(path: Path) -> Database:
    """A database with every table; not synced to disk, as no power fails in these tests."""
    database = Database(path)
    database.migrate(MIGRATIONS)
    database.read("PRAGMA synchronous=OFF")
    return database


def spec(
    release: str,
    occurrence: str,
    *,
    purpose: Purpose = Purpose.LIVE,
    agent: str = AGENT,
) -> RunSpec:
    """The least a run needs."""
    return RunSpec(
        agent=AgentName(agent),
        team=TeamName("platform"),
        release=ReleaseDigest(release),
        purpose=purpose,
        occurrence=Occurrence(occurrence),
        input="go",
        roles={"main": Role(name="main", model="smart", instructions="do", grants=Grants())},
        limits=Limits(),
        sandbox=SandboxSpec(image="sha256:0"),
    )


def rollout_wanted(
    tx: Transaction, desired: str, policy: RolloutPolicy, now: Millis
) -> Rollout | None:
    """A new rollout for what git asks for, when there is to be one."""
    pointer = store.pointer(tx, AGENT)
    stable = pointer["stable"] if pointer else None
    if desired == stable or store.quarantined(tx, desired):
        return None
    earlier = store.of_agent(tx, AGENT)
    same = [r for r in earlier if (r.candidate, r.stable) == (desired, stable)]
    if any(not r.final for r in earlier) or any(r.state is State.REJECTED for r in same):
        return None
    return Rollout(
        id=derived_id("rollout", AGENT, desired, stable or "", len(same)),
        agent=AGENT,
        candidate=ReleaseDigest(desired),
        stable=stable,
        anchor=pointer["anchor"] if pointer else None,
        policy=policy,
        suite="suite",
        commit="c0ffee",
        state=State.EVALUATING,
        look=3,
        reason="opened",
        opened_at=now,
        since=now,
    )


def move_one(
    tx: Transaction,
    rollout: Rollout,
    *,
    desired: str | None,
    gate: GateReading | None,
    now: Millis,
    resumed_by: str | None = None,
) -> Rollout:
    """Facts, decision and deeds of one rollout, in the transaction that is given."""
    facts = Facts(
        desired=ReleaseDigest(desired) if desired else None,
        quarantined=store.quarantined(tx, rollout.candidate) is not None,
        holds=store.holds(tx, now),
        gate=gate if rollout.state is State.EVALUATING else None,
        canary=canary_reading(tx, rollout),
        resumed_by=resumed_by,
    )
    after, actions = advance(rollout, facts, now)
    for action in actions:
        _carry_out(tx, after, action, now)
    if after != rollout:
        store.save(tx, after)
    return after


def _carry_out(tx: Transaction, rollout: Rollout, action: Action, now: Millis) -> None:
    match action:
        case OpenCanary():
            store.open_canary(tx, rollout, now)
        case CloseCanary():
            store.close_canary(tx, rollout, now)
        case Promote(anchor=anchor):
            store.promote(tx, rollout, anchor=anchor, now=now)
        case RollBack(reason=reason, stop_runs=stop):
            store.roll_back(tx, rollout, reason=reason, stop_runs=stop, actor="test", now=now)
            reassign_waiting(tx, rollout.candidate, rollout.stable)
        case _:
            pass  # receipts and evals move nothing


def reassign_waiting(tx: Transaction, bad: str, good: str | None) -> None:
    """Runs that nobody has begun get the other release."""
    if good is None:
        return
    for row in queue.waiting(tx, agent=AGENT, release=ReleaseDigest(bad)):
        queue.reassign(tx, row["run"], spec(good, row["occurrence"]))


def canary_reading(tx: Transaction, rollout: Rollout) -> CanaryReading:
    """The candidate's live runs in this rollout."""
    rows = tx.read(
        "SELECT run, status, outcome FROM runs WHERE rollout = :id AND purpose = 'live'",
        id=rollout.id,
    )
    judged = [
        (row["run"], judge_run(RunOutcome.model_validate_json(row["outcome"])))
        for row in rows
        if row["status"] == "finished"
    ]
    return CanaryReading(
        assigned=len(rows),
        graded=sum(verdict.word is not None for _, verdict in judged),
        fails=sum(verdict.word == "bad" for _, verdict in judged),
        open_runs=len(rows) - len(judged),
        stable_fails=HISTORY[0],
        stable_passes=HISTORY[1],
        hard_stops=tuple(
            HardStop(run, verdict.hard_stop, verdict.detail)
            for run, verdict in judged
            if verdict.hard_stop is not None
        ),
    )


def give(tx: Transaction, occurrence: str, now: Millis) -> Assigned | Unassigned:
    """Assign one occurrence and enqueue its run."""
    row = store.pointer(tx, AGENT)
    pointer = None
    if row is not None:
        count = assigned = 0
        if row["rollout"] is not None:
            rollout = next(r for r in store.of_agent(tx, AGENT) if r.id == row["rollout"])
            count = rollout.policy.canary.count if rollout.policy.canary else 0
            assigned = canary_reading(tx, rollout).assigned
        pointer = Pointer(row["stable"], row["candidate"], row["rollout"], count, assigned)
    barred = {r["digest"] for r in tx.read("SELECT digest FROM quarantine")}
    hold = next(
        (h for h in store.holds(tx, now) if h.kind == "assignment" and h.covers(AGENT, now)), None
    )
    choice = assign(pointer, quarantined=barred, hold=hold)
    if isinstance(choice, Assigned):
        queue.enqueue(
            tx,
            spec(choice.release, occurrence),
            now=now,
            assignment=queue.Assignment(rollout=choice.rollout),
        )
    return choice
