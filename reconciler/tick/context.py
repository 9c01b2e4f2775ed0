"""What a tick works with: the stores, the clock, and what the watched branch declares now."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.database import Database
from gateway.values import AgentName, Clock, Millis
from reconciler.config import Fleet
from reconciler.config.reader import Memo
from reconciler.findings import Finding
from reconciler.release import Release
from reconciler.source.mirror import Mirror
from reconciler.source.signing import Signer
from reconciler.source.tree import Tree


@dataclass(frozen=True)
class Declared:
    """One commit of the watched branch, compiled. `broken` agents keep their stable release."""

    commit: str
    tree: Tree
    fleet: Fleet
    releases: Mapping[AgentName, Release]
    sentinels: Mapping[AgentName, Mapping[str, Release]]
    """Deliberately bad variants of each agent, by sentinel id."""
    broken: Mapping[AgentName, tuple[Finding, ...]]
    findings: tuple[Finding, ...]


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
    draining: bool = False
    """True after a job's deadline: no new live run is begun."""
    declared: Declared | None = None
    memo: Memo = field(default_factory=Memo)
    """Parsed documents by blob OID: a commit re-parses only what it changed."""
    problems: list[str] = field(default_factory=list)
    """What this tick could not do, in words for people; the tick goes on without it."""
