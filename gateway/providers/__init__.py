"""Places that serve models: natively where they speak the client's dialect, translated elsewhere.

`serve` decides which. What is forwarded stays the client's bytes (`native`); what is translated
becomes a conversation in no dialect, and its answer events (`stream`). `wire` is what both ask
with, so that addresses, keys, cassettes and recordings are the same for both.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from gateway.policy import Api
from gateway.providers import anthropic, native, openai, responses, scripted, stored, wire
from gateway.providers.asked import DIALECTS, Asked
from gateway.providers.conversation import (
    Done,
    Event,
    ModelRequest,
    ToolDelta,
    ToolStart,
    assemble,
)
from gateway.providers.counting import count_tokens
from gateway.providers.dialects import embeddings as embeddings_dialect
from gateway.providers.dialects import fields
from gateway.providers.embeddings import embed
from gateway.providers.pieces import End, Piece
from gateway.providers.stored import Frame
from gateway.providers.turns import plain_names
from gateway.providers.upstream import Answer, Upstream
from gateway.providers.wire import apis_of
from gateway.routing import Failure, Target

__all__ = ["apis_of", "count_tokens", "embed", "serve", "stream"]

READ: Mapping[Api, Callable[[Answer], AsyncIterator[Event]]] = {
    "chat": openai.events,
    "responses": responses.events,
    "messages": anthropic.events,
}
"""How an answer of each API becomes events."""


async def serve(
    upstream: Upstream,
    target: Target,
    asked: Asked,
    *,
    output_tokens: int,
    parameters: Mapping[str, Any],
    frame: Frame,
    rewritten: bool = False,
) -> AsyncIterator[Piece | End]:
    """The target's answer for this client, ended by `End`. Raises routing.Failure, Refusal (no
    key). `rewritten`: the text will be looked into as it comes, so that it must be translated."""
    provider = target.provider
    target = replace(target, model=target.model.model_copy(update={"parameters": parameters}))
    forwarded = asked.api in apis_of(provider) and provider.kind != "scripted"
    if forwarded and not rewritten:
        source = _native(upstream, target, asked, output_tokens, frame)
    elif asked.api == "embeddings":
        source = _embedded(upstream, target, asked, frame)
    else:
        source = _translated(upstream, target, asked, output_tokens, frame)
    async with aclosing(source) as pieces:  # type: ignore[type-var]
        async for piece in pieces:
            yield piece


async def _native(
    upstream: Upstream, target: Target, asked: Asked, output_tokens: int, frame: Frame
) -> AsyncIterator[Piece | End]:
    body = native.outgoing(
        asked,
        model=target.model.id,
        output_tokens=output_tokens,
        parameters=target.model.parameters,
        plain_limit=not wire.official(target.provider),
    )
    end: End | None = None
    headers = {"anthropic-beta": asked.betas} if asked.betas and asked.api == "messages" else {}
    async with wire.ask(upstream, target, asked.api, body, headers=headers) as answer:
        async for piece in _forwarded(asked, answer, frame):
            if isinstance(piece, End):
                end = piece
            else:
                yield piece
    if end is not None:
        yield end


async def _forwarded(asked: Asked, answer: Answer, frame: Frame) -> AsyncIterator[Piece | End]:
    streams = "text/event-stream" in (answer.header("content-type") or "")
    if asked.stream and streams:
        async for piece in native.stream(asked, answer):
            yield piece
    elif not streams:
        end = await native.unary(asked, answer)
        pieces: list[Piece] = []
        if asked.stream:
            usage = end.usage
            pieces, end = stored.again(asked, end.stored, frame)
            end = End(usage, end.stored, tail=end.tail)
        for piece in pieces:
            yield piece
        yield end
    else:
        # Asked for a whole, and it streams all the same: some servers know nothing else.
        if asked.api == "embeddings":
            raise Failure(f"{answer.where} streams what was asked for as a whole", done=True)
        reply = assemble([event async for event in READ[asked.api](answer)])
        _, end = stored.written(asked, reply, native_form(reply.to_json()), frame)
        yield end


def native_form(document: Any) -> str:
    """An answer in no dialect as the ledger keeps it."""
    return json.dumps(document, ensure_ascii=False)


async def _translated(
    upstream: Upstream, target: Target, asked: Asked, output_tokens: int, frame: Frame
) -> AsyncIterator[Piece | End]:
    request = replace(asked.conversation, max_output_tokens=output_tokens or None)
    events: list[Event] = []
    if not asked.stream:
        events = [event async for event in stream(upstream, target, request)]
        reply = assemble(events)
        _, end = stored.written(asked, reply, native_form(reply.to_json()), frame)
        yield end
        return
    writer = DIALECTS[asked.api].Writer(
        model=frame.model,
        identity=frame.identity,
        seconds=frame.seconds,
        with_usage=asked.with_usage,
        request=request,
    )
    async for event in stream(upstream, target, request):
        events.append(event)
        if isinstance(event, Done):
            reply = assemble(events)
            tail = writer.write(event) + writer.end()
            yield End(reply.usage, native_form(reply.to_json()), tail=tail)
            return
        yield Piece(writer.write(event))
    raise Failure(f"provider {target.provider_name} ended without an answer", done=True)


async def _embedded(
    upstream: Upstream, target: Target, asked: Asked, frame: Frame
) -> AsyncIterator[Piece | End]:
    request = embeddings_dialect.read(fields.document(asked.body))
    reply = await embed(upstream, target, request)
    body = json.dumps(embeddings_dialect.answer(reply, model=frame.model, request=request))
    yield End(reply.usage, native_form(reply.to_json()), body.encode())


async def stream(upstream: Upstream, target: Target, request: ModelRequest) -> AsyncIterator[Event]:
    """The target's answer as events, ended by `Done`: the translated way. Raises routing.Failure,
    and Refusal (no key), whatever the provider sends."""
    names: dict[str, str] = {}
    if target.provider.kind != "scripted":
        request, names = plain_names(request)
    source = _source(upstream, target, request)
    where = f"provider {target.provider_name}"
    calling: int | None = None
    try:
        async with aclosing(source) as events:  # type: ignore[type-var]
            async for event in events:
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
    apis = apis_of(target.provider)
    if "chat" in apis and (request.dialect != "messages" or "messages" not in apis):
        return openai.stream(upstream, target, request)
    if "messages" in apis:
        return anthropic.stream(upstream, target, request)
    if "responses" in apis:
        return responses.stream(upstream, target, request)
    raise wire.unable(target, "speaks no dialect that this request can be translated to")
