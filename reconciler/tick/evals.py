"""Evals: attempts planned by the gate become runs, finished runs become graded attempts.

An evaluation has an id: a rollout's, or one of its own when a person asks for `interlock gate`.
Runs are identified by evaluation, arm, case and attempt, so enqueuing a plan twice is once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.database import Transaction
from gateway.values import AgentName, Occurrence, Purpose
from reconciler.config import Suite
from reconciler.gates.evidence import (
    ANCHOR,
    CANDIDATE,
    SENTINEL,
    STABLE,
    Attempt,
    Evidence,
    SuiteShape,
    missing,
    wanted,
)
from reconciler.gates.judge import Reading, Terms, judge
from reconciler.release import Release, run_spec
from reconciler.rollout.model import GatePolicy
from reconciler.tick import workspaces
from reconciler.tick.context import Context, Declared
from runner import queue
from runner.spec import RunOutcome, StopReason


@dataclass(frozen=True)
class Evaluation:
    """Who is compared on what. `arms` maps arm names (sentinels included) to releases."""

    id: str
    agent: AgentName
    team: str
    suite: Suite
    shape: SuiteShape
    arms: Mapping[str, Release]

    @property
    def compared(self) -> tuple[str, ...]:
        """The arms that attempt every case at every look."""
        return tuple(arm for arm in (CANDIDATE, STABLE, ANCHOR) if arm in self.arms)


def terms(policy: GatePolicy) -> Terms:
    """The gate's policy as the formulas want it."""
    return Terms(
        looks=policy.looks,
        delta=policy.delta_permille / 1000,
        threshold=policy.first_release.min_pass_rate_permille / 1000,
        cost_ratio=_share(policy.cost_ratio_permille),
        latency_ratio=_share(policy.latency_ratio_permille),
        max_errors=policy.max_errors,
    )


def evidence(tx: Transaction, evaluation: str) -> Evidence:
    """All graded attempts of an evaluation."""
    return Evidence.of(
        Attempt(
            arm=row["arm"],
            case=row["case_id"],
            number=row["attempt"],
            status=row["status"],
            cost_nano=row["cost_nano"],
            working_ms=row["working_ms"],
            run=row["run"],
            detail=row["detail"],
        )
        for row in tx.read("SELECT * FROM attempts WHERE rollout = :id", id=evaluation)
    )


def read(
    context: Context, tx: Transaction, evaluation: Evaluation, policy: GatePolicy, look: int
) -> Reading:
    """The gate's word on what is there now."""
    return judge(
        evaluation.shape,
        evidence(tx, evaluation.id),
        terms(policy),
        look=look,
        arms=evaluation.compared,
        random=lambda name: context.seeded(f"{evaluation.id}:{name}"),
    )


def start(
    context: Context, declared: Declared, evaluation: Evaluation, policy: GatePolicy, look: int
) -> int:
    """Enqueue every attempt of the look that does not exist yet; returns how many are new.

    Workspaces are laid out before the transaction, as that may take long.
    """
    with context.database.snapshot() as tx:
        seen = evidence(tx, evaluation.id)
        known = {
            (row["arm"], row["case_id"], row["attempt"])
            for row in tx.read(
                "SELECT arm, case_id, attempt FROM runs WHERE rollout = :id AND purpose = 'eval'",
                id=evaluation.id,
            )
        }
    plan = wanted(
        evaluation.shape, evaluation.compared, seen, look=look, max_errors=policy.max_errors
    )
    # Interleaved in time by construction: attempt by attempt, then case by case, arms last.
    order = sorted(missing(plan, seen), key=lambda w: (w.number, w.case, w.arm))
    fresh = [w for w in order if (w.arm, w.case, w.number) not in known]
    if not fresh:
        return 0
    cases = {case.id: case for case in evaluation.suite.cases}
    commit, tree = declared.tree_of(evaluation.agent)
    laid = {
        name: workspaces.from_tree(
            context.state,
            tree,
            cases[name].workspace,
            origin=f"config {commit} {cases[name].workspace}",
        )
        for name in {w.case for w in fresh}
    }
    now = context.clock.now()
    with context.database.transaction() as tx:
        closed = tx.one(
            "SELECT closed_at FROM rollouts WHERE rollout = :id AND closed_at IS NOT NULL",
            id=evaluation.id,
        )
        if closed is not None:
            return 0  # somebody ended it while the files were laid out
        for position, item in enumerate(fresh):
            case = cases[item.case]
            spec = run_spec(
                evaluation.arms[item.arm],
                agent=evaluation.agent,
                team=evaluation.team,
                purpose=Purpose.EVAL,
                occurrence=Occurrence(f"eval:{evaluation.id}:{item.arm}:{item.case}:{item.number}"),
                input=case.input,
                workspace=laid[item.case],
                checks=case.checks,
                recorded=case.recorded,
            )
            queue.enqueue(
                tx,
                spec,
                now=now,
                assignment=queue.Assignment(evaluation.id, item.arm, item.case, item.number),
                priority=-position,
            )
    return len(fresh)


def collect(tx: Transaction) -> int:
    """Turn finished eval runs into graded attempts; returns how many."""
    rows = queue.unread_ends(tx, Purpose.EVAL)
    queue.ends_read(tx, [row["run"] for row in rows])
    graded = 0
    for row in rows:
        if row["rollout"] is None:
            continue
        outcome = RunOutcome.model_validate_json(row["outcome"])
        status, detail = grade(outcome)
        graded += tx.execute(
            "INSERT INTO attempts (rollout, arm, case_id, attempt, run, status, detail, stop,"
            " cost_nano, working_ms) VALUES (:rollout, :arm, :case_id, :attempt, :run, :status,"
            " :detail, :stop, :cost, :working) ON CONFLICT DO NOTHING",
            rollout=row["rollout"],
            arm=row["arm"],
            case_id=row["case_id"],
            attempt=row["attempt"],
            run=row["run"],
            status=status,
            detail=detail,
            stop=outcome.stop,
            cost=outcome.cost_nano,
            working=outcome.working_ms,
        )
    return graded


def grade(outcome: RunOutcome) -> tuple[str, str]:
    """Status and detail of one eval. What the environment did is an error, never a fail."""
    if outcome.stop in (StopReason.ERROR, StopReason.KILLED, StopReason.OUTCOME_UNKNOWN):
        return "error", f"{outcome.stop}: {outcome.detail}"
    if outcome.shared_budget:
        # A budget that all evals spend from ran out: that says nothing of this release.
        return "error", f"{outcome.stop}: {outcome.detail}"
    match outcome.graded:
        case "none":
            return "error", "no grader said anything"
        case status:
            telling = [g for g in outcome.grades if g.status == status]
            detail = "" if status == "passed" else f"{telling[0].check}: {telling[0].detail}"
            return status, detail


def open_attempts(tx: Transaction, evaluation: str) -> int:
    """Eval runs of this evaluation that have not ended."""
    row = tx.one(
        "SELECT count(*) AS n FROM runs WHERE rollout = :id AND purpose = 'eval'"
        " AND status <> 'finished'",
        id=evaluation,
    )
    return int(row["n"]) if row else 0


def withdraw(tx: Transaction, evaluation: str) -> None:
    """Drop the attempts that no runner has begun: nobody waits for their answer any more."""
    tx.execute(
        "DELETE FROM runs WHERE rollout = :id AND purpose = 'eval' AND status = 'queued'"
        " AND started_at IS NULL",
        id=evaluation,
    )


def lost_attempts(tx: Transaction, evaluation: str) -> int:
    """How many attempts of this evaluation were lost to errors."""
    row = tx.one(
        "SELECT count(*) AS n FROM attempts WHERE rollout = :id AND status = 'error'",
        id=evaluation,
    )
    return int(row["n"]) if row else 0


def sentinel_arm(sentinel: str) -> str:
    """The arm's name of a sentinel."""
    return SENTINEL + sentinel


def _share(permille: int | None) -> float | None:
    return None if permille is None else permille / 1000
