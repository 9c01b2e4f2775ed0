"""Live runs: what is due gets a release, a workspace and a place in the queue.

The only place that enqueues a live run. In job mode the run is born `claimed` and becomes
`queued` when its claim has been pushed (`claims_pushed`); in service mode it is queued at once.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from gateway.database import Transaction
from gateway.policy import Policy, Window
from gateway.values import AgentName, Millis, Occurrence, Purpose, RunId, show_usd
from reconciler import triggers
from reconciler.gates.live import judge_run
from reconciler.record import audit
from reconciler.release import run_spec
from reconciler.rollout import store
from reconciler.rollout.assignment import Assigned, Pointer, Unassigned, assign
from reconciler.rollout.model import RolloutPolicy
from reconciler.source.errors import SourceError
from reconciler.tick import rollouts, workspaces
from reconciler.tick.context import EVERYONE, Blocked, Context, Declared
from runner import queue
from runner.spec import RunOutcome, RunSpec, Workspace

RETRY_MS = 10_000
"""How long a due run that cannot be started waits before it is tried again with nothing new: a hold
may have run out, or a workspace's origin may be back."""
CLAIM_LEASE_MS = 6 * 3_600_000
"""How long a claim binds its run to the machine that made it: longer than any CI job."""


@dataclass(frozen=True, slots=True)
class Started:
    """What came of asking for a run: its id and release, or why there is none."""

    run: RunId | None
    release: str | None
    rollout: str | None
    reason: str


def due(
    context: Context, declared: Declared, happened: Collection[AgentName] | None
) -> list[Started]:
    """Enqueue a run for every agent whose schedule is due; at most one per agent and tick.

    `happened`: the agents of which the audit has something new, None everyone. One that could not
    be started is tried again when something happened to it, and now and then.
    """
    now = context.clock.now()
    _schedule(context, declared, now)
    waiting = context.timetable.due(now)
    if not waiting:
        return []
    # No overlap: the next one starts when this one has ended.
    open_runs = queue.open_runs(context.database)
    running = {run["agent"] for run in open_runs if run["purpose"] == Purpose.LIVE}
    with context.database.snapshot() as tx:
        ready = [a for a in waiting if a not in running and not _blocked(context, a, happened)]
        looked = _looked_until(tx, ready)
    started: list[Started] = []
    for agent in ready:
        trigger = declared.fleet.agents[agent].trigger
        assert trigger.schedule is not None
        found = triggers.due(trigger.schedule, trigger.timezone, after=looked[agent], now=now)
        if found is None:  # missed so long ago that nobody wants it any more
            context.timetable.put(agent, trigger.schedule, trigger.timezone, after=now)
            continue
        result = start(
            context,
            declared,
            agent,
            found.occurrence,
            text=f"It is {found.occurrence.removeprefix('schedule:')}: your scheduled run.",
            actor="schedule",
            looked_until=found.at,
        )
        started.append(result)
        if result.run is not None:
            context.timetable.put(agent, trigger.schedule, trigger.timezone, after=found.at)
        else:
            why = f"{agent}: due {found.occurrence}, not started: {result.reason}"
            context.blocked[agent] = Blocked(Millis(now + RETRY_MS), why)
            context.problems.append(why)
    return started


def _blocked(context: Context, agent: AgentName, happened: Collection[AgentName] | None) -> bool:
    """Whether it is too early to try an agent again that could not be started; says why not."""
    blocked = context.blocked.get(agent)
    if blocked is None:
        return False
    news = happened is None or agent in happened or EVERYONE in happened
    if news or context.clock.now() >= blocked.until:
        del context.blocked[agent]
        return False
    context.problems.append(blocked.reason)
    return True


def _schedule(context: Context, declared: Declared, now: Millis) -> None:
    """Bring the timetable up to what is declared: once for everyone, then for what changed."""
    changed, table = context.news.scheduled, context.timetable
    if changed is not None and not changed:
        return
    agents = declared.fleet.agents
    names = agents.keys() | table.agents() if changed is None else changed
    timed = {n: agents[n].trigger for n in names if n in agents and agents[n].trigger.schedule}
    with context.database.snapshot() as tx:
        looked = _looked_until(tx, None if changed is None else timed)
    fresh = sorted(timed.keys() - looked.keys())
    if fresh:
        with context.database.transaction() as tx:
            for agent in fresh:  # at first sight nothing before now is made up for
                _looked(tx, agent, now)
    for agent, trigger in timed.items():
        assert trigger.schedule is not None
        table.put(agent, trigger.schedule, trigger.timezone, after=looked.get(agent, now))
    table.drop(names - timed.keys())
    for agent in names:
        context.blocked.pop(agent, None)
    context.news.scheduled = frozenset()


def _looked_until(tx: Transaction, agents: Collection[AgentName] | None) -> dict[AgentName, Millis]:
    """Up to which moment these agents' schedules have been looked at (None: everyone's)."""
    if agents is None or len(agents) > 200:
        rows = tx.read("SELECT agent, looked_until FROM schedules")
    else:
        query = "SELECT agent, looked_until FROM schedules WHERE agent = :agent"
        rows = [row for agent in agents if (row := tx.one(query, agent=agent)) is not None]
    return {AgentName(row["agent"]): Millis(row["looked_until"]) for row in rows}


def start(
    context: Context,
    declared: Declared,
    agent: AgentName,
    occurrence: Occurrence,
    *,
    text: str,
    actor: str,
    looked_until: Millis | None = None,
) -> Started:
    """Give one occurrence to whatever release is its turn. Idempotent by (agent, occurrence).

    With `looked_until` its schedule counts as looked at up to there, if a run came of it.
    """
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
            tags=config.tags,
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
        if looked_until is not None:
            _looked(tx, agent, looked_until)
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
        and rule.limit is not None
        and rule.mode == "enforce"
        and fnmatchcase(spec.agent, rule.agent)
        and fnmatchcase(spec.team, rule.team)
        and fnmatchcase(spec.purpose, rule.purpose)
        and (rule.model, rule.user, rule.tag) == ("*", "*", "*")
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
    rows = queue.unread_ends(tx, Purpose.LIVE)
    queue.ends_read(tx, [row["run"] for row in rows])
    fresh = [row for row in rows if not _told(tx, row["run"])]
    for row in fresh:
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
    return len(fresh)


def _told(tx: Transaction, run: str) -> bool:
    """Whether the record has the end of this run already: it may have been read back from git."""
    told = "SELECT seq FROM audit WHERE subject = :run AND action = 'run.end' LIMIT 1"
    return tx.one(told, run=run) is not None


def settle_claims(tx: Transaction) -> None:
    """A claim whose run has its outcome is settled: nothing is owed any more."""
    for run in owed_claims(tx):
        tx.execute("UPDATE claims SET state = 'settled' WHERE run = :run", run=run)


def owed_claims(tx: Transaction) -> list[RunId]:
    """Claims that are not settled although their run has its outcome."""
    rows = tx.read(
        "SELECT run FROM claims WHERE state IN ('open', 'pushed') AND EXISTS"
        " (SELECT 1 FROM runs WHERE runs.run = claims.run AND status = 'finished')"
    )
    return [RunId(row["run"]) for row in rows]


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


def _looked(tx: Transaction, agent: str, until: Millis) -> None:
    tx.execute(
        "INSERT INTO schedules (agent, looked_until) VALUES (:agent, :until)"
        " ON CONFLICT (agent) DO UPDATE SET looked_until = :until",
        agent=agent,
        until=until,
    )
