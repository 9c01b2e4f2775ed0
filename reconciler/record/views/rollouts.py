"""Rollouts as people see them: what was decided, on which evidence, and what is left to undo."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from gateway.database import Row, Transaction
from gateway.values import Millis, NanoUSD
from reconciler.record.views import money
from reconciler.record.views.runs import RunView, views_of

PREVIEW = 200
"""Characters of a call's arguments that an effect shows."""
_ARMS = ("candidate", "stable", "anchor")


@dataclass(frozen=True, slots=True)
class RolloutView:
    """One line about a rollout. `gated` False: nothing was asked to prove it."""

    rollout: str
    agent: str
    candidate: str
    stable: str | None
    anchor: str | None
    state: str
    reason: str
    verdict: str | None
    gated: bool
    policy: str
    look: int
    commit: str
    opened_at: Millis
    since: Millis
    closed_at: Millis | None
    pull: int | None = None
    """The pull request whose head it judges."""


@dataclass(frozen=True, slots=True)
class ReceiptView:
    """A decision's evidence as it was kept. `evidence` is the gate's or the canary's document."""

    receipt: str
    kind: str
    at: Millis
    state: str
    evidence: Any


@dataclass(frozen=True, slots=True)
class CaseView:
    """One case in one arm: how many attempts passed, failed, or were lost to errors."""

    case: str
    arm: str
    passed: int
    failed: int
    errors: int
    cost_nano: NanoUSD
    detail: str
    """What the first attempt that did not pass said."""


@dataclass(frozen=True, slots=True)
class AuditLine:
    """Who did what, when and why."""

    seq: int
    at: Millis
    actor: str
    action: str
    agent: str | None
    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class Effect:
    """Something a run of the candidate did to the world that no pointer flip takes back.

    `state` is the ledger's: settled (it happened), unknown (it may have). `team` can undo it.
    """

    run: str
    step: str
    tool: str
    arguments: str
    state: str
    team: str
    effect_key: str
    at: Millis


@dataclass(frozen=True, slots=True)
class RolloutDetail:
    """Everything there is about a rollout."""

    rollout: RolloutView
    receipts: tuple[ReceiptView, ...]
    cases: tuple[CaseView, ...]
    runs: tuple[RunView, ...]
    audit: tuple[AuditLine, ...]
    effects: tuple[Effect, ...]
    eval_cost_nano: NanoUSD
    canary_cost_nano: NanoUSD


def rollouts(
    tx: Transaction, agent: str | None = None, open_only: bool = False, limit: int = 50
) -> tuple[RolloutView, ...]:
    """The newest first."""
    rows = tx.read(
        "SELECT * FROM rollouts WHERE (:agent IS NULL OR agent = :agent)"
        " AND (NOT :open OR closed_at IS NULL) ORDER BY opened_at DESC, rollout LIMIT :limit",
        agent=agent,
        open=open_only,
        limit=limit,
    )
    return tuple(view_of(row) for row in rows)


def rollout(tx: Transaction, name: str) -> RolloutDetail:
    """One rollout whole. KeyError when there is no such rollout."""
    row = tx.one("SELECT * FROM rollouts WHERE rollout = :id", id=name)
    if row is None:
        raise KeyError(f"no rollout {name}; `interlock status` lists them")
    live = tx.read(
        "SELECT * FROM runs WHERE rollout = :id AND purpose = 'live' ORDER BY created_at, run",
        id=name,
    )
    canaries = views_of(tx, live)
    return RolloutDetail(
        rollout=view_of(row),
        receipts=_receipts(tx, name),
        cases=_cases(tx, name),
        runs=canaries,
        audit=audit_of(tx, name),
        effects=_effects(tx, row),
        eval_cost_nano=money.of_evaluation(tx, name),
        canary_cost_nano=NanoUSD(sum(run.cost_nano for run in canaries)),
    )


def view_of(row: Row) -> RolloutView:
    """A row of `rollouts` as a view."""
    policy = json.loads(row["policy"])
    return RolloutView(
        rollout=row["rollout"],
        agent=row["agent"],
        candidate=row["candidate"],
        stable=row["stable"],
        anchor=row["anchor"],
        state=row["state"],
        reason=row["reason"],
        verdict=row["verdict"],
        gated=policy.get("gate") is not None,
        policy=str(policy.get("name", "")),
        look=row["look"],
        commit=row["commit_id"],
        opened_at=Millis(row["opened_at"]),
        since=Millis(row["since"]),
        closed_at=row["closed_at"],
        pull=row["pull"],
    )


def audit_of(tx: Transaction, subject: str) -> tuple[AuditLine, ...]:
    """Audit lines about one thing (a rollout, a run, a hold), oldest first."""
    return lines_of(
        tx.read("SELECT * FROM audit WHERE subject = :subject ORDER BY seq", subject=subject)
    )


def lines_of(rows: list[Row]) -> tuple[AuditLine, ...]:
    """Rows of `audit` as views, without their hashes."""
    return tuple(
        AuditLine(
            row["seq"], row["at"], row["actor"], row["action"], row["agent"], row["subject"],
            row["reason"],
        )
        for row in rows
    )  # fmt: skip


def _receipts(tx: Transaction, name: str) -> tuple[ReceiptView, ...]:
    found = []
    for row in tx.read("SELECT * FROM receipts WHERE rollout = :id ORDER BY at, receipt", id=name):
        document = json.loads(row["document"])
        found.append(
            ReceiptView(
                row["receipt"], row["kind"], Millis(row["at"]), str(document.get("state", "")),
                document.get("evidence"),
            )
        )  # fmt: skip
    return tuple(found)


def _cases(tx: Transaction, name: str) -> tuple[CaseView, ...]:
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in tx.read(
        "SELECT * FROM attempts WHERE rollout = :id ORDER BY case_id, arm, attempt", id=name
    ):
        groups[row["case_id"], row["arm"]].append(row)

    def rank(arm: str) -> tuple[int, str]:
        return (_ARMS.index(arm) if arm in _ARMS else len(_ARMS), arm)

    return tuple(
        CaseView(
            case=case,
            arm=arm,
            passed=sum(row["status"] == "passed" for row in rows),
            failed=sum(row["status"] == "failed" for row in rows),
            errors=sum(row["status"] == "error" for row in rows),
            cost_nano=NanoUSD(sum(row["cost_nano"] for row in rows)),
            detail=next((row["detail"] for row in rows if row["status"] != "passed"), ""),
        )
        for (case, arm), rows in sorted(groups.items(), key=lambda g: (g[0][0], rank(g[0][1])))
    )


def _effects(tx: Transaction, rollout: Row) -> tuple[Effect, ...]:
    """Nothing for a release that nobody took back: what it does is what it is for."""
    barred = tx.one("SELECT 1 AS yes FROM quarantine WHERE digest = :d", d=rollout["candidate"])
    if barred is None and rollout["state"] not in ("canary", "held", "rolled_back"):
        return ()
    rows = tx.read(
        "SELECT c.run, c.step, c.asked, c.state, c.team, c.effect_key, c.reserved_at, j.body"
        " FROM runs r JOIN calls c ON c.run = r.run"
        " LEFT JOIN journal j ON j.run = c.run AND j.step = c.step AND j.call = c.call"
        " AND j.event = 'intent'"
        " WHERE (r.rollout = :id OR (r.agent = :agent AND r.release = :candidate AND :barred))"
        " AND r.purpose = 'live' AND c.effect_key IS NOT NULL"
        " AND c.state <> 'released' ORDER BY c.reserved_at, c.run, c.step, c.attempt",
        id=rollout["rollout"],
        agent=rollout["agent"],
        candidate=rollout["candidate"],
        barred=barred is not None,
    )
    return tuple(
        Effect(
            run=row["run"],
            step=row["step"],
            tool=row["asked"],
            arguments=_preview(row["body"]),
            state=row["state"],
            team=row["team"],
            effect_key=row["effect_key"],
            at=Millis(row["reserved_at"]),
        )
        for row in rows
    )


def _preview(body: str | None) -> str:
    arguments = json.loads(body).get("arguments", {}) if body else {}
    text = json.dumps(arguments, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= PREVIEW else text[:PREVIEW] + "…"
