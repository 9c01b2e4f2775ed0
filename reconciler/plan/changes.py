"""What a plan says: values only. `plan.diff` makes them, `plan.render` shows them.

Sentences (`text`) are ours, with values from the repository between backticks, see `phrases`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gateway.values import AgentName, Json, content_hash
from reconciler.findings import Finding, Place, Severity
from reconciler.plan.model import Loosening, Subject

FORMAT = "interlock.plan/1"

Kind = Literal["new", "changed", "renamed", "removed"]


@dataclass(frozen=True, slots=True)
class LeafChange:
    """One leaf of a release that differs: why a digest is another one.

    `before` and `after` are given for texts (instructions, files of skills), to be compared word
    by word; None stands for a text that is not there.
    """

    path: str
    text: str
    before: str | None = None
    after: str | None = None

    @property
    def prose(self) -> bool:
        """Whether there are texts to compare."""
        return self.before is not None or self.after is not None

    def as_json(self) -> Json:
        """The change, with both texts where it is about texts."""
        return {"path": self.path, "text": self.text, "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True)
class AgentChange:
    """One agent that differs. Digests are "" where there is no release."""

    name: AgentName
    kind: Kind
    team: str
    place: Place
    before: str
    after: str
    leaves: tuple[LeafChange, ...] = ()
    settings: tuple[str, ...] = ()
    """What changes beside the release: owner, trigger, rollout policy, claims, evals."""
    former: AgentName | None = None

    def as_json(self) -> Json:
        """By name; places as `file:line:column`."""
        return {
            "agent": self.name,
            "kind": self.kind,
            "team": self.team,
            "place": str(self.place),
            "before": self.before,
            "after": self.after,
            "formerly": self.former,
            "leaves": [leaf.as_json() for leaf in self.leaves],
            "settings": [*self.settings],
        }


@dataclass(frozen=True, slots=True)
class UnitChange:
    """One shared thing that differs. `looser` of its `texts` need an approval."""

    name: str
    kind: Kind
    texts: tuple[str, ...]
    looser: tuple[bool, ...]
    place: Place
    paths: frozenset[str] = frozenset()
    """Which of its fields differ, by dotted path."""
    loose_paths: frozenset[str] = frozenset()
    """Those of them that are looser."""

    def as_json(self) -> Json:
        """By name."""
        return {
            "unit": self.name,
            "kind": self.kind,
            "place": str(self.place),
            "changes": [
                {"text": text, "looser": looser}
                for text, looser in zip(self.texts, self.looser, strict=True)
            ],
        }


@dataclass(frozen=True, slots=True, order=True)
class Capability:
    """One thing that a role of an agent can do, or can no longer do."""

    agent: AgentName
    role: str
    kind: str
    text: str
    asked: bool = False
    """Whether an approval is asked for it."""

    def as_json(self) -> Json:
        """By name."""
        return {
            "agent": self.agent,
            "role": self.role,
            "kind": self.kind,
            "text": self.text,
            "needs_approval": self.asked,
        }


@dataclass(frozen=True, slots=True)
class Worst:
    """The most an agent can spend, in nano-dollars. None: nothing limits it, or no schedule."""

    per_run: int | None
    per_day: int | None
    runs: int | None
    """Most runs of its schedule in a day; None without a schedule."""
    capped_by: str = ""
    """Name of the budget that is reached before all runs of a day have spent their worst."""

    def as_json(self) -> Json:
        """By name."""
        return {
            "per_run_nano": self.per_run,
            "per_day_nano": self.per_day,
            "runs_per_day": self.runs,
            "capped_by": self.capped_by or None,
        }


@dataclass(frozen=True, slots=True)
class Bill:
    """One agent's worst case on both sides; None where the agent is not."""

    agent: AgentName
    before: Worst | None
    after: Worst | None

    def as_json(self) -> Json:
        """By name."""
        return {
            "agent": self.agent,
            "before": self.before.as_json() if self.before else None,
            "after": self.after.as_json() if self.after else None,
        }


@dataclass(frozen=True, slots=True)
class Money:
    """Worst cases that change, and the whole fleet's per day (its scheduled agents)."""

    bills: tuple[Bill, ...] = ()
    before: int | None = 0
    after: int | None = 0

    def as_json(self) -> Json:
        """By name."""
        return {
            "agents": [bill.as_json() for bill in self.bills],
            "fleet_per_day_nano": {"before": self.before, "after": self.after},
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """The difference between what is live and what a commit asks for, all of it decided by git."""

    live: str | None
    desired: str | None
    agents: tuple[AgentChange, ...] = ()
    units: tuple[UnitChange, ...] = ()
    gained: tuple[Capability, ...] = ()
    lost: tuple[Capability, ...] = ()
    money: Money = Money()
    collisions: tuple[Finding, ...] = ()
    leaks: tuple[Finding, ...] = ()
    """Changed agents that could be made to send data away: see `plan.trifecta`."""
    broken: Mapping[AgentName, tuple[Finding, ...]] = field(default_factory=dict)
    subjects: tuple[Subject, ...] = ()
    """What needs an approval, by scope."""
    depends: Mapping[AgentName, frozenset[str]] = field(default_factory=dict)
    """Changed agent → the scopes of `subjects` that must be approved before it may change."""

    @property
    def loosenings(self) -> tuple[Loosening, ...]:
        """Everything that needs an approval, in the order of the subjects."""
        return tuple(one for subject in self.subjects for one in subject.loosenings)

    @property
    def failing(self) -> tuple[Finding, ...]:
        """Why a plan that can be read fails nevertheless."""
        return tuple(
            one for one in (*self.leaks, *self.collisions) if one.severity is Severity.ERROR
        )

    @property
    def empty(self) -> bool:
        """Nothing to do. An empty plan approves nothing and needs no approval."""
        return not (self.agents or self.units or self.broken or self.collisions)

    @property
    def digest(self) -> str:
        """SHA-256 over the sections; the names of the commits do not count."""
        sections = self.as_json()
        return content_hash({k: v for k, v in sections.items() if k not in ("live", "desired")})

    def as_json(self) -> dict[str, Json]:
        """All sections, as `--format json` prints them, without the digest."""
        return {
            "format": FORMAT,
            "live": self.live,
            "desired": self.desired,
            "empty": self.empty,
            "agents": [change.as_json() for change in self.agents],
            "shared": [change.as_json() for change in self.units],
            "new_capabilities": [one.as_json() for one in self.gained],
            "removed_capabilities": [one.as_json() for one in self.lost],
            "money": self.money.as_json(),
            "leaks": [finding.as_json() for finding in self.leaks],
            "collisions": [finding.as_json() for finding in self.collisions],
            "broken": {
                name: [finding.as_json() for finding in findings]
                for name, findings in self.broken.items()
            },
            "needs": [subject_json(subject) for subject in self.subjects],
        }


def subject_json(subject: Subject) -> Json:
    """What one approval is of."""
    return {
        "scope": subject.scope,
        "digest": subject.digest,
        "before": subject.before,
        "after": subject.after,
        "owners": [[*owners] for owners in subject.owners],
        "loosened": [
            {
                "kind": one.kind,
                "text": one.text,
                "place": str(one.place),
                "stricter": str(one.stricter) if one.stricter else None,
                "owners": [*one.owners],
            }
            for one in subject.loosenings
        ],
    }
