"""Rules about what all agents share: models, keys, and things that nobody needs any more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

from gateway.policy import Provider, ToolServer
from gateway.pricing import price_of
from gateway.values import Millis
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
    "one-provider", Severity.INFO, "when that provider does not answer, none of its models does"
)
def one_provider(facts: Facts) -> Iterator[Hit]:
    """A virtual model of several targets that one provider serves."""
    platform = facts.fleet.platform
    for name, virtual in sorted(platform.virtual_models.items()):
        targets = set(virtual.targets)
        providers = {platform.models[target].provider for target in targets}
        if len(targets) > 1 and len(providers) == 1:
            yield Hit(
                facts.place("model", name, MODELS),
                f"every target of {quoted(name)} is served by provider {quoted(providers.pop())}",
                "add a target of another provider",
            )


@fleet_rule(
    "unknown-price",
    Severity.WARNING,
    "money is limited, and a call whose price nobody knows is refused",
)
def unknown_price(facts: Facts) -> Iterator[Hit]:
    """A model in use that has no price here and none in the price table."""
    platform = facts.fleet.platform
    used = {
        target
        for agent in facts.fleet.agents.values()
        for use in touches.models_of(facts.fleet, agent)
        for target in use.targets
    }
    used |= {t for p in facts.fleet.principals.values() for m in p.models
             for t in platform.targets(m)}  # fmt: skip
    noon = datetime.combine(facts.today, time(12), UTC)
    now = Millis(int(noon.timestamp() * 1000))
    for name in sorted(used):
        model = platform.models[name]
        provider = platform.providers[model.provider]
        offline = provider.kind in ("scripted", "cassette")
        if model.price is None and (offline or price_of(model, provider, "", now) is None):
            yield Hit(
                facts.place("model", name, MODELS),
                f"nobody knows the price of model {quoted(name)}: under a budget or a limit of "
                "cost every call of it is refused",
                "add price: {input: …, output: …}, in dollars per million tokens",
            )


@fleet_rule(
    "unlocked-server",
    Severity.WARNING,
    "a tool that is not locked may be described otherwise tomorrow, and models read descriptions",
)
def unlocked_server(facts: Facts) -> Iterator[Hit]:
    """A server of which no tool is locked, in a fleet that locks tools."""
    servers = facts.fleet.platform.servers
    locked = {
        name
        for name, server in servers.items()
        if any(tool.fingerprint is not None for tool in server.tools.values())
    }
    for name in sorted(servers.keys() - locked) if locked else ():
        if servers[name].tools:
            yield Hit(
                facts.place("server", name, SERVERS),
                f"no tool of server {quoted(name)} is in interlock.lock",
                "run `interlock lock` where the gateway reaches it",
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
    """A tool server that no agent reaches, and nobody from outside."""
    used = {server for agent in facts.fleet.agents.values() for server in touches.servers_of(agent)}
    outside = facts.fleet.principals.values()
    used |= {tool.partition(".")[0] for principal in outside for tool in principal.tools}
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
