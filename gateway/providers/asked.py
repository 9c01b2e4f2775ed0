"""A client's request as it came: a JSON object whose values nobody has looked into yet.

Most calls go to a provider that speaks the client's own dialect. They are not read, only handled:
the few fields that the gateway decides about are taken out and put back, everything else stays the
bytes that it was. What costs to find out (the conversation, an estimate of images) is found out
when it is asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import msgspec

from gateway.policy import Api
from gateway.providers.conversation import ModelRequest, estimate_input
from gateway.providers.dialects import anthropic, embeddings, fields, openai, responses
from gateway.providers.embeddings import estimate_embedding
from gateway.refusals import Code, Refusal

DIALECTS: Mapping[Api, ModuleType] = {
    "chat": openai,
    "responses": responses,
    "messages": anthropic,
}
"""How each API is read and written."""
OUTPUT = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
    "messages": ("max_tokens",),
    "embeddings": (),
}
"""The fields that limit the output; the first one is written when the client gave none."""
STREAM_FIELDS = frozenset({"stream", "stream_options"})
"""Left out of the request's hash: streaming or not, it is the same request."""
KEPT: Mapping[Api, tuple[str, ...]] = {
    "responses": ("previous_response_id", "conversation", "background", "prompt")
}
MESSAGES: Mapping[Api, str] = {"chat": "messages", "messages": "messages"}
REFERENCES = (b"item_reference", b"file_id", b"\\u00")
"""Where one of these stands, something that a provider keeps may be named (or be spelled so that
it does not show)."""
HEAVY = (b"base64", b"image", b"input_audio", b"input_file", b'"file"', b"document")
"""Where one of these stands, the length of the body says little about its tokens."""
_KNOWN = ("digest", "input_tokens", "output_tokens", "conversation")
_BETAS = re.compile(r"[A-Za-z0-9_.\- ,]{1,2000}")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any = msgspec.json.Decoder()


@dataclass(eq=False)
class Asked:
    """One model request. `fields` are the raw values of its JSON object."""

    api: Api
    fields: dict[str, msgspec.Raw]
    body: bytes
    model: str
    stream: bool
    betas: str = ""
    """The client's `anthropic-beta` header: names of features that fields of its request need."""

    @classmethod
    def read(cls, api: Api, body: bytes, betas: str | None = None) -> Asked:
        """From a request's body and `anthropic-beta` header. Raises Refusal (invalid_request)
        that names the field."""
        if betas is not None and not _BETAS.fullmatch(betas):
            raise fields.invalid("`anthropic-beta` must be names separated by commas")
        try:
            if not body.isascii():
                body.decode()  # what is not looked into is not checked by the decoder either
            found = _fields.decode(body)
        except RecursionError:
            raise fields.invalid("the body is nested too deeply") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise fields.invalid(f"the body is not a JSON object: {error}") from None
        asked = cls(api, found, body, "", False, betas or "")
        model, stream = asked.value("model"), asked.value("stream")
        if not isinstance(model, str) or not model:
            raise fields.invalid("`model` must be a string")
        if stream is not None and not isinstance(stream, bool):
            raise fields.invalid("`stream` must be true or false")
        asked.model, asked.stream = model, bool(stream)
        asked._refuse_kept_state()
        return asked

    def _refuse_kept_state(self) -> None:
        """What a provider keeps is kept for whoever has its key, and that is everybody here."""
        names = KEPT.get(self.api, ())
        kept = [name for name in names if name in self.fields and self.value(name)]
        if not kept and any(mark in self.body for mark in REFERENCES):
            kept = list(_references(self.value(MESSAGES.get(self.api, "input"))))
        if kept:
            raise fields.invalid(
                f"`{kept[0]}` is not supported: it uses what the provider keeps for everybody "
                "behind this gateway. Send the whole conversation, and files as data"
            )

    def value(self, name: str) -> Any:
        """One field, read; None when it is not there. Raises Refusal (invalid_request)."""
        raw = self.fields.get(name)
        if raw is None:
            return None
        try:
            return _any.decode(raw)
        except RecursionError:
            raise fields.invalid(f"`{name}` is nested too deeply") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise fields.invalid(f"`{name}` is not JSON: {error}") from None

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        count = self.value("n") if "n" in self.fields else None
        if count is None:
            return 1
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 128:
            raise fields.invalid("`n` must be a number from 1 to 128")
        return count

    @cached_property
    def output_tokens(self) -> int | None:
        """The most output the client wants, of all answers together; None: it did not say."""
        given = [self._count(name) for name in OUTPUT[self.api] if name in self.fields]
        wanted = [value for value in given if value is not None]
        return min(wanted) * self.choices if wanted else None

    def _count(self, name: str) -> int | None:
        value = self.value(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise fields.invalid(f"`{name}` must be a positive integer")
        return value

    @property
    def uses_tools(self) -> bool:
        """Does the request offer tools, so that its answer may be the start of something?"""
        return "tools" in self.fields or "functions" in self.fields

    @property
    def with_usage(self) -> bool:
        """Does a Chat Completions client want the usage in its stream?"""
        if "stream_options" not in self.fields:
            return False
        options = self.value("stream_options")
        return isinstance(options, dict) and bool(options.get("include_usage"))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the API and the fields as they were sent, in the order of their names."""
        found = hashlib.sha256(self.api.encode())
        for name in sorted(self.fields):
            if name not in STREAM_FIELDS:
                found.update(b"\0" + name.encode() + b"\0")
                found.update(self.fields[name])
        return found.hexdigest()

    @cached_property
    def input_tokens(self) -> int:
        """Upper estimate of the input: one token per two bytes of the whole body. Where it holds
        pictures or files, they are counted by themselves (`conversation.estimate_input`)."""
        if self.api == "embeddings":
            return estimate_embedding(embeddings.read(fields.document(self.body)))
        if b"\\u00" in self.body or any(mark in self.body for mark in HEAVY):
            return estimate_input(self.conversation)
        return -(-len(self.body) // 2) + 64

    @cached_property
    def conversation(self) -> ModelRequest:
        """The request in no dialect. Raises Refusal (invalid_request) naming the field."""
        dialect = DIALECTS.get(self.api)
        if dialect is None:
            raise Refusal(Code.INVALID_REQUEST, f"the {self.api} API cannot be translated")
        found: ModelRequest = dialect.read(fields.document(self.body))
        return found

    def as_whole(self) -> Asked:
        """The same request of a client that does not stream."""
        rest = {name: raw for name, raw in self.fields.items() if name not in STREAM_FIELDS}
        whole = Asked(self.api, rest, self.body, self.model, False, self.betas)
        whole.__dict__.update({k: v for k, v in self.__dict__.items() if k in _KNOWN})
        return whole

    def texts(self, document: Any) -> Asked:
        """The same request with another document: a guardrail has changed its texts."""
        body = json.dumps(document, ensure_ascii=False).encode()
        return Asked.read(self.api, body, self.betas or None)


def _references(value: Any) -> Iterator[str]:
    """What names something that a provider keeps. A tool's arguments are its own affair."""
    if isinstance(value, list):
        for item in value:
            yield from _references(item)
    elif isinstance(value, dict):
        if value.get("type") == "item_reference":
            yield "item_reference"
        if "file_id" in value:
            yield "file_id"
        for name, item in value.items():
            if not (name == "input" and value.get("type") == "tool_use"):
                yield from _references(item)
