"""What a config repo declares, after reading, inheriting and resolving: plain frozen values.

Everything an agent needs is in its `AgentConfig`: texts are read, names are resolved, limits are
effective. Nothing here refers to YAML, and nothing needs the tree again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from gateway.policy import Limits, Policy
from gateway.values import AgentName, Json, Millis, TeamName, content_hash
from reconciler.findings import Finding, Place, tidy
from runner.spec import ChangeCheck, Check, Recorded, RoleKind, ToolCheck, Until

SUITE_FORMAT = "interlock.suite/1"


@dataclass(frozen=True, slots=True)
class Text:
    """A Markdown file without its front matter. `version` is what the front matter declares.

    `pin` is what the reference says after its @: `v4`, a commit's id, or None for the text at
    this commit.
    """

    path: str
    body: str
    version: int | None = None
    pin: str | None = None


@dataclass(frozen=True, slots=True)
class SkillConfig:
    """A skill folder. `files` by path relative to it; SKILL.md without its front matter.

    `pin` as in `Text`.
    """

    name: str
    description: str
    files: Mapping[str, str]
    version: int | None = None
    pin: str | None = None


@dataclass(frozen=True, slots=True)
class GrantedTool:
    """A tool of a server as one participant may use it."""

    args: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    approval: bool = False


@dataclass(frozen=True, slots=True)
class ParticipantConfig:
    """What the agent itself and each of its sub-agents have in common."""

    name: str
    """`main` for the agent itself."""
    kind: RoleKind
    model: str
    parameters: Mapping[str, str | int]
    instructions: Text
    skills: tuple[SkillConfig, ...]
    builtin: tuple[str, ...]
    tools: Mapping[str, GrantedTool]
    """By `server.tool`."""
    limits: Limits
    place: Place


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """The container of a run. `image` is a name; the digest is in the fleet's `images`."""

    image: str
    cpus_milli: int
    memory_bytes: int
    pids: int
    disk_bytes: int
    exec_timeout_ms: int


@dataclass(frozen=True, slots=True)
class WorkspaceConfig:
    """The git repository a run works on."""

    git: str
    ref: str
    protect: tuple[str, ...] = ()


Level = Literal["agent", "team", "fleet", "built in"]
"""Where an effective value comes from, the nearest first."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who said it: the level, and where it is written. `built in` values are written nowhere."""

    level: Level
    place: Place | None


@dataclass(frozen=True, slots=True)
class Loosened:
    """An own value that is looser than what the agent would inherit.

    `path` is that of `origins` (`harness.max_cost_per_run`); both values as people write them.
    `stricter` is where the stricter value stands: that level's owners decide.
    """

    path: str
    value: str
    inherited: str
    place: Place
    stricter: Origin


@dataclass(frozen=True, slots=True)
class Claim:
    """An artifact an agent owns. `realm` is `mcp` or the address of the repository of a path glob.

    A hand-over has two sides: the old owner says `given_to`, the new one `taken_from`.
    """

    realm: str
    pattern: str
    place: Place
    given_to: AgentName | None = None
    taken_from: AgentName | None = None


TriggerKind = Literal["schedule", "manual", "event", "webhook", "after", "api"]


@dataclass(frozen=True, slots=True)
class TriggerConfig:
    """When a run starts. `what` says which: the name of the event or webhook, else empty."""

    schedule: str | None
    timezone: str
    kind: TriggerKind = "schedule"
    what: str = ""
    after: tuple[AgentName, ...] = ()
    """Agents whose accepted runs start this one."""
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class FirstReleasePolicy:
    """How an agent's first release is judged."""

    min_pass_rate_permille: int
    approval: bool


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """The offline gate. Shares and ratios are integer thousandths: exact, and fit for a digest."""

    delta_permille: int
    looks: tuple[int, ...]
    first_release: FirstReleasePolicy
    cost_ratio_permille: int | None
    latency_ratio_permille: int | None
    max_errors: int


@dataclass(frozen=True, slots=True)
class CanaryPolicy:
    """The first live runs of a candidate: the next `count` of them."""

    count: int
    horizon: int
    max_age_ms: Millis


Harm = Literal["finish_pinned", "stop"]


@dataclass(frozen=True, slots=True)
class HarmPolicy:
    """What becomes of runs in flight when a release is rolled back."""

    quality: Harm = "finish_pinned"
    safety: Harm = "stop"


@dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """How a change goes live; `name` is `inline` for one written in the agent's own file.

    Field by field what `reconciler.rollout.model.RolloutPolicy` holds, which is above this room.
    """

    name: str
    gate: GatePolicy | None
    canary: CanaryPolicy | None
    on_harm: HarmPolicy


@dataclass(frozen=True, slots=True)
class Case:
    """One case. `workspace` is a directory of the tree, `workspace_oid` its git OID."""

    id: str
    input: str
    workspace: str
    workspace_oid: str
    critical: bool
    checks: tuple[Check, ...]
    recorded: tuple[Recorded, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Sentinel:
    """A deliberately bad variant: what is given replaces the agent's."""

    id: str
    why: str
    instructions: Text | None
    model: str | None
    place: Place


@dataclass(frozen=True)
class Suite:
    """Cases and sentinels, each by id. Without slots, so that its digest is computed once."""

    name: str
    path: str
    cases: tuple[Case, ...]
    sentinels: tuple[Sentinel, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what is asked and how it is judged; names of files do not count."""
        return content_hash(
            {
                "format": SUITE_FORMAT,
                "cases": {
                    case.id: {
                        "input": case.input,
                        "workspace": case.workspace_oid,
                        "critical": case.critical,
                        "checks": [check.model_dump(mode="json") for check in case.checks],
                        "recorded": [r.model_dump(mode="json") for r in case.recorded],
                    }
                    for case in self.cases
                },
                "sentinels": {
                    sentinel.id: {
                        "instructions": sentinel.instructions.body
                        if sentinel.instructions
                        else None,
                        "model": sentinel.model,
                    }
                    for sentinel in self.sentinels
                },
            }
        )


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """One agent with effective values."""

    name: AgentName
    team: TeamName
    main: ParticipantConfig
    subagents: tuple[ParticipantConfig, ...]
    limits: Limits
    until: Until
    sandbox: SandboxConfig
    workspace: WorkspaceConfig | None
    safety: tuple[ChangeCheck | ToolCheck, ...]
    owns: tuple[Claim, ...]
    rollout: RolloutPolicy
    trigger: TriggerConfig
    suite: Suite | None
    place: Place
    """Of its name; `place.file` is the agent's file."""
    origins: Mapping[str, Origin]
    """Where each effective value comes from, by its path: `harness.max_steps`, `model`, …"""
    loosened: tuple[Loosened, ...] = ()
    formerly: AgentName | None = None
    """The name it had before: history, pointers and claims go with it."""
    tags: tuple[str, ...] = ()
    """What budgets may match on besides; sorted, and in no release."""

    @property
    def participants(self) -> tuple[ParticipantConfig, ...]:
        """The agent itself, then its sub-agents."""
        return (self.main, *self.subagents)


@dataclass(frozen=True, slots=True)
class TeamConfig:
    """People and the paths they own. `uses` restricts what their agents may name (globs by kind:
    `models`, `skills`, `servers`); a kind that is not there is not restricted."""

    name: TeamName
    members: tuple[str, ...]
    owns: tuple[str, ...]
    uses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    defaults: Mapping[str, Json] = field(default_factory=dict)
    """What its agents inherit, by path (`harness.max_steps`), as plain values; for comparing."""


@dataclass(frozen=True, slots=True)
class PrincipalConfig:
    """A person or a service that calls the gateway from outside a run.

    `name` is `user:NAME` or `service:NAME`: what the gateway, budgets and rate limits know as its
    agent. `models` are the names it asks for, as they are written.
    """

    name: AgentName
    team: TeamName
    models: tuple[str, ...]
    tools: Mapping[str, GrantedTool]
    """By `server.tool`."""
    max_output_tokens: int | None
    tags: tuple[str, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class OwnerRule:
    """Who decides about paths that match (gitignore patterns, the last match wins).

    From `teams.*.owns` and, where there is one, CODEOWNERS. `owners` are team names or logins.
    """

    pattern: str
    owners: tuple[str, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything one commit declares. Only agents without errors are in `agents`."""

    name: str
    branch: str
    reports_branch: str
    signers: tuple[str, ...]
    teams: Mapping[TeamName, TeamConfig]
    platform: Policy
    """Providers, models, servers and rules; without the agents' ceilings, see `config.policy`."""
    images: Mapping[str, str]
    """Image name → digest, from interlock.lock."""
    rollouts: Mapping[str, RolloutPolicy]
    agents: Mapping[AgentName, AgentConfig]
    owners: tuple[OwnerRule, ...] = ()
    forge: str = "local"
    """Kind of forge the pull requests live on."""
    defaults: Mapping[str, Json] = field(default_factory=dict)
    """What every agent inherits, by path, as plain values; for comparing."""
    principals: Mapping[AgentName, PrincipalConfig] = field(default_factory=dict)
    """People and services that call from outside a run, by name."""
    places: Mapping[tuple[str, str], Place] = field(default_factory=dict)
    """(kind, name) → where a shared thing is named: model, provider, server, budget, team, …"""


@dataclass(frozen=True, eq=False)
class Loaded:
    """The outcome of reading a tree.

    `fleet` is None when a file that all agents share is in error: then nothing of this commit
    may be acted upon (fail closed), and everything that is live stays as it is. `broken` holds
    the agents that are in error, each with its findings; they keep their stable release.
    """

    fleet: Fleet | None
    broken: Mapping[AgentName, tuple[Finding, ...]]
    found: Callable[[], Iterable[Finding]] = field(repr=False)
    """Everything found, in any order: put in order only when somebody asks."""
    memory: object = field(default=None, repr=False)
    """What the next load goes on from; nobody else's business."""
    mark: object = field(default_factory=object, repr=False)
    """Stands for this outcome, without keeping it."""
    since: tuple[object, frozenset[AgentName]] | None = field(default=None, repr=False)
    """The mark of the outcome it was made from, and all agents that may differ from that."""

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """Everything found, by place."""
        return tidy(self.found())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Loaded):
            return NotImplemented
        mine = (self.fleet, self.broken, self.findings)
        return mine == (other.fleet, other.broken, other.findings)

    __hash__ = None  # type: ignore[assignment]


def replace_tools(
    participant: ParticipantConfig, tools: Mapping[str, GrantedTool]
) -> ParticipantConfig:
    """The participant with other tools."""
    return replace(participant, tools=tools)
