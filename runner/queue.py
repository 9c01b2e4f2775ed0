"""Runs and their leases: how work crosses from the reconciler to runners, and survives both.

A run is a row. A runner leases it, which raises its fence; every later write of that runner
carries the fence, and a write with an old one changes nothing and raises `Fenced`. So a runner
that was thought dead and wakes up cannot add to a run that another one continues.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gateway import access
from gateway.database import Database, Migration, Row, Transaction
from gateway.values import (
    AgentName,
    Clock,
    Millis,
    Purpose,
    ReleaseDigest,
    RunId,
    derived_id,
)
from runner.spec import RunOutcome, RunSpec


class RunStatus(StrEnum):
    """`claimed` waits for the reconciler to make its claim durable (job mode), `queued` for a
    runner, `leased` is being executed, `finished` has an outcome."""

    CLAIMED = "claimed"
    QUEUED = "queued"
    LEASED = "leased"
    FINISHED = "finished"


class Fenced(Exception):
    """Another runner holds the lease; this one must stop writing and drop the run."""


MIGRATIONS = (
    Migration(
        "runner",
        1,
        (
            """CREATE TABLE runs (
                run TEXT PRIMARY KEY,
                agent TEXT NOT NULL, team TEXT NOT NULL, purpose TEXT NOT NULL,
                occurrence TEXT NOT NULL, release TEXT NOT NULL,
                rollout TEXT, arm TEXT, case_id TEXT, attempt BIGINT,
                status TEXT NOT NULL
                    CHECK (status IN ('claimed', 'queued', 'leased', 'finished')),
                priority BIGINT NOT NULL,
                spec TEXT NOT NULL,
                fence BIGINT NOT NULL, owner TEXT, lease_until BIGINT,
                kill TEXT,
                stop TEXT, outcome TEXT,
                created_at BIGINT NOT NULL, started_at BIGINT, finished_at BIGINT
            )""",
            # One live run per occurrence of an agent, whatever release it is given.
            "CREATE UNIQUE INDEX runs_live_once ON runs (agent, occurrence) WHERE purpose = 'live'",
            "CREATE INDEX runs_open ON runs (status, priority, created_at) "
            "WHERE status <> 'finished'",
            "CREATE INDEX runs_by_rollout ON runs (rollout, arm, case_id)",
            "CREATE INDEX runs_by_agent ON runs (agent, created_at)",
            # Append-only. An `intent` is durable before the effect, its `outcome` after it.
            """CREATE TABLE journal (
                seq INTEGER PRIMARY KEY,
                run TEXT NOT NULL, step TEXT NOT NULL, call BIGINT NOT NULL,
                event TEXT NOT NULL CHECK (event IN ('intent', 'outcome')),
                role TEXT NOT NULL,
                kind TEXT NOT NULL,
                name TEXT NOT NULL,
                status TEXT NOT NULL,
                body TEXT NOT NULL,
                label TEXT NOT NULL,
                effect_key TEXT,
                tokens BIGINT NOT NULL, cost_nano BIGINT NOT NULL,
                fence BIGINT NOT NULL, at BIGINT NOT NULL,
                UNIQUE (run, step, call, event)
            )""",
        ),
    ),
    Migration(
        "runner",
        2,
        ("ALTER TABLE runs ADD COLUMN fruitless BIGINT NOT NULL DEFAULT 0",),
    ),
    Migration(
        "runner",
        3,
        (
            # Ends that the reconciler has not read yet: its work follows from these rows, never
            # from how many runs there have been.
            "CREATE TABLE ends (run TEXT PRIMARY KEY)",
            "INSERT INTO ends (run) SELECT run FROM runs WHERE status = 'finished'",
            "CREATE INDEX runs_open_by_agent ON runs (agent, purpose) WHERE status <> 'finished'",
        ),
    ),
)

_COUNT_FRUITLESS = """UPDATE runs SET fruitless = CASE WHEN EXISTS (
    SELECT 1 FROM journal WHERE journal.run = runs.run AND journal.fence = runs.fence
    AND journal.event = 'outcome' AND journal.kind <> 'sandbox') THEN 0 ELSE fruitless + 1 END"""
"""A lease is fruitful when a step came to its outcome under it. Opening the sandbox does not count:
every lease begins with that."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where a run belongs: set for evals and canary runs, empty for plain live runs."""

    rollout: str | None = None
    arm: str | None = None
    case: str | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """A run that this runner executes until `until`, provided it renews in time."""

    run: RunId
    fence: int
    until: Millis
    spec: RunSpec
    first: bool
    """False when an earlier lease began it: there may be a journal to continue from."""
    fruitless: int = 0
    """Leases before this one, in a row, whose runner died or lost the container and under which
    no step came to its outcome."""


def run_id(spec: RunSpec) -> RunId:
    """The identity of a run follows from what it is about, so creating it twice is once."""
    return RunId(derived_id("run", spec.agent, spec.purpose, spec.occurrence))


def enqueue(
    tx: Transaction,
    spec: RunSpec,
    *,
    now: Millis,
    assignment: Assignment = Assignment(),
    priority: int = 0,
    status: RunStatus = RunStatus.QUEUED,
) -> tuple[RunId, bool]:
    """Add a run; returns its id and whether it is new. Idempotent per (agent, occurrence)."""
    run = run_id(spec)
    added = tx.execute(
        "INSERT INTO runs (run, agent, team, purpose, occurrence, release, rollout, arm, case_id,"
        " attempt, status, priority, spec, fence, created_at) VALUES (:run, :agent, :team,"
        " :purpose, :occurrence, :release, :rollout, :arm, :case_id, :attempt, :status, :priority,"
        " :spec, 0, :now) ON CONFLICT DO NOTHING",
        run=run,
        agent=spec.agent,
        team=spec.team,
        purpose=spec.purpose,
        occurrence=spec.occurrence,
        release=spec.release,
        rollout=assignment.rollout,
        arm=assignment.arm,
        case_id=assignment.case,
        attempt=assignment.attempt,
        status=status,
        priority=priority,
        spec=spec.model_dump_json(),
        now=now,
    )
    return run, added == 1


def release_claims(tx: Transaction, runs: Sequence[RunId]) -> None:
    """The claims of these runs are durable: runners may take them."""
    for run in runs:
        tx.execute(
            "UPDATE runs SET status = 'queued' WHERE run = :run AND status = 'claimed'", run=run
        )


class Queue:
    """The runner's side: lease, renew, finish. Every method is one short transaction."""

    def __init__(
        self, database: Database, clock: Clock, owner: str, *, lease_ms: int = 30_000
    ) -> None:
        self._database = database
        self._clock = clock
        self._owner = owner
        self._lease_ms = lease_ms

    def lease(self) -> Lease | None:
        """Take the next run that is queued or whose lease ran out; live before eval.

        None when there is nothing to do.
        """
        now = self._clock.now()
        with self._database.transaction() as tx:
            row = tx.one(
                "SELECT run, status, fence, spec, started_at FROM runs"
                # Said twice, so that the index of open runs serves the query.
                " WHERE status <> 'finished' AND (status = 'queued'"
                " OR (status = 'leased' AND lease_until < :now))"
                " ORDER BY purpose DESC, priority DESC, created_at, run LIMIT 1",
                now=now,
            )
            if row is None:
                return None
            if row["status"] == RunStatus.LEASED:
                tx.execute(f"{_COUNT_FRUITLESS} WHERE run = :run", run=row["run"])
            counted = tx.one("SELECT fruitless FROM runs WHERE run = :run", run=row["run"])
            fence = row["fence"] + 1
            until = Millis(now + self._lease_ms)
            tx.execute(
                "UPDATE runs SET status = 'leased', fence = :fence, owner = :owner,"
                " lease_until = :until, started_at = coalesce(started_at, :now) WHERE run = :run",
                fence=fence,
                owner=self._owner,
                until=until,
                now=now,
                run=row["run"],
            )
        spec = RunSpec.model_validate_json(row["spec"])
        return Lease(
            RunId(row["run"]),
            fence,
            until,
            spec,
            first=row["started_at"] is None,
            fruitless=counted["fruitless"] if counted else 0,
        )

    def renew(self, lease: Lease) -> str | None:
        """Extend the lease; returns why the run must be killed, or None. Raises Fenced."""
        with self._database.transaction() as tx:
            check_fence(tx, lease.run, lease.fence)
            tx.execute(
                "UPDATE runs SET lease_until = :until WHERE run = :run",
                until=self._clock.now() + self._lease_ms,
                run=lease.run,
            )
            row = tx.one("SELECT kill FROM runs WHERE run = :run", run=lease.run)
        kill: str | None = row["kill"] if row else None
        return kill

    def finish(self, lease: Lease, outcome: RunOutcome) -> None:
        """Write the outcome, end the run and take its rights back. Raises Fenced."""
        now = self._clock.now()
        with self._database.transaction() as tx:
            check_fence(tx, lease.run, lease.fence)
            access.revoke(tx, run=lease.run, why="the run is finished", now=now)
            tx.execute(
                "UPDATE runs SET status = 'finished', owner = NULL, lease_until = NULL,"
                " stop = :stop, outcome = :outcome, finished_at = :now WHERE run = :run",
                stop=outcome.stop,
                outcome=outcome.model_dump_json(),
                now=now,
                run=lease.run,
            )
            announce_end(tx, lease.run)

    def give_back(self, lease: Lease, *, suspect: bool = False) -> None:
        """Let the next runner take the run at once. Raises Fenced.

        `suspect`: it may be the run's own doing that it could not go on; counted like a death.
        """
        with self._database.transaction() as tx:
            check_fence(tx, lease.run, lease.fence)
            if suspect:
                tx.execute(f"{_COUNT_FRUITLESS} WHERE run = :run", run=lease.run)
            tx.execute(
                "UPDATE runs SET status = 'queued', owner = NULL, lease_until = NULL"
                " WHERE run = :run",
                run=lease.run,
            )

    def release_own(self) -> None:
        """At start: leases of this very owner are from a process that died; free them now."""
        with self._database.transaction() as tx:
            tx.execute(
                f"{_COUNT_FRUITLESS} WHERE status = 'leased' AND owner = :owner", owner=self._owner
            )
            tx.execute(
                "UPDATE runs SET status = 'queued', owner = NULL, lease_until = NULL"
                " WHERE status = 'leased' AND owner = :owner",
                owner=self._owner,
            )


def check_fence(tx: Transaction, run: RunId, fence: int) -> None:
    """Raise Fenced unless `fence` is the run's current one and it is still leased."""
    row = tx.one("SELECT fence, status FROM runs WHERE run = :run", run=run)
    if row is None or row["fence"] != fence or row["status"] != RunStatus.LEASED:
        raise Fenced(f"{run}: fence {fence} is not the current one")


def kill(tx: Transaction, *, agent: AgentName | None, reason: str) -> int:
    """Ask for the end of open runs (of one agent, or all); returns how many.

    A leased run is ended by its runner at the next renewal; a waiting one when it is leased.
    """
    return tx.execute(
        "UPDATE runs SET kill = :reason WHERE status <> 'finished' AND purpose = :live"
        " AND (:agent IS NULL OR agent = :agent)",
        reason=reason,
        agent=agent,
        live=Purpose.LIVE,
    )


def kill_release(
    tx: Transaction, *, agent: AgentName, release: ReleaseDigest, reason: str
) -> list[RunId]:
    """Ask for the end of the runs in flight of one release; returns them.

    In flight is what a runner has begun, also when it was given back and waits to go on: such a
    run cannot be reassigned, so it would go on with the release.
    """
    rows = tx.read(
        "SELECT run FROM runs WHERE status <> 'finished' AND started_at IS NOT NULL"
        " AND purpose = 'live' AND agent = :agent AND release = :release ORDER BY run",
        agent=agent,
        release=release,
    )
    for row in rows:
        tx.execute("UPDATE runs SET kill = :reason WHERE run = :run", reason=reason, run=row["run"])
    return [RunId(row["run"]) for row in rows]


def waiting(tx: Transaction, *, agent: AgentName, release: ReleaseDigest) -> list[Row]:
    """Live runs of a release that no runner has begun: run, spec, assignment columns."""
    return tx.read(
        "SELECT run, spec, occurrence FROM runs WHERE agent = :agent AND release = :release"
        " AND purpose = 'live' AND status IN ('claimed', 'queued') AND started_at IS NULL"
        " ORDER BY created_at, run",
        agent=agent,
        release=release,
    )


def kill_waiting(tx: Transaction, *, agent: AgentName, release: ReleaseDigest, reason: str) -> int:
    """Have the live runs of a release that no runner has begun end as killed; returns how many."""
    return tx.execute(
        "UPDATE runs SET kill = :reason, status = 'queued' WHERE agent = :agent"
        " AND release = :release AND purpose = 'live' AND status IN ('claimed', 'queued')"
        " AND started_at IS NULL",
        agent=agent,
        release=release,
        reason=reason,
    )


def reassign(tx: Transaction, run: RunId, spec: RunSpec) -> None:
    """Give a waiting run another release; its identity (agent, occurrence) stays."""
    tx.execute(
        "UPDATE runs SET spec = :spec, release = :release, rollout = NULL, arm = NULL"
        " WHERE run = :run AND status IN ('claimed', 'queued') AND started_at IS NULL",
        spec=spec.model_dump_json(),
        release=spec.release,
        run=run,
    )


def announce_end(tx: Transaction, run: RunId) -> None:
    """Have the reconciler read the outcome of a finished run; called where it is written."""
    tx.execute("INSERT INTO ends (run) VALUES (:run) ON CONFLICT DO NOTHING", run=run)


def unread_ends(reader: Database | Transaction, purpose: Purpose) -> list[Row]:
    """Finished runs whose outcome the reconciler has not read yet, oldest first: run, agent,
    release, rollout, arm, case_id, attempt, outcome."""
    return reader.read(
        "SELECT run, agent, release, rollout, arm, case_id, attempt, outcome FROM runs"
        " WHERE run IN (SELECT run FROM ends) AND purpose = :purpose AND status = 'finished'"
        " ORDER BY finished_at, run",
        purpose=purpose,
    )


def any_unread_end(reader: Database | Transaction) -> bool:
    """Whether some run has ended since the reconciler last read outcomes."""
    # Joined, so that a row of a run that is not there any more keeps nobody waiting.
    row = reader.one(
        "SELECT e.run FROM ends e JOIN runs r ON r.run = e.run WHERE r.status = 'finished' LIMIT 1"
    )
    return row is not None


def ends_read(tx: Transaction, runs: Iterable[str]) -> None:
    """These outcomes have been read, and what follows from them stands in this transaction."""
    for run in runs:
        tx.execute("DELETE FROM ends WHERE run = :run", run=run)


def open_runs(database: Database) -> list[Row]:
    """Runs without an outcome, newest last: run, agent, purpose, status, rollout, arm."""
    return database.read(
        "SELECT run, agent, purpose, status, rollout, arm, occurrence FROM runs"
        " WHERE status <> 'finished' ORDER BY created_at, run"
    )
