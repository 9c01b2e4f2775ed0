"""The base of every document of the policy, and the reference to a secret."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Base of every document model: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class SecretRef(Frozen):
    """Where a secret is found, never the secret. Resolved only in the gateway process."""

    env: str | None = None
    file: str | None = None
