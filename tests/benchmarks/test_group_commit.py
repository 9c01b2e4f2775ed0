"""Durable reservations from 64 concurrent callers: grouped, beside one commit each."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from gateway.database import Database, GroupCommit, Transaction

pytestmark = pytest.mark.benchmark

CALLERS = 64
EACH = 40


def test_grouped_beside_one_commit_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = Database(tmp_path / "bench.sqlite")
    with database.transaction() as tx:
        tx.execute("CREATE TABLE reservations (n BIGINT)")

    def reserve(tx: Transaction) -> None:
        tx.execute("INSERT INTO reservations (n) VALUES (1)")

    commits = GroupCommit(database)

    async def caller() -> None:
        for _ in range(EACH):
            await commits.write(reserve)

    async def all_callers() -> None:
        await asyncio.gather(*(caller() for _ in range(CALLERS)))

    begun = time.perf_counter()
    asyncio.run(all_callers())
    grouped = time.perf_counter() - begun
    commits.close()
    begun = time.perf_counter()
    for _ in range(CALLERS * EACH // 8):
        with database.transaction() as tx:
            reserve(tx)
    single = (time.perf_counter() - begun) * 8
    counted = database.one("SELECT count(*) AS n FROM reservations")
    assert counted is not None
    assert counted["n"] == CALLERS * EACH + CALLERS * EACH // 8
    total = CALLERS * EACH
    with capsys.disabled():
        print(
            f"\nreservations: {total / grouped:,.0f}/s grouped, {total / single:,.0f}/s one commit"
            f" each, ratio {single / grouped:.1f}"
        )
