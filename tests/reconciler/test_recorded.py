"""Which recent calls are replayed, and what of them the journal adds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.backtest import Reason, RecordedCall
from gateway.database import Transaction
from gateway.policy import Guardrail
from gateway.policy.rules import Hook, RegexCheck
from gateway.values import Millis, Purpose
from reconciler.record.recorded import recorded, replay
from tests.support.record import add_call, add_run, add_step, new_database
from tests.support.recordings import POLICY, side

NOW = Millis(1_795_500_000_000)
HOUR = 3_600_000
DAY = 24 * HOUR


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[Transaction]:
    with new_database(tmp_path / "state.sqlite").transaction() as tx:
        yield tx


def run_at(tx: Transaction, hours: int, *, agent: str = "triage", calls: int = 1, **more: object
           ) -> str:  # fmt: skip
    """A run of some hours ago with so many model calls."""
    at = NOW - hours * HOUR
    run = add_run(tx, agent, f"manual:{agent}-{hours}", "rel-1", at=at, outcome=None, **more)  # type: ignore[arg-type]
    for number in range(calls):
        add_call(tx, run, str(number), at=at + number, target="large", asked="smart")
    return run


def read(tx: Transaction, days: int = 7) -> list[RecordedCall]:
    return list(recorded(tx, Millis(NOW - days * DAY), NOW))


def test_calls_come_in_the_order_of_time_whoever_made_them(tx: Transaction) -> None:
    for hours, agent in ((1, "notes"), (50, "triage"), (30, "notes"), (2, "triage")):
        run_at(tx, hours, agent=agent)
    assert [(c.agent, (NOW - c.at) // HOUR) for c in read(tx)] == [
        ("triage", 50), ("notes", 30), ("triage", 2), ("notes", 1),
    ]  # fmt: skip


def test_only_what_was_sent_by_live_runs_in_that_time_is_replayed(tx: Transaction) -> None:
    run = run_at(tx, 3)
    for number, state in enumerate(("released", "reserved", "unknown")):
        add_call(tx, run, f"9.{number}", at=NOW - HOUR, state=state)
    run_at(tx, 4, agent="notes", purpose=Purpose.EVAL)
    run_at(tx, 8 * 24)
    add_call(tx, run, "ledger", at=NOW - HOUR)
    add_call(tx, run, "10", at=NOW)
    found = read(tx)
    assert [(c.step, c.booked) for c in found] == [("0", False), ("9.2", True)]
    assert (found[1].input_tokens, found[1].output_tokens) == (5000, 0)


def test_an_answer_from_a_cache_costs_what_was_booked(tx: Transaction) -> None:
    run = run_at(tx, 1)
    tx.execute("UPDATE calls SET cached_from = 'run-0/1/0' WHERE run = :run", run=run)
    assert [c.booked for c in read(tx)] == [True]


def test_tool_calls_bring_their_arguments_from_the_journal(tx: Transaction) -> None:
    run = run_at(tx, 1)
    add_step(tx, run, "5", "tool", "tracker__open", at=NOW - HOUR,
             intent={"tool": "tracker.open", "arguments": {"project": "web"}})  # fmt: skip
    add_call(tx, run, "5", at=NOW - HOUR + 5, kind="tool", target="tracker.open", cost=0)
    add_call(tx, run, "x.1", at=NOW - HOUR + 9, kind="tool", target="tracker.list", cost=0)
    found = {c.asked: c.arguments for c in read(tx) if c.kind == "tool"}
    assert found == {"tracker.open": {"project": "web"}, "tracker.list": None}


def test_tool_calls_that_the_policy_refused_are_there_once(tx: Transaction) -> None:
    run = run_at(tx, 30)
    add_call(tx, run, "9", at=NOW - HOUR, target="large")  # the run goes on the next day
    for step, code in (("3", "not_granted"), ("4", "rate_limited")):
        add_step(
            tx, run, step, "tool", "tracker__open", at=NOW - 30 * HOUR + 7, status="denied",
            intent={"tool": "tracker.open", "arguments": {"project": "x"}},
            outcome={"error": {"code": code, "message": "no"}},
        )  # fmt: skip
    tools = [c for c in read(tx) if c.kind == "tool"]
    assert [(c.step, c.asked, c.arguments, c.agent) for c in tools] == [
        ("3", "tracker.open", {"project": "x"}, "triage")
    ]


def test_of_too_many_calls_the_newest_are_replayed_and_that_is_said(tx: Transaction) -> None:
    for hours in range(1, 9):
        run_at(tx, hours, calls=2)
    found = replay(tx, side(), side(), now=NOW, most=5)
    assert found is not None
    assert (found.outcome.calls, found.cut) == (5, True)
    whole = replay(tx, side(), side(), now=NOW)
    assert whole is not None
    assert (whole.outcome.calls, whole.cut) == (16, False)


def test_costs_per_day_are_over_the_time_since_the_first_call(tx: Transaction) -> None:
    run_at(tx, 48)
    run_at(tx, 1)
    found = replay(tx, side(), side(), now=NOW)
    assert found is not None
    agent = found.outcome.agents[0]
    assert found.per_day(agent.before_nano) == agent.before_nano // 2
    young = replay(tx, side(), side(), now=NOW, back=2 * HOUR)
    assert young is not None
    assert young.per_day(100) == 100, "less than a day counts as one"


def test_an_empty_ledger_says_nothing(tx: Transaction) -> None:
    assert replay(tx, side(), side(), now=NOW) is None


def test_older_calls_are_not_looked_at(tx: Transaction) -> None:
    """The index by agent and time is used, from agent to agent."""
    from reconciler.record import recorded as room

    plan = tx.read("EXPLAIN QUERY PLAN " + room._FROM.format("count(*)"), since=0, until=1)
    steps = "\n".join(row["detail"] for row in plan)
    assert "calls_by_agent (agent=? AND reserved_at>? AND reserved_at<?)" in steps
    assert "SCAN calls" not in steps


def test_results_of_tools_are_read_only_where_guardrails_change(tx: Transaction) -> None:
    run = run_at(tx, 1, calls=0)
    add_call(tx, run, "1", at=NOW - HOUR, kind="tool", target="tracker.list", cost=0)
    assert [c.result for c in read(tx)] == [None]
    assert next(iter(recorded(tx, Millis(NOW - DAY), NOW, results=True))).result is not None
    rule = Guardrail(name="no-raw", hooks=(Hook.TOOL_OUTPUT,), check=RegexCheck(pattern="Bearer"))
    tx.execute(
        "UPDATE calls SET response = :text",
        text='{"content": [{"type": "text", "text": "Bearer x"}], "isError": false}',
    )
    guarded = side(POLICY.model_copy(update={"guardrails": (rule,)}))
    found = replay(tx, side(), guarded, now=NOW)
    assert found is not None
    assert [(t.reason, t.about) for t in found.outcome.agents[0].denied] == [
        (Reason.GUARDRAIL, "no-raw")
    ]
    back = replay(tx, guarded, side(), now=NOW)
    assert back is not None
    assert [t.reason for t in back.outcome.agents[0].allowed] == [Reason.GUARDRAIL]


def test_embeddings_are_told_apart(tx: Transaction) -> None:
    run = run_at(tx, 1)
    tx.execute("UPDATE calls SET api = 'embeddings' WHERE run = :run", run=run)
    assert [c.embeddings for c in read(tx)] == [True]
