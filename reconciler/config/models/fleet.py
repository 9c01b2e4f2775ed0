"""interlock.yaml, teams.yaml and interlock.lock: what every agent of a fleet shares."""

# ruff: noqa: RUF012 - pydantic copies a mutable default for every instance

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from gateway.values import Millis
from reconciler.config.models.fields import (
    Count,
    Cpus,
    Document,
    Duration,
    Label,
    Line,
    Name,
    Ratio,
    Share,
    Size,
    ToolName,
    Usd,
)


def _branch(value: str) -> str:
    # git-check-ref-format(1), the parts that matter for a branch.
    bad = (
        not re.fullmatch(r"[A-Za-z0-9._/@+-]{1,200}", value)
        or value.startswith(("-", "/", "."))
        or value.endswith(("/", ".", ".lock"))
        or any(part in value for part in ("..", "//", "@{", "/."))
    )
    if bad:
        raise ValueError("not a branch name")
    return value


Branch = Annotated[str, AfterValidator(_branch)]
"""Name of a git branch."""


def _signer(value: str) -> str:
    if not re.fullmatch(r"(ssh-ed25519|ecdsa-sha2-\S+|ssh-rsa) [A-Za-z0-9+/=]+( .*)?", value):
        raise ValueError('not a public SSH key; write it like "ssh-ed25519 AAAA… name"')
    return value


class Reports(Document):
    """Where the record goes."""

    branch: Branch = "interlock/reports"
    """Branch that reports and `state/` are committed to; never the watched branch."""
    signers: list[Annotated[Line, AfterValidator(_signer)]] = []
    """Public SSH keys whose commits on the reports branch are believed."""


class Until(Document):
    """When a run is done. Exactly one key."""

    command: Line | None = None
    """Shell command, run in a fresh container on a copy of the result; done when it exits 0."""
    checker: Name | None = None
    """Sub-agent with `role: checker` whose verdict counts."""

    @model_validator(mode="after")
    def _one(self) -> Until:
        if (self.command is None) == (self.checker is None):
            raise ValueError("give either command or checker")
        return self


class Harness(Document):
    """Limits of one run."""

    max_steps: Count | None = None
    """Journaled steps: model calls, tool calls, executions."""
    max_tokens_per_run: Count | None = None
    """Tokens of all kinds, over all roles of the run."""
    max_cost_per_run: Usd | None = None
    """Dollars; enforced by the gateway before a call leaves."""
    max_wall_time: Duration | None = None
    """Time from start to end, waiting for people not counted."""
    max_output_tokens: Count | None = None
    """Output tokens of one model call."""


class AgentHarness(Harness):
    """Limits of one run, and what ends it."""

    until: Until | None = None
    """What ends a run-until-done; without it a run ends when the agent says so."""


class Sandbox(Document):
    """The container of a run."""

    image: Label | None = None
    """Name of an image; its digest comes from interlock.lock."""
    cpus: Cpus | None = None
    """CPUs, such as 1 or 0.5."""
    memory: Size | None = None
    """Memory; there is no swap beyond it."""
    pids: Annotated[Count, Field(le=32768)] | None = None
    """Processes and threads."""
    disk: Size | None = None
    """Size of the workspace."""
    exec_timeout: Duration | None = None
    """Longest single command."""


_PAUSES = ("human", "required", "manual", "ask", "pause", "always", True)
"""Other words for `pause_for_human` that mean nothing else."""


def _approvals(value: Any) -> Any:
    """The mapping that is kept: a list of tools means that each of them waits."""
    if isinstance(value, list) and all(isinstance(tool, str) for tool in value):
        return dict.fromkeys(value, "pause_for_human")
    if isinstance(value, dict):
        return {k: "pause_for_human" if _pauses(v) else v for k, v in value.items()}
    return value


def _pauses(value: Any) -> bool:
    return isinstance(value, str | bool) and value in _PAUSES


Approvals = Annotated[dict[ToolName, Literal["pause_for_human"]], BeforeValidator(_approvals)]
"""Tools whose calls wait for a person: a mapping, or a list of their names."""


class Defaults(Document):
    """What agents inherit: those of a team before those of the fleet.

    What is looser than the level above is marked, and waits for that level's owners.
    """

    model: Label | None = None
    """Model or virtual model of agents that name none."""
    harness: Harness = Harness()
    """Limits of one run: see `harness`; without `until`."""
    sandbox: Sandbox = Sandbox()
    """The container of a run: see `sandbox`."""
    approvals: Approvals = {}
    """Tools (`tool` or `server.tool`) whose calls wait for a person; a list of them will do."""
    rollout: Name | None = None
    """Rollout policy of agents that name none."""


class FirstRelease(Document):
    """How the first release of an agent is judged: there is no stable one to compare with."""

    min_pass_rate: Share
    """Share of attempts that must pass, from above 0 to 1."""
    approval: bool = True
    """Whether a person must approve it as well."""


def _looks(value: list[int]) -> list[int]:
    if value != [3, 6, 12]:
        raise ValueError("the gate's error rates are known for [3, 6, 12] only; write that")
    return value


def _none(value: Any) -> Any:
    """`none` spelled out: leaving a protection away is a decision, not an omission."""
    if value is None:
        raise ValueError("write none (without it nothing says that this was meant)")
    return None if value == "none" else value


class Gate(Document):
    """The offline gate: the agent's suite, candidate against stable, both run afresh."""

    delta: Share = 100
    """Margin: a candidate passes when it is not worse than stable by more than this."""
    looks: Annotated[list[int], AfterValidator(_looks)] = [3, 6, 12]
    """Attempts per case at which the evidence is looked at."""
    first_release: FirstRelease
    """How an agent's first release is judged."""
    cost_ratio: Annotated[Ratio | None, BeforeValidator(_none)] = 1250
    """Upper bound of the ratio of median costs, candidate / stable; `none` for no bound."""
    latency_ratio: Annotated[Ratio | None, BeforeValidator(_none)] = 1250
    """Upper bound of the ratio of median durations; `none` for no bound."""
    max_errors: Annotated[int, Field(ge=0, le=1000)] = 4
    """Attempts lost to infrastructure that are made again; more is a hold."""


class Canary(Document):
    """The first live runs of a release that passed its gate."""

    count: Count
    """How many runs are given to the candidate."""
    horizon: int = 30
    """Graded runs the false-alarm rate is promised for: 30, 50 or 100."""
    max_age: Duration = Millis(14 * 86_400_000)
    """After this time with too few graded runs, a person decides (hold)."""


class OnHarm(Document):
    """What happens to runs in flight when a release is rolled back."""

    quality: Literal["finish_pinned", "stop"] = "finish_pinned"
    """Too many failures: let runs finish on the release they started with, or stop them."""
    safety: Literal["finish_pinned", "stop"] = "stop"
    """A safety check, a policy or a budget was violated."""


class Rollout(Document):
    """How a change of an agent goes live."""

    gate: Annotated[Gate | None, BeforeValidator(_none)]
    """The offline gate, or `none`: goes live on merge, and status says so."""
    canary: Annotated[Canary | None, BeforeValidator(_none)] = None
    """Live runs on trial, or `none`."""
    on_harm: OnHarm = OnHarm()
    """What happens to runs in flight when a release is rolled back."""


class Forge(Document):
    """Where pull requests live."""

    kind: Literal["local", "github", "gitlab", "gitea"] = "local"
    """`local`: the built-in forge, on the repository itself. This version has no other yet."""

    @field_validator("kind")
    @classmethod
    def _served(cls, value: str) -> str:
        if value != "local":
            raise ValueError(f"{value} is not supported by this version; write local")
        return value


class Fleet(Document):
    """The fleet: what every agent inherits, and how changes go live."""

    name: Name
    """Name of the fleet."""
    branch: Branch = "main"
    """The watched branch: what is merged here is asked for."""
    reports: Reports = Reports()
    """Where the record goes."""
    forge: Forge = Forge()
    """Where pull requests live."""
    defaults: Defaults = Defaults()
    """What every agent inherits."""
    rollouts: dict[Name, Rollout] = {}
    """Named policies that agents refer to."""


class FleetFile(Document):
    """interlock.yaml"""

    fleet: Fleet
    """The fleet."""


class Uses(Document):
    """What a team's agents may name. A kind that is left out is not restricted."""

    models: list[Line] | None = None
    """Globs over names of models and virtual models."""
    skills: list[Line] | None = None
    """Globs over names of skills."""
    servers: list[Line] | None = None
    """Globs over names of servers."""


class Team(Document):
    """People who own agents and paths."""

    members: list[Label]
    """Logins on the forge."""
    owns: list[Line] = []
    """Paths of this repository, as in a .gitignore; the last rule that matches counts, and a
    CODEOWNERS file comes after all of these."""
    defaults: Defaults = Defaults()
    """What its agents inherit, before what the fleet says."""
    uses: Uses = Uses()
    """What its agents may name."""


class TeamsFile(Document):
    """teams.yaml"""

    teams: dict[Name, Team]
    """Teams by name."""


def _image(value: str) -> str:
    if not re.fullmatch(r"(\S+@)?sha256:[0-9a-f]{64}", value):
        raise ValueError("not a digest; write sha256:… or name@sha256:… with 64 hex digits")
    return value


def _fingerprint(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("not a fingerprint of 64 hex digits; `interlock lock` writes it")
    return value


class Lock(Document):
    """What git cannot know by itself."""

    images: dict[Label, Annotated[Line, AfterValidator(_image)]] = {}
    """Image name to digest."""
    tools: dict[ToolName, Annotated[Line, AfterValidator(_fingerprint)]] = {}
    """`server.tool` to the fingerprint of its description and schema."""


class LockFile(Document):
    """interlock.lock"""

    lock: Lock
    """Written by `interlock lock`."""
