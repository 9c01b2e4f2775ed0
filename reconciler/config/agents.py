"""One agent.yaml with everything it inherits and refers to: effective values with their origins."""

from __future__ import annotations

from fnmatch import fnmatchcase

from gateway.policy import BudgetRule, Limits, Window
from gateway.values import AgentName, TeamName
from reconciler.config import fleet as values
from reconciler.config.models.agent import Agent, AgentFile
from reconciler.config.models.fleet import Rollout, Sandbox
from reconciler.config.participants import (
    LIMIT_KEYS,
    Desk,
    Path,
    limits_of,
    resolve_main,
    resolve_subagents,
)
from reconciler.config.positions import Document
from reconciler.config.reader import Notes, Reader
from reconciler.config.rollouts import MINIMUM_CASES, rollout_policy
from reconciler.config.shared import Shared, home, undefined
from reconciler.config.suites import check_of, read_suite
from reconciler.findings import Place, did_you_mean, quoted
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

Origins = dict[str, values.Origin]


def resolve_agent(
    file: AgentFile, document: Document, reader: Reader, shared: Shared, notes: Notes
) -> values.AgentConfig | None:
    """The agent with effective values; None when something it cannot do without is in error.

    Every problem is in `notes`; an agent with any error there must not be used.
    """
    agent = file.agent
    desk = Desk(reader, shared, shared.platform, document, notes)
    origins: Origins = {}
    team = _team(desk, agent, origins)
    limits = _limits(desk, agent, origins)
    _require_money_limit(desk, agent.name, team, limits)
    main = resolve_main(desk, agent, limits)
    subagents = resolve_subagents(desk, agent, limits)
    until = _until(desk, agent, subagents)
    if main is not None:
        main, subagents = _approvals(desk, agent, main, subagents)
        _note_origin(desk, origins, "model", ["agent", "model"], ["defaults", "model"])
    sandbox = _sandbox(desk, agent, origins)
    _check_claims(desk, agent)
    rollout = _rollout(desk, agent, origins)
    suite = _suite(desk, file, rollout)
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
        owns=_claims(desk, agent),
        rollout=rollout,
        trigger=values.TriggerConfig(
            file.trigger.schedule,
            file.trigger.timezone,
            kind="manual" if file.trigger.manual else "schedule",
            place=document.at(["trigger"]),
        ),
        suite=suite,
        place=document.at(["agent", "name"]),
        origins=origins,
    )


def _note_origin(desk: Desk, origins: Origins, name: str, own: Path, inherited: Path) -> None:
    """Record where a value comes from: the agent's file, interlock.yaml, or neither."""
    if desk.document.has(own):
        origins[name] = values.Origin("agent", desk.at(own))
        return
    fleet = desk.shared.fleet_document
    if fleet is not None and fleet.has(["fleet", *inherited]):
        origins[name] = values.Origin("fleet", fleet.at(["fleet", *inherited]))


def _team(desk: Desk, agent: Agent, origins: Origins) -> TeamName:
    place = desk.place(["agent", "team"], ["agent", "name"])
    if agent.team is None:
        desk.notes.warn("no-team", place, f"agent {quoted(agent.name)} has no owner", "add team")
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


def _tighter(
    desk: Desk, name: str, own: int | None, inherited: int | None, *, at: Path, default: Path
) -> None:
    """An agent may lower what it inherits. Raising it is refused, with where the limit stands."""
    fleet = desk.shared.fleet_document
    if own is None or inherited is None or own <= inherited or fleet is None:
        return
    origin = fleet.at(["fleet", *default])
    desk.notes.error(
        "loosened",
        desk.at(at),
        f"{name} is above the fleet's limit (at {origin})",
        f"lower it, or raise the limit in {origin.file}",
    )


def _limits(desk: Desk, agent: Agent, origins: Origins) -> Limits:
    defaults = desk.shared.fleet.defaults.harness if desk.shared.fleet else None
    own = limits_of(agent.harness)
    inherited = limits_of(defaults) if defaults else Limits()
    chosen: dict[str, int | None] = {}
    for key, field in LIMIT_KEYS.items():
        mine, theirs = getattr(own, field), getattr(inherited, field)
        at: Path = ["agent", "harness", key]
        default: Path = ["defaults", "harness", key]
        _tighter(desk, key, mine, theirs, at=at, default=default)
        _note_origin(desk, origins, f"harness.{key}", at, default)
        chosen[field] = mine if mine is not None else theirs
    return Limits.model_validate(chosen)


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
        and rule.model == "*"
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
) -> tuple[values.ParticipantConfig, tuple[values.ParticipantConfig, ...]]:
    """Mark the tools whose calls wait for a person: the agent's list and the fleet's."""
    granted = sorted({tool for p in (main, *subagents) for tool in p.tools})
    wanted: set[str] = set()
    for name in agent.approvals:
        meant = _meant(name, granted)
        if not meant:
            place = desk.at(["agent", "approvals", name], key=True)
            fix = did_you_mean(name, granted) or f"granted: {', '.join(granted) or 'none'}"
            desk.notes.error("undefined", place, f"tool {quoted(name)} is not granted", fix)
        wanted |= meant
    if desk.shared.fleet is not None:
        for name in desk.shared.fleet.defaults.approvals:
            wanted |= _meant(name, granted)
    marked = [_with_approvals(p, wanted) for p in (main, *subagents)]
    return marked[0], tuple(marked[1:])


def _meant(name: str, granted: list[str]) -> set[str]:
    return {tool for tool in granted if name in (tool, tool.partition(".")[2])}


def _with_approvals(
    participant: values.ParticipantConfig, wanted: set[str]
) -> values.ParticipantConfig:
    tools = {
        name: values.GrantedTool(args=tool.args, approval=tool.approval or name in wanted)
        for name, tool in participant.tools.items()
    }
    return values.replace_tools(participant, tools)


def _sandbox(desk: Desk, agent: Agent, origins: Origins) -> values.SandboxConfig:
    own: Sandbox = agent.sandbox
    defaults = desk.shared.fleet.defaults.sandbox if desk.shared.fleet else Sandbox()
    chosen = {}
    for key, fallback in SANDBOX_FALLBACK.items():
        mine, theirs = getattr(own, key), getattr(defaults, key)
        at: Path = ["agent", "sandbox", key]
        default: Path = ["defaults", "sandbox", key]
        if key != "image":
            _tighter(desk, key, mine, theirs, at=at, default=default)
        _note_origin(desk, origins, f"sandbox.{key}", at, default)
        chosen[key] = next(v for v in (mine, theirs, fallback) if v is not None)
    return values.SandboxConfig(
        image=chosen["image"],
        cpus_milli=chosen["cpus"],
        memory_bytes=chosen["memory"],
        pids=chosen["pids"],
        disk_bytes=chosen["disk"],
        exec_timeout_ms=chosen["exec_timeout"],
    )


def _check_claims(desk: Desk, agent: Agent) -> None:
    for index, claim in enumerate(agent.owns):
        if not claim.startswith("mcp:"):
            continue
        server = claim.removeprefix("mcp:").partition("/")[0]
        if server not in desk.shared.servers:
            undefined(
                desk.notes,
                desk.at(["agent", "owns", index]),
                kind="server",
                name=server,
                known=list(desk.shared.servers),
                home=home(desk.shared, "server", "gateway/mcp-servers.yaml"),
            )


def _placed(origins: Origins, name: str, otherwise: Place) -> Place:
    origin = origins.get(name)
    return origin.place if origin is not None and origin.place is not None else otherwise


def _claims(desk: Desk, agent: Agent) -> tuple[values.Claim, ...]:
    """A path is claimed within one repository; mcp: claims are the same everywhere."""
    workspace = agent.sandbox.workspace
    here = workspace.git if workspace else ""
    return tuple(
        values.Claim(
            realm="mcp" if claim.startswith("mcp:") else here,
            pattern=claim,
            place=desk.at(["agent", "owns", index]),
        )
        for index, claim in enumerate(agent.owns)
    )


def _safety(agent: Agent) -> list[ChangeCheck | ToolCheck]:
    found: list[ChangeCheck | ToolCheck] = []
    for index, rule in enumerate(agent.safety):
        check = check_of(rule, index + 1)
        assert isinstance(check, ChangeCheck | ToolCheck)
        found.append(check.model_copy(update={"safety": True}))
    return found


def _rollout(desk: Desk, agent: Agent, origins: Origins) -> values.RolloutPolicy | None:
    at: Path = ["agent", "rollout"]
    if isinstance(agent.rollout, Rollout):
        origins["rollout"] = values.Origin("agent", desk.at(at))
        return rollout_policy("inline", agent.rollout, desk.document, at, desk.notes)
    fleet, source = desk.shared.fleet, desk.shared.fleet_document
    assert fleet is not None
    assert source is not None
    name = agent.rollout or fleet.defaults.rollout
    _note_origin(desk, origins, "rollout", at, ["defaults", "rollout"])
    if name is None:
        desk.notes.error(
            "no-rollout",
            desk.at(["agent", "name"]),
            f"nothing says how changes of {quoted(agent.name)} go live",
            "add rollout here, or fleet.defaults.rollout in interlock.yaml",
        )
        return None
    if name not in fleet.rollouts:
        undefined(
            desk.notes,
            _placed(origins, "rollout", desk.at(at)),
            kind="rollout policy",
            name=name,
            known=list(fleet.rollouts),
            home=source.file,
        )
        return None
    policy = fleet.rollouts[name]
    return rollout_policy(name, policy, source, ["fleet", "rollouts", name], Notes())


def _suite(
    desk: Desk, file: AgentFile, rollout: values.RolloutPolicy | None
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
        if sentinel.instructions is None and sentinel.model == file.agent.model:
            desk.notes.error(
                "sentinel-same",
                sentinel.place,
                f"sentinel {quoted(sentinel.id)} has the model the agent has anyway",
                "make it differ, or remove it",
            )
    return suite
