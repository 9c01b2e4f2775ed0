"""What the gateway is told: the platform's policy, and the ceiling of each agent that changed.

Which tools and limits an agent has is what the head says: tightening works at once. Which *models*
and which sub-agents it has is behaviour, and travels in a release: those of the releases that are
live, in a canary or being gated stay admitted as long as the platform still declares the model, or
a merged change would cut stable off before its successor is proven.

An agent's ceiling follows from its declaration, the platform, and its releases in use. So it is
written when one of these changes, and for that agent only. People and services that call from
outside a run have a ceiling too, under `user:NAME` and `service:NAME`; they have no release, so it
is all that they may do.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from gateway import access
from gateway.database import Transaction
from gateway.policy import AgentPolicy, Policy, intersect
from gateway.values import AgentName, Millis
from reconciler.config.policy import ceiling, external
from reconciler.release import ceiling_of
from reconciler.rollout import store
from reconciler.tick.context import Declared

Agents = Collection[AgentName] | None
"""Some agents, or None for everyone."""


def publish_policy(tx: Transaction, declared: Declared, agents: Agents, *, now: Millis) -> None:
    """Make what the commit allows the current policy: the platform, and these agents' ceilings.

    A platform that is another one now concerns every agent.
    """
    before = access.current_digest(tx)
    if access.publish(tx, declared.fleet.platform, now=now) != before:
        agents = None
    publish_ceilings(tx, declared, agents)
    _publish_external(tx, declared)


def _publish_external(tx: Transaction, declared: Declared) -> None:
    """The ceilings of people and services that call from outside a run: few, so all of them."""
    fleet = declared.fleet
    allowed = {name: external(p, fleet.platform) for name, p in fleet.principals.items()}
    rows = tx.read("SELECT agent FROM ceilings WHERE agent LIKE 'user:%' OR agent LIKE 'service:%'")
    access.put_ceilings(tx, allowed)
    access.drop_ceilings(tx, sorted({AgentName(row["agent"]) for row in rows} - allowed.keys()))


def publish_ceilings(tx: Transaction, declared: Declared, agents: Agents) -> None:
    """Write the ceilings of these agents; an agent that is not there any more loses its own."""
    used = _in_use(tx, agents)
    if agents is None:
        known = {name for name in access.with_ceiling(tx) if ":" not in name}
        names = {*declared.fleet.agents, *declared.broken, *used, *known}
    else:
        names = {name for name in agents if ":" not in name}  # the others: see _publish_external
    allowed: dict[AgentName, AgentPolicy] = {}
    for agent in sorted(names):
        found = _ceiling(tx, declared, agent, used.get(agent, _Used()))
        if found is not None:
            allowed[agent] = found
    access.put_ceilings(tx, allowed)
    access.drop_ceilings(tx, sorted(names - set(allowed)))


@dataclass(slots=True)
class _Used:
    """Digests of an agent's releases in use. `asked`: only a pull request asks for it so far."""

    live: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


def _in_use(tx: Transaction, agents: Agents) -> dict[AgentName, _Used]:
    if agents is None:
        pointers = tx.read("SELECT agent, stable, candidate, anchor FROM pointers")
        opened = tx.read("SELECT agent, candidate, pull FROM rollouts WHERE closed_at IS NULL")
    else:
        pointers, opened = [], []
        for agent in sorted(agents):
            pointers += tx.read(
                "SELECT agent, stable, candidate, anchor FROM pointers WHERE agent = :agent",
                agent=agent,
            )
            opened += tx.read(
                "SELECT agent, candidate, pull FROM rollouts"
                " WHERE agent = :agent AND closed_at IS NULL",
                agent=agent,
            )
    found: dict[AgentName, _Used] = {}
    for row in pointers:
        digests = (row["stable"], row["candidate"], row["anchor"])
        found.setdefault(row["agent"], _Used()).live += [d for d in digests if d is not None]
    for row in opened:
        used = found.setdefault(row["agent"], _Used())
        (used.live if row["pull"] is None else used.asked).append(row["candidate"])
    return found


def _ceiling(
    tx: Transaction, declared: Declared, agent: AgentName, used: _Used
) -> AgentPolicy | None:
    """What an agent may do today; None: nothing, because nobody declares it."""
    platform = declared.fleet.platform
    config = declared.fleet.agents.get(agent)
    own = declared.releases.get(agent)
    today = ceiling(config, platform) if config is not None else None
    asked = declared.tightened.get(agent)
    if today is not None and asked is not None:
        # It keeps what it is until somebody approves, but not what the newest commit takes away.
        today = _both(today, ceiling(asked, platform))
    wanted: list[str] = []
    if config is not None or agent in declared.broken:
        wanted += used.live
    elif used.asked:
        # A pull request's new agent may be evaluated; no ceiling of a live run comes of it.
        today = AgentPolicy(team="", roles={})
    wanted += used.asked
    for digest in dict.fromkeys(wanted):
        if today is not None and own is not None and digest == own.digest:
            continue  # compiled from this very declaration: it grants what the ceiling allows
        kept = ceiling_of(store.release(tx, digest), today.team if today is not None else "")
        today = _admitting(today if today is not None else kept, kept, platform)
    for release in declared.sentinels.get(agent, {}).values():
        if today is not None:
            today = _admitting(today, ceiling_of(release, today.team), platform)
    return today


def _both(one: AgentPolicy, other: AgentPolicy) -> AgentPolicy:
    """What both ceilings allow; a role that only one has may think, but reach nothing."""
    roles = {
        role: intersect(grants, other.roles[role])
        if role in other.roles
        else grants.model_copy(update={"tools": {}})
        for role, grants in one.roles.items()
    }
    return one.model_copy(update={"roles": roles})


def _admitting(today: AgentPolicy, kept: AgentPolicy, platform: Policy) -> AgentPolicy:
    """Today's ceiling, with the models and the roles of a release that is in use."""
    roles = dict(today.roles)
    for role, grants in kept.roles.items():
        models = tuple(m for m in grants.models if platform.targets(m))
        if role not in roles:
            # A role the head no longer has may still think, but a tool taken away is gone at once.
            roles[role] = grants.model_copy(update={"models": models, "tools": {}})
            continue
        more = tuple(m for m in models if m not in roles[role].models)
        roles[role] = roles[role].model_copy(update={"models": roles[role].models + more})
    return today.model_copy(update={"roles": roles})
