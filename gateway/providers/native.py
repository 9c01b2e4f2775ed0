"""Answers of a provider that speaks the client's own dialect: passed on, not translated.

What the gateway decides about is put into the request (model, output limit, parameters of the
policy), the rest are the client's bytes. Of the answer only what settles a call is read: usage, and
whether it is whole. So a parameter or a kind of content that this program has never heard of works
all the same. Tools that the *provider* would carry out are taken out of the request: they would be
a way to the outside that nobody granted.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from gateway.policy import Api
from gateway.providers.asked import OUTPUT, Asked
from gateway.providers.dialects import anthropic, fields, responses
from gateway.providers.pieces import End, Piece
from gateway.providers.reading import READERS
from gateway.providers.upstream import MAX_ANSWER, Answer
from gateway.providers.wire import overridden
from gateway.routing import Failure

MOST_EVENT = 8 * 1024 * 1024
"""Bytes of one event; more than that is no answer any more."""
UNMANAGED = {
    "responses": ("service_tier",),
    "messages": ("mcp_servers", "container", "service_tier", "speed", "inference_geo"),
    "chat": ("web_search_options", "service_tier"),
    "embeddings": (),
}
"""Fields that would use the provider's own tools or memory, or change what a token costs. The
policy's `parameters` may set them."""
CLIENT_TOOLS = {
    "chat": re.compile(r"function|custom"),
    "responses": re.compile(r"function|custom|local_shell|apply_patch"),
    "messages": re.compile(r"custom|(bash|text_editor|computer|memory)_\d+"),
}
"""Types of tools that the client carries out itself."""


class _ToolType(msgspec.Struct):
    type: str | None = None


_tools = msgspec.json.Decoder(list[msgspec.Raw] | None)
_type = msgspec.json.Decoder(_ToolType)


def outgoing(
    asked: Asked,
    *,
    model: str,
    output_tokens: int | None,
    parameters: Mapping[str, Any],
    plain_limit: bool,
) -> bytes:
    """The body for the provider. `plain_limit`: it knows `max_tokens` only, as most servers that
    are not OpenAI's."""
    out: dict[str, Any] = dict(asked.fields)
    for name in UNMANAGED[asked.api]:
        out.pop(name, None)
    if (kept := client_tools(asked)) is not None:
        out["tools"] = kept
        if not kept:
            del out["tools"]
            out.pop("tool_choice", None)
    # Reasoning of another provider, from before a fallback or a change of the model.
    if asked.api == "messages" and b"interlock:" in asked.body:
        out["messages"] = anthropic.without_foreign(asked.value("messages"))
    if asked.api == "responses" and b"encrypted_content" in asked.body:
        out["input"] = responses.without_foreign(asked.value("input"))
    out = overridden(out, parameters)
    out["model"] = model
    if output_tokens is not None and OUTPUT[asked.api]:
        each = max(1, output_tokens // asked.choices)
        names = [name for name in OUTPUT[asked.api] if name in out]
        if not names:
            names = ["max_tokens" if plain_limit and asked.api == "chat" else OUTPUT[asked.api][0]]
        for name in names:
            out[name] = each
    if asked.stream and asked.api == "chat":
        options = asked.value("stream_options")
        out["stream_options"] = {
            **(options if isinstance(options, dict) else {}),
            "include_usage": True,
        }
    return msgspec.json.encode(out)


def client_tools(asked: Asked) -> list[msgspec.Raw] | None:
    """The tools that the client carries out itself; None when it gives no tools.
    Raises Refusal (invalid_request)."""
    allowed = CLIENT_TOOLS.get(asked.api)
    if allowed is None or "tools" not in asked.fields:
        return None
    try:
        tools = _tools.decode(asked.fields["tools"])
    except msgspec.DecodeError:
        raise fields.invalid("`tools` must be a list") from None
    return [tool for tool in tools or () if _is_the_clients(tool, allowed)]


def unary(asked: Asked, body: bytes, where: str) -> End:
    """A whole answer. Raises Failure when it is not one."""
    usage = READERS[asked.api].whole(body, where)
    return End(usage=usage, stored=stored(asked.api, "body", body), body=body)


def _is_the_clients(tool: msgspec.Raw, allowed: re.Pattern[str]) -> bool:
    try:
        kind = _type.decode(tool).type
    except msgspec.DecodeError:
        raise fields.invalid("`tools` must hold objects, whose `type` is a string") from None
    return kind is None or allowed.fullmatch(kind) is not None


async def stream(asked: Asked, answer: Answer) -> AsyncIterator[Piece | End]:
    """A stream, event by event. What comes before the first token is held back with it, so that a
    stream that dies there can still be tried elsewhere. Raises Failure."""
    reader = READERS[asked.api]
    reading = reader.stream(hide_usage=asked.api == "chat" and not asked.with_usage)
    held = last = b""
    seen: list[bytes] = []
    size = 0
    begun = False
    async for blocks in _blocks(answer):
        # What came together goes on together: a write for each event would cost more than all else.
        for block in blocks:
            whole = answer.scrubbed(block)
            shown = reading.take(whole, answer.where)
            seen.append(whole)
            size += len(shown)
            if reading.ended:
                # The event that says so is given when the call is settled.
                last = shown
                break
            held += shown
        if size > MAX_ANSWER:
            raise Failure(f"{answer.where} answered more than {MAX_ANSWER} bytes", done=True)
        begun = begun or reading.begun
        if begun and held:
            yield Piece(held)
            held = b""
        if reading.ended:
            break
    usage = reading.end(answer.where)
    if held:
        yield Piece(held)
    yield End(usage=usage, stored=stored(asked.api, "events", b"".join(seen)), tail=last)


async def _blocks(answer: Answer) -> AsyncIterator[list[bytes]]:
    """Server-sent events, each with the empty line that ends it, as they come together."""
    rest = b""
    async for chunk in answer.chunks():
        data = rest + chunk if rest else chunk
        if b"\r" in data:
            # A lone \r at the end may be the first half of a \r\n.
            keep = data.endswith(b"\r")
            data = (
                data[:-1].replace(b"\r\n", b"\n") + b"\r" if keep else data.replace(b"\r\n", b"\n")
            )
        cut = data.rfind(b"\n\n")
        if cut < 0:
            rest = data
            if len(rest) > MOST_EVENT:
                raise Failure(f"{answer.where} sent an event without an end", done=True)
            continue
        rest = data[cut + 2 :]
        yield [block + b"\n\n" for block in data[: cut + 2].split(b"\n\n") if block]
    if rest.strip():
        yield [rest.rstrip(b"\r\n") + b"\n\n"]


def stored(api: Api, kind: str, data: bytes) -> str:
    """A native answer as the ledger keeps it: `{"api", "body"}`, or `{"api", "events"}` with the
    text of the stream."""
    text = data.decode(errors="replace")
    value = text if kind == "body" else json.dumps(text, ensure_ascii=False)
    return f'{{"api": "{api}", "{kind}": {value}}}'
