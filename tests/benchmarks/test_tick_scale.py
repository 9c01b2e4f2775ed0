"""What a tick costs in a large fleet with a history, beside one SQLite count over its runs.

A tick without news must not notice how many agents there are or how often they ran; a commit that
touches one agent costs what that agent costs. Compiling is not in these figures: they are what
comes after it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.rollout import store
from reconciler.rollout.model import Rollout, RolloutPolicy, State
from reconciler.tick import tick
from tests.support.tick_world import World, name, released, world

pytestmark = pytest.mark.benchmark

ROUNDS = 30
EACH = 5
"""Finished runs of each agent."""


@pytest.mark.parametrize("agents", [10_000, 50_000])
def test_a_tick_beside_a_count(
    agents: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = world(tmp_path, agents)
    first = _time(lambda: made.adopt())
    made.promote_everything()
    _history(made, agents)
    _rejected(made, agents // 10)
    made.context.fetched_at = made.clock.now()
    beginning = _time(lambda: _quiet(made))
    count = _median(lambda: made.database.one("SELECT count(*) AS n FROM runs WHERE fence > 0"))
    idle = _median(lambda: _quiet(made))
    edits = []
    for n in range(ROUNDS):
        now = made.edited(name(agents - 1 - n), text=f"Edit {n}.")
        changed = frozenset({name(agents - 1 - n)})
        edits.append(_time(lambda now=now, changed=changed: _adopt_and_tick(made, now, changed)))  # type: ignore[misc]
    edit = statistics.median(edits)
    after = _median(lambda: _quiet(made))
    with capsys.disabled():
        print(
            f"\n{agents} agents, {agents * EACH} finished runs, {agents // 10} rejected rollouts"
            f"\n  first adopt {first:.2f} s, first tick {beginning:.2f} s, a count over the runs"
            f" {count * 1000:.2f} ms"
            f"\n  tick without news {idle * 1000:.2f} ms = {idle / count:.2f} counts"
            f"\n  one agent changed, adopted and promoted {edit * 1000:.2f} ms ="
            f" {edit / count:.2f} counts"
        )
    assert idle < 0.010
    assert after < 0.010
    assert edit < 0.050
    assert idle < count, "an idle tick costs less than looking at every run once"


def _quiet(made: World) -> None:
    assert not tick(made.context).changed


def _adopt_and_tick(made: World, now: object, changed: frozenset[object]) -> None:
    made.adopt(now, among=changed)  # type: ignore[arg-type]
    ticked = tick(made.context)
    assert (ticked.opened, ticked.moved) == (1, 1)


def _history(made: World, agents: int) -> None:
    with made.database.transaction() as tx:
        for n in range(agents * EACH):
            tx.execute(
                "INSERT INTO runs (run, agent, team, purpose, occurrence, release, status,"
                " priority, spec, fence, outcome, created_at, finished_at) VALUES (:run, :agent,"
                " 'payments', 'live', :o, :r, 'finished', 0, :spec, 1, :outcome, :n, :n)",
                run=f"run-{n}",
                agent=name(n % agents),
                o=f"manual:{n}",
                r="rel-000000000000",
                spec="{}" + " " * 2_000,
                outcome='{"stop": "done"}',
                n=n,
            )


def _rejected(made: World, agents: int) -> None:
    """The first agents ask for something that their gate has rejected."""
    releases = dict(made.declared.releases)
    with made.database.transaction() as tx:
        for n in range(agents):
            agent = name(n)
            wanted = released(releases[agent], f"Worse {n}.")
            store.save(tx, _closed(agent, releases[agent].digest, wanted.digest))
            releases[agent] = wanted
    made.adopt(made.with_agents(made.declared.fleet.agents, releases))


def _closed(agent: str, stable: str, candidate: str) -> Rollout:
    return Rollout(
        id=f"rollout-{agent}",
        agent=agent,  # type: ignore[arg-type]
        candidate=candidate,  # type: ignore[arg-type]
        stable=stable,  # type: ignore[arg-type]
        anchor=None,
        policy=RolloutPolicy(name="standard"),
        suite="",
        commit="0" * 40,
        state=State.REJECTED,
        look=0,
        reason="failed",
        opened_at=1,  # type: ignore[arg-type]
        since=1,  # type: ignore[arg-type]
    )


def _time(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _median(work: Callable[[], object]) -> float:
    return statistics.median(_time(work) for _ in range(ROUNDS))
