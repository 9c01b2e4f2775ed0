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
from typing import Any, Protocol

import msgspec

from gateway.policy import Api
from gateway.pricing import Usage
from gateway.providers.asked import OUTPUT, Asked
from gateway.providers.dialects import anthropic, responses
from gateway.providers.pieces import End, Piece
from gateway.providers.upstream import MAX_ANSWER, Answer
from gateway.providers.usage import whole
from gateway.providers.wire import overridden
from gateway.routing import Failure

MOST_EVENT = 8 * 1024 * 1024
"""Bytes of one event; more than that is no answer any more."""
UNMANAGED = {
    "responses": (),
    "messages": ("mcp_servers", "container"),
    "chat": ("web_search_options",),
    "embeddings": (),
}
"""Fields that would use what the provider keeps for whoever has the key, which is everybody."""
CLIENT_TOOLS = {
    "chat": re.compile(r"function|custom"),
    "responses": re.compile(r"function|custom|local_shell|apply_patch"),
    "messages": re.compile(r"custom|(bash|text_editor|computer|memory)_\d+"),
}
"""Types of tools that the client carries out itself."""


class _ToolType(msgspec.Struct):
    type: str | None = None


_tools = msgspec.json.Decoder(list[msgspec.Raw])
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
    if "tools" in out:
        _keep_client_tools(asked.api, out)
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


def _keep_client_tools(api: Api, out: dict[str, Any]) -> None:
    allowed = CLIENT_TOOLS.get(api)
    try:
        tools = _tools.decode(out["tools"])
        kept = [
            tool
            for tool in tools
            if allowed is None
            or (kind := _type.decode(tool).type) is None
            or allowed.fullmatch(kind)
        ]
    except msgspec.DecodeError:
        return  # the provider will say what is wrong with it
    if len(kept) == len(tools):
        return
    if kept:
        out["tools"] = kept
    else:
        del out["tools"]
        out.pop("tool_choice", None)


def unary(asked: Asked, body: bytes, where: str) -> End:
    """A whole answer. Raises Failure when it is not one."""
    usage = READERS[asked.api].whole(body, where)
    return End(usage=usage, stored=stored(asked.api, "body", body), body=body)


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
            shown = reading.take(answer.scrubbed(block), answer.where)
            seen.append(shown)
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


# --- what is read of each dialect


class _Stream(Protocol):
    begun: bool
    ended: bool

    def take(self, block: bytes, where: str) -> bytes: ...

    def end(self, where: str) -> Usage | None: ...


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None
    reasoning_tokens: int | None = None


class _OpenAIUsage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None

    def usage(self) -> Usage | None:
        """Chat Completions and Responses have two sets of names for the same; embeddings have no
        output. None without sound totals: the call is then charged as reserved."""
        read = self.prompt_tokens_details or self.input_tokens_details or _Details()
        wrote = self.completion_tokens_details or self.output_tokens_details or _Details()
        inputs = self.input_tokens if self.prompt_tokens is None else self.prompt_tokens
        outputs = self.output_tokens if self.completion_tokens is None else self.completion_tokens
        if inputs is None or (outputs is None and self.total_tokens != inputs):
            return None
        return whole(
            input_tokens=inputs,
            output_tokens=outputs or 0,
            cached=read.cached_tokens or 0,
            written=read.cache_write_tokens or 0,
            reasoning=wrote.reasoning_tokens or 0,
            heard=read.audio_tokens or 0,
            spoken=wrote.audio_tokens or 0,
        )


class _OpenAIBody(msgspec.Struct):
    usage: _OpenAIUsage | None = None
    choices: list[msgspec.Raw] | None = None
    output: list[msgspec.Raw] | None = None
    data: list[msgspec.Raw] | None = None
    error: msgspec.Raw | None = None


class _CacheCreation(msgspec.Struct):
    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class _AnthropicUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens_details: _OutputDetails | None = None

    def over(self, earlier: _AnthropicUsage) -> _AnthropicUsage:
        """A later event of a stream says only what has changed."""
        return _AnthropicUsage(
            *(
                new if (new := getattr(self, name)) is not None else getattr(earlier, name)
                for name in self.__struct_fields__
            )
        )

    def usage(self) -> Usage | None:
        """Anthropic counts what it read from and wrote to its cache beside `input_tokens`; the
        ledger counts it within. None without sound totals."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        cached = max(0, self.cache_read_input_tokens or 0)
        kinds = self.cache_creation or _CacheCreation()
        hour = max(0, kinds.ephemeral_1h_input_tokens or 0)
        five = max(0, kinds.ephemeral_5m_input_tokens or 0)
        written = max(0, self.cache_creation_input_tokens or 0, hour + five)
        said = self.output_tokens_details or _OutputDetails()
        return whole(
            input_tokens=self.input_tokens + cached + written,
            output_tokens=self.output_tokens,
            cached=cached,
            written=written,
            hour=hour,
            reasoning=said.thinking_tokens or 0,
        )


class _AnthropicBody(msgspec.Struct):
    type: str | None = None
    usage: _AnthropicUsage | None = None
    content: list[msgspec.Raw] | None = None


class _AnthropicEvent(msgspec.Struct):
    type: str | None = None
    message: _AnthropicBody | None = None
    usage: _AnthropicUsage | None = None


class _ResponsesEvent(msgspec.Struct):
    type: str | None = None
    response: _OpenAIBody | None = None


_openai = msgspec.json.Decoder(_OpenAIBody)
_anthropic = msgspec.json.Decoder(_AnthropicBody)
_anthropic_event = msgspec.json.Decoder(_AnthropicEvent)
_responses_event = msgspec.json.Decoder(_ResponsesEvent)
_DATA = re.compile(rb"^data:\s?(.*)$", re.MULTILINE)
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"')
_TOKEN = re.compile(
    rb'"(?:content|reasoning_content|reasoning|refusal|text)"\s*:\s*"[^"]|"tool_calls"\s*:\s*\['
)
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_NO_CHOICE = re.compile(rb'"choices"\s*:\s*\[\s*\]')


def _data(block: bytes) -> bytes:
    found = _DATA.findall(block)
    return found[0] if len(found) == 1 else b"\n".join(found)


def _decoded(decoder: msgspec.json.Decoder[Any], data: bytes, where: str) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failure(
            f"{where} answered something that is not its dialect ({error})", done=True
        ) from None


class _ChatStream:
    def __init__(self, *, hide_usage: bool) -> None:
        self.begun = False
        self.ended = False
        self._hide = hide_usage
        self._finished = False
        self._usage: Usage | None = None

    def take(self, block: bytes, where: str) -> bytes:
        data = _data(block)
        if not data:
            return block
        if data.strip() == b"[DONE]":
            self.ended = True
            return block
        if not data.startswith(b"{") or b'"error"' in data:
            found = _decoded(_openai, data, where)
            if found.error is not None and found.error != b"null":
                raise Failure(f"{where} failed while answering", done=True)
        if _FINISH.search(data):
            self._finished = self.begun = True
        elif not self.begun and _TOKEN.search(data):
            self.begun = True
        if _USAGE.search(data):
            usage = _decoded(_openai, data, where).usage
            if usage is not None:
                self._usage = usage.usage()
            if self._hide and _NO_CHOICE.search(data):
                return b""
        return block

    def end(self, where: str) -> Usage | None:
        if not self._finished:
            raise Failure(f"{where} broke off in the middle of its answer", done=True)
        return self._usage


class _MessagesStream:
    def __init__(self, *, hide_usage: bool) -> None:
        self.begun = False
        self.ended = False
        self._usage: _AnthropicUsage | None = None

    def take(self, block: bytes, where: str) -> bytes:
        data = _data(block)
        if not data:
            return block
        if b'"content_block_delta"' in data:
            self.begun = True
            return block
        event = _decoded(_anthropic_event, data, where)
        if event.type == "error":
            raise Failure(f"{where} failed while answering", done=True)
        usage = event.message.usage if event.message is not None else event.usage
        if usage is not None:
            self._usage = usage if self._usage is None else usage.over(self._usage)
        if event.type == "message_delta":
            self.begun = True
        if event.type == "message_stop":
            self.ended = self.begun = True
        return block

    def end(self, where: str) -> Usage | None:
        if not self.ended:
            raise Failure(f"{where} broke off in the middle of its answer", done=True)
        return None if self._usage is None else self._usage.usage()


class _ResponsesStream:
    def __init__(self, *, hide_usage: bool) -> None:
        self.begun = False
        self.ended = False
        self._usage: Usage | None = None

    def take(self, block: bytes, where: str) -> bytes:
        data = _data(block)
        if not data or data.strip() == b"[DONE]":
            return block
        if b'.delta"' in data[:120]:
            self.begun = True
            return block
        event = _decoded(_responses_event, data, where)
        if event.type in ("error", "response.failed"):
            raise Failure(f"{where} failed while answering", done=True)
        if event.type in ("response.completed", "response.incomplete"):
            self.ended = self.begun = True
            if event.response is not None and event.response.usage is not None:
                self._usage = event.response.usage.usage()
        return block

    def end(self, where: str) -> Usage | None:
        if not self.ended:
            raise Failure(f"{where} broke off in the middle of its answer", done=True)
        return self._usage


class _Reader:
    def __init__(self, part: str, stream: type[Any]) -> None:
        self._part = part
        self.stream = stream

    def whole(self, body: bytes, where: str) -> Usage | None:
        """Usage of an answer. Raises Failure when it does not hold what it must."""
        found = _decoded(_openai, body, where)
        if getattr(found, self._part) is None:
            raise Failure(f"{where} answered something that is not its dialect", done=True)
        return found.usage.usage() if found.usage is not None else None


class _AnthropicReader(_Reader):
    def whole(self, body: bytes, where: str) -> Usage | None:
        found = _decoded(_anthropic, body, where)
        if found.content is None:
            raise Failure(f"{where} answered something that is not its dialect", done=True)
        return None if found.usage is None else found.usage.usage()


READERS: Mapping[Api, _Reader] = {
    "chat": _Reader("choices", _ChatStream),
    "responses": _Reader("output", _ResponsesStream),
    "embeddings": _Reader("data", _ChatStream),
    "messages": _AnthropicReader("content", _MessagesStream),
}
