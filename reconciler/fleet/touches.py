"""Everything one agent can reach, on one page: what an owner is asked when something went wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from gateway.policy import BudgetRule, Policy, Provider, SecretRef, ToolServer
from gateway.policy.rules import HttpCheck
from gateway.values import AgentName, NanoUSD, TeamName
from reconciler.config import AgentConfig, Claim, Fleet, Loosened, TriggerConfig, WorkspaceConfig
from reconciler.findings import Place
from reconciler.fleet.claims import owned
from reconciler.fleet.flows import Classes, Flow, Source, ToolUse, leaks, sources_of, uses_of
from reconciler.fleet.owners import deciders, people_of

_HOST = re.compile(
    r"[a-z][a-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>\[[^\]]+\]|[^/?#:]+)", re.IGNORECASE
)
"""The host of an address that loading has checked (RFC 3986, appendix B)."""


@dataclass(frozen=True, slots=True)
class ModelUse:
    """A model name of a role and the models behind it, in order of preference."""

    name: str
    roles: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SecretUse:
    """A secret, by reference, that is used on the agent's behalf; the agent never sees it.

    `reference` is `env:NAME` or `file:PATH`, `user` is `provider x` or `server y`.
    """

    reference: str
    user: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spend:
    """What limits the agent's money: per run, and the budgets that its calls fall under."""

    per_run: NanoUSD | None
    budgets: tuple[BudgetRule, ...]


@dataclass(frozen=True, slots=True)
class Touches:
    """What an agent can reach. `deciders` are teams and logins, `people` who they are."""

    agent: AgentName
    team: TeamName
    place: Place
    deciders: tuple[str, ...]
    people: tuple[str, ...]
    tools: tuple[ToolUse, ...]
    builtin: tuple[tuple[str, tuple[str, ...]], ...]
    """Role → tools the runner brings."""
    models: tuple[ModelUse, ...]
    skills: tuple[str, ...]
    workspace: WorkspaceConfig | None
    hosts: tuple[str, ...]
    secrets: tuple[SecretUse, ...]
    sources: tuple[Source, ...]
    leaks: tuple[Flow, ...]
    claims: tuple[Claim, ...]
    spend: Spend
    trigger: TriggerConfig
    starts: tuple[AgentName, ...]
    """Agents that its accepted runs start."""
    loosened: tuple[Loosened, ...]


def touches(fleet: Fleet, agent: AgentConfig, *, classes: Classes | None = None) -> Touches:
    """Everything `agent` can read, write, destroy, send to and spend, and what it uses for it."""
    uses = uses_of(agent, classes or Classes(fleet.platform))
    sources = sources_of(agent, uses)
    owners = deciders(fleet.owners, fleet.teams, agent.place.file) or (agent.team,)
    return Touches(
        agent=agent.name,
        team=agent.team,
        place=agent.place,
        deciders=owners,
        people=tuple(sorted(people_of([o for o in owners if o in fleet.teams], fleet.teams))),
        tools=uses,
        builtin=tuple((role.name, role.builtin) for role in agent.participants),
        models=models_of(fleet, agent),
        skills=skills_of(agent),
        workspace=agent.workspace,
        hosts=hosts_of(fleet, agent),
        secrets=secrets_of(fleet, agent),
        sources=sources,
        leaks=leaks(sources, uses),
        claims=owned(fleet, agent),
        spend=Spend(agent.limits.max_cost, budgets_of(fleet, agent)),
        trigger=agent.trigger,
        starts=tuple(n for n, other in fleet.agents.items() if agent.name in other.trigger.after),
        loosened=agent.loosened,
    )


def models_of(fleet: Fleet, agent: AgentConfig) -> tuple[ModelUse, ...]:
    """Model names by the roles that use them, and what they stand for."""
    roles: dict[str, list[str]] = {}
    for role in agent.participants:
        roles.setdefault(role.model, []).append(role.name)
    return tuple(
        ModelUse(name, tuple(named), fleet.platform.targets(name)) for name, named in roles.items()
    )


def skills_of(agent: AgentConfig) -> tuple[str, ...]:
    """Names of the skills that any role has."""
    return tuple(sorted({skill.name for role in agent.participants for skill in role.skills}))


def servers_of(agent: AgentConfig) -> tuple[str, ...]:
    """Names of the tool servers that any role reaches."""
    return tuple(
        sorted({tool.partition(".")[0] for role in agent.participants for tool in role.tools})
    )


def providers_of(fleet: Fleet, agent: AgentConfig) -> tuple[str, ...]:
    """Names of the providers behind the agent's models."""
    platform = fleet.platform
    return tuple(
        sorted(
            {
                platform.models[target].provider
                for role in agent.participants
                for target in platform.targets(role.model)
            }
        )
    )


def hosts_of(fleet: Fleet, agent: AgentConfig) -> tuple[str, ...]:
    """Hosts that are spoken to on the agent's behalf; its own container reaches none."""
    return tuple(sorted({host for _, end in _ends(fleet, agent) for host in end_hosts(end)}))


def secrets_of(fleet: Fleet, agent: AgentConfig) -> tuple[SecretUse, ...]:
    """References to the secrets that are used on the agent's behalf."""
    found = [
        SecretUse(reference, user, hosts)
        for user, end in _ends(fleet, agent)
        for reference, hosts in secrets_at(end).items()
    ]
    return tuple(sorted(found, key=lambda each: (each.reference, each.user)))


def secrets_at(end: Provider | ToolServer) -> dict[str, tuple[str, ...]]:
    """The secrets of a provider or server, as `env:NAME` or `file:PATH`, each with the hosts it
    may be sent to. What a command gets may go anywhere that the command reaches: no host."""
    found: dict[str, tuple[str, ...]] = {}
    if end.key is not None:
        found[reference_of(end.key)] = end_hosts(end)
    if isinstance(end, ToolServer):
        found |= {reference_of(secret): () for secret in end.env.values()}
        if end.oauth is not None:
            oauth = end.oauth
            hosts = tuple(sorted({*oauth.hosts, *_host(oauth.token_url)}))
            for secret in (oauth.client_secret, oauth.refresh_token):
                if secret is not None:
                    found[reference_of(secret)] = hosts
    return found


def reference_of(secret: SecretRef) -> str:
    """`env:NAME` or `file:PATH`."""
    return f"env:{secret.env}" if secret.env is not None else f"file:{secret.file}"


def secret_variables(platform: Policy) -> frozenset[str]:
    """Environment variables that the policy names as secrets, wherever it does."""
    ends: list[Provider | ToolServer] = [*platform.providers.values(), *platform.servers.values()]
    named = {reference for end in ends for reference in secrets_at(end)}
    checks = (guardrail.check for guardrail in platform.guardrails)
    named |= {reference_of(c.key) for c in checks if isinstance(c, HttpCheck) and c.key is not None}
    return frozenset(n.removeprefix("env:") for n in named if n.startswith("env:"))


def end_hosts(end: Provider | ToolServer) -> tuple[str, ...]:
    """Hosts of a provider or server: those its key may go to, and that of its address."""
    return tuple(sorted({*end.hosts, *own_host(end)}))


def own_host(end: Provider | ToolServer) -> tuple[str, ...]:
    """The host of its address, if it has one."""
    return _host(end.base_url if isinstance(end, Provider) else end.url)


def _host(url: str | None) -> tuple[str, ...]:
    found = _HOST.match(url) if url is not None else None
    return (found["host"].lower().strip("[]"),) if found else ()


def budgets_of(fleet: Fleet, agent: AgentConfig) -> tuple[BudgetRule, ...]:
    """Budgets that live calls of the agent fall under."""
    targets = {t for role in agent.participants for t in fleet.platform.targets(role.model)}
    return tuple(rule for rule in fleet.platform.budgets if _falls_under(rule, agent, targets))


def _falls_under(rule: BudgetRule, agent: AgentConfig, models: Iterable[str]) -> bool:
    return (
        fnmatchcase(agent.name, rule.agent)
        and fnmatchcase(agent.team, rule.team)
        and rule.purpose in ("*", "live")
        and any(fnmatchcase(model, rule.model) for model in models)
    )


def _ends(fleet: Fleet, agent: AgentConfig) -> list[tuple[str, Provider | ToolServer]]:
    platform = fleet.platform
    found: list[tuple[str, Provider | ToolServer]] = [
        (f"provider {name}", platform.providers[name])
        for name in providers_of(fleet, agent)
        if name in platform.providers
    ]
    found += [
        (f"server {name}", platform.servers[name])
        for name in servers_of(agent)
        if name in platform.servers
    ]
    return found
