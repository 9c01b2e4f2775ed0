"""Running totals of each budget window: a cache of the ledger, moved in the ledger's transactions.

The hot path asks one row instead of summing the ledger. `audit` proves that both say the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway import budgets
from gateway.budgets import Meter, Total
from gateway.database import Transaction
from gateway.policy import BudgetRule
from gateway.values import content_hash

COUNTED = (
    "SELECT run, agent, team, target, purpose, reserved_at, state, reserved_nano, cost_nano,"
    " reserved_tokens, input_tokens, output_tokens FROM calls"
)
"""What counting needs; answers stay on disk."""


def read(
    tx: Transaction, wanted: Sequence[Meter], *, rules: Sequence[BudgetRule]
) -> dict[Meter, Total]:
    """The running totals of these meters; one seen for the first time is counted in the ledger."""
    rebase(tx, rules)
    found: dict[Meter, Total] = {}
    for meter in wanted:
        kept = total(tx, meter)
        if kept is None:
            kept = _count(tx, meter, rules)
            tx.execute(
                "INSERT INTO budget_windows (rule, scope, window_start, held_nano, spent_nano,"
                " held_tokens, spent_tokens) VALUES (:rule, :scope, :start, :held_nano,"
                " :spent_nano, :held_tokens, :spent_tokens)",
                rule=meter.rule,
                scope=meter.scope,
                start=meter.start,
                held_nano=kept.held_nano,
                spent_nano=kept.spent_nano,
                held_tokens=kept.held_tokens,
                spent_tokens=kept.spent_tokens,
            )
        found[meter] = kept
    return found


def total(tx: Transaction, meter: Meter) -> Total | None:
    """The total as it is kept; None when the meter has not been opened."""
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
        rows = tx.read(f"{COUNTED} WHERE run = :run", run=meter.scope)
    else:
        rows = tx.read(f"{COUNTED} WHERE reserved_at >= :start", start=meter.start)
    return budgets.recount(rules, rows).get(meter, Total())


def move(tx: Transaction, meter: Meter, delta: Total) -> None:
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


def rebase(tx: Transaction, rules: Sequence[BudgetRule]) -> None:
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
    rebase(tx, rules)
    counted = budgets.recount(rules, tx.read(COUNTED))
    wrong: dict[Meter, tuple[Total, Total]] = {}
    for row in tx.read("SELECT * FROM budget_windows"):
        meter = Meter(row["rule"], row["scope"], row["window_start"])
        kept = Total(row["held_nano"], row["spent_nano"], row["held_tokens"], row["spent_tokens"])
        truth = counted.get(meter, Total())
        if kept != truth:
            wrong[meter] = (kept, truth)
    return wrong
