"""A fleet of any size in a database, without git: what a tick looks at, and nothing it reads."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gateway.database import Database
from gateway.values import AgentName, Millis
from reconciler.config import AgentConfig, Fleet
from reconciler.release import Release, compile_fleet
from reconciler.release.model import release_of
from reconciler.source.tree import MemoryTree
from reconciler.tick.context import Context, Declared
from reconciler.tick.declare import adopt
from tests.support import small_fleet
from tests.support.rollout_world import FakeClock, opened

SCHEDULES = ("0 6 * * 1-5", "*/15 * * * *", "30 2 * * *")
TRIAGE = AgentName("triage")


def difference(
    before: Declared | None, now: Declared, *, among: Collection[AgentName] | None = None
) -> frozenset[AgentName] | None:
    """Agents that are declared otherwise; None (everyone) when there was nothing before."""
    if before is None:
        return None
    names = among
    if names is None:
        names = {*before.fleet.agents, *before.broken, *now.fleet.agents, *now.broken}
    return frozenset(name for name in names if _told(before, name) != _told(now, name))


def _told(declared: Declared, agent: AgentName) -> tuple[object, ...]:
    own = declared.releases.get(agent)
    variants = declared.sentinels.get(agent, {})
    return (
        declared.fleet.agents.get(agent),
        declared.broken.get(agent),
        own.digest if own else None,
        {name: variant.digest for name, variant in variants.items()},
    )


@dataclass
class Head:
    """Stands for the config repo's mirror: a branch that points at a commit."""

    commit: str = "c" * 40

    def fetch(self) -> None:
        """There is nothing to fetch."""

    def resolve(self, _name: str) -> str:
        """Whatever is asked for is the head."""
        return self.commit


def name(number: int) -> AgentName:
    """The agent of this number; they sort by it."""
    return AgentName(f"agent-{number:05}")


@dataclass
class World:
    """A context over a database; `declared` is what the next `adopt` puts in force."""

    database: Database
    clock: FakeClock
    context: Context
    declared: Declared
    head: Head = field(default_factory=Head)

    def adopt(
        self, declared: Declared | None = None, *, among: frozenset[AgentName] | None = None
    ) -> frozenset[AgentName] | None:
        """Put a declaration in force as the tick does; returns who changed by it.

        `among`: where to look for that, as the compiler says.
        """
        now = declared or self.declared
        changed = difference(self.context.declared, now, among=among)
        with self.database.transaction() as tx:
            adopt(self.context, tx, now, changed)
        self.context.declared = self.declared = now
        self.context.news.changed(changed)
        self.head.commit = now.commit
        return changed

    def edited(self, agent: AgentName, **changes: Any) -> Declared:
        """The declaration with one agent's config changed, and its release with `text`."""
        text = changes.pop("text", None)
        config = replace(self.declared.fleet.agents[agent], **changes)
        releases = dict(self.declared.releases)
        if text is not None:
            releases[agent] = released(releases[agent], text)
        return self.with_agents({**self.declared.fleet.agents, agent: config}, releases)

    def without(self, agent: AgentName) -> Declared:
        """The declaration with one agent removed."""
        agents, releases = dict(self.declared.fleet.agents), dict(self.declared.releases)
        del agents[agent], releases[agent]
        return self.with_agents(agents, releases)

    def with_agents(
        self, agents: Mapping[AgentName, AgentConfig], releases: Mapping[AgentName, Release]
    ) -> Declared:
        """The next commit, with these agents."""
        return replace(
            self.declared,
            commit=f"{int(self.declared.commit[:8], 16) + 1:08x}" + "0" * 32,
            fleet=replace(self.declared.fleet, agents=agents),
            releases=releases,
        )

    def promote_everything(self) -> None:
        """Every declared release is live, as after a long while."""
        with self.database.transaction() as tx:
            for agent, release in self.declared.releases.items():
                tx.execute(
                    "INSERT INTO pointers (agent, stable, anchor, generation, since)"
                    " VALUES (:agent, :digest, :digest, 1, 1)",
                    agent=agent,
                    digest=release.digest,
                )


def released(release: Release, text: str) -> Release:
    """The release with other instructions."""
    return release_of({**release.leaves, "main/instructions": text})


def world(directory: Path, agents: int, *, scheduled: bool = True) -> World:
    """So many agents without suites; nothing stands before their releases."""
    fleet = small_fleet.fleet()
    compiled = compile_fleet(fleet)[TRIAGE]
    assert isinstance(compiled, Release)
    base = fleet.agents[TRIAGE]
    base = replace(
        base, workspace=None, suite=None, rollout=replace(base.rollout, gate=None, canary=None)
    )
    configs: dict[AgentName, AgentConfig] = {}
    releases: dict[AgentName, Release] = {}
    for number in range(agents):
        schedule = SCHEDULES[number % len(SCHEDULES)] if scheduled else None
        configs[name(number)] = replace(
            base, name=name(number), trigger=replace(base.trigger, schedule=schedule)
        )
        leaves = {**compiled.leaves, "main/instructions": f"Do part {number}."}
        releases[name(number)] = release_of({**leaves, "workspace": None})
    declared = Declared(
        commit="0" * 40,
        tree=MemoryTree({}),
        fleet=_of(fleet, configs),
        releases=releases,
        sentinels={},
        broken={},
        findings=(),
    )
    database, clock, head = opened(directory / "world.sqlite"), FakeClock(), Head()
    context = Context(
        database=database,
        clock=clock,
        state=directory,
        config=head,  # type: ignore[arg-type]
        branch="main",
        machine="here",
        job=False,
        signer=None,
        mirror=lambda _url, _path: head,  # type: ignore[arg-type,return-value]
        seeded=random.Random,
    )
    made = World(database, clock, context, declared, head)
    context.news.published_until = 0
    return made


def _of(fleet: Fleet, agents: Mapping[AgentName, AgentConfig]) -> Fleet:
    return replace(fleet, agents=dict(agents))


def later(clock: FakeClock, ms: int) -> Millis:
    """Move the clock on."""
    clock.at += ms
    return clock.now()
