"""What a plan is made from, and what it is about: values only, nothing is decided here.

A plan compares two sides. The *live* side is what is in force: the releases that are assigned,
and the shared settings that were approved last. The *desired* side is what a commit asks for. Both
are plain values, so that a plan can be made from two commits, or from a commit and the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.values import AgentName, Json, TeamName, content_hash
from reconciler.config import Loosened, Origin, OwnerRule, TeamConfig
from reconciler.findings import Finding, Place
from reconciler.release import Release


@dataclass(frozen=True, slots=True)
class Unit:
    """One shared thing of a fleet: a budget, a provider, a tool's class, a rollout policy.

    Units are named `kind/name`: `budget/agent-day`, `provider/openai`, `tool/tracker.save_draft`.
    """

    value: Json
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """One agent on one side.

    `release` None: nothing of it is live yet. `facts` is what is not in a release (team, trigger,
    rollout policy, claims, an outline of its suite), as JSON: see `plan.sides.facts_of`.
    """

    release: Release | None
    facts: Mapping[str, Json]
    place: Place | None = None
    origins: Mapping[str, Origin] = field(default_factory=dict)
    loosened: tuple[Loosened, ...] = ()


@dataclass(frozen=True, slots=True)
class Side:
    """Everything one side declares. `broken` agents are in error; they keep what is live."""

    commit: str | None
    agents: Mapping[AgentName, Standing]
    units: Mapping[str, Unit]
    teams: Mapping[TeamName, TeamConfig] = field(default_factory=dict)
    owners: tuple[OwnerRule, ...] = ()
    broken: Mapping[AgentName, tuple[Finding, ...]] = field(default_factory=dict)
    size: int | None = None
    """Agents of this side in all, where `agents` holds only those that may differ."""
    collisions: tuple[Finding, ...] = ()
    """What only shows when its agents are looked at together: see `plan.collisions`."""


@dataclass(frozen=True, slots=True)
class Loosening:
    """One thing that is allowed on the desired side and not on the live one.

    `scope` says what waits until it is approved: `agent/ci-triage`, or a unit such as
    `budget/agent-day`. `stricter` is where the stricter value stands, if anything says it.
    `owners` are the teams and logins of which one must approve.
    """

    scope: str
    kind: str
    text: str
    place: Place
    stricter: Place | None = None
    owners: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """What an approval is of: one scope, from exactly this to exactly that.

    Content-addressed, so it survives a squash or a rebase, and changes with what is approved.
    `before` and `after` are a release digest (agents) or a hash (units); "" stands for nothing.
    """

    scope: str
    before: str
    after: str
    loosenings: tuple[Loosening, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over scope, both sides and what is loosened; places do not count."""
        return content_hash(
            {
                "format": "interlock.subject/1",
                "scope": self.scope,
                "before": self.before,
                "after": self.after,
                "what": [*sorted({f"{one.kind} {one.text}" for one in self.loosenings})],
            }
        )

    @property
    def agent(self) -> AgentName | None:
        """The agent it is about; None for a shared unit."""
        kind, _, name = self.scope.partition("/")
        return AgentName(name) if kind == "agent" else None

    @property
    def told(self) -> str:
        """What is loosened, on one line."""
        return "; ".join(one.text for one in self.loosenings)

    @property
    def owners(self) -> tuple[tuple[str, ...], ...]:
        """Sets of owners; one of each set must approve."""
        return tuple(sorted({one.owners for one in self.loosenings}))
