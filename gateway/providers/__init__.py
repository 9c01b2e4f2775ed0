"""Places that serve models. Each kind is a room; the functions here pick the one a target needs.

`stream` is the translated way: the request in no dialect, the answer as events. A call whose
dialect the target speaks itself (`apis_of`) is forwarded as it is. `wire` is what both ask with.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from gateway.providers import anthropic, openai, scripted, wire
from gateway.providers.conversation import Event, ModelRequest, ToolDelta, ToolStart
from gateway.providers.counting import count_tokens
from gateway.providers.embeddings import embed
from gateway.providers.upstream import Upstream
from gateway.providers.wire import apis_of
from gateway.routing import Failure, Target

__all__ = ["apis_of", "count_tokens", "embed", "stream"]


async def stream(upstream: Upstream, target: Target, request: ModelRequest) -> AsyncIterator[Event]:
    """The target's answer as events, ended by `Done`. Raises routing.Failure, and Refusal (no
    key), whatever the provider sends."""
    source = _source(upstream, target, request)
    where = f"provider {target.provider_name}"
    calling: int | None = None
    try:
        async with aclosing(source) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, ToolStart):
                    calling = event.index
                elif not isinstance(event, ToolDelta):
                    calling = None
                elif event.index != calling:
                    # Dialects write one call after the other; half of one must not end in another.
                    raise Failure(f"{where} mixed up the arguments of two calls", done=True)
                yield event
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        # Readers check what they read; this is for what they did not think of.
        raise Failure(
            f"{where} answered something that is not its dialect ({type(error).__name__})",
            done=True,
        ) from None


def _source(upstream: Upstream, target: Target, request: ModelRequest) -> AsyncIterator[Event]:
    if target.provider.kind == "scripted":
        return scripted.stream(target, request)
    if cannot := request.untranslatable():
        raise wire.unable(
            target,
            f"does not speak the dialect of this request, and {', '.join(cannot)} cannot be "
            "translated: leave it out, or ask a model whose provider speaks it",
        )
    apis = apis_of(target.provider)
    if "chat" in apis and (request.dialect != "messages" or "messages" not in apis):
        return openai.stream(upstream, target, request)
    if "messages" in apis:
        return anthropic.stream(upstream, target, request)
    raise wire.unable(target, "speaks neither Chat Completions nor Messages: nothing to translate")
