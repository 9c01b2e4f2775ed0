"""agents/<name>/agent.yaml, skills and sub-agents: what a loop's author writes."""

# ruff: noqa: RUF012 - pydantic copies a mutable default for every instance

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from reconciler.config.models.evals import ChangesRule, ToolsRule
from reconciler.config.models.fields import (
    Document,
    Instructions,
    Label,
    Line,
    Name,
    Parameter,
    Reference,
    ServerName,
    ToolName,
)
from reconciler.config.models.fleet import (
    AgentHarness,
    Approvals,
    Branch,
    Harness,
    Rollout,
    Sandbox,
)
from reconciler.config.models.triggers import Trigger, short_trigger

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


Description = Annotated[str, Field(max_length=2000)] | None


class Subagent(Document):
    """A participant with its own context, model and grants, one level deep."""

    name: Name
    """Name of the sub-agent; its instructions are subagents/<name>.md unless said otherwise."""
    description: Description = None
    """For people."""
    role: Literal["maker", "checker"] = "maker"
    """A checker judges: it sees a read-only workspace and gets no tool that changes anything."""
    model: Label | None = None
    """Model or virtual model; the agent's when left out."""
    parameters: dict[Name | Line, Parameter] = {}
    """Model parameters, such as temperature."""
    instructions: Instructions | None = None
    """Markdown file, or the text itself; left out: subagents/<name>.md, or words for its role."""
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


class Owned(Document):
    """A claim. To hand one over, its owner says `to` and the new owner says `from`."""

    claim: Line
    """A glob of paths in its workspace's repository, or `mcp:server/what`."""
    to: Name | None = None
    """The agent that takes it over."""
    taken_from: Annotated[Name | None, Field(alias="from")] = None
    """The agent that hands it over."""

    @model_validator(mode="after")
    def _one_side(self) -> Owned:
        if self.to is not None and self.taken_from is not None:
            raise ValueError("give either to or from: a claim has one owner at a time")
        return self


def _plain_claim(value: Any) -> Any:
    return {"claim": value} if isinstance(value, str) else value


def _rollout_kind(value: Any) -> str:
    return "as inline" if isinstance(value, dict) else "as name"


class Agent(Document):
    """A loop's definition."""

    name: Name
    """Name of the agent, unique in the fleet."""
    description: Description = None
    """For people."""
    formerly: Name | None = None
    """Its name before: history, releases and claims go with it. No agent may have that name."""
    team: Name | None = None
    """The team that owns it."""
    tags: list[Name] = []
    """What budgets may match on besides."""
    model: Label | None = None
    """Model or virtual model; the fleet's default when left out."""
    parameters: dict[Name | Line, Parameter] = {}
    """Model parameters, such as temperature."""
    instructions: Instructions
    """Markdown file, or the text itself; with `@vN`, the file's front matter says `version: N`."""
    skills: list[Line] = []
    """Names of skills, `name` or `name@vN`."""
    mcp_servers: Servers = []
    """Servers and tools; none when left out."""
    tools: list[BuiltinTool] | None = None
    """Built-in tools; left out: all that make sense."""
    subagents: list[Annotated[Subagent, BeforeValidator(_short)]] = []
    """Sub-agents; a plain name will do for one that has subagents/<name>.md."""
    harness: AgentHarness = AgentHarness()
    """Limits of one run, and what ends it."""
    sandbox: AgentSandbox = AgentSandbox()
    """The container of a run and what is in it."""
    approvals: Approvals = {}
    """Granted tools (`tool` or `server.tool`) whose calls wait for a person; a list will do."""
    owns: list[Annotated[Owned, BeforeValidator(_plain_claim)]] = []
    """Claims: globs of paths in its workspace's repository, or `mcp:server/what`; with `to` or
    `from`, one that changes hands."""
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


class AgentFile(Document):
    """agents/<name>/agent.yaml"""

    agent: Agent
    """The agent."""
    trigger: Annotated[Trigger, BeforeValidator(short_trigger)]
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
