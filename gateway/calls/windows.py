"""Running totals of each budget window: a cache of the ledger, in memory and on disk.

The hot path looks into memory instead of summing the ledger. Totals of calendar windows are written
in the transaction of the rows they count, so that a restart does not read a quarter's ledger; those
of single runs are counted again when needed. `audit` proves that both say the same. Belongs to the
one thread that writes the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from gateway import budgets
from gateway.budgets import Meter, Rules, Total
from gateway.database import Transaction
from gateway.policy import BudgetRule
from gateway.values import content_hash

COUNTED = (
    "SELECT run, kind, agent, team, for_user, tags, target, purpose, reserved_at, state,"
    " reserved_nano, cost_nano, reserved_tokens, input_tokens, output_tokens FROM calls"
)
"""What counting needs; answers stay on disk."""
MOST_KEPT = 50_000
"""Totals kept in memory; beyond it all are forgotten, and looked up again when asked for."""
_FIELDS = ("held_nano", "spent_nano", "held_tokens", "spent_tokens", "held_requests",
           "spent_requests")  # fmt: skip
_WRITE = (
    f"INSERT INTO budget_windows (rule, scope, window_start, {', '.join(_FIELDS)}) VALUES"  # noqa: S608
    f" (:rule, :scope, :start, {', '.join(':' + name for name in _FIELDS)})"
    " ON CONFLICT (rule, scope, window_start) DO UPDATE SET "
    + ", ".join(f"{name} = :{name}" for name in _FIELDS)
)


class Windows:
    """The totals of one ledger. Nothing here is written before `write`.

    `before_reading` is called before the ledger is read: it writes what has queued.
    """

    def __init__(self, before_reading: Callable[[Transaction], None]) -> None:
        self._before_reading = before_reading
        self._totals: dict[Meter, Total] = {}
        self._changed: set[Meter] = set()
        self._basis: frozenset[str] | None = None

    def total(self, tx: Transaction, meter: Meter, *, rules: Rules) -> Total:
        """The running total of a meter; one seen for the first time is counted in the ledger."""
        self._rebase(tx, rules)
        found = self._known(tx, meter)
        if found is None:
            self._before_reading(tx)
            found = self._totals[meter] = _count(tx, meter, rules)
            self._changed.add(meter)
        return found

    def move(self, tx: Transaction, meters: Iterable[Meter], delta: Total, *, rules: Rules) -> None:
        """Add to these totals. One that nobody has asked for yet is not kept: it is counted from
        the ledger, and this row with it, when somebody does."""
        self._rebase(tx, rules)
        for meter in meters:
            found = self._totals.get(meter) or self._known(tx, meter)
            if found is not None:
                found += delta
                self._changed.add(meter)

    def write(self, tx: Transaction) -> None:
        """Put what has changed on disk."""
        if not self._changed:
            return
        rows = [
            {"rule": meter.rule, "scope": meter.scope, "start": meter.start}
            | {name: getattr(total, name) for name in _FIELDS}
            for meter in self._changed
            if meter.start and (total := self._totals.get(meter)) is not None
        ]
        if rows:
            tx.many(_WRITE, rows)
        self._changed.clear()
        if len(self._totals) > MOST_KEPT:
            self._totals.clear()

    def levels(self, rules: Rules, now: int) -> list[tuple[BudgetRule, str, Total]]:
        """What is known in memory of each calendar rule's window around `now`, by scope. May be
        asked from any thread: it is a picture, not a decision."""
        by_name = {budgets.rule_id(rule): rule for rule in rules.rules}
        return [
            (rule, meter.scope, total)
            for meter, total in tuple(self._totals.items())
            if meter.start
            and (rule := by_name.get(meter.rule)) is not None
            and meter.start == budgets.window_of(rule.window, now)[0]
        ]

    def forget(self) -> None:
        """Memory may be wrong (a commit failed, or another process wrote): look it up again."""
        self._totals.clear()
        self._changed.clear()
        self._basis = None

    def _known(self, tx: Transaction, meter: Meter) -> Total | None:
        found = self._totals.get(meter)
        if found is None and meter.start:
            row = tx.one(
                f"SELECT {', '.join(_FIELDS)} FROM budget_windows"  # noqa: S608
                " WHERE rule = :rule AND scope = :scope AND window_start = :start",
                rule=meter.rule,
                scope=meter.scope,
                start=meter.start,
            )
            if row is not None:
                found = self._totals[meter] = Total(**row)
        return found

    def _rebase(self, tx: Transaction, rules: Rules) -> None:
        """Drop totals of rules that are no longer in the set: calls settle without them from then
        on. Such a rule is counted again from the ledger when it comes back."""
        if self._basis == rules.ids:
            return
        basis = content_hash([*sorted(rules.ids)])
        row = tx.one("SELECT rules FROM budget_basis WHERE id = 1")
        if row is None or row["rules"] != basis:
            for known in tx.read("SELECT DISTINCT rule FROM budget_windows"):
                if known["rule"] not in rules.ids:
                    tx.execute("DELETE FROM budget_windows WHERE rule = :rule", rule=known["rule"])
            tx.execute(
                "INSERT INTO budget_basis (id, rules) VALUES (1, :rules)"
                " ON CONFLICT (id) DO UPDATE SET rules = :rules",
                rules=basis,
            )
        kept = {*rules.ids, budgets.RUN_RULE}
        for meter in [meter for meter in self._totals if meter.rule not in kept]:
            del self._totals[meter]
        self._changed &= self._totals.keys()
        self._basis = rules.ids

    def audit(self, tx: Transaction, rules: Rules) -> dict[Meter, tuple[Total, Total]]:
        """What memory has otherwise than the ledger: (kept, counted). Empty is the proof."""
        self._rebase(tx, rules)
        self._before_reading(tx)
        counted = budgets.recount(rules.rules, tx.read(COUNTED))
        return _differing(self._totals.items(), counted)


def audit(tx: Transaction, rules: Sequence[BudgetRule]) -> dict[Meter, tuple[Total, Total]]:
    """Totals on disk that differ from the ledger: (kept, counted). Empty is the proof."""
    ids = Rules(rules).ids
    counted = budgets.recount(rules, tx.read(COUNTED))
    kept = (
        (
            Meter(row["rule"], row["scope"], row["window_start"]),
            Total(**{name: row[name] for name in _FIELDS}),
        )
        for row in tx.read("SELECT * FROM budget_windows")
        if row["rule"] in ids
    )
    return _differing(kept, counted)


def count_again(tx: Transaction) -> None:
    """Somebody else than the gateway wrote to the ledger: no total on disk may be believed."""
    tx.execute("DELETE FROM budget_windows")


def _differing(
    kept: Iterable[tuple[Meter, Total]], counted: dict[Meter, Total]
) -> dict[Meter, tuple[Total, Total]]:
    return {
        meter: (total, truth)
        for meter, total in kept
        if total != (truth := counted.get(meter, Total()))
    }


def _count(tx: Transaction, meter: Meter, rules: Rules) -> Total:
    if meter.start == 0:
        rows = tx.read(f"{COUNTED} WHERE run = :run", run=meter.scope)
    else:
        rows = tx.read(f"{COUNTED} WHERE reserved_at >= :start", start=meter.start)
    return budgets.recount(rules.rules, rows).get(meter, Total())
