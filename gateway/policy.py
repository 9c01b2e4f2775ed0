"""What the platform and each agent are allowed right now, as the reconciler publishes it.

The documents of the config repo's `gateway/` folder are parsed and located by the reconciler into
the models below; the gateway itself never reads YAML. What all agents share is one immutable
snapshot (`Policy`); the ceiling that the watched branch states *today* for one agent is a document
of its own (`AgentPolicy`), so that a commit that touches one agent of many thousands publishes one
small document. With both,

    effective policy = what the release grants  ∩  what the current policy allows

holds at every call: tightening works at once and without a rollout, loosening travels in a release
(format interlock.policy/2, docs/formats/effective-policy.md). Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from gateway.rules import Frozen as Frozen
from gateway.rules import Guardrail, RateLimit
from gateway.rules import SecretRef as SecretRef
from gateway.values import NanoUSD, Sensitivity, content_hash

FORMAT: Final = "interlock.policy/2"


class Price(Frozen):
    """Nano-dollars per token; overrides the price table. Cached input defaults to input."""

    input: NanoUSD
    output: NanoUSD
    cached_input: NanoUSD | None = None


class Provider(Frozen):
    """A place that serves models. `hosts` is the operator's list of where `key` may be sent."""

    kind: Literal["openai", "anthropic", "scripted"]
    base_url: str | None = None
    key: SecretRef | None = None
    hosts: tuple[str, ...] = ()
    timeout_seconds: int = 120
    script: Script | None = None


class Model(Frozen):
    """A model as a provider names it."""

    provider: str
    id: str
    price: Price | None = None
    max_output_tokens: int = 4096
    retires: str | None = None
    """ISO date after which the provider no longer serves it."""


class VirtualModel(Frozen):
    """A name that agents use; the targets are tried in order."""

    targets: tuple[str, ...]


class Access(StrEnum):
    """What a tool does to the world. An unclassified tool is write + egress."""

    READ = "read"
    WRITE = "write"
    DESTRUCTIVE = "destructive"
    EGRESS = "egress"


class ToolClass(Frozen):
    """Classification of one tool. `fingerprint` is what interlock.lock recorded, if anything."""

    access: tuple[Access, ...] = (Access.WRITE, Access.EGRESS)
    idempotent: bool = False
    trusted: bool = False
    sensitivity: Sensitivity = Sensitivity.INTERNAL
    description: str = ""
    input_schema: dict[str, Any] = Field(default_factory=lambda: {"type": "object"})
    fingerprint: str | None = None

    @property
    def repeatable(self) -> bool:
        """May be sent again when it is not known whether it happened."""
        return self.idempotent or set(self.access) == {Access.READ}


class ToolServer(Frozen):
    """An MCP server reached over Streamable HTTP."""

    url: str
    key: SecretRef | None = None
    header: str = "Authorization"
    hosts: tuple[str, ...] = ()
    timeout_seconds: int = 60
    tools: Mapping[str, ToolClass] = Field(default_factory=dict)


class Window(StrEnum):
    """Over what a budget is counted. Calendar windows are UTC."""

    RUN = "run"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"


class BudgetRule(Frozen):
    """A limit on money. Matches on every field that is given (glob patterns)."""

    name: str
    limit: NanoUSD
    window: Window
    agent: str = "*"
    team: str = "*"
    model: str = "*"
    purpose: str = "*"
    mode: Literal["enforce", "audit"] = "enforce"
    alert_at: tuple[int, ...] = (80,)
    """Percentages of the limit at which an alert is recorded."""
    each_agent: bool = False
    """True: every matching agent has the limit for itself; False: they share it."""


class ToolGrant(Frozen):
    """One granted tool: `args` restricts string arguments to a glob (or a list of globs)."""

    args: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    approval: bool = False


class Limits(Frozen):
    """Ceilings of one run. None: no ceiling at this level."""

    max_steps: int | None = None
    max_tokens: int | None = None
    max_cost: NanoUSD | None = None
    max_wall_ms: int | None = None
    max_output_tokens: int | None = None


class Grants(Frozen):
    """What one principal may reach: model names, tools (`server.tool`), and ceilings."""

    models: tuple[str, ...] = ()
    tools: Mapping[str, ToolGrant] = Field(default_factory=dict)
    limits: Limits = Limits()


class AgentPolicy(Frozen):
    """What the watched branch allows an agent today; by role, `main` being the agent itself."""

    team: str
    roles: Mapping[str, Grants]


class Policy(Frozen):
    """What all agents share. Its digest is its identity; the gateway keeps it until another is
    current."""

    format: Literal["interlock.policy/2"] = FORMAT
    providers: Mapping[str, Provider] = Field(default_factory=dict)
    models: Mapping[str, Model] = Field(default_factory=dict)
    virtual_models: Mapping[str, VirtualModel] = Field(default_factory=dict)
    servers: Mapping[str, ToolServer] = Field(default_factory=dict)
    destructive: tuple[str, ...] = ()
    """Org-wide list of `server.tool` globs that are destructive whatever the server says."""
    budgets: tuple[BudgetRule, ...] = ()
    rate_limits: tuple[RateLimit, ...] = ()
    guardrails: tuple[Guardrail, ...] = ()

    def digest(self) -> str:
        """SHA-256 of the canonical form: same policy, same digest."""
        return content_hash(self.model_dump(mode="json"))

    def targets(self, model: str) -> tuple[str, ...]:
        """The concrete models a name stands for, in order of preference; empty if unknown."""
        if model in self.virtual_models:
            return tuple(t for t in self.virtual_models[model].targets if t in self.models)
        return (model,) if model in self.models else ()

    def tool(self, name: str) -> ToolClass | None:
        """Classification of `server.tool`; None when the server is not declared.

        A tool the server offers but nobody classified is write + egress; a name on the
        destructive list is destructive whatever its own classification says.
        """
        server, _, tool = name.partition(".")
        if server not in self.servers:
            return None
        found = self.servers[server].tools.get(tool, ToolClass())
        if any(fnmatchcase(name, pattern) for pattern in self.destructive):
            extra = tuple(a for a in (Access.WRITE, Access.DESTRUCTIVE) if a not in found.access)
            found = found.model_copy(update={"access": found.access + extra})
        return found


def effective(release: Grants, ceiling: Grants | None) -> Grants:
    """What may be reached now: the release's grants ∩ the role's ceiling. Pure and monotone.

    Without a ceiling nothing may (fail closed): the agent or its role was removed, or nothing has
    been published for it yet.
    """
    if ceiling is None:
        return Grants(limits=Limits(max_steps=0, max_tokens=0, max_cost=NanoUSD(0), max_wall_ms=0))
    return intersect(release, ceiling)


def intersect(a: Grants, b: Grants) -> Grants:
    """Both at once: names both grant, every argument constraint of either, the lower limits."""
    tools = {
        name: ToolGrant(
            args=_both_args(a.tools[name].args, b.tools[name].args),
            approval=a.tools[name].approval or b.tools[name].approval,
        )
        for name in a.tools
        if name in b.tools
    }
    return Grants(
        models=tuple(m for m in a.models if m in b.models),
        tools=tools,
        limits=lower(a.limits, b.limits),
    )


def in_recorded_world(release: Grants, ceiling: Grants | None) -> Grants | None:
    """The ceiling of a run whose every tool is recorded: it holds for models and limits only.

    A change that asks for a new tool must be evaluable before anybody has approved it, and such a
    run cannot reach a real system whatever it is granted. A role without a ceiling stays without.
    """
    return None if ceiling is None else ceiling.model_copy(update={"tools": release.tools})


def _both_args(
    a: Mapping[str, tuple[str, ...]], b: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    merged: dict[str, tuple[str, ...]] = {}
    for name in sorted({*a, *b}):
        if name in a and name in b:
            # Patterns cannot be intersected in general; keep those of one side that one of the
            # other side surely covers. What is not sure is refused: fail closed.
            merged[name] = tuple(
                sorted(
                    {p for p in a[name] if any(_covers(q, p) for q in b[name])}
                    | {q for q in b[name] if any(_covers(p, q) for p in a[name])}
                )
            )
        else:
            merged[name] = tuple(a.get(name, b.get(name, ())))
    return merged


def _covers(wide: str, narrow: str) -> bool:
    """Whether every text that `narrow` matches is surely matched by `wide` too."""
    if wide in (narrow, "*"):
        return True
    if not any(special in narrow for special in "*?["):
        return fnmatchcase(narrow, wide)
    prefix = wide.removesuffix("*")
    plain = wide.endswith("*") and not any(special in prefix for special in "*?[")
    return plain and narrow.startswith(prefix)


def lower(a: Limits, b: Limits) -> Limits:
    """The lower of both ceilings, field by field."""
    first, second = a.model_dump(), b.model_dump()
    return Limits(
        **{
            field: min((v for v in (first[field], second[field]) if v is not None), default=None)
            for field in first
        }
    )


class Recall(Frozen):
    """Finds something said earlier: the last match of `pattern` in the observations."""

    pattern: str
    tool: str = "*"


class When(Frozen):
    """Condition of a scripted rule. Every given part must hold; patterns are Python regexes
    searched with DOTALL off and MULTILINE on."""

    system: str | None = None
    not_system: str | None = None
    first: bool | None = None
    """True: nothing has been observed yet in this conversation."""
    last_tool: str | None = None
    """Glob over the name of the tool that gave the last observation."""
    last: str | None = None
    """Pattern the last observation must contain; named groups become values."""
    not_last: str | None = None
    user: str | None = None
    """Pattern the last user message must contain; named groups become values."""
    seen: str | None = None
    """Pattern some earlier observation must contain."""
    not_seen: str | None = None
    calls: str | None = None
    """Glob of a tool that has been called already."""
    not_calls: str | None = None


class ScriptedCall(Frozen):
    """A tool call; string arguments are templates over the values, `{name}`."""

    tool: str
    args: Mapping[str, Any] = Field(default_factory=dict)


class Rule(Frozen):
    """The first rule whose `when` holds decides the turn."""

    name: str
    when: When = When()
    recall: Mapping[str, Recall] = Field(default_factory=dict)
    """Values taken from earlier observations; the rule does not apply when one is not found."""
    say: str = ""
    call: ScriptedCall | None = None


class Script(Frozen):
    """A deterministic model: rules over the conversation. It knows nothing but what it reads."""

    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]


Provider.model_rebuild()
