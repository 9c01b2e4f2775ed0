"""The ledger in git: `calls`, summed by what budgets and people ask for, one file per month.

A fresh machine refills its `calls` table from these sums, so that every budget window stands where
it stood (`budgets.recount` sees the same totals: nothing it matches on is lost in the sum). An open
reservation is written down at its worst case, as `unknown`: the machine that reads it back cannot
know whether the request was sent.

Live runs keep a sum each, because the run's own cost is shown; evals are summed per evaluation.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.database import Row, Transaction
from gateway.values import NANO, derived_id
from reconciler.record.calendar import DAY_MS, day, day_start

STEP = "ledger"
"""`step` of a refilled row. Its `call` is the number of calls that it stands for."""

KEY = (
    "day", "agent", "team", "role", "kind", "target", "purpose", "release", "run", "occurrence",
    "state",
)  # fmt: skip
SUMS = (
    "calls", "cost_nano", "reserved_tokens", "input_tokens", "output_tokens", "cached_tokens",
    "reasoning_tokens",
)  # fmt: skip

_SQL = """
SELECT reserved_at / 86400000 AS day, agent, team, role, kind, target, purpose, release, run,
       occurrence, CASE WHEN state = 'settled' THEN 'settled' ELSE 'unknown' END AS state,
       CAST(sum(CASE WHEN step = 'ledger' THEN call ELSE 1 END) AS BIGINT) AS calls,
       CAST(sum(CASE WHEN state = 'reserved' THEN reserved_nano
                ELSE coalesce(cost_nano, 0) END) AS BIGINT) AS cost_nano,
       CAST(sum(CASE WHEN state = 'settled' THEN 0 ELSE reserved_tokens END) AS BIGINT)
           AS reserved_tokens,
       CAST(sum(coalesce(input_tokens, 0)) AS BIGINT) AS input_tokens,
       CAST(sum(coalesce(output_tokens, 0)) AS BIGINT) AS output_tokens,
       CAST(sum(coalesce(cached_tokens, 0)) AS BIGINT) AS cached_tokens,
       CAST(sum(coalesce(reasoning_tokens, 0)) AS BIGINT) AS reasoning_tokens
FROM calls WHERE state <> 'released' AND reserved_at >= :since
GROUP BY reserved_at / 86400000, agent, team, role, kind, target, purpose, release, run,
         occurrence, CASE WHEN state = 'settled' THEN 'settled' ELSE 'unknown' END
"""


def months(tx: Transaction, *, since: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Month → ledger rows in the order of their key, of calls reserved at or after `since`."""
    groups: dict[tuple[Any, ...], dict[str, int]] = defaultdict(lambda: dict.fromkeys(SUMS, 0))
    for row in tx.read(_SQL, since=since):
        found = {**row, "day": day(row["day"] * DAY_MS)}
        if row["purpose"] == "eval":
            # An eval's run is one attempt among hundreds: what is asked for is the evaluation.
            found |= {"run": "", "occurrence": evaluation(row["occurrence"])}
        sums = groups[tuple(found[name] for name in KEY)]
        for name in SUMS:
            sums[name] += row[name]
    by_month: dict[str, list[dict[str, Any]]] = {}
    for key in sorted(groups):
        line = dict(zip(KEY, key, strict=True)) | groups[key]
        by_month.setdefault(line["day"][:7], []).append(line)
    return by_month


def evaluation(occurrence: str) -> str:
    """`eval:<id>:<arm>:<case>:<n>` → `eval:<id>:`; a sum over all its attempts."""
    return ":".join(occurrence.split(":")[:2]) + ":"


def csv_of(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """`costs/YYYY-MM.csv`: per day, team, agent, role, model and purpose, without the runs."""
    columns = ("day", "team", "agent", "role", "kind", "target", "purpose")
    groups: dict[tuple[str, ...], dict[str, int]] = defaultdict(lambda: dict.fromkeys(SUMS, 0))
    for row in rows:
        sums = groups[tuple(row[name] for name in columns)]
        for name in SUMS:
            sums[name] += row[name]
    figures = ("calls", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["model" if c == "target" else c for c in columns] + [*figures, "nano_usd", "usd"]
    )
    for key in sorted(groups):
        nano = groups[key]["cost_nano"]
        writer.writerow(
            [_cell(text) for text in key]
            + [groups[key][name] for name in figures]
            + [nano, f"{nano // NANO}.{nano % NANO:09d}"]
        )
    return out.getvalue().encode()


def _cell(text: str) -> str:
    """A spreadsheet takes a text that begins like this for a formula (CSV injection, OWASP)."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def refill(tx: Transaction, rows: Iterable[Mapping[str, Any]], *, skip: frozenset[str]) -> None:
    """Put sums back into `calls`; runs in `skip` have their exact rows there already."""
    for row in rows:
        if row["run"] in skip:
            continue
        at = day_start(row["day"])
        identity = derived_id("ledger", *(str(row[name]) for name in KEY))
        insert(
            tx,
            {
                "run": row["run"] or identity,
                "step": STEP,
                "call": row["calls"],
                "attempt": int(identity[-12:], 16),  # tells apart the sums of one run
                "kind": row["kind"],
                "state": row["state"],
                "agent": row["agent"],
                "team": row["team"],
                "role": row["role"],
                "release": row["release"],
                "purpose": row["purpose"],
                "occurrence": row["occurrence"],
                "target": row["target"],
                "asked": row["target"],
                "effect_key": None,
                "request_hash": STEP,
                "reserved_nano": row["cost_nano"],
                "cost_nano": row["cost_nano"],
                "reserved_tokens": row["reserved_tokens"],
                "input_tokens": row["input_tokens"],
                "output_tokens": row["output_tokens"],
                "cached_tokens": row["cached_tokens"],
                "reasoning_tokens": row["reasoning_tokens"],
                "price_table": None,
                "label": "untrusted/internal",
                "policy": "",
                "error": "worst case" if row["state"] == "unknown" else None,
                "response": None,
                "reserved_at": at,
                "settled_at": at,
            },
        )


def sums_by_run(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Nano-dollars of each live run, as the ledger says."""
    found: dict[str, int] = defaultdict(int)
    for row in rows:
        if row["run"]:
            found[row["run"]] += row["cost_nano"]
    return dict(found)


def insert(tx: Transaction, row: Row) -> None:
    """One row of `calls`, as it stands."""
    tx.execute(
        f"INSERT INTO calls ({', '.join(row)}) VALUES ({', '.join(':' + name for name in row)})",  # noqa: S608
        **row,
    )


def cost_of(row: Mapping[str, Any]) -> int:
    """What a row of `calls` counts for: its cost, or its worst case while it is open."""
    return int(row["reserved_nano"] if row["state"] == "reserved" else row["cost_nano"] or 0)
