"""How long a rollback takes, beside one bare durable commit of the same database.

"Taken back in milliseconds" is this figure: everything `interlock rollback` does to the store, in
its one transaction, on a store with a history.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest

from gateway.values import AgentName, Millis, ReleaseDigest
from reconciler.process.store import open_database
from reconciler.rollout import store
from reconciler.rollout.model import Rollout, RolloutPolicy, State

pytestmark = pytest.mark.benchmark

ROUNDS = 200


def test_a_rollback_beside_a_bare_commit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = open_database(tmp_path)
    with database.transaction() as tx:
        tx.execute("CREATE TABLE bare (n BIGINT)")
        for n in range(5_000):
            tx.execute(
                "INSERT INTO runs (run, agent, team, purpose, occurrence, release, status,"
                " priority, spec, fence, created_at) VALUES (:run, :agent, 't', 'live', :o, :r,"
                " 'finished', 0, '{}', 1, 0)",
                run=f"run-{n}",
                agent=f"agent-{n % 50}",
                o=f"manual:{n}",
                r="rel-000000000000",
            )
    rollbacks, commits = [], []
    for n in range(ROUNDS):
        rollout = _canary(n)
        with database.transaction() as tx:
            store.save(tx, rollout)
            store.promote(tx, _stable(rollout), anchor=True, now=Millis(n))
            store.open_canary(tx, rollout, Millis(n))
        begun = time.perf_counter()
        with database.transaction() as tx:
            store.roll_back(
                tx, rollout, reason="harm", stop_runs=True, actor="bench", now=Millis(n)
            )
        rollbacks.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        with database.transaction() as tx:
            tx.execute("INSERT INTO bare (n) VALUES (:n)", n=n)
        commits.append(time.perf_counter() - begun)
        row = database.one("SELECT candidate FROM pointers WHERE agent = :a", a=rollout.agent)
        assert row is not None
        assert row["candidate"] is None
    one, bare = statistics.median(rollbacks), statistics.median(commits)
    with capsys.disabled():
        print(
            f"\nrollback: median {one * 1e3:.2f} ms, a bare commit {bare * 1e3:.2f} ms,"
            f" ratio {one / bare:.1f}"
        )


def _canary(n: int) -> Rollout:
    return Rollout(
        id=f"rollout-{n}",
        agent=AgentName(f"agent-{n % 50}"),
        candidate=ReleaseDigest(f"rel-{n:012x}"),
        stable=ReleaseDigest("rel-000000000000"),
        anchor=None,
        policy=RolloutPolicy(name="standard"),
        suite="",
        commit="c",
        state=State.CANARY,
        look=3,
        reason="",
        opened_at=Millis(n),
        since=Millis(n),
    )


def _stable(rollout: Rollout) -> Rollout:
    from dataclasses import replace

    return replace(rollout, candidate=ReleaseDigest("rel-000000000000"))
