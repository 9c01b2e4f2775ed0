"""Writing the ledger: reserve before anything is sent, then settle, release or lose, once.

`Ledger` belongs to the one thread that writes: it decides in memory, inside the transaction that
will hold the rows, and hands all rows of a group of calls to the database at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from gateway import budgets
from gateway.budgets import Admission, Ceiling, Charge, Meter, Rules, Total
from gateway.calls.alerts import alert
from gateway.calls.reading import run_label
from gateway.calls.windows import Windows
from gateway.database import Row, Transaction
from gateway.values import CallKey, Label, Millis, NanoUSD, Principal, RunId


@dataclass(frozen=True, slots=True)
class Ask:
    """One request as the ledger sees it, before it is known whether it may be sent.

    `repeatable`: may be sent again when it is not known whether it happened (a model call, a
    read-only or idempotent tool). `changes`: the tool has an effect, so it gets an effect key.
    `fresh`: the gateway made the key itself, so that nothing can be there under it.
    """

    key: CallKey
    principal: Principal
    kind: str
    asked: str
    request_hash: str
    policy: str
    repeatable: bool
    changes: bool = False
    fresh: bool = False
    api: str | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What an answered attempt used. `cost_nano` is exact; tokens are the provider's figures."""

    cost_nano: NanoUSD
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0
    audio_tokens: int = 0
    begun_at: Millis | None = None
    error: str | None = None
    cached_from: str | None = None


_ENDED = (
    "state", "cost_nano", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens",
    "cache_write_tokens", "audio_tokens", "begun_at", "error", "response", "label", "settled_at",
    "cached_from",
)  # fmt: skip
"""Columns that are written when an attempt ends."""
_COLUMNS = (
    "run", "step", "call", "attempt", "kind", "state", "agent", "team", "role", "release",
    "purpose", "occurrence", "target", "asked", "effect_key", "request_hash", "reserved_nano",
    "reserved_tokens", "price_table", "label", "policy", "reserved_at", "for_user", "tags",
    "provider", "api",
)  # fmt: skip
"""Columns that are written when it is reserved."""
_INSERT = f"INSERT INTO calls ({', '.join(_COLUMNS)}) VALUES {{values}}"  # noqa: S608
_KEY = ("run", "step", "call", "attempt")
_ENDS = (
    f"WITH ends ({', '.join((*_ENDED, *_KEY))}) AS (VALUES {{values}})"  # noqa: S608
    f" UPDATE calls SET {', '.join(f'{name} = ends.{name}' for name in _ENDED)} FROM ends"
    f" WHERE {' AND '.join(f'calls.{name} = ends.{name}' for name in _KEY)}"
    " AND calls.state = 'reserved'"
)
_END = (
    f"UPDATE calls SET {', '.join(f'{name} = :{name}' for name in _ENDED)}"  # noqa: S608
    " WHERE run = :run AND step = :step AND call = :call AND attempt = :attempt"
    " AND state = 'reserved'"
)
STOPPED = "the gateway stopped before the answer"
_LABELS_KEPT = 20_000
Identity = tuple[str, str, int, int]


class Ledger:
    """The open attempts and running totals of this process, and rows that are not written yet."""

    def __init__(self) -> None:
        self.windows = Windows(self.write)
        self._open: dict[Identity, tuple[Rules, list[Meter]]] = {}
        self._inserts: list[Row] = []
        self._ends: list[Row] = []
        self._labels: dict[str, Label] = {}
        self._alerted: set[tuple[str | int, ...]] = set()

    @property
    def open(self) -> int:
        """How many attempts are reserved."""
        return len(self._open)

    def reserve(
        self,
        tx: Transaction,
        ask: Ask,
        *,
        attempt: int,
        effect_key: str | None,
        target: str,
        admission: Admission,
        price_table: str | None,
        label: Label,
        rules: Rules,
        now: Millis,
        provider: str | None = None,
    ) -> Row:
        """Write the attempt and move every meter that counts it.

        It is durable, and the request may leave, once the transaction has committed.
        """
        who = ask.principal
        row: Row = {
            "run": ask.key.run,
            "step": ask.key.step,
            "call": ask.key.call,
            "attempt": attempt,
            "kind": ask.kind,
            "state": "reserved",
            "agent": who.agent,
            "team": who.team,
            "role": who.role,
            "release": who.release,
            "purpose": who.purpose.value,
            "occurrence": who.occurrence,
            "target": target,
            "asked": ask.asked,
            "effect_key": effect_key,
            "request_hash": ask.request_hash,
            "reserved_nano": admission.reserved_nano,
            "reserved_tokens": admission.reserved_tokens,
            "price_table": price_table,
            "label": str(label),
            "policy": ask.policy,
            "reserved_at": now,
            "for_user": who.user,
            "tags": " ".join(who.tags) or None,
            "provider": provider,
            "api": ask.api,
        }
        meters = rules.meters(charge_of(ask, target, now))
        # Counted before the row is there: a meter opened now sums the ledger, and must not see it.
        for meter in meters:
            self.windows.total(tx, meter, rules=rules)
        self._inserts.append(row)
        self._open[_identity(row)] = (rules, meters)
        self.windows.move(tx, meters, budgets.share_of(row), rules=rules)
        return row

    def cached(
        self,
        tx: Transaction,
        ask: Ask,
        source: Row,
        *,
        attempt: int,
        label: Label,
        rules: Rules,
        now: Millis,
    ) -> Row:
        """Write a call that is answered with another's answer: settled at once, at no cost."""
        row = self.reserve(
            tx,
            ask,
            attempt=attempt,
            effect_key=None,
            target=source["target"],
            provider=source["provider"],
            admission=Admission(0, 0, 0),
            price_table=None,
            label=label,
            rules=rules,
            now=now,
        )
        self.settle(
            tx,
            row,
            Settlement(NanoUSD(0), cached_from=_name(source)),
            response=source["response"],
            label=label,
            over=(),
            rules=rules,
            now=now,
        )
        return {**row, "response": source["response"]}

    def settle(
        self,
        tx: Transaction,
        row: Row,
        settlement: Settlement,
        *,
        response: str | None,
        label: Label,
        over: Sequence[Ceiling],
        rules: Rules,
        now: Millis,
    ) -> bool:
        """The answer came: write it (`response` is JSON) with what it cost. False when the row
        was no longer reserved."""
        known = self._labels.get(row["run"])
        if known is not None:
            self._labels[row["run"]] = known.join(label)
        return self._finish(
            tx,
            row,
            {
                "state": "settled",
                "cost_nano": settlement.cost_nano,
                "input_tokens": settlement.input_tokens,
                "output_tokens": settlement.output_tokens,
                "cached_tokens": settlement.cached_tokens,
                "reasoning_tokens": settlement.reasoning_tokens,
                "cache_write_tokens": settlement.cache_write_tokens,
                "audio_tokens": settlement.audio_tokens,
                "begun_at": settlement.begun_at,
                "error": settlement.error,
                "cached_from": settlement.cached_from,
                "response": response,
                "label": str(label),
            },
            over=over,
            rules=rules,
            now=now,
        )

    def release(self, tx: Transaction, row: Row, *, error: str, rules: Rules, now: Millis) -> bool:
        """Nothing was done: give the whole reservation back."""
        return self._finish(
            tx,
            row,
            {"state": "released", "cost_nano": 0, "error": error},
            over=(),
            rules=rules,
            now=now,
        )

    def lose(
        self,
        tx: Transaction,
        row: Row,
        *,
        error: str,
        rules: Rules,
        now: Millis,
        over: Sequence[Ceiling] = (),
    ) -> bool:
        """Sent, and the answer is lost: charged at worst case, as it may have been carried out."""
        return self._finish(
            tx,
            row,
            {"state": "unknown", "cost_nano": row["reserved_nano"], "error": error},
            over=over,
            rules=rules,
            now=now,
        )

    def recover(self, tx: Transaction, *, rules: Rules, now: Millis) -> int:
        """At the start of the only gateway of this database: every open reservation is from a dead
        process, so it becomes `unknown` at worst case. Returns how many."""
        self.forget()
        rows = tx.read("SELECT * FROM calls WHERE state = 'reserved'")
        for row in rows:
            self.lose(tx, row, error=STOPPED, rules=rules, now=now)
        return len(rows)

    def total(self, tx: Transaction, meter: Meter, *, rules: Rules) -> Total:
        """The running total of a meter."""
        return self.windows.total(tx, meter, rules=rules)

    def label_of(self, tx: Transaction, run: RunId) -> Label:
        """The highest label that the gateway has given this run so far."""
        known = self._labels.get(run)
        if known is None:
            if len(self._labels) >= _LABELS_KEPT:
                self._labels.clear()
            self.write(tx)
            known = self._labels[run] = run_label(tx, run)
        return known

    def write(self, tx: Transaction) -> None:
        """Hand the rows that have queued to the transaction: before it commits, and before
        anything is read that they could change."""
        if self._inserts:
            tx.values(_INSERT, [_in_order(row) for row in self._inserts])
            self._inserts.clear()
        if self._ends:
            tx.values(_ENDS, [_end_in_order(row) for row in self._ends])
            self._ends.clear()

    def finish(self, tx: Transaction) -> None:
        """The end of a transaction: everything that is kept in memory is in it."""
        self.write(tx)
        self.windows.write(tx)

    def refresh(self) -> None:
        """Another process may have written: totals and labels are looked up again."""
        self.windows.forget()
        self._labels.clear()

    def forget(self) -> None:
        """A commit failed: what was decided in it is not there. Attempts that are open on disk
        are ended there, whoever carries them out."""
        self.refresh()
        self._alerted.clear()
        self._inserts.clear()
        self._ends.clear()
        self._open.clear()

    def _finish(
        self,
        tx: Transaction,
        row: Row,
        change: Row,
        *,
        over: Sequence[Ceiling],
        rules: Rules,
        now: Millis,
    ) -> bool:
        ended: Row = dict.fromkeys(_ENDED)
        ended["label"] = row["label"]
        ended |= change
        # Texts from the other side: one that SQLite cannot take would undo the whole group.
        ended["error"], ended["response"] = _text(ended["error"]), _text(ended["response"])
        ended["settled_at"] = now
        ended |= {name: row[name] for name in ("run", "step", "call", "attempt")}
        then, meters = self._open.pop(_identity(row), (None, None))
        if then is not None:
            self._ends.append(ended)
        else:
            self.write(tx)
            if tx.execute(_END, **ended) == 0:
                return False
        if meters is None or then is not rules:
            meters = rules.meters(budgets.charge_of(row))
        held = {**row, "state": "reserved"} if row["state"] != "reserved" else row
        delta = budgets.share_of({**row, **ended}) - budgets.share_of(held)
        self.windows.move(tx, meters, delta, rules=rules)
        for ceiling in over:
            if ceiling.alert_at or not ceiling.enforce:
                self._alert(tx, row, ceiling, rules, now)
        return True

    def _alert(
        self, tx: Transaction, row: Row, ceiling: Ceiling, rules: Rules, now: Millis
    ) -> None:
        total = self.windows.total(tx, ceiling.meter, rules=rules)
        for percent in budgets.crossed(ceiling, total):
            identity = (*ceiling.meter, percent)
            if identity in self._alerted:
                continue
            if len(self._alerted) >= _LABELS_KEPT:
                self._alerted.clear()
            self._alerted.add(identity)
            alert(
                tx,
                kind="budget",
                agent=row["agent"],
                identity=identity,
                text=f"budget `{ceiling.name}` has reached {percent} % of its limit",
                now=now,
            )


def charge_of(ask: Ask, target: str, now: Millis) -> Charge:
    """The request as budget rules see it, were it reserved now on this target."""
    who = ask.principal
    return Charge(
        ask.key.run, who.agent, who.team, target, who.purpose.value, now, who.user, who.tags
    )


def stored(response: Any) -> str:
    """An answer as the ledger keeps it."""
    return json.dumps(response, ensure_ascii=False)


_in_order = itemgetter(*_COLUMNS)
_end_in_order = itemgetter(*_ENDED, *_KEY)


def _text(value: str | None) -> str | None:
    """The same, with what is no character (half of a surrogate pair) replaced."""
    if value is None or value.isascii():
        return value
    return value.encode(errors="replace").decode()


def _name(row: Row) -> str:
    return f"{row['run']}/{row['step']}/{row['call']}"


def _identity(row: Row) -> Identity:
    return (row["run"], row["step"], row["call"], row["attempt"])
