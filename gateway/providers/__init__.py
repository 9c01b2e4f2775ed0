"""Places that serve models: natively where they speak the client's dialect, translated elsewhere."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from gateway.keys import allowed_hosts
from gateway.policy import Api, Provider
from gateway.pricing import DEFAULT_URLS
from gateway.providers import anthropic, native, openai, scripted, stored
from gateway.providers.asked import Asked
from gateway.providers.conversation import Done, Event, ModelRequest, assemble
from gateway.providers.pieces import End, Piece
from gateway.providers.stored import Frame
from gateway.providers.upstream import Upstream
from gateway.routing import Failure, Target, failure_of_status

__all__ = ["apis_of", "serve", "stream"]


def apis_of(provider: Provider) -> tuple[Api, ...]:
    """What a provider can be asked in."""
    if provider.apis is not None:
        return provider.apis
    if provider.kind == "anthropic":
        return ("messages",)
    if provider.kind == "azure" or base_of(provider) == DEFAULT_URLS["openai"]:
        return ("chat", "responses", "embeddings")
    return ("chat", "embeddings") if provider.kind == "openai" else ()


def base_of(provider: Provider) -> str:
    """The address of a provider's API."""
    return (provider.base_url or DEFAULT_URLS.get(provider.kind, "")).rstrip("/")


PATHS: Mapping[Api, str] = {
    "chat": "/chat/completions",
    "responses": "/responses",
    "embeddings": "/embeddings",
    "messages": "/v1/messages",
}


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
    if asked.api in apis_of(provider) and not rewritten:
        source = _native(upstream, target, asked, output_tokens, parameters, frame)
    else:
        source = _translated(upstream, target, asked, output_tokens, frame)
    async for piece in source:
        yield piece


async def _native(
    upstream: Upstream,
    target: Target,
    asked: Asked,
    output_tokens: int,
    parameters: Mapping[str, Any],
    frame: Frame,
) -> AsyncIterator[Piece | End]:
    base = base_of(target.provider)
    url = base + PATHS[asked.api]
    secret = upstream.keyring.find(
        target.provider.key, url=url, hosts=allowed_hosts(target.provider.hosts, base)
    )
    body = native.outgoing(
        asked,
        model=target.model.id,
        output_tokens=output_tokens,
        parameters=parameters,
        plain_limit=base != DEFAULT_URLS["openai"],
    )
    async with upstream.post(
        url,
        body,
        headers=_headers(target.provider, secret),
        where=f"provider {target.provider_name}",
        seconds=target.provider.timeout_seconds,
        secret=secret,
    ) as answer:
        if answer.status != 200:
            raise failure_of_status(
                answer.status, answer.where, await answer.brief(), answer.retry_after
            )
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
            read = anthropic.events if asked.api == "messages" else openai.events
            reply = assemble([event async for event in read(answer)])
            _, end = stored.written(asked, reply, native_form(reply.to_json()), frame)
            yield end


def native_form(document: Any) -> str:
    """An answer in no dialect as the ledger keeps it."""
    return json.dumps(document, ensure_ascii=False)


async def _translated(
    upstream: Upstream, target: Target, asked: Asked, output_tokens: int, frame: Frame
) -> AsyncIterator[Piece | End]:
    from dataclasses import replace

    request = replace(asked.conversation, max_output_tokens=output_tokens or None)
    events: list[Event] = []
    if not asked.stream:
        events = [event async for event in stream(upstream, target, request)]
        reply = assemble(events)
        _, end = stored.written(asked, reply, native_form(reply.to_json()), frame)
        yield end
        return
    from gateway.providers.asked import DIALECTS

    writer = DIALECTS[asked.api].Writer(
        model=frame.model,
        identity=frame.identity,
        seconds=frame.seconds,
        with_usage=asked.with_usage,
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


def stream(upstream: Upstream, target: Target, request: ModelRequest) -> AsyncIterator[Event]:
    """The target's answer as events, ended by `Done`. Raises routing.Failure."""
    if target.provider.kind == "scripted":
        return scripted.stream(target, request)
    if target.provider.kind == "anthropic":
        return anthropic.stream(upstream, target, request)
    return openai.stream(upstream, target, request)


def _headers(provider: Provider, secret: str | None) -> dict[str, str]:
    if provider.kind == "anthropic":
        known = {"anthropic-version": anthropic.VERSION}
        return {**known, "x-api-key": secret} if secret else known
    return {"authorization": f"Bearer {secret}"} if secret else {}
