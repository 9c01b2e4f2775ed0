"""The translated way: a request in no dialect to whatever a target speaks, its answer as events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace

from gateway.policy import Api
from gateway.providers import anthropic, openai, responses, scripted, wire
from gateway.providers.conversation import Event, ModelRequest, ToolDelta, ToolStart
from gateway.providers.turns import plain_names
from gateway.providers.upstream import Answer, Upstream
from gateway.routing import Failure, Target

READ: Mapping[Api, Callable[[Answer], AsyncIterator[Event]]] = {
    "chat": openai.events,
    "responses": responses.events,
    "messages": anthropic.events,
}
"""How an answer of each API becomes events."""


async def events(upstream: Upstream, target: Target, request: ModelRequest) -> AsyncIterator[Event]:
    """The target's answer as events, ended by `Done`: the translated way. Raises routing.Failure,
    and Refusal (no key), whatever the provider sends."""
    names: dict[str, str] = {}
    if target.provider.kind != "scripted":
        request, names = plain_names(request)
    source = _source(upstream, target, request)
    where = f"provider {target.provider_name}"
    calling: int | None = None
    try:
        async with aclosing(source) as found:  # type: ignore[type-var]
            async for event in found:
                if isinstance(event, ToolStart):
                    calling = event.index
                    event = replace(event, name=names.get(event.name, event.name))
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
    if cannot := request.untranslatable():
        raise wire.unable(
            target,
            f"does not speak the dialect of this request, and {', '.join(cannot)} cannot be "
            "translated: leave it out, or ask a model whose provider speaks it",
        )
    if target.provider.kind == "scripted":
        return scripted.stream(target, request)
    apis = wire.apis_of(target.provider)
    if "chat" in apis and (request.dialect != "messages" or "messages" not in apis):
        return openai.stream(upstream, target, request)
    if "messages" in apis:
        return anthropic.stream(upstream, target, request)
    if "responses" in apis:
        return responses.stream(upstream, target, request)
    raise wire.unable(target, "speaks no dialect that this request can be translated to")
