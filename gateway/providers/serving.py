"""One call to one target: natively where it speaks the client's dialect, translated elsewhere."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gateway.keys import allowed_hosts
from gateway.policy import Api, Provider
from gateway.pricing import DEFAULT_URLS
from gateway.providers import anthropic, native, openai, scripted, stored
from gateway.providers.asked import DIALECTS, Asked
from gateway.providers.conversation import Done, Event, ModelRequest, TextDelta, assemble
from gateway.providers.pieces import End, Piece
from gateway.providers.stored import Frame
from gateway.providers.upstream import Answer, Upstream
from gateway.routing import Failure, Target, failure_of_status

PATHS: Mapping[Api, str] = {
    "chat": "/chat/completions",
    "responses": "/responses",
    "embeddings": "/embeddings",
    "messages": "/v1/messages",
}


class TextFilter(Protocol):
    """Looks at a text while it comes (`guardrails.Window`)."""

    def feed(self, text: str) -> str:
        """What may be released now. Raises Refusal."""
        ...

    def end(self) -> str:
        """The rest. Raises Refusal."""
        ...


@dataclass(frozen=True, slots=True)
class Serving:
    """What is sent to one target. `parameters` go over what the client says."""

    upstream: Upstream
    target: Target
    asked: Asked
    output_tokens: int
    parameters: Mapping[str, Any]
    frame: Frame

    @property
    def where(self) -> str:
        """The provider, for people."""
        return f"provider {self.target.provider_name}"

    @property
    def native(self) -> bool:
        """Does the target speak the client's dialect?"""
        return self.asked.api in apis_of(self.target.provider)


async def whole(call: Serving) -> End:
    """The whole answer, for a client that does not stream. Raises Failure, Refusal (no key)."""
    if not call.native:
        events = [event async for event in _events(call)]
        return _written(call, events)
    sent = _sent(call)
    answer = await call.upstream.ask(**sent)
    _raise_for_status(answer, await answer.brief() if answer.status != 200 else "")
    if not _streams(answer):
        return native.unary(call.asked, await answer.raw(), answer.where)
    # Asked for a whole, and it streams all the same: some servers know nothing else.
    read = anthropic.events if call.asked.api == "messages" else openai.events
    return _written(call, [event async for event in read(answer)])


async def stream(call: Serving, window: TextFilter | None = None) -> AsyncIterator[Piece | End]:
    """The answer as it comes, ended by `End`. Raises Failure, Refusal (no key, or the window's).

    What goes through a window has to be read, so it is translated even where it need not be.
    """
    if window is not None or not call.native:
        events = _events(call) if window is None else _filtered(_events(call), window)
        async for piece in _translated(call, events):
            yield piece
        return
    async with call.upstream.post(**_sent(call)) as answer:
        _raise_for_status(answer, await answer.brief() if answer.status != 200 else "")
        if _streams(answer):
            async for piece in native.stream(call.asked, answer):
                yield piece
            return
        end = native.unary(call.asked, await answer.raw(), answer.where)
        pieces, last = stored.again(call.asked, end.stored, call.frame)
        for piece in pieces:
            yield piece
        yield End(end.usage, end.stored, tail=last.tail)


async def _filtered(source: AsyncIterator[Event], window: TextFilter) -> AsyncIterator[Event]:
    """Text only as far as the window has released it; tool calls wait for the text before them."""
    ended = False
    async for event in source:
        if isinstance(event, TextDelta):
            if released := window.feed(event.text):
                yield TextDelta(released)
            continue
        if isinstance(event, Done) and not ended:
            ended = True
            if rest := window.end():
                yield TextDelta(rest)
        yield event


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


async def _translated(call: Serving, source: AsyncIterator[Event]) -> AsyncIterator[Piece | End]:
    frame = call.frame
    writer = DIALECTS[call.asked.api].Writer(
        model=frame.model,
        identity=frame.identity,
        seconds=frame.seconds,
        with_usage=call.asked.with_usage,
    )
    events: list[Event] = []
    async for event in source:
        events.append(event)
        if isinstance(event, Done):
            reply = assemble(events)
            yield End(
                reply.usage, _stored(reply.to_json()), tail=writer.write(event) + writer.end()
            )
            return
        yield Piece(writer.write(event))
    raise Failure(f"{call.where} ended without an answer", done=True)


def _events(call: Serving) -> AsyncIterator[Event]:
    """The target's answer as events, ended by `Done`. Raises Failure, Refusal."""
    request: ModelRequest = replace(
        call.asked.conversation, max_output_tokens=call.output_tokens or None
    )
    kind = call.target.provider.kind
    if kind == "scripted":
        return scripted.stream(call.target, request)
    if kind == "anthropic":
        return anthropic.stream(call.upstream, call.target, request)
    return openai.stream(call.upstream, call.target, request)


def _written(call: Serving, events: list[Event]) -> End:
    reply = assemble(events)
    return stored.written(call.asked, reply, _stored(reply.to_json()), call.frame)[1]


def _stored(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False)


def _sent(call: Serving) -> dict[str, Any]:
    """Where the native request goes, with what."""
    provider = call.target.provider
    base = base_of(provider)
    url = base + PATHS[call.asked.api]
    secret = call.upstream.keyring.find(
        provider.key, url=url, hosts=allowed_hosts(provider.hosts, base)
    )
    body = native.outgoing(
        call.asked,
        model=call.target.model.id,
        output_tokens=call.output_tokens,
        parameters=call.parameters,
        plain_limit=base != DEFAULT_URLS["openai"],
    )
    return {
        "url": url,
        "body": body,
        "headers": _headers(provider, secret),
        "where": call.where,
        "seconds": provider.timeout_seconds,
        "secret": secret,
    }


def _headers(provider: Provider, secret: str | None) -> dict[str, str]:
    if provider.kind == "anthropic":
        known = {"anthropic-version": anthropic.VERSION}
        return {**known, "x-api-key": secret} if secret else known
    return {"authorization": f"Bearer {secret}"} if secret else {}


def _streams(answer: Answer) -> bool:
    return "text/event-stream" in (answer.header("content-type") or "")


def _raise_for_status(answer: Answer, text: str) -> None:
    if answer.status != 200:
        raise failure_of_status(answer.status, answer.where, text, answer.retry_after)
