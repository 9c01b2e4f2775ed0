"""Rules about what all agents share: models, keys, and things that nobody needs any more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

from gateway.policy import Provider, ToolServer
from reconciler.findings import Severity, quoted
from reconciler.fleet import touches
from reconciler.fleet.rules import Facts, Hit, fleet_rule, named

NOTICE = timedelta(days=45)
"""How long before a model's retirement it is time: a suite, a canary and a holiday fit in."""

MODELS, SERVERS, TEAMS = "gateway/models.yaml", "gateway/mcp-servers.yaml", "teams.yaml"


@fleet_rule(
    "model-retires",
    Severity.WARNING,
    "on that day every call to it fails, and no evals are left to choose another by",
)
def model_retires(facts: Facts) -> Iterator[Hit]:
    """A model in use whose retirement is near, or past."""
    used: dict[str, list[str]] = {}
    for name, agent in facts.fleet.agents.items():
        for use in touches.models_of(facts.fleet, agent):
            for target in use.targets:
                used.setdefault(target, []).append(name)
    for target in sorted(used):
        retires = facts.fleet.platform.models[target].retires
        if retires is None or date.fromisoformat(retires) - facts.today > NOTICE:
            continue
        left = (date.fromisoformat(retires) - facts.today).days
        agents = named(sorted(set(used[target])))
        yield Hit(
            facts.place("model", target, MODELS),
            f"model {quoted(target)} retired on {retires}; used by {agents}"
            if left < 0
            else f"model {quoted(target)} retires on {retires}, in {left} days; used by {agents}",
            "name its successor, and let the agents' gates decide about it",
            Severity.ERROR if left < 0 else None,
        )


@fleet_rule(
    "single-target", Severity.INFO, "when that one model does not answer, there is no other to try"
)
def single_target(facts: Facts) -> Iterator[Hit]:
    """A virtual model of one target."""
    for name, virtual in sorted(facts.fleet.platform.virtual_models.items()):
        if len(set(virtual.targets)) == 1:
            yield Hit(
                facts.place("model", name, MODELS),
                f"virtual model {quoted(name)} has one target, {quoted(virtual.targets[0])}",
                "add a second one, of another provider",
            )


@fleet_rule(
    "wide-key", Severity.WARNING, "a key that may go to more hosts than it is for can be led astray"
)
def wide_key(facts: Facts) -> Iterator[Hit]:
    """A key whose list of hosts says more than the address that it is used with."""
    ends: list[tuple[str, str, str, Provider | ToolServer]] = []
    platform = facts.fleet.platform
    ends += [("provider", n, MODELS, p) for n, p in sorted(platform.providers.items())]
    ends += [("server", n, SERVERS, s) for n, s in sorted(platform.servers.items())]
    for kind, name, file, end in ends:
        own = touches.own_host(end)
        extra = [host for host in end.hosts if host.partition(":")[0] not in own]
        if end.key is not None and extra:
            yield Hit(
                facts.place(kind, name, file),
                f"the key of {kind} {quoted(name)} may also be sent to {named(extra)}",
                f"list under hosts what its address needs: {', '.join(own) or 'nothing'}",
            )


@fleet_rule("unused-server", Severity.INFO, "what nobody uses still holds a key and a promise")
def unused_server(facts: Facts) -> Iterator[Hit]:
    """A tool server that no agent reaches."""
    used = {server for agent in facts.fleet.agents.values() for server in touches.servers_of(agent)}
    for name in sorted(set(facts.fleet.platform.servers) - used):
        yield Hit(
            facts.place("server", name, SERVERS),
            f"no agent uses server {quoted(name)}",
            "remove it; git remembers it",
        )


@fleet_rule("unused-skill", Severity.INFO, "what nobody reads grows old unnoticed")
def unused_skill(facts: Facts) -> Iterator[Hit]:
    """A skill of the repository that no agent has."""
    used = {skill for agent in facts.fleet.agents.values() for skill in touches.skills_of(agent)}
    for name in sorted(set(facts.skills) - used):
        yield Hit(
            facts.skills[name],
            f"no agent has skill {quoted(name)}",
            "give it to an agent, or remove it; git remembers it",
        )
