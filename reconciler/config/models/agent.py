"""agents/<name>/agent.yaml, skills and sub-agents: what a loop's author writes."""

# ruff: noqa: RUF012 - pydantic copies a mutable default for every instance

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from reconciler.config.models.evals import ChangesRule, ToolsRule
from reconciler.config.models.fields import (
    Document,
    Label,
    Line,
    Name,
    Parameter,
    Reference,
    ServerName,
    ToolName,
)
from reconciler.config.models.fleet import AgentHarness, Branch, Harness, Rollout, Sandbox

BUILTIN_TOOLS = (
    "shell",
    "read_file",
    "write_file",
    "edit_file",
    "list_files",
    "load_skill",
    "delegate",
    "note",
    "finish",
)
"""Tools the runner brings; everything else comes from a server."""

BuiltinTool = Literal[
    "shell",
    "read_file",
    "write_file",
    "edit_file",
    "list_files",
    "load_skill",
    "delegate",
    "note",
    "finish",
]

Globs = Line | list[Line]


class ServerGrant(Document):
    """Tools of one server. A plain name grants its classified tools but the destructive ones."""

    name: ServerName
    """Name of a server of gateway/mcp-servers.yaml."""
    tools: list[ToolName] | None = None
    """Tools that are granted; left out: all classified ones that are not destructive."""
    deny: list[ToolName] = []
    """Tools that are not granted."""
    args: dict[Line, Line | list[Line] | dict[Line, Line | list[Line]]] = {}
    """Globs that arguments must match: `{argument: glob}` for all of them, or
    `{tool: {argument: glob}}`."""


def _short(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Servers = list[Annotated[ServerGrant, BeforeValidator(_short)]]


class Subagent(Document):
    """A participant with its own context, model and grants, one level deep."""

    name: Name
    """Name of the sub-agent; its instructions are subagents/<name>.md unless said otherwise."""
    role: Literal["maker", "checker"] = "maker"
    """A checker judges: it sees a read-only workspace and gets no tool that changes anything."""
    model: Label | None = None
    """Model or virtual model; the agent's when left out."""
    parameters: dict[Name | Line, Parameter] = {}
    """Model parameters, such as temperature."""
    instructions: Reference | None = None
    """Markdown file."""
    skills: list[Line] = []
    """Names of skills."""
    mcp_servers: Servers = []
    """Servers and tools; none when left out."""
    tools: list[BuiltinTool] | None = None
    """Built-in tools; left out: those that fit the role."""
    harness: Harness = Harness()
    """Limits of this participant, within those of the run."""


class WorkspaceSource(Document):
    """The git repository a run works on."""

    git: Line
    """Address of the repository; without a password in it."""
    ref: Branch = "main"
    """Branch or tag."""
    protect: list[Line] = []
    """Globs of files that are restored before anything is judged."""

    @model_validator(mode="after")
    def _safe(self) -> WorkspaceSource:
        scheme, found, rest = self.git.partition("://")
        if found and scheme not in ("https", "http", "ssh", "git", "file"):
            raise ValueError(f"{scheme}:// is not a transport of git that may be used")
        if self.git.startswith("-") or "::" in self.git:
            raise ValueError("not the address of a git repository")
        if found and scheme != "ssh" and "@" in rest.split("/", 1)[0]:
            raise ValueError("an address must not hold a user name or password")
        return self


class AgentSandbox(Sandbox):
    """The container of a run and what is in it."""

    workspace: WorkspaceSource | None = None
    """The git repository a run works on; an empty directory when left out."""


def _safety_kind(value: Any) -> str | None:
    for kind in ("changes", "tools"):
        if isinstance(value, dict) and kind in value:
            return f"as {kind}"
    return None


SafetyRule = Annotated[
    Annotated[ChangesRule, Tag("as changes")] | Annotated[ToolsRule, Tag("as tools")],
    Discriminator(
        _safety_kind,
        custom_error_type="check_kind",
        custom_error_message="a safety check has one of the keys changes, tools",
    ),
]


def _rollout_kind(value: Any) -> str:
    return "as inline" if isinstance(value, dict) else "as name"


class Agent(Document):
    """A loop's definition."""

    name: Name
    """Name of the agent, unique in the fleet."""
    team: Name | None = None
    """The team that owns it."""
    model: Label | None = None
    """Model or virtual model; the fleet's default when left out."""
    parameters: dict[Name | Line, Parameter] = {}
    """Model parameters, such as temperature."""
    instructions: Reference
    """Markdown file; with `@vN`, its front matter must say `version: N`."""
    skills: list[Line] = []
    """Names of skills, `name` or `name@vN`."""
    mcp_servers: Servers = []
    """Servers and tools; none when left out."""
    tools: list[BuiltinTool] | None = None
    """Built-in tools; left out: all that make sense."""
    subagents: list[Subagent] = []
    """Sub-agents."""
    harness: AgentHarness = AgentHarness()
    """Limits of one run, and what ends it."""
    sandbox: AgentSandbox = AgentSandbox()
    """The container of a run and what is in it."""
    approvals: dict[ToolName, Literal["pause_for_human"]] = {}
    """Granted tools (`tool` or `server.tool`) whose calls wait for a person."""
    owns: list[Line] = []
    """Claims: globs of paths in its workspace's repository, or `mcp:server/what`."""
    rollout: (
        Annotated[
            Annotated[Name, Tag("as name")] | Annotated[Rollout, Tag("as inline")],
            Discriminator(_rollout_kind),
        ]
        | None
    ) = None
    """Name of a rollout policy of interlock.yaml, or one written here."""
    safety: list[SafetyRule] = []
    """Checks of every run (`changes`, `tools`); in a canary, one failure ends it."""


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError("not a time zone; write it like Europe/Berlin or UTC") from None
    return value


def _schedule(value: str) -> str:
    try:
        # Any start will do: the question is only whether the expression is ever due.
        next(CronSim(value, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(
            f"not a cron schedule: {error}; write minute hour day month weekday"
        ) from None
    except StopIteration:
        raise ValueError("this schedule is never due") from None
    return value


class Trigger(Document):
    """When a run starts. Either a schedule or `manual`."""

    schedule: Annotated[Line, AfterValidator(_schedule)] | None = None
    """Cron expression: minute hour day-of-month month day-of-week."""
    timezone: Annotated[Line, AfterValidator(_timezone)] = "UTC"
    """Time zone of the schedule."""
    manual: bool = False
    """Only when somebody asks (`interlock run`); short form: `trigger: manual`."""

    @model_validator(mode="after")
    def _one(self) -> Trigger:
        if (self.schedule is not None) == self.manual:
            raise ValueError("give either a schedule or manual")
        return self


def _manual(value: Any) -> Any:
    return {"manual": True} if value == "manual" else value


class AgentFile(Document):
    """agents/<name>/agent.yaml"""

    agent: Agent
    """The agent."""
    trigger: Annotated[Trigger, BeforeValidator(_manual)]
    """When a run starts."""
    evals: Reference | None = None
    """Its suite; needed where the rollout policy has a gate."""


Version = Annotated[int, Field(gt=0, le=10**6)]


class TextHeader(Document):
    """Front matter of instructions; optional."""

    version: Version | None = None
    """What `@vN` refers to."""
    name: Line | None = None
    """For people; a sub-agent's must be its name."""
    description: str | None = None
    """For people."""


def _words(value: Any) -> Any:
    return value.split() if isinstance(value, str) else value


class SkillHeader(Document):
    """Front matter of skills/<name>/SKILL.md (the agentskills.io format)."""

    name: Name
    """The folder's name."""
    description: Annotated[str, Field(min_length=1, max_length=1024)]
    """What it is for and when to use it: the line that is always in context."""
    version: Version | None = None
    """What `@vN` refers to; `metadata: {version: …}` counts as well."""
    license: Line | None = None
    """Licence."""
    compatibility: Annotated[str, Field(max_length=500)] | None = None
    """What it needs."""
    metadata: dict[Line, Any] = {}
    """For other tools."""
    allowed_tools: Annotated[list[Line], BeforeValidator(_words), Field(alias="allowed-tools")] = []
    """Tools it uses, separated by spaces; never grants anything."""
