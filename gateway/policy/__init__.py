"""What the platform and each agent are allowed right now, as the reconciler publishes it.

The documents of the config repo's `gateway/` folder are parsed and located by the reconciler into
the models below; the gateway itself never reads YAML. What all agents share is one immutable
snapshot (`Policy`); the ceiling that the watched branch states *today* for one agent is a document
of its own (`AgentPolicy`), so that a commit that touches one agent of many thousands publishes one
small document. With both,

    effective policy = what the release grants  ∩  what the current policy allows

holds at every call: tightening works at once and without a rollout, loosening travels in a release
(format interlock.policy/3, docs/formats/effective-policy.md). Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final, Literal

from pydantic import Field

from gateway.policy.frozen import Frozen, SecretRef
from gateway.policy.grants import (
    AgentPolicy,
    Grants,
    Limits,
    ToolGrant,
    effective,
    in_recorded_world,
    intersect,
    lower,
)
from gateway.policy.models import Api, Model, Price, Provider, Retry, TapeEntry, VirtualModel
from gateway.policy.money import BudgetRule, Window
from gateway.policy.rules import Cache, Guardrail, RateLimit
from gateway.policy.script import Recall, Rule, Script, ScriptedCall, When
from gateway.policy.tools import Access, OAuth, ToolClass, ToolServer
from gateway.values import content_hash

__all__ = [
    "FORMAT",
    "Access",
    "AgentPolicy",
    "Api",
    "BudgetRule",
    "Cache",
    "Frozen",
    "Grants",
    "Guardrail",
    "Limits",
    "Model",
    "OAuth",
    "Policy",
    "Price",
    "Provider",
    "RateLimit",
    "Recall",
    "Retry",
    "Rule",
    "Script",
    "ScriptedCall",
    "SecretRef",
    "TapeEntry",
    "ToolClass",
    "ToolGrant",
    "ToolServer",
    "VirtualModel",
    "When",
    "Window",
    "effective",
    "in_recorded_world",
    "intersect",
    "lower",
]

FORMAT: Final = "interlock.policy/3"


class Policy(Frozen):
    """What all agents share. Its digest is its identity; the gateway keeps it until another is
    current."""

    format: Literal["interlock.policy/3"] = FORMAT
    providers: Mapping[str, Provider] = Field(default_factory=dict)
    models: Mapping[str, Model] = Field(default_factory=dict)
    virtual_models: Mapping[str, VirtualModel] = Field(default_factory=dict)
    servers: Mapping[str, ToolServer] = Field(default_factory=dict)
    destructive: tuple[str, ...] = ()
    """Org-wide list of `server.tool` globs that are destructive whatever the server says."""
    budgets: tuple[BudgetRule, ...] = ()
    rate_limits: tuple[RateLimit, ...] = ()
    guardrails: tuple[Guardrail, ...] = ()
    caches: tuple[Cache, ...] = ()

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
        found = self.servers[server].tools.get(tool) or ToolClass()
        if any(fnmatchcase(name, pattern) for pattern in self.destructive):
            extra = tuple(a for a in (Access.WRITE, Access.DESTRUCTIVE) if a not in found.access)
            found = found.model_copy(update={"access": found.access + extra})
        return found
