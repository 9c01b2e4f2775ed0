"""One call to one target: natively where it speaks the client's dialect, translated elsewhere."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gateway.policy import Api, Provider
from gateway.providers import native, stored, translated, wire
from gateway.providers.asked import DIALECTS, Asked
from gateway.providers.conversation import (
    Done,
    Event,
    ModelRequest,
    TextDelta,
    ThinkingDelta,
    ToolDelta,
    ToolStart,
    assemble,
)
from gateway.providers.dialects import embeddings as embeddings_dialect
from gateway.providers.dialects import fields
from gateway.providers.embeddings import embed
from gateway.providers.pieces import End, Piece
from gateway.providers.stored import Frame
from gateway.providers.upstream import Answer, Upstream
from gateway.routing import Failure, Target


class TextFilter(Protocol):
    """Looks at a text while it comes (`guardrails.Window`)."""

    def feed(self, text: str) -> str:
        """What may be released now. Raises Refusal."""
        ...

    def arguments(self, text: str) -> str:
        """The JSON text of a tool call's arguments. Raises Refusal."""
        ...

    def end(self) -> str:
        """The rest of the text before a tool call, or of all of it. Raises Refusal."""
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
        return forwards(self.target.provider, self.asked.api)

    @property
    def headers(self) -> dict[str, str]:
        """What of the request's head is sent with it."""
        betas = self.asked.betas if self.asked.api == "messages" else ""
        return {"anthropic-beta": betas} if betas else {}


def forwards(provider: Provider, api: Api) -> bool:
    """Does the provider speak this API, so that calls are passed on as they are?"""
    return provider.kind != "scripted" and api in wire.apis_of(provider)


def check(provider: Provider, asked: Asked) -> None:
    """Read now what the call will need of the request: what is wrong with it is the client's
    fault, not the provider's. Raises Refusal (invalid_request)."""
    if forwards(provider, asked.api):
        native.client_tools(asked)
    elif asked.api != "embeddings":
        asked.conversation  # noqa: B018


async def whole(call: Serving) -> End:
    """The whole answer, for a client that does not stream. Raises Failure, Refusal (no key)."""
    if not call.native:
        if call.asked.api == "embeddings":
            return await _embedded(call)
        return _written(call, [event async for event in _events(call)])
    answer = await wire.whole(
        call.upstream, call.target, call.asked.api, _body(call), headers=call.headers
    )
    if not _streams(answer):
        return native.unary(call.asked, await answer.raw(), answer.where)
    # Asked for a whole, and it streams all the same: some servers know nothing else.
    if call.asked.api == "embeddings":
        raise Failure(f"{call.where} streams what was asked for as a whole", done=True)
    return _written(call, [event async for event in translated.READ[call.asked.api](answer)])


async def stream(
    call: Serving, windows: tuple[TextFilter, TextFilter] | None = None
) -> AsyncIterator[Piece | End]:
    """The answer as it comes, ended by `End`. Raises Failure, Refusal (no key, or a window's).
    `windows` are for what it says and for its reasoning.

    What goes through a window has to be read, so it is translated even where it need not be.
    """
    if windows is not None or not call.native:
        events = _events(call) if windows is None else _filtered(_events(call), *windows)
        async for piece in _translated(call, events):
            yield piece
        return
    end: End | None = None
    async with wire.ask(
        call.upstream, call.target, call.asked.api, _body(call), headers=call.headers
    ) as answer:
        if _streams(answer):
            async for piece in native.stream(call.asked, answer):
                if isinstance(piece, End):
                    end = piece
                else:
                    yield piece
        else:
            found = native.unary(call.asked, await answer.raw(), answer.where)
            pieces, last = stored.again(call.asked, found.stored, call.frame)
            for piece in pieces:
                yield piece
            end = End(found.usage, found.stored, tail=last.tail)
    if end is not None:
        yield end


async def _filtered(
    source: AsyncIterator[Event], window: TextFilter, reasoning: TextFilter
) -> AsyncIterator[Event]:
    """What the windows have released. The arguments of a tool call are looked at when they are
    whole, and a tool call never overtakes the text before it. Signed reasoning passes as it is: a
    provider refuses it with a character changed."""
    calling: int | None = None
    parts: list[str] = []
    thinking = False
    async for event in source:
        if isinstance(event, ToolDelta):
            calling = event.index
            parts.append(event.fragment)
            continue
        if calling is not None:
            yield ToolDelta(calling, window.arguments("".join(parts)))
            calling, parts = None, []
        if isinstance(event, ThinkingDelta) and event.text and not event.redacted:
            thinking = True
            if released := reasoning.feed(event.text):
                yield replace(event, text=released)
            continue
        if thinking:
            thinking = False
            if rest := reasoning.end():
                yield ThinkingDelta(rest)
        if isinstance(event, TextDelta):
            if released := window.feed(event.text):
                yield TextDelta(released)
            continue
        if isinstance(event, ToolStart | Done) and (rest := window.end()):
            yield TextDelta(rest)
        yield event


async def _translated(call: Serving, source: AsyncIterator[Event]) -> AsyncIterator[Piece | End]:
    frame = call.frame
    writer = DIALECTS[call.asked.api].Writer(
        model=frame.model,
        identity=frame.identity,
        seconds=frame.seconds,
        with_usage=call.asked.with_usage,
        request=call.asked.conversation,
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
    return translated.events(call.upstream, _told(call), request)


def _told(call: Serving) -> Target:
    """The target, with this call's parameters."""
    model = call.target.model.model_copy(update={"parameters": call.parameters})
    return replace(call.target, model=model)


async def _embedded(call: Serving) -> End:
    request = embeddings_dialect.read(fields.document(call.asked.body))
    reply = await embed(call.upstream, _told(call), request)
    body = embeddings_dialect.answer(reply, model=call.frame.model, request=request)
    return End(reply.usage, _stored(reply.to_json()), _stored(body).encode())


def _written(call: Serving, events: list[Event]) -> End:
    reply = assemble(events)
    return stored.written(call.asked, reply, _stored(reply.to_json()), call.frame)[1]


def _stored(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False)


def _body(call: Serving) -> bytes:
    """The native request."""
    return native.outgoing(
        call.asked,
        model=call.target.model.id,
        output_tokens=call.output_tokens,
        parameters=call.parameters,
        plain_limit=not wire.official(call.target.provider),
    )


def _streams(answer: Answer) -> bool:
    return "text/event-stream" in (answer.header("content-type") or "")
