"""gateway/principals.yaml: people and services that call the gateway from outside a run.

What they may reach is declared like an agent's, so that one page says who can touch what; which
token speaks for them is nobody's business in git (`interlock token`).
"""

# ruff: noqa: RUF012 - pydantic copies a mutable default for every instance

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from reconciler.config.models.agent import Servers
from reconciler.config.models.fields import Count, Document, Label, Login, Name


class PrincipalLimits(Document):
    """Ceilings of every call. Limits over time are budgets and rate limits for `user:NAME` or
    `service:NAME`."""

    max_output_tokens: Count | None = None
    """Most output tokens of one call."""


class Principal(Document):
    """A person or a service that calls from outside a run. Rules know it as the agent `user:NAME`
    or `service:NAME`."""

    name: Login
    """Login of the person, or name of the service."""
    kind: Literal["person", "service"]
    """Whether it is somebody or something."""
    team: Name
    """Team that answers for it; what the team may not name, it may not either."""
    models: list[Label] = []
    """Models and virtual models."""
    servers: Servers = []
    """Servers and tools; none when left out."""
    limits: PrincipalLimits = PrincipalLimits()
    """Ceilings of every call."""
    tags: list[Name] = []
    """What budgets may match on besides."""

    @model_validator(mode="after")
    def _some(self) -> Principal:
        if not self.models and not self.servers:
            raise ValueError("give models, servers or both: without them it may call nothing")
        return self


class PrincipalsFile(Document):
    """gateway/principals.yaml"""

    principals: list[Principal]
    """People and services."""
