"""What a run carries along: its spec, its journal, its ways out, and what it has used so far."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from gateway.values import CallKey, Millis, RunId, StepPath
from runner.client import Gateway
from runner.journal import COUNTED, Done, Journal, Kind
from runner.sandbox.contract import Sandboxes
from runner.spec import RunSpec
from runner.stops import Usage
from runner.workspace import Files

WORKING = frozenset({Kind.MODEL, Kind.TOOL, Kind.EXEC, Kind.FILE})
"""Kinds of steps whose time is working time. Those that contain others are not counted twice."""


@dataclass(slots=True)
class Meter:
    """Adds up what steps used. A sub-agent's meter passes everything on to its parent's.

    Elapsed time is between journaled moments, so a replay measures what the first go measured.
    """

    parent: Meter | None = None
    steps: int = 0
    tokens: int = 0
    cost_nano: int = 0
    working_ms: int = 0
    first_at: Millis | None = None
    last_at: int = 0

    def add(self, done: Done) -> None:
        """Count a finished step."""
        intent, outcome = done.intent, done.outcome
        self.steps += outcome.kind in COUNTED
        self.tokens += outcome.tokens
        self.cost_nano += outcome.cost_nano
        if outcome.kind in WORKING:
            self.working_ms += max(0, outcome.at - intent.at)
        if self.first_at is None:
            self.first_at = intent.at
        self.last_at = max(self.last_at, outcome.at)
        if self.parent is not None:
            self.parent.add(done)

    @property
    def usage(self) -> Usage:
        """As the ceilings are compared with."""
        elapsed = 0 if self.first_at is None else max(0, self.last_at - self.first_at)
        return Usage(self.steps, self.tokens, self.cost_nano, elapsed)


Spent = Callable[[CallKey], Awaitable[tuple[int, int]]]
"""(tokens, nano-dollars) that the gateway's ledger holds for a call."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What the ledger has of a run, and the journal perhaps not: a command in the container may
    call the gateway itself, through the run's socket."""

    tools: tuple[str, ...] = ()
    """External tools (`server.tool`) that were called, whoever called them."""
    tokens: int = 0
    cost_nano: int = 0
    """Of calls that no step of the journal made."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Everything a harness needs to execute one run."""

    run: RunId
    spec: RunSpec
    journal: Journal
    gateway: Gateway
    tokens: Mapping[str, str]
    """Run token by role name: each role is a principal of its own."""
    sandboxes: Sandboxes
    spent: Spent
    sent: Callable[[], Awaitable[Sent]]
    pristine: Files
    """The workspace as the run found it."""
    open_socket: Callable[[], Awaitable[str | None]]
    """Directory of the run's gateway socket, to be bound into its sandbox; None: no way out."""
    labels: Mapping[str, str] = field(default_factory=dict)
    meter: Meter = field(default_factory=Meter)


def replay_usage(scope: Scope, path: StepPath, meter: Meter) -> None:
    """Count the journaled steps below `path`, whose loop is not walked again."""
    for entry in scope.journal.steps():
        if entry.event == "outcome" and entry.key.step.startswith(f"{path}."):
            intent = scope.journal.find(entry.key, "intent")
            if intent is not None and entry.kind is not Kind.SANDBOX:
                meter.add(Done(intent, entry))
