"""An evaluation that a person asks for: the same runs and the same judge, without a rollout.

`interlock gate` decides what a rollout would decide; `interlock eval` grades a suite once. Neither
moves a pointer. Their attempts are kept under an evaluation id of their own, so that they can
never be counted as a rollout's evidence: a second throw of the dice is not evidence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from gateway.values import AgentName, derived_id
from reconciler.gates.evidence import CANDIDATE, STABLE, Evidence
from reconciler.gates.judge import Reading
from reconciler.operations import Refused
from reconciler.process.compose import (
    Options,
    open_context,
    restore_if_behind,
    secret_names,
)
from reconciler.process.lock import sole
from reconciler.process.supervisor import Supervisor, workers
from reconciler.rollout import store
from reconciler.rollout.model import GatePolicy
from reconciler.tick import evals
from reconciler.tick.context import Context, Declared
from reconciler.tick.declare import declare, rollout_policy, shape

PAUSE_S = 0.2
Watch = Callable[[int, int], None]
"""Told (graded, planned) attempts after each look at the store."""


@dataclass(frozen=True)
class Evaluated:
    """What came of it. `reading` is None for a plain eval, which decides nothing."""

    agent: str
    candidate: str
    stable: str | None
    look: int
    reading: Reading | None
    evidence: Evidence
    cases: tuple[str, ...]


def evaluate(
    options: Options,
    environment: Mapping[str, str],
    agent: str,
    *,
    gate: bool,
    attempts: int = 1,
    watch: Watch,
) -> Evaluated:
    """Run an agent's declared release through its suite, and with `gate` judge it.

    Raises Refused when there is nothing to evaluate (unknown agent, no suite, nothing new).
    """
    with ExitStack() as stack:
        stack.enter_context(sole(options.state, "other"))
        context = open_context(options, environment, job=True)
        restore_if_behind(context)
        declared = declare(context)
        if declared is None:
            raise Refused("no commit of the config repo can be used: run `interlock validate`")
        evaluation, policy = _evaluation(context, declared, agent, gate=gate)
        stack.callback(_withdraw, context, evaluation.id)
        supervisor = stack.enter_context(
            workers(
                context.state,
                environment,
                slots=options.slots,
                secrets=secret_names(context),
            )
        )
        looks = policy.looks if gate else (attempts,)
        reading: Reading | None = None
        look = looks[0]
        for look in looks:
            reading = _finish_look(
                context, declared, evaluation, policy, look, gate, watch, supervisor
            )
            if reading is None or reading.decision != "more":
                break
        with context.database.snapshot() as tx:
            seen = evals.evidence(tx, evaluation.id)
    return Evaluated(
        agent=agent,
        candidate=evaluation.arms[CANDIDATE].digest,
        stable=evaluation.arms[STABLE].digest if STABLE in evaluation.arms else None,
        look=look,
        reading=reading,
        evidence=seen,
        cases=evaluation.shape.cases,
    )


def _evaluation(
    context: Context, declared: Declared, agent: str, *, gate: bool
) -> tuple[evals.Evaluation, GatePolicy]:
    name = AgentName(agent)
    if name not in declared.releases:
        broken = declared.broken.get(name)
        why = "; ".join(str(f) for f in broken) if broken else "there is no such agent"
        raise Refused(f"{agent}: {why}; agents: {', '.join(sorted(declared.releases))}")
    config = declared.fleet.agents[name]
    if config.suite is None:
        raise Refused(f"{agent} has no suite: give `evals:` in {config.place.file}")
    release = declared.releases[name]
    arms = {CANDIDATE: release}
    sentinels = declared.sentinels.get(name, {}) if gate else {}
    with context.database.snapshot() as tx:
        pointer = store.pointer(tx, agent)
    if gate and pointer is not None and pointer["stable"] is not None:
        if pointer["stable"] == release.digest:
            raise Refused(f"{agent}: {release.digest} is what is live; there is nothing to gate")
        arms[STABLE] = store.release(context.database, pointer["stable"])
    for sentinel, variant in sentinels.items():
        arms[evals.sentinel_arm(sentinel)] = variant
    found = shape(config.suite, sentinels=tuple(sentinels))
    if not gate:
        found = replace(found, critical=frozenset())
    policy = rollout_policy(config).gate or GatePolicy()
    evaluation = evals.Evaluation(
        id=derived_id("gate" if gate else "eval", agent, release.digest, context.clock.now()),
        agent=name,
        team=config.team,
        suite=config.suite,
        shape=found,
        arms=arms,
    )
    return evaluation, policy


def _finish_look(
    context: Context,
    declared: Declared,
    evaluation: evals.Evaluation,
    policy: GatePolicy,
    look: int,
    gate: bool,
    watch: Watch,
    supervisor: Supervisor,
) -> Reading | None:
    """Have every attempt of the look graded; the gate's word on it, or None without a gate."""
    while True:
        supervisor.check()
        evals.start(context, declared, evaluation, policy, look)
        with context.database.transaction() as tx:
            evals.collect(tx)
        with context.database.snapshot() as tx:
            left = evals.open_attempts(tx, evaluation.id)
            seen = evals.evidence(tx, evaluation.id)
            graded = sum(len(group) for group in seen.attempts.values())
            reading = evals.read(context, tx, evaluation, policy, look) if gate else None
        watch(graded, graded + left)
        if reading is not None and reading.decision != "waiting":
            return reading
        if not gate and left == 0:
            return None
        time.sleep(PAUSE_S)


def _withdraw(context: Context, evaluation: str) -> None:
    """However it ended: nobody waits for the attempts that are still queued."""
    with context.database.transaction() as tx:
        evals.withdraw(tx, evaluation)
