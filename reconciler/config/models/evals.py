"""Suites, cases and sentinels: how a loop is judged."""

# ruff: noqa: RUF012 - pydantic copies a mutable default for every instance

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from reconciler.config.models.fields import (
    Count,
    Document,
    Duration,
    Label,
    Line,
    Name,
    Reference,
    Regex,
    Usd,
)


class CommandRule(Document):
    """A shell command in a fresh container that holds the result."""

    command: Annotated[str, Field(min_length=1, max_length=10_000)]
    """The command."""
    exit: Annotated[int, Field(ge=0, le=255)] = 0
    """Exit code that counts as passed."""
    protect: list[Line] = []
    """Globs of files that are restored from the case's workspace before."""
    timeout: Duration | None = None
    """After this time it counts as failed; 60s when left out."""
    id: Name | None = None
    """Name of the check in receipts; kind and position when left out."""


class FileRule(Document):
    """A file of the result."""

    file: Reference
    """Its path in the workspace."""
    matches: Regex | None = None
    """Regular expression that its text must hold."""
    absent: bool = False
    """Whether it must not exist."""
    id: Name | None = None
    """Name of the check in receipts."""


class Patterns(Document):
    """What must, and what must not, be among the names."""

    include: list[Line] = []
    """Globs; for `changes` at least one must match, for `tools` each."""
    exclude: list[Line] = []
    """Globs; nothing may match."""

    @model_validator(mode="after")
    def _any(self) -> Patterns:
        if not self.include and not self.exclude:
            raise ValueError("give include or exclude")
        return self


class ChangesRule(Document):
    """The paths the run changed."""

    changes: Patterns
    """Globs over paths."""
    safety: bool = False
    """Whether a failure is harm: in a canary, one is enough to roll back."""
    id: Name | None = None
    """Name of the check in receipts."""


class ToolsRule(Document):
    """The external tools (`server.tool`) the run called."""

    tools: Patterns
    """Globs over tool names."""
    safety: bool = False
    """Whether a failure is harm: in a canary, one is enough to roll back."""
    id: Name | None = None
    """Name of the check in receipts."""


class LimitsRule(Document):
    """What the run may cost and how many steps it may take."""

    max_cost: Usd | None = None
    """Dollars."""
    max_steps: Count | None = None
    """Steps."""
    id: Name | None = None
    """Name of the check in receipts."""


# Tags of unions stand in pydantic's locations: with a space they cannot be taken for a key.
GRADE_KINDS = {
    "command": "command",
    "file": "file",
    "changes": "changes",
    "tools": "tools",
    "max_cost": "limits",
    "max_steps": "limits",
}


def _grade_kind(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    return next((f"as {kind}" for key, kind in GRADE_KINDS.items() if key in value), None)


def _no_judge(value: Any) -> Any:
    if isinstance(value, dict) and "judge" in value:
        raise ValueError(
            "judges are not supported by this version; grade by command, file, changes or tools"
        )
    return value


GradeRule = Annotated[
    Annotated[CommandRule, Tag("as command")]
    | Annotated[FileRule, Tag("as file")]
    | Annotated[ChangesRule, Tag("as changes")]
    | Annotated[ToolsRule, Tag("as tools")]
    | Annotated[LimitsRule, Tag("as limits")],
    Discriminator(
        _grade_kind,
        custom_error_type="check_kind",
        custom_error_message="a check has one of the keys command, file, changes, tools, "
        "max_cost, max_steps",
    ),
    BeforeValidator(_no_judge),
]


class RecordedResult(Document):
    """What an external tool answers in an eval: the first whose tool and arguments match."""

    tool: Line
    """`server.tool`."""
    args: dict[Line, str] = {}
    """Globs over the text of arguments."""
    result: str
    """The text of the result."""
    error: bool = False
    """Whether the result is an error."""


class RecordedFile(Document):
    """A file of recorded tool results."""

    recorded: list[RecordedResult]
    """Results, in order of preference."""


def _recorded_kind(value: Any) -> str:
    return "as inline" if isinstance(value, list) else "as file"


class Case(Document):
    """One task with a known good end."""

    id: Name
    """Name of the case, unique in its suite."""
    workspace: Reference
    """Directory of this repository that the run starts from."""
    input: Annotated[str, Field(min_length=1, max_length=100_000)]
    """What the agent is asked."""
    tools: Annotated[
        Annotated[list[RecordedResult], Tag("as inline")] | Annotated[Reference, Tag("as file")],
        Discriminator(_recorded_kind),
    ] = []
    """Recorded results of external tools, or a file of them; what is not recorded is an error."""
    critical: bool = False
    """Whether this case alone may block a release."""
    grade: Annotated[list[GradeRule], Field(min_length=1)]
    """Checks; all must pass."""


class CaseFile(Document):
    """evals/cases/<id>.yaml"""

    case: Case
    """The case."""


class Suite(Document):
    """The cases an agent is gated by."""

    name: Name
    """Name of the suite."""
    cases: Reference
    """Glob of case files; `*` in the last part of the path only."""
    sentinels: Reference | None = None
    """Glob of sentinel files."""


class SuiteFile(Document):
    """evals/suite.yaml"""

    suite: Suite
    """The suite."""


class Sentinel(Document):
    """A deliberately bad variant of the agent that the suite must reject."""

    id: Name
    """Name of the sentinel, unique in its suite."""
    why: Line
    """What it shows when the suite lets it pass."""
    instructions: Reference | None = None
    """Instructions instead of the agent's."""
    model: Label | None = None
    """Model instead of the agent's."""

    @model_validator(mode="after")
    def _changes_something(self) -> Sentinel:
        if self.instructions is None and self.model is None:
            raise ValueError("give instructions or model: a sentinel differs from the agent")
        return self


class SentinelFile(Document):
    """evals/sentinels/<id>.yaml"""

    sentinel: Sentinel
    """The sentinel."""
