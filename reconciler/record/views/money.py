"""What was spent, by whatever people ask it by. Read from the ledger and from nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.database import Transaction
from gateway.values import Millis, NanoUSD
from reconciler.record.calendar import DAY_MS, day

AMOUNT = (
    "CAST(coalesce(sum(CASE WHEN state = 'reserved' THEN reserved_nano"
    " ELSE coalesce(cost_nano, 0) END), 0) AS BIGINT)"
)
"""SQL: what rows of `calls` count for. The one place that says so."""
COUNT = "CAST(coalesce(sum(CASE WHEN step = 'ledger' THEN call ELSE 1 END), 0) AS BIGINT)"
"""SQL: how many calls they stand for (a row refilled from git stands for many)."""

_COLUMNS = {
    "agent": "agent",
    "team": "team",
    "model": "target",
    "role": "role",
    "purpose": "purpose",
    "day": "reserved_at / 86400000",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """One line of a bill. `by` has the values asked for, in their order."""

    by: tuple[tuple[str, str], ...]
    calls: int
    input_tokens: int
    output_tokens: int
    cost_nano: NanoUSD
    open_nano: NanoUSD
    """The part of the cost that is only reserved: it may still become less."""


def costs(
    tx: Transaction, by: Sequence[str] = ("agent",), since: int = 0, agent: str = ""
) -> tuple[Cost, ...]:
    """The bill since `since` by any of agent, team, model, role, day, purpose; dearest first.

    With `day` among them, in order of days. `agent` narrows it to one. ValueError for another word.
    """
    unknown = [name for name in by if name not in _COLUMNS]
    if unknown:
        raise ValueError(f"costs can be shown by {', '.join(_COLUMNS)}; not by {unknown[0]!r}")
    selected = "".join(f"{_COLUMNS[name]} AS k{i}, " for i, name in enumerate(by))
    grouped = ", ".join(_COLUMNS[name] for name in by)
    rows = tx.read(
        f"SELECT {selected}{COUNT} AS calls, {AMOUNT} AS cost,"  # noqa: S608 - words from above
        " CAST(coalesce(sum(input_tokens), 0) AS BIGINT) AS input,"
        " CAST(coalesce(sum(output_tokens), 0) AS BIGINT) AS output,"
        " CAST(coalesce(sum(CASE WHEN state = 'reserved' THEN reserved_nano ELSE 0 END), 0)"
        " AS BIGINT) AS held"
        " FROM calls WHERE state <> 'released' AND reserved_at >= :since"
        " AND (:agent = '' OR agent = :agent)" + (f" GROUP BY {grouped}" if grouped else ""),
        since=since,
        agent=agent,
    )
    lines = [
        Cost(
            by=tuple(
                (name, day(row[f"k{i}"] * DAY_MS) if name == "day" else str(row[f"k{i}"]))
                for i, name in enumerate(by)
            ),
            calls=row["calls"],
            input_tokens=row["input"],
            output_tokens=row["output"],
            cost_nano=NanoUSD(row["cost"]),
            open_nano=NanoUSD(row["held"]),
        )
        for row in rows
    ]
    if "day" in by:
        at = list(by).index("day")
        return tuple(sorted(lines, key=lambda c: (c.by[at][1], c.by)))
    return tuple(sorted(lines, key=lambda c: (-c.cost_nano, c.by)))


def by_purpose(tx: Transaction, since: Millis) -> dict[str, dict[str, int]]:
    """Agent → purpose → nano-dollars since then."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for line in costs(tx, ("agent", "purpose"), since):
        found[line.by[0][1]][line.by[1][1]] = line.cost_nano
    return found


def of_runs(tx: Transaction, runs: Sequence[str]) -> dict[str, int]:
    """Nano-dollars of each of these runs."""
    if not runs:
        return {}
    names = {f"r{i}": run for i, run in enumerate(runs)}
    rows = tx.read(
        f"SELECT run, {AMOUNT} AS cost FROM calls WHERE state <> 'released' AND run IN"  # noqa: S608
        f" ({', '.join(':' + name for name in names)}) GROUP BY run",
        **names,
    )
    return {row["run"]: row["cost"] for row in rows}


def of_evaluation(tx: Transaction, evaluation: str) -> NanoUSD:
    """What the attempts of one evaluation have cost, in all arms."""
    row = tx.one(
        f"SELECT {AMOUNT} AS cost FROM calls WHERE state <> 'released' AND purpose = 'eval'"  # noqa: S608
        " AND occurrence >= :from AND occurrence < :to",
        **{"from": f"eval:{evaluation}:", "to": f"eval:{evaluation};"},
    )
    return NanoUSD(row["cost"] if row else 0)
