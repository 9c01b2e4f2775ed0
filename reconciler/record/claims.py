"""Runs that were promised in git and may have happened: what a fresh machine must assume of them.

A claim is pushed before its run starts (docs/formats/claim.md). Found without an outcome it counts
as fully spent and `outcome_unknown`; it is never run again, because nobody can say what it did.
In service mode no claim is made, so an open run is written down as one: the database that would
know better is what is gone when this is read.
"""

from __future__ import annotations

from gateway import access, calls
from gateway.database import Row, Transaction
from gateway.values import Millis, Purpose, ReleaseDigest, RunId, show_usd
from reconciler.record import audit, ledger
from runner import queue
from runner.queue import RunStatus
from runner.spec import RoleKind, RunOutcome, RunSpec, SandboxSpec, StopReason


def exported(tx: Transaction, *, machine: str) -> list[Row]:
    """Claims as they stand in git, by run. There, an `open` one is pushed by being there."""
    rows = tx.read("SELECT * FROM claims WHERE state IN ('open', 'pushed', 'lost') ORDER BY run")
    found = {
        row["run"]: {**row, "state": "pushed" if row["state"] == "open" else row["state"]}
        for row in rows
    }
    for row in tx.read(
        "SELECT * FROM runs WHERE purpose = 'live' AND status <> 'finished' AND run NOT IN"
        " (SELECT run FROM claims) ORDER BY run"
    ):
        spec = RunSpec.model_validate_json(row["spec"])
        found[row["run"]] = {
            "run": row["run"],
            "agent": row["agent"],
            "occurrence": row["occurrence"],
            "release": row["release"],
            "slice_nano": spec.limits.max_cost or 0,
            "machine": machine,
            "state": "pushed",
            "claimed_at": row["created_at"],
            "lease_until": row["created_at"],
        }
    return [found[run] for run in sorted(found)]


def contained(tx: Transaction) -> tuple[RunId, ...]:
    """Runs whose claim is not settled: a commit of this state makes these durable."""
    rows = tx.read("SELECT run FROM claims WHERE state IN ('open', 'pushed') ORDER BY run")
    return tuple(RunId(row["run"]) for row in rows)


def lose(tx: Transaction, *, now: Millis) -> tuple[RunId, ...]:
    """Charge and close every claim that has no outcome; returns their runs.

    The whole slice is charged, whatever part of it was seen: the rest may have been spent after
    the state was written. The unique (agent, occurrence) of the run stays taken.
    """
    lost: list[RunId] = []
    for row in tx.read("SELECT * FROM claims WHERE state IN ('open', 'pushed') ORDER BY run"):
        if tx.one("SELECT run FROM runs WHERE run = :run", run=row["run"]) is not None:
            tx.execute("UPDATE claims SET state = 'settled' WHERE run = :run", run=row["run"])
            continue
        _lose(tx, row, now)
        lost.append(RunId(row["run"]))
    return tuple(lost)


def _lose(tx: Transaction, claim: Row, now: Millis) -> None:
    seen = tx.read("SELECT * FROM calls WHERE run = :run ORDER BY team", run=claim["run"])
    team = seen[0]["team"] if seen else _team(tx, claim["agent"])
    rest = max(0, claim["slice_nano"] - sum(ledger.cost_of(row) for row in seen))
    detail = (
        f"claimed by {claim['machine']} and never heard of again; charged "
        f"{show_usd(claim['slice_nano'])} at worst case, and not run again. "
        "Look at what it may have changed."
    )
    _insert_run(tx, claim, team, detail, now)
    queue.announce_end(tx, RunId(claim["run"]))
    ledger.insert(
        tx,
        {
            "run": claim["run"],
            "step": "claim",
            "call": 0,
            "attempt": 0,
            "kind": "model",
            "state": "unknown",
            "agent": claim["agent"],
            "team": team,
            "role": "main",
            "release": claim["release"],
            "purpose": Purpose.LIVE.value,
            "occurrence": claim["occurrence"],
            "target": "claim",
            "asked": "claim",
            "effect_key": None,
            "request_hash": "claim",
            "reserved_nano": rest,
            "cost_nano": rest,
            "reserved_tokens": 0,
            "input_tokens": None,
            "output_tokens": None,
            "cached_tokens": None,
            "reasoning_tokens": None,
            "price_table": None,
            "label": "untrusted/internal",
            "policy": "",
            "error": "claimed, and no outcome was recorded",
            "response": None,
            "reserved_at": claim["claimed_at"],
            "settled_at": now,
        },
    )
    # Written past the gateway: it must count again what its budgets have spent.
    calls.count_again(tx)
    access.changed(tx)
    tx.execute("UPDATE claims SET state = 'lost' WHERE run = :run", run=claim["run"])
    calls.alert(
        tx,
        kind="claim_lost",
        agent=claim["agent"],
        identity=(claim["run"],),
        text=f"{claim['run']} ({claim['occurrence']}): {detail}",
        now=now,
    )
    audit.append(
        tx,
        now=now,
        actor="interlock",
        action="run.lost",
        agent=claim["agent"],
        subject=claim["run"],
        reason=f"{claim['occurrence']} on {claim['release']}: {detail}",
    )


def _insert_run(tx: Transaction, claim: Row, team: str, detail: str, now: Millis) -> None:
    spec = RunSpec.model_validate(
        {
            "agent": claim["agent"],
            "team": team,
            "release": ReleaseDigest(claim["release"]),
            "purpose": Purpose.LIVE,
            "occurrence": claim["occurrence"],
            "input": "",
            "roles": {
                "main": {
                    "name": "main",
                    "kind": RoleKind.MAKER,
                    "model": "",
                    "instructions": "",
                    "grants": {},
                }
            },
            "limits": {"max_cost": claim["slice_nano"]},
            "sandbox": SandboxSpec(image=""),
        }
    )
    # What was seen of its cost is in the outcome; the worst case is in the ledger.
    # The notes of the run before it stay in force, as they do for any run that writes none.
    last = tx.one(
        "SELECT outcome FROM runs WHERE agent = :agent AND purpose = 'live'"
        " AND status = 'finished' ORDER BY finished_at DESC, run LIMIT 1",
        agent=claim["agent"],
    )
    outcome = RunOutcome(
        stop=StopReason.OUTCOME_UNKNOWN,
        detail=detail,
        notes=RunOutcome.model_validate_json(last["outcome"]).notes if last else "",
    )
    tx.execute(
        "INSERT INTO runs (run, agent, team, purpose, occurrence, release, status, priority, spec,"
        " fence, stop, outcome, created_at, finished_at) VALUES (:run, :agent, :team, 'live',"
        " :occurrence, :release, :status, 0, :spec, 0, :stop, :outcome, :claimed, :now)",
        run=claim["run"],
        agent=claim["agent"],
        team=team,
        occurrence=claim["occurrence"],
        release=claim["release"],
        status=RunStatus.FINISHED,
        spec=spec.model_dump_json(),
        stop=StopReason.OUTCOME_UNKNOWN,
        outcome=outcome.model_dump_json(),
        claimed=claim["claimed_at"],
        now=now,
    )


def _team(tx: Transaction, agent: str) -> str:
    """The claim does not say whose it is; the ledger's last row of the agent does."""
    row = tx.one(
        "SELECT team FROM calls WHERE agent = :agent ORDER BY reserved_at DESC LIMIT 1",
        agent=agent,
    )
    return str(row["team"]) if row else ""
