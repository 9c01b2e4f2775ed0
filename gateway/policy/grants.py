"""What one principal may reach, and the intersection of two such documents. Pure and monotone."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from pydantic import Field

from gateway.policy.frozen import Frozen
from gateway.values import NanoUSD


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
