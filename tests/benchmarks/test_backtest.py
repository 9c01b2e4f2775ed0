"""How long a replay of recorded calls takes, beside just reading them from the ledger.

A plan on a pull request waits for it: the figure that matters is how many times longer than the
reading it takes.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest

from gateway.backtest import backtest
from gateway.policy import BudgetRule, Window
from gateway.values import Millis, NanoUSD
from reconciler.process.store import open_database
from reconciler.record.recorded import recorded
from tests.support.recordings import AT, POLICY, side

pytestmark = pytest.mark.benchmark

CALLS = 50_000
ROUNDS = 5
RULES = tuple(
    BudgetRule(name=f"rule-{n}", window=Window.DAY, limit=NanoUSD(10**15)) for n in range(3)
)


def test_a_replay_beside_reading_its_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = open_database(tmp_path)
    with database.transaction() as tx:
        tx.many(
            "INSERT INTO calls (run, step, call, attempt, kind, state, agent, team, role, release,"
            " purpose, occurrence, target, asked, request_hash, reserved_nano, cost_nano,"
            " reserved_tokens, input_tokens, output_tokens, label, policy, reserved_at) VALUES"
            " (:run, :step, 0, 0, :kind, 'settled', 'triage', 't', 'main', 'r', 'live', 'o',"
            " :target, :asked, 'h', 0, 1000, 1000, 900, 100, 'untrusted/internal', 'p', :at)",
            [
                {
                    "run": f"run-{n // 10}",
                    "step": str(n % 10),
                    "kind": ("model", "tool")[n % 2],
                    "target": ("large", "tracker.list")[n % 2],
                    "asked": ("smart", "tracker.list")[n % 2],
                    "at": AT + n * 10_000,
                }
                for n in range(CALLS)
            ],
        )
    until = Millis(AT + CALLS * 10_000)
    before = POLICY.model_copy(update={"budgets": RULES})
    after = before.model_copy(update={"budgets": (*RULES, POLICY.budgets[0])})
    reading, both = [], []
    for _ in range(ROUNDS):
        with database.snapshot() as tx:
            begun = time.perf_counter()
            assert sum(1 for _ in recorded(tx, AT, until)) == CALLS
            reading.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            found = backtest(
                recorded(tx, AT, until), before=side(before), after=side(after), priced_at=AT
            )
            both.append(time.perf_counter() - begun)
        assert found.calls == CALLS
    read, whole = statistics.median(reading), statistics.median(both)
    with capsys.disabled():
        print(
            f"\nreplay of {CALLS:,} calls: {CALLS / (whole - read):,.0f} a second beyond reading"
            f" ({CALLS / read:,.0f} a second); reading and replaying takes"
            f" {whole / read:.1f} times as long as reading"
        )
