"""A fleet whose shared settings are those in force: what is not approved is put back. Pure.

The head says what is wanted; a unit that somebody must approve first keeps the value that is in
force. What is put back must fit to what is not: a model whose provider is not there is left out,
so that nothing of it can be reached (fail closed).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from gateway.policy import (
    BudgetRule,
    Model,
    Policy,
    Provider,
    ToolClass,
    ToolServer,
    VirtualModel,
)
from gateway.policy.rules import Cache, Guardrail, RateLimit
from gateway.values import AgentName, Json
from reconciler.config import Fleet, PrincipalConfig, RolloutPolicy
from reconciler.findings import Place
from reconciler.plan.model import Unit
from reconciler.plan.sides import HOMES, people_of_units, principal_of

_ROLLOUT: TypeAdapter[RolloutPolicy] = TypeAdapter(RolloutPolicy)


def restored(fleet: Fleet, live: Mapping[str, Json], held: Collection[str]) -> Fleet:
    """`fleet` with the units named in `held` as they are in `live`; gone where they are not there.

    Units are named as in `plan.sides.units_of`. Agents are left as they are.
    """
    if not held:
        return fleet
    back: dict[str, dict[str, Json | None]] = {}
    for unit in sorted(held):
        kind, _, name = unit.partition("/")
        back.setdefault(kind, {})[name] = live.get(unit)
    platform = _platform(fleet.platform, back)
    teams = dict(fleet.teams)
    told, rules = people_of_units({name: Unit(value) for name, value in live.items()})
    for name in back.get("team", {}):
        team = next((t for known, t in told.items() if known == name), None)
        if team is not None:
            teams[team.name] = team
        else:
            teams = {known: t for known, t in teams.items() if known != name}
    top = back.get("fleet", {})
    return replace(
        fleet,
        branch=str(top.get("branch") or fleet.branch),
        reports_branch=str(top.get("reports") or fleet.reports_branch),
        signers=_signers(fleet, top),
        forge=str(top.get("forge") or fleet.forge),
        platform=platform,
        teams=teams,
        owners=rules if "owners" in back else fleet.owners,
        images=_laid(fleet.images, back.get("image", {}), str),
        rollouts=_laid(fleet.rollouts, back.get("rollout", {}), _ROLLOUT.validate_python),
        principals=_principals(fleet, back.get("principal", {})),
    )


def _principals(
    fleet: Fleet, back: Mapping[str, Json | None]
) -> Mapping[AgentName, PrincipalConfig]:
    found = dict(fleet.principals)
    for text, value in back.items():
        name = AgentName(text)
        there = found.pop(name, None)
        if value is not None:
            place = there.place if there is not None else Place(HOMES["principal"])
            found[name] = principal_of(name, value, place)
    return dict(sorted(found.items()))


def _signers(fleet: Fleet, top: Mapping[str, Json | None]) -> tuple[str, ...]:
    stored = top.get("signers")
    return tuple(map(str, stored)) if isinstance(stored, list) else fleet.signers


def _platform(policy: Policy, back: Mapping[str, Mapping[str, Json | None]]) -> Policy:
    providers = _laid(policy.providers, back.get("provider", {}), Provider.model_validate)
    models = _laid(policy.models, back.get("model", {}), Model.model_validate)
    models = {name: model for name, model in models.items() if model.provider in providers}
    virtual = _laid(
        policy.virtual_models, back.get("virtual-model", {}), VirtualModel.model_validate
    )
    destructive = back.get("destructive", {}).get("list")
    return policy.model_copy(
        update={
            "providers": providers,
            "models": models,
            "virtual_models": {n: v for n, v in virtual.items() if set(v.targets) & set(models)},
            "servers": _servers(policy, back),
            "destructive": tuple(map(str, destructive))
            if isinstance(destructive, list)
            else policy.destructive,
            "budgets": _rules(policy.budgets, back.get("budget", {}), BudgetRule),
            "rate_limits": _rules(policy.rate_limits, back.get("rate-limit", {}), RateLimit),
            "guardrails": _rules(policy.guardrails, back.get("guardrail", {}), Guardrail),
            "caches": _rules(policy.caches, back.get("cache", {}), Cache),
        }
    )


def _servers(
    policy: Policy, back: Mapping[str, Mapping[str, Json | None]]
) -> dict[str, ToolServer]:
    """Addresses and keys by server, classes by tool: the two are units of their own."""
    servers = dict(policy.servers)
    for name, value in back.get("server", {}).items():
        if value is None:
            servers.pop(name, None)
            continue
        tools = servers[name].tools if name in servers else {}
        servers[name] = ToolServer.model_validate({**_record(value), "tools": {}}).model_copy(
            update={"tools": tools}
        )
    for kind in ("tool", "fingerprint"):
        for full, value in back.get(kind, {}).items():
            server, _, tool = full.partition(".")
            if server not in servers:
                continue
            tools = dict(servers[server].tools)
            if kind == "fingerprint":
                if tool in tools:
                    kept = None if value is None else str(value)
                    tools[tool] = tools[tool].model_copy(update={"fingerprint": kept})
            elif value is None:
                tools.pop(tool, None)
            else:
                known = tools[tool].fingerprint if tool in tools else None
                told = ToolClass.model_validate({**_record(value)})
                tools[tool] = told.model_copy(update={"fingerprint": known})
            servers[server] = servers[server].model_copy(update={"tools": tools})
    return servers


def _laid(there: Mapping[str, Any], back: Mapping[str, Json | None], read: Any) -> dict[str, Any]:
    found = dict(there)
    for name, value in back.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = read(value)
    return dict(sorted(found.items()))


def _rules(there: tuple[Any, ...], back: Mapping[str, Json | None], model: Any) -> tuple[Any, ...]:
    kept = [rule for rule in there if rule.name not in back]
    kept += [model.model_validate(value) for value in back.values() if value is not None]
    return tuple(sorted(kept, key=lambda rule: str(rule.name))) if back else there


def _record(value: Json) -> dict[str, Json]:
    return dict(value) if isinstance(value, dict) else {}
