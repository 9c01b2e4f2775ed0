"""How this program proves to a git server who it is: what the operator put into its environment."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.source import Auth


def credentials(environment: Mapping[str, str]) -> Auth | None:
    """The token for git over HTTP, where there is one."""
    token = environment.get("INTERLOCK_GIT_TOKEN") or environment.get("GITHUB_TOKEN")
    return Auth(token=lambda: token) if token else None
