"""The run's memory: append-only steps, and the replay that continues a run from them.

Every step is two rows: an `intent`, durable before anything happens, and an `outcome` after it. A
restarted runner runs the same deterministic harness again; `Journal.step` answers from the
journal what has an outcome, lets the step recover what has only an intent, and executes the rest.
The row format is frozen as interlock.journal/1 (docs/formats/journal.md). All writes carry the
lease's fence and are checked against it in their own transaction.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol, TypeVar

from gateway.database import Database, Row, Transaction
from gateway.values import TRUSTED, CallKey, Clock, Label, Millis, NanoUSD, RunId, StepPath
from runner.queue import check_fence
from runner.redact import Redactor

FORMAT = "interlock.journal/1"
NOTHING = NanoUSD(0)

T = TypeVar("T")


class Kind(StrEnum):
    """What a step is. The first group counts as steps of the run, the second does not."""

    MODEL = "model"
    TOOL = "tool"
    EXEC = "exec"
    FILE = "file"
    SKILL = "skill"
    NOTE = "note"
    DELEGATE = "delegate"

    FINISH = "finish"
    CHECK = "check"
    NUDGE = "nudge"
    CATALOGUE = "catalogue"
    SANDBOX = "sandbox"
    RESULT = "result"


COUNTED = frozenset(
    {Kind.MODEL, Kind.TOOL, Kind.EXEC, Kind.FILE, Kind.SKILL, Kind.NOTE, Kind.DELEGATE}
)


class Status(StrEnum):
    """How a step stands. `started` is every intent's; the others are outcomes."""

    STARTED = "started"
    OK = "ok"
    ERROR = "error"
    DENIED = "denied"
    UNKNOWN = "unknown"


class Diverged(Exception):
    """The journal holds another step than the harness asks for: it was written by another
    version of the harness, so continuing would mix two runs."""


class Commits(Protocol):
    """Durable writes for async callers (`gateway.database.GroupCommit`)."""

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a transaction, return when it is durable, re-raise what it raised."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step gave. `body` is JSON; tokens and cost are 0 where nothing was bought."""

    body: Mapping[str, Any] = field(default_factory=dict)
    status: Status = Status.OK
    label: Label = TRUSTED
    tokens: int = 0
    cost_nano: NanoUSD = NOTHING
    effect_key: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the journal."""

    key: CallKey
    event: Literal["intent", "outcome"]
    role: str
    kind: Kind
    name: str
    status: Status
    body: Mapping[str, Any]
    label: Label
    effect_key: str | None
    tokens: int
    cost_nano: NanoUSD
    fence: int
    at: Millis


@dataclass(frozen=True, slots=True)
class Done:
    """A finished step: both its rows."""

    intent: Entry
    outcome: Entry

    @property
    def body(self) -> Mapping[str, Any]:
        """The outcome's body."""
        return self.outcome.body


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a step's action is told: its identity, its journaled intent, and whether an earlier
    runner may have begun it (then the action must not assume that nothing has happened)."""

    key: CallKey
    intent: Mapping[str, Any]
    recovering: bool


class Journal:
    """The steps of one run under one lease."""

    def __init__(
        self,
        database: Database,
        commits: Commits,
        clock: Clock,
        *,
        run: RunId,
        fence: int,
        redactor: Redactor | None = None,
    ) -> None:
        self._commits = commits
        self._clock = clock
        self._redactor = redactor or Redactor()
        self.run = run
        self.fence = fence
        self._entries: dict[tuple[CallKey, str], Entry] = {
            (entry.key, entry.event): entry for entry in read(database, run)
        }

    def steps(self) -> list[Entry]:
        """All rows of the run, in the order they were written."""
        return list(self._entries.values())

    def is_tool(self, key: CallKey) -> bool:
        """Whether this step calls an external tool."""
        intent = self.find(key, "intent")
        return intent is not None and intent.kind is Kind.TOOL

    def find(self, key: CallKey, event: Literal["intent", "outcome"]) -> Entry | None:
        """One row, or None."""
        return self._entries.get((key, event))

    async def record(
        self,
        key: CallKey,
        event: Literal["intent", "outcome"],
        *,
        role: str,
        kind: Kind,
        name: str,
        outcome: Outcome,
    ) -> Entry:
        """Append one row, durable on return. Raises Fenced when another runner has the lease.

        Returns the row as it was written: redacted, and as JSON gives it back.
        """
        text = json.dumps(
            self._redactor.json(dict(outcome.body)), ensure_ascii=False, sort_keys=True
        )
        entry = Entry(
            key=key,
            event=event,
            role=role,
            kind=kind,
            name=self._redactor.text(name),
            status=outcome.status,
            body=json.loads(text),
            label=outcome.label,
            effect_key=outcome.effect_key,
            tokens=outcome.tokens,
            cost_nano=outcome.cost_nano,
            fence=self.fence,
            at=self._clock.now(),
        )

        def write(tx: Transaction) -> None:
            check_fence(tx, self.run, self.fence)
            tx.execute(
                "INSERT INTO journal (run, step, call, event, role, kind, name, status, body,"
                " label, effect_key, tokens, cost_nano, fence, at) VALUES (:run, :step, :call,"
                " :event, :role, :kind, :name, :status, :body, :label, :effect_key, :tokens,"
                " :cost_nano, :fence, :at)",
                run=key.run,
                step=key.step,
                call=key.call,
                event=event,
                role=role,
                kind=kind,
                name=entry.name,
                status=entry.status,
                body=text,
                label=str(entry.label),
                effect_key=entry.effect_key,
                tokens=entry.tokens,
                cost_nano=entry.cost_nano,
                fence=entry.fence,
                at=entry.at,
            )

        await self._commits.write(write)
        self._entries[key, event] = entry
        return entry

    async def step(
        self,
        path: StepPath,
        *,
        kind: Kind,
        name: str,
        role: str,
        intent: Mapping[str, Any] | Callable[[], Awaitable[Mapping[str, Any]]],
        perform: Callable[[Attempt], Awaitable[Outcome]],
        call: int = 0,
    ) -> Done:
        """Carry a step to its outcome, once, whatever has happened to it before.

        With an outcome in the journal `perform` is not called. With only an intent it is called
        with `recovering`. `intent` may be a function when it has to look at the world first; it
        is asked only if there is no intent yet. What `perform` raises leaves the intent open.
        Raises Diverged when the journaled step is a different one.
        """
        key = CallKey(self.run, path, call)
        begun = self.find(key, "intent")
        recovering = begun is not None
        if begun is None:
            body = intent if isinstance(intent, Mapping) else await intent()
            begun = await self.record(
                key,
                "intent",
                role=role,
                kind=kind,
                name=name,
                outcome=Outcome(body=body, status=Status.STARTED),
            )
        elif (begun.kind, begun.role, begun.name) != (kind, role, self._redactor.text(name)):
            raise Diverged(
                f"{key}: the journal holds {begun.kind} {begun.name!r} by {begun.role}, this "
                f"version of the runner comes to {kind} {name!r} by {role}. Finish open runs "
                "before an upgrade, or start the run anew."
            )
        ended = self.find(key, "outcome")
        if ended is None:
            outcome = await perform(Attempt(key, begun.body, recovering))
            ended = await self.record(
                key, "outcome", role=role, kind=kind, name=name, outcome=outcome
            )
        return Done(begun, ended)


def read(database: Database, run: RunId) -> list[Entry]:
    """All journal rows of a run, in the order they were written."""
    return [
        _entry(row)
        for row in database.read("SELECT * FROM journal WHERE run = :run ORDER BY seq", run=run)
    ]


def _entry(row: Row) -> Entry:
    return Entry(
        key=CallKey(RunId(row["run"]), StepPath(row["step"]), row["call"]),
        event=row["event"],
        role=row["role"],
        kind=Kind(row["kind"]),
        name=row["name"],
        status=Status(row["status"]),
        body=json.loads(row["body"]),
        label=Label.parse(row["label"]),
        effect_key=row["effect_key"],
        tokens=row["tokens"],
        cost_nano=NanoUSD(row["cost_nano"]),
        fence=row["fence"],
        at=Millis(row["at"]),
    )
