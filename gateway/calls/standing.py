"""At most once: what the ledger says about sending a request, by call key and by effect key."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from gateway.budgets import Rules
from gateway.calls.ledger import STOPPED, Ask, Ledger
from gateway.calls.reading import attempts
from gateway.calls.schema import CallState
from gateway.database import Row, Transaction
from gateway.refusals import Code, Refusal
from gateway.values import AgentName, CallKey, EffectKey, Millis, RunId, StepPath


@dataclass(frozen=True, slots=True)
class Stored:
    """The answer is in the ledger: give it again. `row` is a `calls` row."""

    row: Row


@dataclass(frozen=True, slots=True)
class Next:
    """The request may be sent, as this attempt; `effect_key` where it changes something."""

    attempt: int
    effect_key: str | None


def standing(
    tx: Transaction,
    ledger: Ledger,
    ask: Ask,
    *,
    live: Collection[CallKey],
    rules: Rules,
    now: Millis,
) -> Stored | Next | Refusal:
    """What the ledger says about sending this request now. Decides at-most-once.

    `live` are the keys this process is carrying out at this moment, without this one. A refusal
    is returned, not raised, because what was written here (an attempt found lost) must stay.
    """
    if ask.fresh and not ask.changes:
        return Next(0, None)
    ledger.write(tx)
    rows = attempts(tx, ask.key)
    if rows and rows[0]["request_hash"] != ask.request_hash:
        return Refusal(
            Code.REQUEST_MISMATCH,
            f"call {ask.key} was used for another request; a new request needs a new key",
        )
    if rows and rows[-1]["state"] == CallState.RESERVED:
        # Nobody here carries it out, so the process that did is gone: nobody will ever know.
        ledger.lose(tx, rows[-1], error=STOPPED, rules=rules, now=now)
        rows[-1]["state"] = CallState.UNKNOWN
    if rows and rows[-1]["state"] == CallState.SETTLED:
        return Stored(rows[-1])
    if rows and rows[-1]["state"] == CallState.UNKNOWN and not ask.repeatable:
        return _unknown(ask, rows[-1])
    effect = rows[0]["effect_key"] if rows else None
    if ask.changes:
        effect = effect or str(_effect(tx, ask))
        elsewhere = _same_effect(tx, ledger, ask, effect, live=live, rules=rules, now=now)
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
    ledger: Ledger,
    ask: Ask,
    effect: str,
    *,
    live: Collection[CallKey],
    rules: Rules,
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
            ledger.lose(tx, row, error=STOPPED, rules=rules, now=now)
            row["error"] = STOPPED
        if not ask.repeatable:
            return _unknown(ask, row)
    return None


def _key(row: Row) -> str:
    return str(CallKey(RunId(row["run"]), StepPath(row["step"]), row["call"]))
