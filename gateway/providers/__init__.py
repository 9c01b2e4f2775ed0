"""Places that serve models. Each kind is a room; `stream` picks the one a target needs."""

from __future__ import annotations

from collections.abc import AsyncIterator

from gateway.providers import anthropic, openai, scripted
from gateway.providers.conversation import Event, ModelRequest
from gateway.providers.upstream import Upstream
from gateway.routing import Target

__all__ = ["stream"]


def stream(upstream: Upstream, target: Target, request: ModelRequest) -> AsyncIterator[Event]:
    """The target's answer as events, ended by `Done`. Raises routing.Failure."""
    if target.provider.kind == "scripted":
        return scripted.stream(target, request)
    if target.provider.kind == "anthropic":
        return anthropic.stream(upstream, target, request)
    return openai.stream(upstream, target, request)
