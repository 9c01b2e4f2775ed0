"""What is read of an answer that is passed on: its usage, and whether it is whole.

A reader for each dialect, for whole bodies and, event by event, for streams. Nothing else is looked
at, so that nothing else can break a call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from gateway.policy import Api
from gateway.pricing import Usage
from gateway.providers.usage import whole
from gateway.routing import Failure


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
