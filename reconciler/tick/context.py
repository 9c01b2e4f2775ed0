"""What a tick works with: the stores, the clock, and what the watched branch declares now."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gateway.database import Database
from gateway.values import AgentName, Clock, Millis
from reconciler import release
from reconciler.config import AgentConfig, Fleet
from reconciler.config.history import GitHistory
from reconciler.findings import Finding
from reconciler.forge.model import Forge, PullNumber
from reconciler.plan import Plan, Subject
from reconciler.plan.backtest import Backtest
from reconciler.release import Release
from reconciler.source.mirror import Mirror
from reconciler.source.objects import CommitId
from reconciler.source.signing import Signer
from reconciler.source.tree import LinkedTree, Tree
from reconciler.triggers import Timetable


@dataclass(frozen=True, slots=True)
class Kept:
    """An agent that waits for an approval is as it was here."""

    commit: str
    tree: Tree


@dataclass(frozen=True)
class Declared:
    """One commit of the watched branch, compiled. `broken` agents keep their stable release."""

    commit: str
    tree: LinkedTree
    fleet: Fleet
    releases: Mapping[AgentName, Release]
    sentinels: Mapping[AgentName, Mapping[str, Release]]
    """Deliberately bad variants of each agent, by sentinel id."""
    broken: Mapping[AgentName, tuple[Finding, ...]]
    findings: tuple[Finding, ...]
    waiting: Mapping[AgentName, tuple[Subject, ...]] = field(default_factory=dict)
    """Agents that keep what is in force, and the subjects that must be approved first."""
    kept: Mapping[AgentName, Kept] = field(default_factory=dict)
    """Where those of them that were in force are declared as they are here."""
    tightened: Mapping[AgentName, AgentConfig] = field(default_factory=dict)
    """What the commit says of agents that wait: what it takes away is gone at once."""

    def tree_of(self, agent: AgentName) -> tuple[str, Tree]:
        """The commit, and its files, that an agent's declaration comes from."""
        kept = self.kept.get(agent)
        return (self.commit, self.tree) if kept is None else (kept.commit, kept.tree)


@dataclass(frozen=True, slots=True)
class Looked:
    """One pull request as it was looked at last: its head merged into the commit `base`.

    `wanted` is the whole merge result, for the plan; `gated` has only agents and skills of the
    head, for the gate. Both None when shared files are in error, or with conflicts.
    """

    head: CommitId
    base: str
    conflicts: tuple[str, ...] = ()
    wanted: Declared | None = None
    changed: frozenset[AgentName] | None = None
    gated: Declared | None = None
    findings: tuple[Finding, ...] = ()
    collisions: tuple[Finding, ...] = ()
    """What collides with other agents since the base."""
    plan: Plan | None = None
    held: frozenset[AgentName] = frozenset()
    """Agents that are not gated, because something of the base waits for an approval."""
    backtest: Backtest | None = None
    """What recent calls say of it."""
    replayed: Replayed | None = None
    """Of what and when that was asked: the ledger is not read again for the same."""


class Replayed(NamedTuple):
    """A replay of the same head and base comes to the same while these stand still, but for the
    calls of the day: a figure that moves with every call would be written anew with every look."""

    policy: str | None
    waiting: tuple[AgentName, ...]
    day: int


EVERYONE = AgentName("*")
"""Whom a line of the audit is about when it is about the whole fleet."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """A due run that could not be started. Tried again at `until`, or when something happens to
    the agent before."""

    until: Millis
    reason: str
    """As the tick tells people."""


@dataclass
class News:
    """Agents that each stage has not looked at since something happened to them.

    `None` is everyone: a process that begins knows nothing. Lines of the audit say what happened
    whoever did it, in this process or in another: no pointer, rollout or hold changes without one.
    """

    declared: frozenset[AgentName] | None = None
    """Those whose declaration changed, for opening and moving rollouts."""
    scheduled: frozenset[AgentName] | None = None
    """Those whose declaration changed, for the timetable."""
    looked_until: int | None = None
    """The audit line up to which rollouts follow what happened."""
    published_until: int | None = None
    """The audit line up to which the agents' ceilings follow what happened."""

    def changed(self, agents: frozenset[AgentName] | None) -> None:
        """The declaration of these agents is another one now."""
        self.declared = joined(self.declared, agents)
        self.scheduled = joined(self.scheduled, agents)


def joined(
    one: frozenset[AgentName] | None, other: frozenset[AgentName] | None
) -> frozenset[AgentName] | None:
    """Both sets of agents at once, where None is everyone."""
    return None if one is None or other is None else one | other


@dataclass
class Context:
    """One reconciler. `job`: no store survives but git, so claims are pushed before runs."""

    database: Database
    clock: Clock
    state: Path
    config: Mirror
    branch: str
    machine: str
    job: bool
    signer: Signer | None
    mirror: Callable[[str, Path], Mirror]
    """Opens (or clones) another repository: the workspaces' origins."""
    seeded: Callable[[str], random.Random]
    """A source of randomness that is the same for the same name."""
    fetch_every_ms: int = 10_000
    """The config repo is fetched at most this often: a tick may come every quarter second."""
    fetched_at: Millis | None = None
    seen_head: str | None = None
    """The head that was looked at last, good or not."""
    head_problem: list[str] = field(default_factory=list)
    """Why nothing of that head is acted upon; said again at every tick until it is repaired."""
    forge: Forge | None = None
    """Where pull requests are; None: nobody looks at any."""
    pulls: dict[PullNumber, Looked] = field(default_factory=dict)
    """Open pull requests as they were looked at last."""
    pulls_mark: tuple[str, str, int] | None = None
    """What was the case when they were: listing, commit, audit line."""
    pulls_problem: list[str] = field(default_factory=list)
    """What was wrong with some of them then; said again at every tick until it is put right."""
    pulls_unread: set[PullNumber] = field(default_factory=set)
    """Those that could not be looked at: their gates stay as they are."""
    asked: Declared | None = None
    """What the newest good commit asks for, before anything waits."""
    approvals_seen: tuple[str, ...] | None = None
    """Approvals that could be used when it was last decided what is in force."""
    draining: bool = False
    """True after a job's deadline: no new live run is begun."""
    declared: Declared | None = None
    news: News = field(default_factory=News)
    """What the stages of a tick still have to look at: never the whole fleet but the first time."""
    timetable: Timetable = field(default_factory=Timetable)
    blocked: dict[AgentName, Blocked] = field(default_factory=dict)
    """Agents that are due and could not be started, with what is in their way."""
    compiled: release.Compiled | None = None
    """The newest commit of the branch, from which the next one goes on."""
    history: GitHistory | None = None
    """Which content owns which version, up to that commit."""
    earlier: dict[str, Declared | None] = field(default_factory=dict)
    """Earlier commits, compiled, for agents that keep what they were."""
    problems: list[str] = field(default_factory=list)
    """What this tick could not do, in words for people; the tick goes on without it."""
