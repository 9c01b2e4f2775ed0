"""Runs as people see them: how one ended, what it cost, and every step of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from gateway.database import Database, Row, Transaction
from gateway.values import Millis, NanoUSD, RunId
from reconciler.gates.live import judge_run
from reconciler.record.views import money
from runner.spec import RunOutcome
from runner.trace import Trace, trace


@dataclass(frozen=True, slots=True)
class RunView:
    """One line about a run. `verdict`: good, bad, or none when it says nothing of its release."""

    run: RunId
    agent: str
    team: str
    purpose: str
    occurrence: str
    release: str
    rollout: str | None
    status: str
    stop: str | None
    detail: str
    verdict: str
    accepted: bool | None
    steps: int
    tokens: int
    cost_nano: NanoUSD
    working_ms: int
    created_at: Millis
    started_at: Millis | None
    finished_at: Millis | None


@dataclass(frozen=True, slots=True)
class CallView:
    """One attempt of one request through the gateway."""

    step: str
    call: int
    attempt: int
    kind: str
    role: str
    asked: str
    target: str
    state: str
    input_tokens: int
    output_tokens: int
    cost_nano: NanoUSD
    label: str
    effect_key: str | None
    error: str | None
    reserved_at: Millis
    settled_at: Millis | None


@dataclass(frozen=True, slots=True)
class RunDetail:
    """Everything there is about a run. `outcome` is None while it goes on."""

    run: RunView
    outcome: RunOutcome | None
    trace: Trace
    calls: tuple[CallView, ...]


def runs(
    tx: Transaction,
    agent: str | None = None,
    purpose: str | None = "live",
    limit: int = 50,
    since: int = 0,
) -> tuple[RunView, ...]:
    """The newest runs first. `purpose` None: evals too. `since` is about their creation."""
    rows = tx.read(
        "SELECT * FROM runs WHERE (:agent IS NULL OR agent = :agent)"
        " AND (:purpose IS NULL OR purpose = :purpose) AND created_at >= :since"
        " ORDER BY created_at DESC, run LIMIT :limit",
        agent=agent,
        purpose=purpose,
        since=since,
        limit=limit,
    )
    return views_of(tx, rows)


def views_of(tx: Transaction, rows: Iterable[Row]) -> tuple[RunView, ...]:
    """Rows of `runs` as views, their money looked up together."""
    rows = list(rows)
    spent: dict[str, int] = {}
    for start in range(0, len(rows), 500):  # databases bound the number of parameters
        spent |= money.of_runs(tx, [row["run"] for row in rows[start : start + 500]])
    return tuple(_view(row, spent.get(row["run"], 0)) for row in rows)


def run(tx: Transaction, name: str) -> RunDetail:
    """One run whole. KeyError when there is no such run."""
    # The trace only reads, and a transaction reads as a database does; so all is of one moment.
    steps = trace(cast("Database", tx), RunId(name))
    row = tx.one("SELECT * FROM runs WHERE run = :id", id=name)
    assert row is not None
    calls = tx.read(
        "SELECT * FROM calls WHERE run = :id ORDER BY reserved_at, step, call, attempt", id=name
    )
    return RunDetail(
        run=views_of(tx, [row])[0],
        outcome=_outcome(row),
        trace=steps,
        calls=tuple(_call(call) for call in calls),
    )


def _view(row: Row, spent: int) -> RunView:
    outcome = _outcome(row)
    judged = judge_run(outcome) if outcome else None
    return RunView(
        run=RunId(row["run"]),
        agent=row["agent"],
        team=row["team"],
        purpose=row["purpose"],
        occurrence=row["occurrence"],
        release=row["release"],
        rollout=row["rollout"],
        status=row["status"],
        stop=row["stop"],
        detail=(outcome.detail or (judged.detail if judged else "")) if outcome else "",
        verdict=(judged.word if judged else None) or "none",
        accepted=outcome.accepted if outcome else None,
        steps=outcome.steps if outcome else 0,
        tokens=outcome.tokens if outcome else 0,
        cost_nano=NanoUSD(spent),
        working_ms=outcome.working_ms if outcome else 0,
        created_at=Millis(row["created_at"]),
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )


def _outcome(row: Row) -> RunOutcome | None:
    return RunOutcome.model_validate_json(row["outcome"]) if row["outcome"] else None


def _call(row: Row) -> CallView:
    cost = row["reserved_nano"] if row["state"] == "reserved" else row["cost_nano"] or 0
    return CallView(
        step=row["step"],
        call=row["call"],
        attempt=row["attempt"],
        kind=row["kind"],
        role=row["role"],
        asked=row["asked"],
        target=row["target"],
        state=row["state"],
        input_tokens=row["input_tokens"] or 0,
        output_tokens=row["output_tokens"] or 0,
        cost_nano=NanoUSD(cost),
        label=row["label"],
        effect_key=row["effect_key"],
        error=row["error"],
        reserved_at=Millis(row["reserved_at"]),
        settled_at=row["settled_at"],
    )
