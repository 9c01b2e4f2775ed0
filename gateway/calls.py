"""The ledger: one row per request attempt that goes through the gateway.

`calls` is the truth for money; the runner's journal is the truth for steps; `CallKey` joins them.
A row is born `reserved`, durable before the request leaves the machine, and ends `settled`,
`released` (not sent, or the other side refused it and did nothing) or `unknown` (sent, answer
lost: charged at worst case). The row format is frozen as interlock.calls/1
(docs/formats/calls.md).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway import budgets
from gateway.budgets import Admission, Ceiling, Charge, Meter, Total
from gateway.database import Migration, Row, Transaction
from gateway.policy import BudgetRule
from gateway.refusals import Code, Refusal
from gateway.values import (
    AgentName,
    CallKey,
    EffectKey,
    Label,
    Millis,
    NanoUSD,
    Principal,
    RunId,
    StepPath,
    content_hash,
    derived_id,
)


class CallState(StrEnum):
    """Life of a row: reserved → settled | released | unknown. The last three are final."""

    RESERVED = "reserved"
    SETTLED = "settled"
    RELEASED = "released"
    UNKNOWN = "unknown"


MIGRATIONS = (
    Migration(
        "gateway",
        1,
        (
            """CREATE TABLE calls (
                run TEXT NOT NULL, step TEXT NOT NULL, call BIGINT NOT NULL,
                attempt BIGINT NOT NULL,
                kind TEXT NOT NULL CHECK (kind IN ('model', 'tool')),
                state TEXT NOT NULL
                    CHECK (state IN ('reserved', 'settled', 'released', 'unknown')),
                agent TEXT NOT NULL, team TEXT NOT NULL, role TEXT NOT NULL,
                release TEXT NOT NULL, purpose TEXT NOT NULL, occurrence TEXT NOT NULL,
                target TEXT NOT NULL,
                asked TEXT NOT NULL,
                effect_key TEXT,
                request_hash TEXT NOT NULL,
                reserved_nano BIGINT NOT NULL,
                cost_nano BIGINT,
                reserved_tokens BIGINT NOT NULL,
                input_tokens BIGINT, output_tokens BIGINT,
                cached_tokens BIGINT, reasoning_tokens BIGINT,
                price_table TEXT,
                label TEXT NOT NULL,
                policy TEXT NOT NULL,
                error TEXT,
                response TEXT,
                reserved_at BIGINT NOT NULL, settled_at BIGINT,
                PRIMARY KEY (run, step, call, attempt)
            )""",
            "CREATE INDEX calls_by_agent ON calls (agent, reserved_at)",
            "CREATE INDEX calls_by_state ON calls (state) WHERE state = 'reserved'",
            "CREATE INDEX calls_by_effect ON calls (effect_key) WHERE effect_key IS NOT NULL",
            # Running totals of each budget window, moved in the same transaction as the row they
            # count: the hot path asks one row instead of summing the ledger. `calls` stays the
            # truth; the totals are recomputed from it by `budgets.recount`.
            """CREATE TABLE budget_windows (
                rule TEXT NOT NULL, scope TEXT NOT NULL, window_start BIGINT NOT NULL,
                held_nano BIGINT NOT NULL, spent_nano BIGINT NOT NULL,
                held_tokens BIGINT NOT NULL, spent_tokens BIGINT NOT NULL,
                PRIMARY KEY (rule, scope, window_start)
            )""",
            # Which set of rules the totals were kept under. A total whose rule left the set is
            # dropped, because calls settle without it from then on; it is counted again from the
            # ledger when the rule comes back.
            """CREATE TABLE budget_basis (
                id BIGINT PRIMARY KEY CHECK (id = 1), rules TEXT NOT NULL
            )""",
            """CREATE TABLE alerts (
                id TEXT PRIMARY KEY, at BIGINT NOT NULL, kind TEXT NOT NULL,
                agent TEXT, text TEXT NOT NULL
            )""",
            """CREATE TABLE policies (
                digest TEXT PRIMARY KEY, document TEXT NOT NULL, published_at BIGINT NOT NULL
            )""",
            """CREATE TABLE current_policy (
                id BIGINT PRIMARY KEY CHECK (id = 1), digest TEXT NOT NULL
            )""",
            # Who may call: one row per token. The token itself is never stored.
            """CREATE TABLE tokens (
                token_hash TEXT PRIMARY KEY,
                run TEXT NOT NULL, agent TEXT NOT NULL, team TEXT NOT NULL, role TEXT NOT NULL,
                release TEXT NOT NULL, purpose TEXT NOT NULL, occurrence TEXT NOT NULL,
                grants TEXT NOT NULL,
                recorded TEXT,
                issued_at BIGINT NOT NULL, expires_at BIGINT NOT NULL,
                revoked_at BIGINT, revoked_why TEXT
            )""",
            "CREATE INDEX tokens_by_run ON tokens (run)",
            "CREATE INDEX tokens_by_release ON tokens (release)",
            # Which principal a run's socket stands for: opened again after a restart.
            """CREATE TABLE sockets (
                run TEXT PRIMARY KEY, token_hash TEXT NOT NULL, opened_at BIGINT NOT NULL
            )""",
            # Stops of on-call and of policy: agent '*' is the whole fleet. Deny beats allow.
            """CREATE TABLE stops (
                agent TEXT PRIMARY KEY, reason TEXT NOT NULL, actor TEXT NOT NULL,
                at BIGINT NOT NULL, expires_at BIGINT
            )""",
        ),
    ),
)


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
class Stored:
    """The answer is in the ledger: give it again. `row` is a `calls` row."""

    row: Row


@dataclass(frozen=True, slots=True)
class Next:
    """The request may be sent, as this attempt; `effect_key` where it changes something."""

    attempt: int
    effect_key: str | None


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


def standing(
    tx: Transaction,
    ask: Ask,
    *,
    live: Collection[CallKey],
    rules: Sequence[BudgetRule],
    now: Millis,
) -> Stored | Next | Refusal:
    """What the ledger says about sending this request now. Decides at-most-once.

    `live` are the keys this process is carrying out at this moment, without this one. A refusal
    is returned, not raised, because what was written here (an attempt found lost) must stay.
    """
    rows = attempts(tx, ask.key)
    if rows and rows[0]["request_hash"] != ask.request_hash:
        return Refusal(
            Code.REQUEST_MISMATCH,
            f"call {ask.key} was used for another request; a new request needs a new key",
        )
    if rows and rows[-1]["state"] == CallState.RESERVED:
        # Nobody here carries it out, so the process that did is gone: nobody will ever know.
        lose(tx, rows[-1], error="the gateway stopped before the answer", rules=rules, now=now)
        rows[-1]["state"] = CallState.UNKNOWN
    if rows and rows[-1]["state"] == CallState.SETTLED:
        return Stored(rows[-1])
    if rows and rows[-1]["state"] == CallState.UNKNOWN and not ask.repeatable:
        return _unknown(ask, rows[-1])
    effect = rows[0]["effect_key"] if rows else None
    if ask.changes:
        effect = effect or str(_effect(tx, ask))
        elsewhere = _same_effect(tx, ask, effect, live=live, rules=rules, now=now)
        if elsewhere is not None:
            return elsewhere
    return Next(rows[-1]["attempt"] + 1 if rows else 0, effect)


def _unknown(ask: Ask, row: Row) -> Refusal:
    return Refusal(
        Code.OUTCOME_UNKNOWN,
        f"{ask.asked} may have happened already (call {_key(row)}, {row['error']}); it is not "
        "safe to repeat. Look at the system it changes, then decide.",
        call_key=_key(row),
    )


def _effect(tx: Transaction, ask: Ask) -> EffectKey:
    """The next effect of this action: `ordinal` counts this run's earlier calls of the tool."""
    earlier = tx.one(
        "SELECT count(*) AS n FROM (SELECT DISTINCT step, call FROM calls"
        " WHERE run = :run AND kind = 'tool' AND target = :target) AS earlier",
        run=ask.key.run,
        target=ask.asked,
    )
    who = ask.principal
    return EffectKey(
        AgentName(who.agent), who.occurrence, ask.asked, earlier["n"] if earlier else 0
    )


def _same_effect(
    tx: Transaction,
    ask: Ask,
    effect: str,
    *,
    live: Collection[CallKey],
    rules: Sequence[BudgetRule],
    now: Millis,
) -> Stored | Refusal | None:
    """The same effect under another call key: another run or release of this occurrence."""
    others = tx.read(
        "SELECT * FROM calls WHERE effect_key = :effect AND state <> 'released'"
        " AND NOT (run = :run AND step = :step AND call = :call) ORDER BY reserved_at, attempt",
        effect=effect,
        run=ask.key.run,
        step=ask.key.step,
        call=ask.key.call,
    )
    for row in others:
        if row["state"] == CallState.SETTLED:
            return Stored(row)
    for row in others:
        key = _key(row)
        if row["state"] == CallState.RESERVED and CallKey.parse(key) in live:
            return Refusal(
                Code.IN_FLIGHT,
                f"the same effect ({ask.asked}) is being carried out by call {key}",
                call_key=key,
                retry_after=1,
            )
        if row["state"] == CallState.RESERVED:
            lose(tx, row, error="the gateway stopped before the answer", rules=rules, now=now)
            row["error"] = "the gateway stopped before the answer"
        if not ask.repeatable:
            return _unknown(ask, row)
    return None


def _key(row: Row) -> str:
    return str(CallKey(RunId(row["run"]), StepPath(row["step"]), row["call"]))


def reserve(
    tx: Transaction,
    ask: Ask,
    after: Next,
    *,
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
        "attempt": after.attempt,
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
        "effect_key": after.effect_key,
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
    found = totals(tx, budgets.meters(rules, budgets.charge_of(row)), rules=rules)
    columns = ", ".join(row)
    tx.execute(
        f"INSERT INTO calls ({columns}) VALUES ({', '.join(':' + name for name in row)})",  # noqa: S608
        **row,
    )
    for meter in found:
        _move(tx, meter, budgets.share_of(row))
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
    _rebase(tx, rules)
    for meter in budgets.meters(rules, budgets.charge_of(row)):
        _move(tx, meter, delta)
    for ceiling in over:
        total = _total(tx, ceiling.meter)
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


def totals(
    tx: Transaction, wanted: Sequence[Meter], *, rules: Sequence[BudgetRule]
) -> dict[Meter, Total]:
    """The running totals of these meters; one seen for the first time is counted in the ledger."""
    _rebase(tx, rules)
    found: dict[Meter, Total] = {}
    for meter in wanted:
        total = _total(tx, meter)
        if total is None:
            total = _count(tx, meter, rules)
            tx.execute(
                "INSERT INTO budget_windows (rule, scope, window_start, held_nano, spent_nano,"
                " held_tokens, spent_tokens) VALUES (:rule, :scope, :start, :held_nano,"
                " :spent_nano, :held_tokens, :spent_tokens)",
                rule=meter.rule,
                scope=meter.scope,
                start=meter.start,
                held_nano=total.held_nano,
                spent_nano=total.spent_nano,
                held_tokens=total.held_tokens,
                spent_tokens=total.spent_tokens,
            )
        found[meter] = total
    return found


def _total(tx: Transaction, meter: Meter) -> Total | None:
    row = tx.one(
        "SELECT held_nano, spent_nano, held_tokens, spent_tokens FROM budget_windows"
        " WHERE rule = :rule AND scope = :scope AND window_start = :start",
        rule=meter.rule,
        scope=meter.scope,
        start=meter.start,
    )
    return Total(**row) if row else None


def _count(tx: Transaction, meter: Meter, rules: Sequence[BudgetRule]) -> Total:
    if meter.rule == budgets.RUN_RULE or meter.start == 0:
        rows = tx.read("SELECT * FROM calls WHERE run = :run", run=meter.scope)
    else:
        rows = tx.read("SELECT * FROM calls WHERE reserved_at >= :start", start=meter.start)
    return budgets.recount(rules, rows).get(meter, Total())


def _move(tx: Transaction, meter: Meter, delta: Total) -> None:
    """Add to a total that is kept; one that is not is counted from the ledger when needed."""
    tx.execute(
        "UPDATE budget_windows SET held_nano = held_nano + :held_nano,"
        " spent_nano = spent_nano + :spent_nano, held_tokens = held_tokens + :held_tokens,"
        " spent_tokens = spent_tokens + :spent_tokens"
        " WHERE rule = :rule AND scope = :scope AND window_start = :start",
        rule=meter.rule,
        scope=meter.scope,
        start=meter.start,
        held_nano=delta.held_nano,
        spent_nano=delta.spent_nano,
        held_tokens=delta.held_tokens,
        spent_tokens=delta.spent_tokens,
    )


def _rebase(tx: Transaction, rules: Sequence[BudgetRule]) -> None:
    """Drop totals of rules that are no longer in the set; see `budget_basis`."""
    names = sorted({budgets.rule_id(rule) for rule in rules})
    basis = content_hash([*names])
    row = tx.one("SELECT rules FROM budget_basis WHERE id = 1")
    if row is not None and row["rules"] == basis:
        return
    kept = {*names, budgets.RUN_RULE}
    for known in tx.read("SELECT DISTINCT rule FROM budget_windows"):
        if known["rule"] not in kept:
            tx.execute("DELETE FROM budget_windows WHERE rule = :rule", rule=known["rule"])
    tx.execute(
        "INSERT INTO budget_basis (id, rules) VALUES (1, :rules)"
        " ON CONFLICT (id) DO UPDATE SET rules = :rules",
        rules=basis,
    )


def audit(tx: Transaction, rules: Sequence[BudgetRule]) -> dict[Meter, tuple[Total, Total]]:
    """Meters whose running total differs from the ledger: (kept, counted). Empty is the proof."""
    _rebase(tx, rules)
    counted = budgets.recount(rules, tx.read("SELECT * FROM calls"))
    wrong: dict[Meter, tuple[Total, Total]] = {}
    for row in tx.read("SELECT * FROM budget_windows"):
        meter = Meter(row["rule"], row["scope"], row["window_start"])
        kept = Total(row["held_nano"], row["spent_nano"], row["held_tokens"], row["spent_tokens"])
        truth = counted.get(meter, Total())
        if kept != truth:
            wrong[meter] = (kept, truth)
    return wrong


def run_label(tx: Transaction, run: RunId) -> Label:
    """The highest label that the gateway has given this run so far: join over settled calls."""
    joined = Label()
    for row in tx.read(
        "SELECT DISTINCT label FROM calls WHERE run = :run AND state = 'settled'", run=run
    ):
        joined = joined.join(Label.parse(row["label"]))
    return joined


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
