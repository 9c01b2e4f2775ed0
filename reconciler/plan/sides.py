"""One side of a plan, from what a commit declares or from what was stored of it.

Shared settings become *units* (`budget/agent-day`), agents become *standings*: their release and
the facts that are not in a release. All of it is JSON, so that what is in force can be kept in a
table or in `state/` and compared again by a machine that never saw the commit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, TypeAdapter

from gateway.policy import ToolServer
from gateway.values import AgentName, Json, TeamName
from reconciler.config import (
    AgentConfig,
    Case,
    Fleet,
    GrantedTool,
    OwnerRule,
    PrincipalConfig,
    Suite,
    TeamConfig,
)
from reconciler.findings import Finding, Place
from reconciler.plan.model import Side, Standing, Unit
from reconciler.plan.phrases import record, texts
from reconciler.release import Release
from runner.spec import LimitCheck

FORMAT = "interlock.standing/2"
"""How units and facts are told. Stored ones of another format are made anew from their commit, so
that an upgrade of this program does not look like a change of the fleet: raise it with any change
of what `units_of` or `facts_of` say of the same files (a test notices)."""
HOMES = {
    "provider": "gateway/models.yaml",
    "model": "gateway/models.yaml",
    "virtual-model": "gateway/models.yaml",
    "server": "gateway/mcp-servers.yaml",
    "tool": "gateway/mcp-servers.yaml",
    "destructive": "gateway/mcp-servers.yaml",
    "budget": "gateway/budgets.yaml",
    "rate-limit": "gateway/rate-limits.yaml",
    "guardrail": "gateway/guardrails.yaml",
    "cache": "gateway/caches.yaml",
    "principal": "gateway/principals.yaml",
    "team": "teams.yaml",
    "owners": "teams.yaml",
    "image": "interlock.lock",
    "fingerprint": "interlock.lock",
    "rollout": "interlock.yaml",
    "fleet": "interlock.yaml",
}
"""Where a unit stands by convention: used when the reader did not note the place itself."""

Memo = dict[AgentName, tuple[AgentConfig, Release | None, Standing]]
"""Standings of the last side, reused while the agent's config and release are the same objects."""


def side_of(
    fleet: Fleet,
    releases: Mapping[AgentName, Release | tuple[Finding, ...]],
    broken: Mapping[AgentName, tuple[Finding, ...]],
    commit: str | None,
    *,
    memo: Memo | None = None,
) -> Side:
    """What a commit declares. An agent that does not compile counts as broken.

    Pass the same `memo` again to pay only for agents that changed since.
    """
    known: Memo = {} if memo is None else memo
    failing = dict(broken)
    agents: dict[AgentName, Standing] = {}
    for name, agent in fleet.agents.items():
        release = releases.get(name)
        if not isinstance(release, Release):
            failing[name] = (*failing.get(name, ()), *(release or ()))
            continue
        kept = known.get(name)
        if kept is None or kept[0] is not agent or kept[1] is not release:
            kept = known[name] = (agent, release, standing_of(agent, release))
        agents[name] = kept[2]
    for name in known.keys() - agents.keys():
        del known[name]
    return Side(
        commit=commit,
        agents=agents,
        units=units_of(fleet),
        teams=dict(fleet.teams),
        owners=rules_of(fleet),
        broken=failing,
    )


def standing_of(agent: AgentConfig, release: Release | None) -> Standing:
    """One agent as it is declared."""
    return Standing(
        release=release,
        facts=facts_of(agent),
        place=agent.place,
        origins=agent.origins,
        loosened=agent.loosened,
    )


def facts_of(agent: AgentConfig) -> dict[str, Json]:
    """What matters of an agent and is not in its release, as JSON."""
    trigger = agent.trigger
    return {
        "file": agent.place.file,
        "team": agent.team,
        "image": agent.sandbox.image,
        "approvals": [
            path
            for path in sorted(agent.origins)
            if path.startswith("approvals.") and agent.origins[path].level == "agent"
        ],
        "workspace": agent.workspace.git if agent.workspace else None,
        "trigger": {
            "kind": trigger.kind,
            "schedule": trigger.schedule,
            "timezone": trigger.timezone,
            "what": trigger.what,
            "after": [str(name) for name in sorted(trigger.after)],
        },
        "rollout": plain_json(asdict(agent.rollout)),
        "owns": [
            {
                "realm": claim.realm,
                "pattern": claim.pattern,
                "given_to": claim.given_to,
                "taken_from": claim.taken_from,
            }
            for claim in sorted(agent.owns, key=lambda claim: (claim.realm, claim.pattern))
        ],
        "suite": outline(agent.suite) if agent.suite else None,
        "formerly": agent.formerly,
        **({"tags": [*agent.tags]} if agent.tags else {}),  # approvals from before it hold
    }


def outline(suite: Suite) -> dict[str, Json]:
    """A suite, so that a later one can be seen to ask for less: hashes and what has a direction."""
    return {
        "name": suite.name,
        "path": suite.path,
        "digest": suite.digest,
        "cases": {case.id: _case(case) for case in suite.cases},
        "sentinels": {
            sentinel.id: short_hash(
                [
                    sentinel.instructions.body if sentinel.instructions else None,
                    sentinel.model,
                ]
            )
            for sentinel in suite.sentinels
        },
    }


def _case(case: Case) -> Json:
    limits = [check for check in case.checks if isinstance(check, LimitCheck)]
    recorded: list[Json] = [_own(result) for result in case.recorded]
    return {
        "file": case.place.file,
        "critical": case.critical,
        "task": short_hash([case.input, case.workspace_oid]),
        "recorded": short_hash(recorded),
        "checks": {
            check.id: f"{check.kind} {short_hash(_own(check))}"
            for check in case.checks
            if not isinstance(check, LimitCheck)
        },
        "max_cost": min((c.max_cost for c in limits if c.max_cost is not None), default=None),
        "max_steps": min((c.max_steps for c in limits if c.max_steps is not None), default=None),
    }


def _own(model: BaseModel) -> Json:
    """What is said of it; without defaults, so that a field that a later version of Interlock adds
    does not make every suite of a fleet look changed."""
    said: Json = model.model_dump(mode="json", exclude_defaults=True)
    return said


def units_of(fleet: Fleet) -> dict[str, Unit]:
    """Every shared thing by `kind/name`, sorted."""
    platform = fleet.platform
    found: dict[str, Json] = {
        "fleet/branch": fleet.branch,
        "fleet/reports": fleet.reports_branch,
        "fleet/forge": fleet.forge,
        "fleet/signers": [*sorted(fleet.signers)],
        "fleet/defaults": flat(fleet.defaults),
        "destructive/list": [*sorted(platform.destructive)],
        "owners/rules": [
            {"pattern": rule.pattern, "owners": [*rule.owners], "file": rule.place.file}
            for rule in rules_of(fleet)
        ],
    }
    for name, provider in platform.providers.items():
        found[f"provider/{name}"] = provider.model_dump(mode="json")
    for name, model in platform.models.items():
        found[f"model/{name}"] = model.model_dump(mode="json")
    for name, virtual in platform.virtual_models.items():
        found[f"virtual-model/{name}"] = virtual.model_dump(mode="json")
    for name, server in platform.servers.items():
        found |= _server(name, server)
    for budget in platform.budgets:
        found[f"budget/{budget.name}"] = budget.model_dump(mode="json")
    for limit in platform.rate_limits:
        found[f"rate-limit/{limit.name}"] = limit.model_dump(mode="json")
    for guardrail in platform.guardrails:
        found[f"guardrail/{guardrail.name}"] = guardrail.model_dump(mode="json")
    for cache in platform.caches:
        found[f"cache/{cache.name}"] = cache.model_dump(mode="json")
    for principal in fleet.principals.values():
        found[f"principal/{principal.name}"] = _principal(principal)
    for name, policy in fleet.rollouts.items():
        found[f"rollout/{name}"] = plain_json(asdict(policy))
    for team_name, team in fleet.teams.items():
        found[f"team/{team_name}"] = {
            "members": [*sorted(team.members)],
            "owns": [*team.owns],
            "uses": {kind: [*sorted(globs)] for kind, globs in team.uses.items()},
            "defaults": flat(team.defaults),
        }
    for name, digest in fleet.images.items():
        found[f"image/{name}"] = digest
    return {key: Unit(found[key], place_of(fleet, key)) for key in sorted(found)}


def _server(name: str, server: ToolServer) -> dict[str, Json]:
    value: dict[str, Json] = server.model_dump(mode="json", exclude={"tools"})
    found: dict[str, Json] = {f"server/{name}": value}
    for tool, declared in server.tools.items():
        found[f"tool/{name}.{tool}"] = declared.model_dump(mode="json", exclude={"fingerprint"})
        if declared.fingerprint is not None:
            found[f"fingerprint/{name}.{tool}"] = declared.fingerprint
    return found


def _principal(principal: PrincipalConfig) -> Json:
    """`args` has every granted tool, restricted or not."""
    return {
        "team": principal.team,
        "models": [*principal.models],
        "tools": [*sorted(principal.tools)],
        "args": {
            name: {argument: [*globs] for argument, globs in sorted(tool.args.items())}
            for name, tool in sorted(principal.tools.items())
        },
        "approvals": [name for name, tool in sorted(principal.tools.items()) if tool.approval],
        "max_output_tokens": principal.max_output_tokens,
        "tags": [*principal.tags],
    }


def principal_of(name: str, value: Json, place: Place) -> PrincipalConfig:
    """Back from `units_of`: a principal as it was stored."""
    fields = record(value)
    args, waiting = record(fields.get("args")), texts(fields.get("approvals"))
    most = fields.get("max_output_tokens")
    return PrincipalConfig(
        name=AgentName(name),
        team=TeamName(str(fields.get("team"))),
        models=texts(fields.get("models")),
        tools={
            tool: GrantedTool(
                args={a: texts(globs) for a, globs in record(args.get(tool)).items()},
                approval=tool in waiting,
            )
            for tool in texts(fields.get("tools"))
        },
        max_output_tokens=most if isinstance(most, int) else None,
        tags=texts(fields.get("tags")),
        place=place,
    )


def place_of(fleet: Fleet, unit: str) -> Place:
    """Where a unit is written: as the reader noted it, else the file it belongs in."""
    kind, _, name = unit.partition("/")
    noted = fleet.places.get((kind, name))
    if noted is None and kind == "owners" and fleet.owners:
        noted = Place(fleet.owners[-1].place.file)
    return noted or Place(HOMES.get(kind, "interlock.yaml"))


def rules_of(fleet: Fleet) -> tuple[OwnerRule, ...]:
    """Who owns which paths, in the order in which the last match wins."""
    return fleet.owners


def people_of_units(
    units: Mapping[str, Unit],
) -> tuple[dict[TeamName, TeamConfig], tuple[OwnerRule, ...]]:
    """Teams and owner rules out of stored units: what decides about approvals on a live side."""
    teams: dict[TeamName, TeamConfig] = {}
    for key, unit in units.items():
        kind, _, name = key.partition("/")
        if kind == "team":
            value = record(unit.value)
            teams[TeamName(name)] = TeamConfig(
                name=TeamName(name),
                members=texts(value.get("members")),
                owns=texts(value.get("owns")),
                uses={k: texts(globs) for k, globs in record(value.get("uses")).items()},
                defaults=record(value.get("defaults")),
            )
    rules = units.get("owners/rules")
    stored = rules.value if rules is not None and isinstance(rules.value, list) else []
    return teams, tuple(
        OwnerRule(str(rule["pattern"]), texts(rule["owners"]), Place(str(rule["file"])))
        for rule in map(record, stored)
    )


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Json]:
    """Nested settings by dotted path: `{"harness": {"max_steps": 4}}` is `harness.max_steps`."""
    found: dict[str, Json] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{path}.")
        elif value is not None:
            found[path] = plain_json(value)
    return found


_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


def plain_json(value: Any) -> Json:
    """The value with tuples as lists and enumerations as texts."""
    made: Json = _ANYTHING.dump_python(value, mode="json")
    return made


_CANONICAL = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
"""As `gateway.values.canonical_json`, for values of our own models, which hold no floats: a suite
of a hundred checks is hashed check by check, for every agent of a fleet."""


def short_hash(value: Json) -> str:
    """12 hex digits: enough to see that something differs, where no one can gain by a collision
    that is not bound by the suite's whole digest beside it."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()[:12]
