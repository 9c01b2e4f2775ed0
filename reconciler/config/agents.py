"""One agent.yaml with everything it inherits and refers to: effective values with their origins."""

from __future__ import annotations

from collections.abc import Callable, Collection
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from gateway.policy import BudgetRule, Limits, Window
from gateway.values import AgentName, TeamName
from reconciler.config import fleet as values
from reconciler.config.duties import claims_of, trigger_of
from reconciler.config.inheritance import BUILT_IN, Ledger, loosenings
from reconciler.config.models.agent import Agent, AgentFile
from reconciler.config.models.fleet import Rollout
from reconciler.config.participants import (
    LIMIT_KEYS,
    Desk,
    Path,
    resolve_main,
    resolve_subagents,
)
from reconciler.config.positions import Document
from reconciler.config.reader import Notes, Reader
from reconciler.config.rollouts import MINIMUM_CASES, rollout_policy, weaker
from reconciler.config.shared import Shared, home, undefined
from reconciler.config.suites import check_of, read_suite
from reconciler.config.uses import check_uses
from reconciler.findings import did_you_mean, quoted
from runner.spec import ChangeCheck, RoleKind, SandboxSpec, ToolCheck, Until

UNOWNED = TeamName("unowned")
"""Team of an agent that names none; lint asks for one."""

SANDBOX_FALLBACK = {
    "image": "default",
    "cpus": SandboxSpec.model_fields["cpus_milli"].default,
    "memory": SandboxSpec.model_fields["memory_bytes"].default,
    "pids": SandboxSpec.model_fields["pids"].default,
    "disk": SandboxSpec.model_fields["disk_bytes"].default,
    "exec_timeout": SandboxSpec.model_fields["exec_timeout_ms"].default,
}
"""What holds when neither the agent nor the fleet says anything."""

HARNESS = {key: f"harness.{key}" for key in LIMIT_KEYS}
SANDBOX = {key: f"sandbox.{key}" for key in SANDBOX_FALLBACK}
"""Key → path in `origins`: made once, since a fleet has thousands of agents."""

Origins = dict[str, values.Origin]


def resolve_agent(
    file: AgentFile, document: Document, reader: Reader, shared: Shared, notes: Notes
) -> values.AgentConfig | None:
    """The agent with effective values; None when something it cannot do without is in error.

    Every problem is in `notes`; an agent with any error there must not be used.
    """
    desk = Desk(reader, shared, shared.platform, document, notes)
    ledger = Ledger(shared.layers(file.agent.team or ""))
    team = _team(desk, file.agent, ledger.origins)
    model = ledger.settle("model", file.agent.model, _own(desk, ["agent", "model"]))
    agent = file.agent.model_copy(update={"model": model})
    limits = reader.same(_limits(desk, agent, ledger))
    _require_money_limit(desk, agent.name, team, limits)
    main = resolve_main(desk, agent, limits)
    subagents = resolve_subagents(desk, agent, limits)
    until = reader.same(_until(desk, agent, subagents))
    ledger.settle("harness.until", agent.harness.until, _own(desk, ["agent", "harness", "until"]))
    if main is not None:
        main, subagents = _approvals(desk, agent, main, subagents, ledger)
    sandbox = reader.same(_sandbox(desk, agent, ledger))
    rollout = _rollout(desk, agent, ledger)
    suite = _suite(desk, file, agent, rollout)
    _subagent_origins(desk, agent, ledger.origins)
    check_uses(desk, file.agent, model, ledger.origins, suite)
    if agent.formerly == agent.name:
        desk.notes.error(
            "formerly", desk.at(["agent", "formerly"]), "that is its name now", "remove it"
        )
    if main is None or rollout is None:
        return None
    workspace = agent.sandbox.workspace
    return values.AgentConfig(
        name=AgentName(agent.name),
        team=team,
        main=main,
        subagents=subagents,
        limits=limits,
        until=until,
        sandbox=sandbox,
        workspace=None
        if workspace is None
        else values.WorkspaceConfig(workspace.git, workspace.ref, tuple(workspace.protect)),
        safety=tuple(_safety(agent)),
        owns=claims_of(desk, agent),
        rollout=rollout,
        trigger=trigger_of(desk, file.trigger),
        suite=suite,
        place=document.at(["agent", "name"]),
        origins=ledger.origins,
        loosened=tuple(ledger.loosened),
        formerly=AgentName(agent.formerly) if agent.formerly else None,
        tags=tuple(sorted(set(agent.tags))),
    )


def _own(desk: Desk, at: Path) -> Callable[[], values.Origin]:
    """The origin of what the agent says itself, made when it is asked for."""
    return lambda: values.Origin("agent", desk.at(at))


def _team(desk: Desk, agent: Agent, origins: Origins) -> TeamName:
    place = desk.place(["agent", "team"], ["agent", "name"])
    if agent.team is None:
        desk.notes.warn("no-team", place, f"agent {quoted(agent.name)} has no owner", "add team")
        origins["team"] = BUILT_IN
        return UNOWNED
    if agent.team not in desk.shared.teams:
        undefined(
            desk.notes,
            place,
            kind="team",
            name=agent.team,
            known=list(desk.shared.teams),
            home=home(desk.shared, "team", "teams.yaml"),
        )
    origins["team"] = values.Origin("agent", place)
    return TeamName(agent.team)


def _limits(desk: Desk, agent: Agent, ledger: Ledger) -> Limits:
    chosen = {
        field: ledger.limit(
            HARNESS[key], getattr(agent.harness, key), _own(desk, ["agent", "harness", key])
        )
        for key, field in LIMIT_KEYS.items()
    }
    return Limits.model_validate(chosen)


@lru_cache(maxsize=4096)
def _below(subagent: str, path: str) -> str:
    """The path of a sub-agent's value: one text for all agents that name theirs alike."""
    return f"subagents.{subagent}.{path}"


def _subagent_origins(desk: Desk, agent: Agent, origins: Origins) -> None:
    """A sub-agent has what it says itself, else what the agent has."""
    for index, subagent in enumerate(agent.subagents):
        at: Path = ["agent", "subagents", index]
        for path, own in (
            ("model", subagent.model),
            *((HARNESS[key], getattr(subagent.harness, key)) for key in LIMIT_KEYS),
        ):
            name = _below(subagent.name, path)
            if own is None:
                origins[name] = origins[path]
            else:
                origins[name] = values.Origin("agent", desk.at([*at, *path.split(".")]))


def _require_money_limit(desk: Desk, agent: str, team: TeamName, limits: Limits) -> None:
    if limits.max_cost is not None:
        return
    if any(_limits_a_run(rule, agent, team) for rule in desk.shared.budgets):
        return
    desk.notes.error(
        "no-money-limit",
        desk.at(["agent", "name"]),
        f"nothing limits what one run of {quoted(agent)} may cost",
        "add harness.max_cost_per_run here or in fleet.defaults, "
        "or an enforced budget with window: run",
    )


def _limits_a_run(rule: BudgetRule, agent: str, team: TeamName) -> bool:
    return (
        rule.mode == "enforce"
        and rule.window is Window.RUN
        and rule.limit is not None
        and (rule.model, rule.user, rule.tag) == ("*", "*", "*")
        and rule.purpose == "*"
        and fnmatchcase(agent, rule.agent)
        and fnmatchcase(team, rule.team)
    )


def _until(desk: Desk, agent: Agent, subagents: tuple[values.ParticipantConfig, ...]) -> Until:
    until = agent.harness.until
    if until is None:
        return Until()
    if until.checker is not None:
        place = desk.at(["agent", "harness", "until", "checker"])
        named = next((s for s in agent.subagents if s.name == until.checker), None)
        if named is None:
            names = [s.name for s in agent.subagents]
            fix = did_you_mean(until.checker, names) or "add it under subagents with role: checker"
            desk.notes.error(
                "undefined", place, f"there is no sub-agent {quoted(until.checker)}", fix
            )
        elif RoleKind(named.role) is not RoleKind.CHECKER:
            desk.notes.error(
                "until-checker",
                place,
                f"sub-agent {quoted(named.name)} is a {named.role}, not a checker",
                "a run is not done because its maker says so: give it role: checker",
            )
    return Until(command=until.command, checker=until.checker)


def _approvals(
    desk: Desk,
    agent: Agent,
    main: values.ParticipantConfig,
    subagents: tuple[values.ParticipantConfig, ...],
    ledger: Ledger,
) -> tuple[values.ParticipantConfig, tuple[values.ParticipantConfig, ...]]:
    """Mark the tools whose calls wait for a person.

    Lists add up: what a level above asks for cannot be dropped below, so the origin that is noted
    is the highest that asks.
    """
    granted = sorted({tool for p in (main, *subagents) for tool in p.tools})
    wanted: Origins = {}
    for index, name in enumerate(agent.approvals):
        place = desk.at(["agent", "approvals", name], key=True)
        if not desk.document.has(["agent", "approvals", name]):
            place = desk.at(["agent", "approvals", index])
        meant = _meant(name, granted)
        if not meant:
            fix = did_you_mean(name, granted) or f"granted: {', '.join(granted) or 'none'}"
            desk.notes.error("undefined", place, f"tool {quoted(name)} is not granted", fix)
        if meant:
            wanted |= dict.fromkeys(meant, values.Origin("agent", place))
    for layer in ledger.layers:
        for name in layer.approvals:
            wanted |= dict.fromkeys(_meant(name, granted), layer.origins[f"approvals.{name}"])
    for tool in sorted(wanted):
        ledger.origins[f"approvals.{tool}"] = wanted[tool]
    if not wanted:
        return main, subagents
    marked = [_with_approvals(p, wanted) for p in (main, *subagents)]
    return marked[0], tuple(marked[1:])


def _meant(name: str, granted: list[str]) -> set[str]:
    return {tool for tool in granted if name in (tool, tool.partition(".")[2])}


def _with_approvals(
    participant: values.ParticipantConfig, wanted: Collection[str]
) -> values.ParticipantConfig:
    tools = {
        name: values.GrantedTool(args=tool.args, approval=tool.approval or name in wanted)
        for name, tool in participant.tools.items()
    }
    return values.replace_tools(participant, tools)


def _sandbox(desk: Desk, agent: Agent, ledger: Ledger) -> values.SandboxConfig:
    chosen: dict[str, Any] = {}
    for key, fallback in SANDBOX_FALLBACK.items():
        path, own = SANDBOX[key], getattr(agent.sandbox, key)
        settle = ledger.settle if key == "image" else ledger.limit
        chosen[key] = settle(path, own, _own(desk, ["agent", "sandbox", key]), built_in=fallback)
    return values.SandboxConfig(
        image=chosen["image"],
        cpus_milli=chosen["cpus"],
        memory_bytes=chosen["memory"],
        pids=chosen["pids"],
        disk_bytes=chosen["disk"],
        exec_timeout_ms=chosen["exec_timeout"],
    )


def _safety(agent: Agent) -> list[ChangeCheck | ToolCheck]:
    found: list[ChangeCheck | ToolCheck] = []
    for index, rule in enumerate(agent.safety):
        check = check_of(rule, index + 1)
        assert isinstance(check, ChangeCheck | ToolCheck)
        found.append(check.model_copy(update={"safety": True}))
    return found


def _rollout(desk: Desk, agent: Agent, ledger: Ledger) -> values.RolloutPolicy | None:
    """The policy that holds; a weaker one than the team's or the fleet's is marked."""
    at: Path = ["agent", "rollout"]
    policies = desk.shared.rollouts
    own = agent.rollout
    mine: values.RolloutPolicy | None = None
    if isinstance(own, Rollout):
        mine = rollout_policy("inline", own, desk.document, at, desk.notes)
    elif own is not None and own not in policies:
        assert desk.shared.fleet_document is not None
        undefined(
            desk.notes,
            desk.at(at),
            kind="rollout policy",
            name=own,
            known=list(policies),
            home=desk.shared.fleet_document.file,
        )
        return None
    elif own is not None:
        mine = policies[own]
    above = [(origin, policies[name]) for origin, name in ledger.inherited("rollout")]
    stated = above if mine is None else [(_own(desk, at)(), mine), *above]
    if not stated:
        desk.notes.error(
            "no-rollout",
            desk.at(["agent", "name"]),
            f"nothing says how changes of {quoted(agent.name)} go live",
            "add rollout here, or defaults.rollout of the team or the fleet",
        )
        return None
    ledger.origins["rollout"] = stated[0][0]
    ledger.loosened += loosenings("rollout", stated, weaker)
    return stated[0][1]


def _suite(
    desk: Desk, file: AgentFile, agent: Agent, rollout: values.RolloutPolicy | None
) -> values.Suite | None:
    gated = rollout is not None and rollout.gate is not None
    place = desk.place(["agent", "rollout"], ["agent", "name"])
    if file.evals is None:
        if gated:
            desk.notes.error(
                "no-evals",
                place,
                f"the rollout of {quoted(file.agent.name)} has a gate, and there are no evals",
                "add evals: ./evals/suite.yaml, or use a rollout with gate: none",
            )
        return None
    asked = desk.at(["evals"])
    path = desk.reader.resolve(desk.document.file, file.evals, desk.notes, asked=asked)
    if path is None:
        return None
    suite = read_suite(desk.reader, path, desk.shared, desk.notes, asked=asked)
    if suite is not None and gated and len(suite.cases) < MINIMUM_CASES:
        desk.notes.error(
            "few-cases",
            asked,
            f"the suite has {len(suite.cases)} cases, and a gate needs {MINIMUM_CASES}",
            "add cases, or use a rollout with gate: none until there are enough",
        )
    for sentinel in suite.sentinels if suite else ():
        if sentinel.instructions is None and sentinel.model == agent.model:
            desk.notes.error(
                "sentinel-same",
                sentinel.place,
                f"sentinel {quoted(sentinel.id)} has the model the agent has anyway",
                "make it differ, or remove it",
            )
    return suite
