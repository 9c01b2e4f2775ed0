"""One tick: fetch → decide → act. The same code in a scheduled job and in the service.

A tick looks at what changed since the one before, however large the fleet: at the agents whose
declaration is another one now, and at those of which the audit has a new line, whoever wrote it.
What moves by time or by runs (gates, canaries, schedules) is found by what is open or due.

A tick never waits for a run. It enqueues, and reads what came of it on a later tick. Each stage
is a room of its own; a stage that cannot do its work says so in `problems`, and the others go on.
Calling it twice in a row without anything new in between changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.values import AgentName
from reconciler.record import audit
from reconciler.tick import assign, evals, pulls, rollouts
from reconciler.tick.ceilings import publish_ceilings
from reconciler.tick.context import EVERYONE, Context, Declared, joined
from reconciler.tick.declare import declare
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
    unread: bool = False
    """A run ended while this tick was at work: it is neither open nor read yet."""

    @property
    def changed(self) -> bool:
        """Something happened that people may want to read about."""
        return bool(self.graded or self.ended or self.opened or self.moved or self.started)

    @property
    def busy(self) -> bool:
        """Runs are open, or have ended and were not read."""
        return self.open_runs > 0 or self.unread


def _read_ends(context: Context) -> tuple[int, int]:
    """How many evals were graded, and how many live runs ended, since the last tick."""
    with context.database.snapshot() as tx:
        if not queue.any_unread_end(tx) and not assign.owed_claims(tx):
            return 0, 0
    with context.database.transaction() as tx:
        graded = evals.collect(tx)
        ended = assign.record_ends(tx, context.clock.now())
        assign.settle_claims(tx)
    return graded, ended


def _look(context: Context) -> tuple[frozenset[AgentName] | None, int]:
    """Agents to which something happened since rollouts were looked at, None: everyone; and the
    audit line up to which that is so."""
    news = context.news
    with context.database.snapshot() as tx:
        until = audit.last_seq(tx)
        if news.looked_until is None or until < news.looked_until:
            return None, until
        if until == news.looked_until:
            return news.declared, until
        return joined(news.declared, audit.agents_since(tx, news.looked_until)), until


def _follow_use(context: Context, declared: Declared) -> frozenset[AgentName] | None:
    """Have the ceilings follow which releases are in use now; returns whom something happened to.

    Promotions and rollbacks may be anybody's, in another process too.
    """
    news = context.news
    with context.database.snapshot() as tx:
        until = audit.last_seq(tx)
        if until == news.published_until:
            return frozenset()
        known = news.published_until is not None and until > news.published_until
        agents = audit.agents_since(tx, news.published_until or 0) if known else None
    if agents is None or agents - {EVERYONE}:
        with context.database.transaction() as tx:
            publish_ceilings(tx, declared, None if agents is None else agents - {EVERYONE})
    news.published_until = until
    return agents


def tick(context: Context) -> Ticked:
    """Look at git, the facts and the clock once, and do what follows from them."""
    context.problems.clear()
    declared = declare(context)
    if declared is not None and pulls.look(context, declared):
        declared = declare(context)  # somebody may have approved something
    graded, ended = _read_ends(context)
    look, until = _look(context)
    opened = rollouts.open_new(context, declared, look) if declared is not None else 0
    moved = rollouts.move(context, declared, look)
    started: list[assign.Started] = []
    if declared is not None:
        context.news.declared, context.news.looked_until = frozenset(), until
        happened = joined(look, _follow_use(context, declared))
        # Harm found now must stop the next assignment: rollouts move before a run is assigned.
        if not context.draining:
            started = assign.due(context, declared, happened)
    # In this order: a run that ends between the two is seen by the second.
    open_runs = queue.open_runs(context.database)
    with context.database.snapshot() as tx:
        unread = queue.any_unread_end(tx)
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
        unread=unread,
    )
