"""Recent live calls as they can be replayed: ledger rows, with what the journal knows of them.

The journal has what the ledger lacks: the arguments of tool calls that the runner made, and the
tool calls that were refused. Calls that a command in a container made by itself have neither.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

from gateway.backtest import RecordedCall, backtest
from gateway.backtest import Side as Policies
from gateway.database import Row, Transaction
from gateway.refusals import Code
from gateway.values import Millis
from reconciler.plan.backtest import Backtest
from reconciler.record.calendar import DAY_MS

WEEK_MS: Final = 7 * DAY_MS
"""How far a plan looks back when nobody says otherwise."""
MOST: Final = 20_000
"""Calls that are replayed at most; the newest."""
_RUNS: Final = 400
"""Runs asked for at once: databases limit the parameters of one statement."""
_POLICY: Final = frozenset({Code.NOT_GRANTED, Code.UNKNOWN_TOOL, Code.APPROVAL_REQUIRED})
"""Refusals that say something of the policy."""
Key: TypeAlias = tuple[str, str, int]
"""Of a call: run, step, call."""
Intent: TypeAlias = Mapping[str, Any]
"""Of a tool call: its `tool` and its `arguments`, where the runner made it."""

# The ledger has no index by time alone. This walks the one by agent and time: it first jumps from
# agent to agent, and so never looks at older calls.
_FROM: Final = (
    "WITH RECURSIVE names (agent) AS (SELECT min(agent) FROM calls UNION ALL"
    " SELECT (SELECT min(agent) FROM calls WHERE agent > names.agent) FROM names"
    " WHERE names.agent IS NOT NULL)"
    " SELECT {} FROM names, calls WHERE calls.agent = names.agent"
    " AND reserved_at >= :since AND reserved_at < :until"
    " AND purpose = 'live' AND state IN ('settled', 'unknown') AND step <> 'ledger'"
)
_COLUMNS: Final = (
    "run, step, call, kind, state, calls.agent AS agent, role, reserved_at, asked, target,"
    " cost_nano, reserved_tokens, input_tokens, output_tokens, cached_tokens, reasoning_tokens,"
    " for_user, tags, cached_from, cache_write_tokens, audio_tokens, api"
)
_RESULT: Final = "CASE WHEN kind = 'tool' THEN response END"


def replay(
    tx: Transaction,
    before: Policies,
    after: Policies,
    *,
    now: Millis,
    back: int = WEEK_MS,
    most: int = MOST,
) -> Backtest | None:
    """Replay the newest calls of the last `back` milliseconds against both, at most `most` of
    them. None when there were none."""
    asked = Millis(now - back)
    since = _newest(tx, asked, now, most)
    if before.policy.guardrails != after.policy.guardrails:
        # The only thing that reads whole results; where the rules are the same, so is their say.
        from gateway.backtest.guarded import guarded  # slow to import, and seldom needed

        calls = recorded(tx, since, now, results=True)
        before, after = (
            replace(side, guard=guarded(side.policy.guardrails)) for side in (before, after)
        )
    else:
        calls = recorded(tx, since, now)
    outcome = backtest(calls, before=before, after=after, priced_at=now)
    if outcome.first is None:
        return None
    return Backtest(outcome, since, now, cut=since > asked)


def recorded(
    tx: Transaction, since: Millis, until: Millis, *, results: bool = False
) -> Iterator[RecordedCall]:
    """Live calls that were sent from `since` until `until` (exclusive), in order, and the tool
    calls of the same runs that were refused. A day of them is in memory at a time. `results`:
    with what tools answered."""
    columns = f"{_COLUMNS}, {_RESULT if results else 'NULL'} AS result"
    known: set[Key] = set()
    while since < until:
        end = Millis(min(until, (since // DAY_MS + 1) * DAY_MS))
        rows = tx.read(
            _FROM.format(columns) + " ORDER BY reserved_at, run, step, call, attempt",
            since=since,
            until=end,
        )
        runs = sorted({row["run"] for row in rows})
        asked, refused = _journaled(tx, runs)
        agents = {row["run"]: row["agent"] for row in rows}
        new = [row for row in refused if _key(row) not in known]
        known.update(_key(row) for row in new)
        found = [_sent(row, asked.get(_key(row), {})) for row in rows]
        found += [_refused(row, agents[row["run"]], asked.get(_key(row), {})) for row in new]
        yield from sorted(found, key=lambda call: call.at)
        since = end


def _newest(tx: Transaction, since: Millis, until: Millis, most: int) -> Millis:
    """From when on there are no more than `most` calls."""
    row = tx.one(
        _FROM.format("reserved_at") + " ORDER BY reserved_at DESC LIMIT 1 OFFSET :most",
        since=since,
        until=until,
        most=most,
    )
    return since if row is None else Millis(row["reserved_at"] + 1)


def _journaled(tx: Transaction, runs: Sequence[str]) -> tuple[dict[Key, Intent], list[Row]]:
    """What the runs' tool calls asked for, and the outcomes of those that were refused."""
    asked: dict[Key, Intent] = {}
    refused: list[Row] = []
    for start in range(0, len(runs), _RUNS):
        names = {f"r{i}": run for i, run in enumerate(runs[start : start + _RUNS])}
        rows = tx.read(
            "SELECT run, step, call, event, role, name, body, at FROM journal"  # noqa: S608
            f" WHERE run IN ({', '.join(':' + name for name in names)}) AND kind = 'tool'"
            " AND (event = 'intent' OR status = 'denied') ORDER BY seq",
            **names,
        )
        for row in rows:
            body = json.loads(row["body"])
            if row["event"] == "intent":
                asked[_key(row)] = body
            elif body.get("error", {}).get("code") in _POLICY:
                refused.append(row)
    return asked, refused


def _key(row: Row) -> Key:
    return row["run"], row["step"], row["call"]


def _sent(row: Row, asked: Intent) -> RecordedCall:
    lost = row["state"] == "unknown"
    return RecordedCall(
        run=row["run"],
        step=row["step"],
        call=row["call"],
        kind=row["kind"],
        agent=row["agent"],
        role=row["role"],
        at=Millis(row["reserved_at"]),
        asked=row["asked"],
        target=row["target"],
        cost_nano=row["cost_nano"] or 0,
        input_tokens=row["reserved_tokens"] if lost else row["input_tokens"] or 0,
        output_tokens=0 if lost else row["output_tokens"] or 0,
        cached_tokens=row["cached_tokens"] or 0,
        reasoning_tokens=row["reasoning_tokens"] or 0,
        cache_write_tokens=row["cache_write_tokens"] or 0,
        embeddings=row["api"] == "embeddings",
        booked=lost or row["cached_from"] is not None or bool(row["audio_tokens"]),
        user=row["for_user"],
        tags=tuple((row["tags"] or "").split()),
        arguments=asked.get("arguments"),
        result=json.loads(row["result"]) if row["result"] else None,
    )


def _refused(row: Row, agent: str, asked: Intent) -> RecordedCall:
    tool = str(asked.get("tool", row["name"]))
    return RecordedCall(
        run=row["run"],
        step=row["step"],
        call=row["call"],
        kind="tool",
        agent=agent,
        role=row["role"],
        at=Millis(row["at"]),
        asked=tool,
        target=tool,
        arguments=asked.get("arguments"),
    )
