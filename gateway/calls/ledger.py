"""Writing the ledger: reserve before anything is sent, then settle, release or lose, once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway import budgets
from gateway.budgets import Admission, Ceiling, Charge, Meter, Total
from gateway.calls import windows
from gateway.calls.schema import CallState
from gateway.database import Row, Transaction
from gateway.policy import BudgetRule
from gateway.values import CallKey, Label, Millis, NanoUSD, Principal, RunId, derived_id


@dataclass(frozen=True, slots=True)
class Ask:
    """One request as the ledger sees it, before it is known whether it may be sent.

    `repeatable`: may be sent again when it is not known whether it happened (a model call, a
    read-only or idempotent tool). `changes`: the tool has an effect, so it gets an effect key.
    """

    key: CallKey
    principal: Principal
    kind: str
    asked: str
    request_hash: str
    policy: str
    repeatable: bool
    changes: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """What an answered attempt used. `cost_nano` is exact; tokens are the provider's figures."""

    cost_nano: NanoUSD
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    error: str | None = None


def attempts(tx: Transaction, key: CallKey) -> list[Row]:
    """All attempts of a call, oldest first."""
    return tx.read(
        "SELECT * FROM calls WHERE run = :run AND step = :step AND call = :call ORDER BY attempt",
        run=key.run,
        step=key.step,
        call=key.call,
    )


def reserve(
    tx: Transaction,
    ask: Ask,
    *,
    attempt: int,
    effect_key: str | None,
    target: str,
    admission: Admission,
    price_table: str | None,
    label: Label,
    rules: Sequence[BudgetRule],
    now: Millis,
) -> Row:
    """Write the attempt and move every meter that counts it. Durable before anything is sent."""
    who = ask.principal
    row: Row = {
        "run": ask.key.run,
        "step": ask.key.step,
        "call": ask.key.call,
        "attempt": attempt,
        "kind": ask.kind,
        "state": CallState.RESERVED,
        "agent": who.agent,
        "team": who.team,
        "role": who.role,
        "release": who.release,
        "purpose": who.purpose,
        "occurrence": who.occurrence,
        "target": target,
        "asked": ask.asked,
        "effect_key": effect_key,
        "request_hash": ask.request_hash,
        "reserved_nano": admission.reserved_nano,
        "cost_nano": None,
        "reserved_tokens": admission.reserved_tokens,
        "input_tokens": None,
        "output_tokens": None,
        "cached_tokens": None,
        "reasoning_tokens": None,
        "price_table": price_table,
        "label": str(label),
        "policy": ask.policy,
        "error": None,
        "response": None,
        "reserved_at": now,
        "settled_at": None,
    }
    # Counted before the row is there: a meter opened now sums the ledger, and must not see it.
    found = windows.read(tx, budgets.meters(rules, budgets.charge_of(row)), rules=rules)
    columns = ", ".join(row)
    tx.execute(
        f"INSERT INTO calls ({columns}) VALUES ({', '.join(':' + name for name in row)})",  # noqa: S608
        **row,
    )
    for meter in found:
        windows.move(tx, meter, budgets.share_of(row))
    return row


def settle(
    tx: Transaction,
    row: Row,
    settlement: Settlement,
    *,
    response: Any,
    label: Label,
    over: Sequence[Ceiling],
    rules: Sequence[BudgetRule],
    now: Millis,
) -> bool:
    """The answer came: write it with what it cost. False when the row was no longer reserved."""
    return _end(
        tx,
        row,
        {
            "state": CallState.SETTLED,
            "cost_nano": settlement.cost_nano,
            "input_tokens": settlement.input_tokens,
            "output_tokens": settlement.output_tokens,
            "cached_tokens": settlement.cached_tokens,
            "reasoning_tokens": settlement.reasoning_tokens,
            "error": settlement.error,
            "response": json.dumps(response, ensure_ascii=False),
            "label": str(label),
        },
        over=over,
        rules=rules,
        now=now,
    )


def release(
    tx: Transaction, row: Row, *, error: str, rules: Sequence[BudgetRule], now: Millis
) -> bool:
    """Nothing was done: give the whole reservation back."""
    return _end(
        tx,
        row,
        {"state": CallState.RELEASED, "cost_nano": 0, "error": error},
        over=(),
        rules=rules,
        now=now,
    )


def lose(
    tx: Transaction,
    row: Row,
    *,
    error: str,
    rules: Sequence[BudgetRule],
    now: Millis,
    over: Sequence[Ceiling] = (),
) -> bool:
    """Sent, and the answer is lost: charged at worst case, because it may have been carried out."""
    return _end(
        tx,
        row,
        {"state": CallState.UNKNOWN, "cost_nano": row["reserved_nano"], "error": error},
        over=over,
        rules=rules,
        now=now,
    )


def recover(tx: Transaction, *, rules: Sequence[BudgetRule], now: Millis) -> int:
    """At the start of the only gateway of this database: every open reservation is from a dead
    process, so it becomes `unknown` at worst case. Returns how many."""
    rows = tx.read("SELECT * FROM calls WHERE state = 'reserved'")
    for row in rows:
        lose(tx, row, error="the gateway stopped before the answer", rules=rules, now=now)
    return len(rows)


def _end(
    tx: Transaction,
    row: Row,
    change: Row,
    *,
    over: Sequence[Ceiling],
    rules: Sequence[BudgetRule],
    now: Millis,
) -> bool:
    changed = tx.execute(
        f"UPDATE calls SET {', '.join(f'{name} = :{name}' for name in change)},"  # noqa: S608
        " settled_at = :now WHERE run = :run AND step = :step AND call = :call"
        " AND attempt = :attempt AND state = 'reserved'",
        **change,
        now=now,
        run=row["run"],
        step=row["step"],
        call=row["call"],
        attempt=row["attempt"],
    )
    if not changed:
        return False
    before = budgets.share_of({**row, "state": CallState.RESERVED})
    after = budgets.share_of({**row, **change})
    delta = Total(
        after.held_nano - before.held_nano,
        after.spent_nano - before.spent_nano,
        after.held_tokens - before.held_tokens,
        after.spent_tokens - before.spent_tokens,
    )
    windows.rebase(tx, rules)
    for meter in budgets.meters(rules, budgets.charge_of(row)):
        windows.move(tx, meter, delta)
    for ceiling in over:
        total = windows.total(tx, ceiling.meter)
        for percent in budgets.crossed(ceiling, total) if total else ():
            alert(
                tx,
                kind="budget",
                agent=row["agent"],
                identity=(*_identity(ceiling.meter), percent),
                text=f"budget `{ceiling.name}` has reached {percent} % of its limit",
                now=now,
            )
    return True


def alert(
    tx: Transaction,
    *,
    kind: str,
    agent: str | None,
    identity: tuple[str | int, ...],
    text: str,
    now: Millis,
) -> None:
    """Record an alert once: the same identity is never recorded twice."""
    tx.execute(
        "INSERT INTO alerts (id, at, kind, agent, text) VALUES (:id, :at, :kind, :agent, :text)"
        " ON CONFLICT (id) DO NOTHING",
        id=derived_id("alert", kind, *identity),
        at=now,
        kind=kind,
        agent=agent,
        text=text,
    )


def _identity(meter: Meter) -> tuple[str, str, int]:
    return meter.rule, meter.scope, meter.start


def run_label(tx: Transaction, run: RunId) -> Label:
    """The highest label that the gateway has given this run so far: join over settled calls."""
    joined = Label()
    for row in tx.read(
        "SELECT DISTINCT label FROM calls WHERE run = :run AND state = 'settled'", run=run
    ):
        joined = joined.join(Label.parse(row["label"]))
    return joined


def of_run(tx: Transaction, run: RunId) -> list[Row]:
    """Every attempt of a run that was sent or may have been, in order, by whatever way it came:
    the runner's own calls, and those of commands in the container through the run's socket."""
    return tx.read(
        "SELECT * FROM calls WHERE run = :run AND state <> 'released'"
        " ORDER BY reserved_at, step, call, attempt",
        run=run,
    )


def charge(ask: Ask, target: str, now: Millis) -> Charge:
    """The request as budget rules see it, were it reserved now on this target."""
    who = ask.principal
    return Charge(ask.key.run, who.agent, who.team, target, who.purpose, now)


def summary(rows: Sequence[Row]) -> tuple[int, int, int]:
    """(nano-dollars, input tokens, output tokens) of all attempts of one call."""
    return (
        sum(row["cost_nano"] or 0 for row in rows),
        sum(row["input_tokens"] or 0 for row in rows),
        sum(row["output_tokens"] or 0 for row in rows),
    )
