"""What keeps its previous value while somebody has not approved yet.

Two kinds of things wait: agents keep the release and the facts that are in force, shared settings
keep their value. An agent also waits for the shared settings that its change needs, so that it is
never released against a setting that is held back.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from gateway.values import AgentName
from reconciler.plan.changes import Plan
from reconciler.plan.model import Subject


def waiting(plan: Plan, approved: AbstractSet[str]) -> dict[AgentName, tuple[Subject, ...]]:
    """Agents that must keep what is in force, each with what it waits for, by scope.

    `approved` are digests of subjects. Agents that would be removed are among them when removing
    so many of them waits for a confirmation.
    """
    open_scopes = {s.scope: s for s in plan.subjects if s.digest not in approved}
    found = {
        name: tuple(open_scopes[scope] for scope in sorted(scopes & open_scopes.keys()))
        for name, scopes in plan.depends.items()
    }
    return {name: subjects for name, subjects in sorted(found.items()) if subjects}
