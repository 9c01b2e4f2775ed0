"""What a run is asked to do and what came of it: the values that cross from the reconciler.

An agent's release compiles into a `RunSpec`; the runner knows nothing else of git, YAML or
rollouts. Both directions are plain JSON documents (format interlock.run/1), so that a run can be
queued, claimed, killed and continued by another process.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from gateway.policy import Frozen, Grants, Limits
from gateway.values import AgentName, NanoUSD, Occurrence, Purpose, ReleaseDigest, TeamName

FORMAT = "interlock.run/1"


class StopReason(StrEnum):
    """Why a run ended. Written in the trace; there is no other way to end."""

    DONE = "done"
    UNTIL_MET = "until_met"
    MAX_STEPS = "max_steps"
    TOKEN_BUDGET = "token_budget"
    COST_BUDGET = "cost_budget"
    TIME_BUDGET = "time_budget"
    STALLED = "stalled"
    REFUSED = "refused"
    KILLED = "killed"
    OUTCOME_UNKNOWN = "outcome_unknown"
    ERROR = "error"


class StallKind(StrEnum):
    """Which pattern showed that a run gets nowhere (thresholds in runner.stops)."""

    SAME_RESULT = "same_result"
    SAME_ERROR = "same_error"
    MONOLOGUE = "monologue"
    ALTERNATING = "alternating"


class RoleKind(StrEnum):
    """A maker may change the workspace; a checker sees a read-only snapshot of it."""

    MAKER = "maker"
    CHECKER = "checker"


class Skill(Frozen):
    """A SKILL.md folder: the index line is always in context, the rest is read on demand."""

    name: str
    description: str
    files: Mapping[str, str]
    """Relative path → text; `SKILL.md` is always there."""


class Role(Frozen):
    """One participant of a run: the agent itself (`main`) or a sub-agent."""

    name: str
    kind: RoleKind = RoleKind.MAKER
    model: str
    parameters: Mapping[str, Any] = Field(default_factory=dict)
    """Model parameters, strings or integers (temperature as a string): they enter the digest."""
    instructions: str
    skills: tuple[Skill, ...] = ()
    grants: Grants
    tools: tuple[str, ...] = ()
    """Built-in tools this role may use: shell, read_file, write_file, edit_file, …"""


class Until(Frozen):
    """What ends a run-until-done: a command in a fresh container, or a checker's verdict."""

    command: str | None = None
    checker: str | None = None
    """Name of the sub-agent whose verdict counts; never the maker itself."""


class SandboxSpec(Frozen):
    """The container of a run. `image` is an image id or a reference pinned by digest."""

    image: str
    cpus_milli: int = 1000
    memory_bytes: int = 512 * 1024 * 1024
    pids: int = 128
    disk_bytes: int = 256 * 1024 * 1024
    exec_timeout_ms: int = 120_000


class Workspace(Frozen):
    """Files the run starts from. `path` is a directory on the host, prepared by the reconciler
    from git and read-only from then on; `protect` are globs that graders restore from it."""

    path: str | None = None
    protect: tuple[str, ...] = ()
    origin: str = ""
    """Where it came from, for the trace: `git:<url>@<commit>` or `fixture:<tree oid>`."""


class CommandCheck(Frozen):
    """Grader: a shell command in a fresh container holding the result, protected files restored."""

    kind: Literal["command"] = "command"
    id: str
    command: str
    exit: int = 0
    protect: tuple[str, ...] = ()
    timeout_ms: int = 60_000


class FileCheck(Frozen):
    """Grader: a file of the result exists and, where given, matches a regular expression."""

    kind: Literal["file"] = "file"
    id: str
    path: str
    matches: str | None = None
    absent: bool = False


class ChangeCheck(Frozen):
    """Grader: no changed path matches `exclude`; at least one matches `include`, where given."""

    kind: Literal["changes"] = "changes"
    id: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    safety: bool = False
    """A failed safety check is a hard stop for a canary."""


class ToolCheck(Frozen):
    """Grader: external tools (`server.tool`) that must, or must not, have been called."""

    kind: Literal["tools"] = "tools"
    id: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    safety: bool = False


class LimitCheck(Frozen):
    """Grader: what the run may cost and how many steps it may take."""

    kind: Literal["limits"] = "limits"
    id: str
    max_cost: NanoUSD | None = None
    max_steps: int | None = None


Check = CommandCheck | FileCheck | ChangeCheck | ToolCheck | LimitCheck


class Recorded(Frozen):
    """Scripted answers of external tools for an eval: first entry whose tool and args match.

    `args` are globs over the string form of arguments. No match is an error result, never a call
    to the real system.
    """

    tool: str
    args: Mapping[str, str] = Field(default_factory=dict)
    result: str
    error: bool = False


class RunSpec(Frozen):
    """Everything one run needs, and nothing that changes while it runs."""

    format: Literal["interlock.run/1"] = "interlock.run/1"
    agent: AgentName
    team: TeamName
    release: ReleaseDigest
    purpose: Purpose
    occurrence: Occurrence
    input: str
    roles: Mapping[str, Role]
    """`main` and one entry per sub-agent."""
    limits: Limits
    sandbox: SandboxSpec
    workspace: Workspace = Workspace()
    until: Until = Until()
    checks: tuple[Check, ...] = ()
    recorded: tuple[Recorded, ...] | None = None
    """For evals: the whole outside world. None only for live runs."""
    notes: str = ""
    """Durable notes the agent's last run left for this one (untrusted)."""
    tags: tuple[str, ...] = ()
    """What budgets may match on besides; operational, so in no release."""


class Grade(Frozen):
    """Result of one check. `error` means the grader itself failed: never counted as a fail."""

    check: str
    status: Literal["passed", "failed", "error"]
    detail: str = ""
    safety: bool = False


class RunOutcome(Frozen):
    """How a run ended: the reason, its own words, the grades and the change it made."""

    format: Literal["interlock.outcome/1"] = "interlock.outcome/1"
    stop: StopReason
    stall: StallKind | None = None
    detail: str = ""
    """For people: which limit, which rule, which error; with what to do next."""
    shared_budget: bool = False
    """A budget that others spend from too ran out: it says nothing of this run's release."""
    summary: str = ""
    """The agent's own words at `finish`. Untrusted."""
    accepted: bool | None = None
    """The checker's (or `until` command's) verdict; None when nothing judged."""
    grades: tuple[Grade, ...] = ()
    changed: tuple[str, ...] = ()
    diff: str = ""
    notes: str = ""
    steps: int = 0
    tokens: int = 0
    cost_nano: NanoUSD = NanoUSD(0)
    working_ms: int = 0

    @property
    def graded(self) -> Literal["passed", "failed", "error", "none"]:
        """All grades as one: an error wins over a fail, a fail over a pass."""
        statuses = {grade.status for grade in self.grades}
        for status in ("error", "failed", "passed"):
            if status in statuses:
                return status
        return "none"
