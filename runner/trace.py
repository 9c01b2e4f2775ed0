"""What happened in a run, as a tree that people and reports read: the journal's read model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.database import Database
from gateway.values import Millis, NanoUSD, RunId, StepPath
from runner.journal import Entry, Kind, read

SHORT = 400
"""Characters of an input or output that a trace shows; the journal has them whole."""


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One step with those below it. Times in milliseconds; figures are the step's own, `total_*`
    include what lies below it."""

    path: StepPath
    call: int
    parent: StepPath | None
    role: str
    kind: str
    name: str
    status: str
    """The outcome's status, or `started` when the step has none yet."""
    tokens: int
    cost_nano: NanoUSD
    label: str
    effect_key: str | None
    started_at: Millis
    duration_ms: int | None
    input: str
    output: str
    steps: tuple[TraceStep, ...]

    @property
    def total_tokens(self) -> int:
        """Tokens of this step and everything below it."""
        return self.tokens + sum(step.total_tokens for step in self.steps)

    @property
    def total_cost_nano(self) -> int:
        """Nano-dollars of this step and everything below it."""
        return self.cost_nano + sum(step.total_cost_nano for step in self.steps)


@dataclass(frozen=True, slots=True)
class Trace:
    """A run and its steps in order. `stop` and `outcome` are None while it goes on."""

    run: RunId
    agent: str
    release: str
    purpose: str
    occurrence: str
    status: str
    stop: str | None
    outcome: Mapping[str, Any] | None
    created_at: Millis
    started_at: Millis | None
    finished_at: Millis | None
    steps: tuple[TraceStep, ...]

    def walk(self) -> Iterator[TraceStep]:
        """Every step, depth first."""
        stack = list(reversed(self.steps))
        while stack:
            step = stack.pop()
            yield step
            stack.extend(reversed(step.steps))


def trace(database: Database, run: RunId) -> Trace:
    """The trace of a run, finished or not. Raises KeyError when there is no such run."""
    row = database.one("SELECT * FROM runs WHERE run = :run", run=run)
    if row is None:
        raise KeyError(f"no run {run}; `interlock runs` lists them")
    return Trace(
        run=run,
        agent=row["agent"],
        release=row["release"],
        purpose=row["purpose"],
        occurrence=row["occurrence"],
        status=row["status"],
        stop=row["stop"],
        outcome=json.loads(row["outcome"]) if row["outcome"] else None,
        created_at=Millis(row["created_at"]),
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        steps=_tree(read(database, run)),
    )


def _tree(entries: list[Entry]) -> tuple[TraceStep, ...]:
    outcomes = {entry.key: entry for entry in entries if entry.event == "outcome"}
    children: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.event == "intent":
            parent = entry.key.step.rpartition(".")[0]
            children.setdefault(parent, []).append(entry)

    def below(path: str) -> tuple[TraceStep, ...]:
        return tuple(build(intent) for intent in children.get(path, ()))

    def build(intent: Entry) -> TraceStep:
        path = intent.key.step
        outcome = outcomes.get(intent.key)
        parent = path.rpartition(".")[0]
        return TraceStep(
            path=path,
            call=intent.key.call,
            parent=StepPath(parent) if parent else None,
            role=intent.role,
            kind=intent.kind,
            name=intent.name,
            status=outcome.status if outcome else intent.status,
            tokens=outcome.tokens if outcome else 0,
            cost_nano=outcome.cost_nano if outcome else NanoUSD(0),
            label=str((outcome or intent).label),
            effect_key=outcome.effect_key if outcome else None,
            started_at=intent.at,
            duration_ms=outcome.at - intent.at if outcome else None,
            input=_short(_input(intent)),
            output=_short(_output(outcome)) if outcome else "",
            steps=below(path),
        )

    return below("")


def _input(intent: Entry) -> str:
    body = intent.body
    if intent.kind is Kind.MODEL:
        return f"{body.get('messages', 0)} messages"
    arguments = body.get("arguments")
    if isinstance(arguments, dict):
        if set(arguments) == {"command"}:
            return str(arguments["command"])
        return json.dumps(arguments, ensure_ascii=False, sort_keys=True)
    for name in ("task", "raw", "stop"):
        if name in body:
            return str(body[name])
    return ""


def _output(outcome: Entry) -> str:
    body = outcome.body
    if "error" in body:
        return str(body["error"].get("message", ""))
    if outcome.kind is Kind.MODEL:
        message = body.get("message") or {}
        called = [c.get("function", {}).get("name", "?") for c in message.get("tool_calls") or ()]
        said = str(message.get("content") or "")
        return "\n".join(part for part in (said, " ".join(f"→ {n}" for n in called)) if part)
    for name in ("result", "text", "diff"):
        if name in body:
            return str(body[name])
    return json.dumps(body, ensure_ascii=False, sort_keys=True)


def _short(text: str) -> str:
    return text if len(text) <= SHORT else f"{text[:SHORT]}…"
