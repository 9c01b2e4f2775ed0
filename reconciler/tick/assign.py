"""Live runs: what is due gets a release, a workspace and a place in the queue.

The only place that enqueues a live run. In job mode the run is born `claimed` and becomes
`queued` when its claim has been pushed (`claims_pushed`); in service mode it is queued at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from gateway.database import Transaction
from gateway.policy import Policy, Window
from gateway.values import AgentName, Millis, Occurrence, Purpose, RunId, show_usd
from reconciler import triggers
from reconciler.config import AgentConfig
from reconciler.gates.live import judge_run
from reconciler.record import audit
from reconciler.release import run_spec
from reconciler.rollout import store
from reconciler.rollout.assignment import Assigned, Pointer, Unassigned, assign
from reconciler.rollout.model import RolloutPolicy
from reconciler.source.errors import SourceError
from reconciler.tick import rollouts, workspaces
from reconciler.tick.context import Context, Declared
from runner import queue
from runner.spec import RunOutcome, RunSpec, Workspace

CLAIM_LEASE_MS = 6 * 3_600_000
"""How long a claim binds its run to the machine that made it: longer than any CI job."""


@dataclass(frozen=True, slots=True)
class Started:
    """What came of asking for a run: its id and release, or why there is none."""

    run: RunId | None
    release: str | None
    rollout: str | None
    reason: str


def due(context: Context, declared: Declared) -> list[Started]:
    """Enqueue a run for every agent whose schedule is due; at most one per agent and tick."""
    started: list[Started] = []
    for agent, config in sorted(declared.fleet.agents.items()):
        if config.trigger.schedule is None:
            continue
        found = _due_now(context, agent, config)
        if found is None:
            continue
        result = start(
            context,
            declared,
            agent,
            found.occurrence,
            text=f"It is {found.occurrence.removeprefix('schedule:')}: your scheduled run.",
            actor="schedule",
        )
        started.append(result)
        if result.run is not None:
            with context.database.transaction() as tx:
                _looked(tx, agent, found.at)
        else:
            context.problems.append(
                f"{agent}: due {found.occurrence}, not started: {result.reason}"
            )
    return started


def _due_now(context: Context, agent: AgentName, config: AgentConfig) -> triggers.Due | None:
    now = context.clock.now()
    assert config.trigger.schedule is not None
    with context.database.transaction() as tx:
        row = tx.one("SELECT looked_until FROM schedules WHERE agent = :agent", agent=agent)
        if row is None:  # first sight of this agent: nothing before now is made up for
            _looked(tx, agent, now)
            return None
        if _open_live(tx, agent):
            return None  # overlap: the next one starts when this one has ended
    return triggers.due(
        config.trigger.schedule, config.trigger.timezone, after=row["looked_until"], now=now
    )


def start(
    context: Context,
    declared: Declared,
    agent: AgentName,
    occurrence: Occurrence,
    *,
    text: str,
    actor: str,
) -> Started:
    """Give one occurrence to whatever release is its turn. Idempotent by (agent, occurrence)."""
    config = declared.fleet.agents[agent]
    try:
        workspace = (
            workspaces.from_git(context, config.workspace.git, config.workspace.ref)
            if config.workspace is not None
            else Workspace()
        )
    except (SourceError, LookupError, ValueError) as error:
        return Started(None, None, None, str(error))
    if config.workspace is not None:
        workspace = workspace.model_copy(update={"protect": tuple(config.workspace.protect)})
    now = context.clock.now()
    with context.database.transaction() as tx:
        choice = _assign(tx, agent, now)
        if isinstance(choice, Unassigned):
            return Started(None, None, None, choice.reason)
        release = store.release(tx, choice.release)
        pointer = store.pointer(tx, agent)
        judge = (
            store.release(tx, pointer["stable"])
            if choice.rollout is not None and pointer is not None and pointer["stable"]
            else None
        )
        spec = run_spec(
            release,
            agent=agent,
            team=config.team,
            purpose=Purpose.LIVE,
            occurrence=occurrence,
            input=text,
            workspace=workspace,
            checker_release=judge,
            notes=rollouts.last_notes(tx, agent),
        )
        run, new = queue.enqueue(
            tx,
            spec,
            now=now,
            assignment=queue.Assignment(
                rollout=choice.rollout, arm="candidate" if choice.rollout else None
            ),
            status=queue.RunStatus.CLAIMED if context.job else queue.RunStatus.QUEUED,
        )
        if new:
            if context.job:
                _claim(tx, context, run, spec, _slice(spec, declared.fleet.platform), now)
            audit.append(
                tx,
                now=now,
                actor=actor,
                action="run.start",
                agent=agent,
                subject=run,
                reason=f"{occurrence} on {choice.release}"
                + (f" (canary of {choice.rollout})" if choice.rollout else ""),
            )
    return Started(run, choice.release, choice.rollout, "started" if new else "already there")


def _assign(tx: Transaction, agent: AgentName, now: Millis) -> Assigned | Unassigned:
    row = store.pointer(tx, agent)
    pointer = None
    if row is not None:
        count = assigned = 0
        if row["rollout"] is not None:
            rollout = tx.one("SELECT policy FROM rollouts WHERE rollout = :id", id=row["rollout"])
            policy = RolloutPolicy.model_validate_json(rollout["policy"]) if rollout else None
            count = policy.canary.count if policy and policy.canary else 0
            # Runs that said nothing (an error, a kill) are not a turn of the canary: it would
            # otherwise wait for a grade that can never come.
            reading = rollouts.canary_runs(tx, row["rollout"])
            assigned = reading.open_runs + reading.graded
        pointer = Pointer(row["stable"], row["candidate"], row["rollout"], count, assigned)
    barred = {r["digest"] for r in tx.read("SELECT digest FROM quarantine")}
    hold = next(
        (h for h in store.holds(tx, now) if h.kind == "assignment" and h.covers(agent, now)),
        None,
    )
    return assign(pointer, quarantined=barred, hold=hold)


def _slice(spec: RunSpec, platform: Policy) -> int:
    """The most the run may spend: the lowest of its own ceiling and the rules for single runs."""
    limits = [
        rule.limit
        for rule in platform.budgets
        if rule.window is Window.RUN
        and rule.mode == "enforce"
        and fnmatchcase(spec.agent, rule.agent)
        and fnmatchcase(spec.team, rule.team)
        and fnmatchcase(spec.purpose, rule.purpose)
        and rule.model == "*"
    ]
    if spec.limits.max_cost is not None:
        limits.append(spec.limits.max_cost)
    return min(limits, default=0)


def _claim(
    tx: Transaction, context: Context, run: RunId, spec: RunSpec, slice_nano: int, now: Millis
) -> None:
    """Bind the occurrence, and the run's whole budget, to this machine."""
    tx.execute(
        "INSERT INTO claims (run, agent, occurrence, release, slice_nano, machine, state,"
        " claimed_at, lease_until) VALUES (:run, :agent, :occurrence, :release, :slice, :machine,"
        " 'open', :now, :until) ON CONFLICT DO NOTHING",
        run=run,
        agent=spec.agent,
        occurrence=spec.occurrence,
        release=spec.release,
        slice=slice_nano,
        machine=context.machine,
        now=now,
        until=now + CLAIM_LEASE_MS,
    )


def record_ends(tx: Transaction, now: Millis) -> int:
    """An audit line for every live run that ended since the last tick; returns how many."""
    rows = tx.read(
        "SELECT run, agent, release, outcome FROM runs WHERE purpose = 'live'"
        " AND status = 'finished' AND NOT EXISTS (SELECT 1 FROM audit"
        " WHERE action = 'run.end' AND subject = runs.run) ORDER BY finished_at, run"
    )
    for row in rows:
        outcome = RunOutcome.model_validate_json(row["outcome"])
        found = judge_run(outcome)
        stall = f" ({outcome.stall})" if outcome.stall else ""
        detail = found.detail or outcome.detail
        audit.append(
            tx,
            now=now,
            actor="interlock",
            action="run.end",
            agent=row["agent"],
            subject=row["run"],
            reason=f"{outcome.stop}{stall} · {found.word or 'not judged'} ·"
            f" {show_usd(outcome.cost_nano)} · {outcome.steps} steps on {row['release']}"
            + (f" · {detail}" if detail else ""),
        )
    return len(rows)


def settle_claims(tx: Transaction) -> None:
    """A claim whose run has its outcome is settled: nothing is owed any more."""
    tx.execute(
        "UPDATE claims SET state = 'settled' WHERE state IN ('open', 'pushed') AND run IN"
        " (SELECT run FROM runs WHERE status = 'finished')"
    )


def open_claims(tx: Transaction) -> list[RunId]:
    """Claims that no push has made durable yet."""
    return [RunId(r["run"]) for r in tx.read("SELECT run FROM claims WHERE state = 'open'")]


def claims_pushed(tx: Transaction, runs: list[RunId]) -> None:
    """These claims stand in git: their runs may begin."""
    for run in runs:
        tx.execute(
            "UPDATE claims SET state = 'pushed' WHERE run = :run AND state = 'open'", run=run
        )
    queue.release_claims(tx, runs)


def _open_live(tx: Transaction, agent: str) -> bool:
    return (
        tx.one(
            "SELECT run FROM runs WHERE agent = :agent AND purpose = 'live'"
            " AND status <> 'finished' LIMIT 1",
            agent=agent,
        )
        is not None
    )


def _looked(tx: Transaction, agent: str, until: Millis) -> None:
    tx.execute(
        "INSERT INTO schedules (agent, looked_until) VALUES (:agent, :until)"
        " ON CONFLICT (agent) DO UPDATE SET looked_until = :until",
        agent=agent,
        until=until,
    )
