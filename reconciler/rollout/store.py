"""Rollouts, pointers, holds and quarantine as rows: the authoritative store in service mode.

Every function takes an open transaction, so that a decision, its pointer flip and its audit line
become durable together or not at all. `promote` and `roll_back` are the two flips; after either
commits, every later assignment reads the new pointer.
"""

from __future__ import annotations

from gateway import access
from gateway.database import Database, Row, Transaction
from gateway.values import AgentName, Millis, ReleaseDigest, derived_id
from reconciler.release import Release, parse_document
from reconciler.rollout.model import FINAL, Hold, Rollout, RolloutPolicy, State, Verdict
from runner import queue


def load(row: Row) -> Rollout:
    """A rollout from its row."""
    return Rollout(
        id=row["rollout"],
        agent=AgentName(row["agent"]),
        candidate=ReleaseDigest(row["candidate"]),
        stable=ReleaseDigest(row["stable"]) if row["stable"] else None,
        anchor=ReleaseDigest(row["anchor"]) if row["anchor"] else None,
        policy=RolloutPolicy.model_validate_json(row["policy"]),
        suite=row["suite"],
        commit=row["commit_id"],
        state=State(row["state"]),
        look=row["look"],
        reason=row["reason"],
        opened_at=Millis(row["opened_at"]),
        since=Millis(row["since"]),
        verdict=Verdict(row["verdict"]) if row["verdict"] else None,
        pull=row["pull"],
    )


def save(tx: Transaction, rollout: Rollout) -> None:
    """Insert or replace the row. A final row never changes again: a late writer loses."""
    tx.execute(
        "INSERT INTO rollouts (rollout, agent, candidate, stable, anchor, state, look, reason,"
        " verdict, policy, suite, commit_id, opened_at, since, closed_at, pull) VALUES (:rollout,"
        " :agent, :candidate, :stable, :anchor, :state, :look, :reason, :verdict, :policy,"
        " :suite, :commit_id, :opened_at, :since, :closed_at, :pull)"
        " ON CONFLICT (rollout) DO UPDATE SET state = :state, look = :look, reason = :reason,"
        " verdict = :verdict, since = :since, closed_at = :closed_at, stable = :stable,"
        " policy = :policy"
        " WHERE rollouts.closed_at IS NULL",
        rollout=rollout.id,
        agent=rollout.agent,
        candidate=rollout.candidate,
        stable=rollout.stable,
        anchor=rollout.anchor,
        state=rollout.state,
        look=rollout.look,
        reason=rollout.reason,
        verdict=rollout.verdict,
        policy=rollout.policy.model_dump_json(),
        suite=rollout.suite,
        commit_id=rollout.commit,
        opened_at=rollout.opened_at,
        since=rollout.since,
        closed_at=rollout.since if rollout.state in FINAL else None,
        pull=rollout.pull,
    )


def open_rollouts(tx: Transaction) -> list[Rollout]:
    """Rollouts that are not final, oldest first."""
    rows = tx.read("SELECT * FROM rollouts WHERE closed_at IS NULL ORDER BY opened_at, rollout")
    return [load(row) for row in rows]


def active_rollouts(tx: Transaction) -> list[Rollout]:
    """Open rollouts that time or runs may move, oldest first; the other open ones wait for a
    person or for git."""
    rows = tx.read(
        "SELECT * FROM rollouts WHERE closed_at IS NULL AND state IN ('evaluating', 'canary')"
        " ORDER BY opened_at, rollout"
    )
    return [load(row) for row in rows]


def open_of_agent(tx: Transaction, agent: str) -> list[Rollout]:
    """Rollouts of an agent that are not final, oldest first."""
    rows = tx.read(
        "SELECT * FROM rollouts WHERE agent = :agent AND closed_at IS NULL"
        " ORDER BY opened_at, rollout",
        agent=agent,
    )
    return [load(row) for row in rows]


def of_agent(tx: Transaction, agent: str) -> list[Rollout]:
    """All rollouts of an agent, newest first."""
    rows = tx.read(
        "SELECT * FROM rollouts WHERE agent = :agent ORDER BY opened_at DESC, rollout", agent=agent
    )
    return [load(row) for row in rows]


def pointer(tx: Transaction, agent: str) -> Row | None:
    """Where an agent's assignments go: stable, previous, anchor, candidate, rollout, generation."""
    return tx.one("SELECT * FROM pointers WHERE agent = :agent", agent=agent)


def quarantined(tx: Transaction, digest: str) -> Row | None:
    """Why a digest may not be assigned by any route; None when it may."""
    return tx.one("SELECT * FROM quarantine WHERE digest = :digest", digest=digest)


def holds(tx: Transaction, now: Millis) -> tuple[Hold, ...]:
    """Holds in force, oldest first."""
    rows = tx.read(
        "SELECT * FROM holds WHERE lifted_at IS NULL AND (expires_at IS NULL OR expires_at > :now)"
        " ORDER BY at, hold",
        now=now,
    )
    return tuple(
        Hold(
            id=row["hold"],
            agent=row["agent"],
            kind=row["kind"],
            reason=row["reason"],
            actor=row["actor"],
            at=Millis(row["at"]),
            expires_at=Millis(row["expires_at"]) if row["expires_at"] is not None else None,
        )
        for row in rows
    )


def place_hold(tx: Transaction, hold: Hold) -> None:
    """Put a hold in force. Idempotent by its id."""
    tx.execute(
        "INSERT INTO holds (hold, agent, kind, reason, actor, at, expires_at)"
        " VALUES (:hold, :agent, :kind, :reason, :actor, :at, :expires_at) ON CONFLICT DO NOTHING",
        hold=hold.id,
        agent=hold.agent,
        kind=hold.kind,
        reason=hold.reason,
        actor=hold.actor,
        at=hold.at,
        expires_at=hold.expires_at,
    )


def lift_holds(tx: Transaction, agent: str, *, actor: str, now: Millis) -> int:
    """End the holds on exactly this agent (or `*`); returns how many."""
    return tx.execute(
        "UPDATE holds SET lifted_at = :now, lifted_by = :actor"
        " WHERE agent = :agent AND lifted_at IS NULL",
        agent=agent,
        actor=actor,
        now=now,
    )


def open_canary(tx: Transaction, rollout: Rollout, now: Millis) -> None:
    """Let the next assignments go to the candidate."""
    tx.execute(
        "UPDATE pointers SET candidate = :candidate, rollout = :rollout,"
        " generation = generation + 1, since = :now WHERE agent = :agent",
        candidate=rollout.candidate,
        rollout=rollout.id,
        agent=rollout.agent,
        now=now,
    )


def close_canary(tx: Transaction, rollout: Rollout, now: Millis) -> None:
    """Assign to stable only again. Nothing else changes."""
    tx.execute(
        "UPDATE pointers SET candidate = NULL, rollout = NULL, generation = generation + 1,"
        " since = :now WHERE agent = :agent AND rollout = :rollout",
        agent=rollout.agent,
        rollout=rollout.id,
        now=now,
    )


def promote(tx: Transaction, rollout: Rollout, *, anchor: bool, now: Millis) -> None:
    """The candidate becomes stable; what was stable is kept as `previous` for a rollback."""
    tx.execute(
        "INSERT INTO pointers (agent, stable, anchor, generation, since)"
        " VALUES (:agent, :candidate, :candidate, 1, :now)"
        " ON CONFLICT (agent) DO UPDATE SET previous = pointers.stable, stable = :candidate,"
        " anchor = CASE WHEN :anchor THEN :candidate ELSE pointers.anchor END,"
        " candidate = NULL, rollout = NULL, generation = pointers.generation + 1, since = :now",
        agent=rollout.agent,
        candidate=rollout.candidate,
        anchor=anchor,
        now=now,
    )


def quarantine(
    tx: Transaction,
    digest: str,
    *,
    agent: str,
    rollout: str | None,
    reason: str,
    actor: str,
    now: Millis,
) -> None:
    """Bar a digest from assignment by every route. Never undone by a commit."""
    tx.execute(
        "INSERT INTO quarantine (digest, agent, rollout, reason, actor, at)"
        " VALUES (:digest, :agent, :rollout, :reason, :actor, :now) ON CONFLICT DO NOTHING",
        digest=digest,
        agent=agent,
        rollout=rollout,
        reason=reason,
        actor=actor,
        now=now,
    )


def roll_back(
    tx: Transaction, rollout: Rollout, *, reason: str, stop_runs: bool, actor: str, now: Millis
) -> None:
    """Take the candidate back, in one transaction: pointer, quarantine, hold, runs, tokens.

    Waiting runs of the candidate go back to the queue's reassignment (`reassign`); runs in flight
    finish pinned, or with `stop_runs` lose their tokens and are killed.
    """
    close_canary(tx, rollout, now)
    quarantine(
        tx,
        rollout.candidate,
        agent=rollout.agent,
        rollout=rollout.id,
        reason=reason,
        actor=actor,
        now=now,
    )
    place_hold(
        tx,
        Hold(
            id=derived_id("hold", rollout.id, "rollback"),
            agent=rollout.agent,
            kind="promotion",
            reason=f"{rollout.candidate} was rolled back: {reason}",
            actor=actor,
            at=now,
        ),
    )
    if stop_runs:
        stop_release(tx, rollout.agent, rollout.candidate, reason=reason, now=now)


def stop_release(tx: Transaction, agent: str, digest: str, *, reason: str, now: Millis) -> None:
    """Revoke the tokens of a release's live runs and have its runners end them."""
    for run in queue.kill_release(
        tx, agent=AgentName(agent), release=ReleaseDigest(digest), reason=reason
    ):
        access.revoke(tx, run=run, why=reason, now=now)


def release(reader: Database | Transaction, digest: str) -> Release:
    """A release from its stored document; the digest is verified. LookupError when unknown."""
    row = reader.one("SELECT document FROM releases WHERE digest = :digest", digest=digest)
    if row is None:
        raise LookupError(f"release {digest} is not in the store; run `interlock rebuild`")
    return parse_document(row["document"])


def remember_release(
    tx: Transaction, digest: str, document: str, *, commit: str, now: Millis
) -> None:
    """Keep a release's self-contained document. Content-addressed, so idempotent."""
    tx.execute(
        "INSERT INTO releases (digest, document, first_commit, first_seen)"
        " VALUES (:digest, :document, :commit, :now) ON CONFLICT DO NOTHING",
        digest=digest,
        document=document,
        commit=commit,
        now=now,
    )
