"""One tick: fetch → decide → act. The same code in a scheduled job and in the service.

A tick never waits for a run. It enqueues, and reads what came of it on a later tick. Each stage
is a room of its own; a stage that cannot do its work says so in `problems`, and the others go on.
Calling it twice in a row without anything new in between changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.tick import assign, evals, rollouts
from reconciler.tick.context import Context, Declared
from reconciler.tick.declare import declare, publish_policy
from runner import queue

__all__ = ["Context", "Declared", "Ticked", "tick"]


@dataclass(frozen=True)
class Ticked:
    """What one tick did. `busy`: runs are open, so a later tick will have more to read."""

    commit: str | None
    graded: int
    ended: int
    opened: int
    moved: int
    started: list[assign.Started]
    open_runs: int
    open_live: int
    problems: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Something happened that people may want to read about."""
        return bool(self.graded or self.ended or self.opened or self.moved or self.started)

    @property
    def busy(self) -> bool:
        """Runs are open."""
        return self.open_runs > 0


def tick(context: Context) -> Ticked:
    """Look at git, the facts and the clock once, and do what follows from them."""
    context.problems.clear()
    declared = declare(context)
    with context.database.transaction() as tx:
        graded = evals.collect(tx)
        ended = assign.record_ends(tx, context.clock.now())
        assign.settle_claims(tx)
    opened = rollouts.open_new(context, declared) if declared is not None else 0
    moved = rollouts.move(context, declared)
    if declared is not None and (opened or moved):
        with context.database.transaction() as tx:
            publish_policy(tx, declared, context.clock.now())
    # Harm found now must stop the next assignment, so rollouts move before anything is assigned.
    if declared is not None and not context.draining:
        started = assign.due(context, declared)
    else:
        started = []
    open_runs = queue.open_runs(context.database)
    return Ticked(
        commit=declared.commit if declared else None,
        graded=graded,
        ended=ended,
        opened=opened,
        moved=moved,
        started=[s for s in started if s.run is not None],
        open_runs=len(open_runs),
        open_live=sum(1 for run in open_runs if run["purpose"] == "live"),
        problems=list(context.problems),
    )
