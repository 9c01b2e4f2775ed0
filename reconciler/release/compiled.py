"""One commit, compiled: everything a tick, a plan or a command needs to know of it.

Goes on from an earlier commit by identity: an agent whose config is the very same object, under a
platform that says the same about its models and tools, keeps its very release.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from gateway.values import AgentName
from reconciler.config import AgentConfig, Fleet, Loaded
from reconciler.findings import Finding, tidy
from reconciler.release.compile import Images, compile_agent, known_images, variant
from reconciler.release.leaves import Leaves
from reconciler.release.model import Release

Sentinels = Mapping[str, Release]
Outcome = tuple[Release, Sentinels] | tuple[Finding, ...]


@dataclass(frozen=True, eq=False)
class Compiled:
    """A loaded commit with its releases. Nothing of it may be acted upon when `fleet` is None."""

    loaded: Loaded
    releases: Mapping[AgentName, Release]
    """Of every agent that is not broken, by name in order."""
    sentinels: Mapping[AgentName, Sentinels]
    """Deliberately bad variants of each agent that has some, by sentinel id."""
    broken: Mapping[AgentName, tuple[Finding, ...]]
    """Agents in error, or without a release: they keep what is live."""
    changed: frozenset[AgentName]
    """Agents whose config, release or findings are others than in the commit before, those that
    came and went too. All of them when there was none; none while `fleet` is None."""
    images: Images = field(default_factory=dict, repr=False)
    leaves: Leaves | None = field(default=None, repr=False)
    before: Compiled | None = field(default=None, repr=False)
    """While `fleet` is None: the last commit that had one, from which the next goes on."""

    @property
    def fleet(self) -> Fleet | None:
        """What the commit declares."""
        return self.loaded.fleet

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """Everything found, by place; in order only when asked for."""
        own = [f for name, some in self.broken.items() for f in some]
        return tidy((*self.loaded.findings, *own)) if own else self.loaded.findings


def compile_loaded(
    loaded: Loaded, *, images: Images | None = None, previous: Compiled | None = None
) -> Compiled:
    """Releases, sentinels and broken agents of a loaded commit.

    `images` are digests this machine knows by image name; those of interlock.lock win. `previous`
    is an earlier outcome: what it has in common with this one is used again.
    """
    if previous is not None and previous.fleet is None:
        previous = previous.before
    fleet = loaded.fleet
    if fleet is None:
        return Compiled(loaded, {}, {}, loaded.broken, frozenset(), before=previous)
    digests = known_images(fleet, images)
    if previous is None or previous.fleet is None or previous.leaves is None:
        leaves = Leaves(fleet.platform)
        outcomes = {
            name: _compiled(agent, fleet, images, leaves) for name, agent in fleet.agents.items()
        }
        first, variants, without = _sorted_out(outcomes)
        bad = _merged(loaded.broken, without)
        everyone = frozenset((*fleet.agents, *bad))
        return Compiled(loaded, first, variants, bad, everyone, digests, leaves)
    if previous.loaded is loaded and previous.images == digests:
        return replace(previous, changed=frozenset())
    leaves = Leaves(fleet.platform, previous.leaves)
    old = previous.fleet.agents
    candidates: Iterable[AgentName] = old.keys() | fleet.agents.keys()
    if loaded.since is not None and loaded.since[0] is previous.loaded.mark:
        candidates = loaded.since[1]
    gone = {name for name in candidates if name in old and name not in fleet.agents}
    new = {
        name
        for name in candidates
        if (agent := fleet.agents.get(name)) is not None
        and agent is not (then := old.get(name))
        and agent != then
    }
    again = new | _reached(fleet, previous, leaves, digests)
    made = {name: _compiled(fleet.agents[name], fleet, images, leaves) for name in sorted(again)}
    some, variants, without = _sorted_out(made)
    out = gone | again
    releases = dict(previous.releases)
    sentinels = dict(previous.sentinels)
    kept_broken = {
        name: found
        for name, found in previous.broken.items()
        if name in fleet.agents and name not in out
    }
    for name in out:
        before = releases.pop(name, None) if name not in some else releases.get(name)
        sentinels.pop(name, None)
        release = some.get(name)
        if release is not None:
            same = before is not None and before.digest == release.digest
            releases[name] = before if same and before is not None else release
    sentinels |= variants
    broken = _merged(loaded.broken, {**kept_broken, **without})
    changed = new | gone
    changed |= {name for name in again if releases.get(name) is not previous.releases.get(name)}
    changed |= _differing(broken, previous.broken)
    if any(name not in previous.releases for name in some):
        releases = dict(sorted(releases.items()))
    return Compiled(
        loaded,
        releases,
        dict(sorted(sentinels.items())),
        broken,
        frozenset(changed),
        digests,
        leaves,
    )


def _reached(fleet: Fleet, previous: Compiled, leaves: Leaves, digests: Images) -> set[AgentName]:
    """Agents whose release the shared files reach, though their own files say the same."""
    models, tools = leaves.changed()
    images = {
        name
        for name in digests.keys() | previous.images.keys()
        if digests.get(name) != previous.images.get(name)
    }
    if not (models or tools or images):
        return set()
    return {
        name
        for name, agent in fleet.agents.items()
        if agent.sandbox.image in images or _uses(agent, models, tools)
    }


def _uses(agent: AgentConfig, models: set[str], tools: set[str]) -> bool:
    if agent.suite is not None and any(s.model in models for s in agent.suite.sentinels):
        return True
    return any(p.model in models or not tools.isdisjoint(p.tools) for p in agent.participants)


def _compiled(agent: AgentConfig, fleet: Fleet, images: Images | None, leaves: Leaves) -> Outcome:
    """The agent's release with those of its sentinels, or why there is none."""
    release = compile_agent(agent, fleet, images=images, leaves=leaves)
    if not isinstance(release, Release):
        return release
    sentinels: dict[str, Release] = {}
    for sentinel in agent.suite.sentinels if agent.suite else ():
        bad = variant(agent, sentinel, fleet, images=images, leaves=leaves)
        if not isinstance(bad, Release):
            return bad
        sentinels[sentinel.id] = bad
    return release, sentinels


def _sorted_out(
    outcomes: Mapping[AgentName, Outcome],
) -> tuple[
    dict[AgentName, Release], dict[AgentName, Sentinels], dict[AgentName, tuple[Finding, ...]]
]:
    releases: dict[AgentName, Release] = {}
    sentinels: dict[AgentName, Sentinels] = {}
    broken: dict[AgentName, tuple[Finding, ...]] = {}
    for name, outcome in outcomes.items():
        first = outcome[0]
        if isinstance(first, Release):
            releases[name] = first
            bad = outcome[1]
            if isinstance(bad, Mapping) and bad:
                sentinels[name] = bad
        else:
            broken[name] = outcome  # type: ignore[assignment]
    return releases, sentinels, broken


def _merged(
    broken: Mapping[AgentName, tuple[Finding, ...]],
    more: Mapping[AgentName, tuple[Finding, ...]],
) -> Mapping[AgentName, tuple[Finding, ...]]:
    return dict(sorted({**broken, **more}.items())) if more else broken


def _differing(
    one: Mapping[AgentName, tuple[Finding, ...]], other: Mapping[AgentName, tuple[Finding, ...]]
) -> set[AgentName]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
