"""Answers as the ledger keeps them, given again: as a whole or as a stream, whichever is asked for.

Four forms (docs/formats/calls.md): a native answer is `{"api", "body"}` or, streamed,
`{"api", "events"}`; a translated one is `{"text", "tools", "stop", "usage"}` in no dialect, and
embeddings are `{"vectors", "usage"}`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.policy import Api
from gateway.providers.asked import DIALECTS, Asked
from gateway.providers.conversation import Event, Reply, Stop, ToolUse, assemble
from gateway.providers.dialects import embeddings, fields, openai
from gateway.providers.embeddings import EmbeddingReply
from gateway.providers.pieces import End, Piece
from gateway.refusals import Refusal
from gateway.values import CallKey, Millis

_USAGE_ONLY = re.compile(r'^data:[^\n]*"choices"\s*:\s*\[\s*\][^\n]*\n\r?\n', re.MULTILINE)
"""The last chunk of a Chat Completions stream, for clients that asked for the usage."""
_NOT_FINAL = (
    '"length"', '"tool_calls"', '"content_filter"', '"max_tokens"', '"tool_use"', '"refusal"',
    "response.incomplete", '"function_call"',
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Frame:
    """What an answer is dressed in: the name the client asked for, an identity, the second."""

    key: CallKey
    model: str
    seconds: int

    @classmethod
    def of(cls, key: CallKey, model: str, now: Millis) -> Frame:
        """Of one call."""
        return cls(key, model, now // 1000)

    @property
    def identity(self) -> str:
        """24 hex digits: the same key gives the same."""
        return hashlib.sha256(str(self.key).encode()).hexdigest()[:24]


def again(asked: Asked, document: str, frame: Frame) -> tuple[list[Piece], End]:
    """A stored answer as pieces (when the client streams) and an end."""
    found = json.loads(document)
    if "events" in found:
        text = found["events"]
        if asked.stream:
            if asked.api == "chat" and not asked.with_usage:
                text = _USAGE_ONLY.sub("", text)
            return [Piece(text.encode())], End(None, document)
        return [], _whole_of_events(asked.api, text, document, frame)
    if "body" in found:
        body = json.dumps(found["body"], ensure_ascii=False).encode()
        if not asked.stream:
            return [], End(None, document, body)
        return _stream_of_body(asked, found["body"], document, frame)
    if "vectors" in found:
        embedded = EmbeddingReply.from_json(found)
        request = embeddings.read(fields.document(asked.body))
        answer = embeddings.answer(embedded, model=frame.model, request=request)
        return [], End(embedded.usage, document, json.dumps(answer).encode())
    return written(asked, Reply.from_json(found), document, frame)


def written(asked: Asked, reply: Reply, document: str, frame: Frame) -> tuple[list[Piece], End]:
    """A whole answer in the client's dialect."""
    dialect = DIALECTS[asked.api]
    dressed = {
        "model": frame.model,
        "identity": frame.identity,
        "seconds": frame.seconds,
        "request": asked.conversation,
    }
    if not asked.stream:
        body = json.dumps(dialect.answer(reply, **dressed), ensure_ascii=False).encode()
        return [], End(reply.usage, document, body)
    writer = dialect.Writer(**dressed, with_usage=asked.with_usage)
    *events, last = reply.events()
    pieces = [Piece(writer.write(event)) for event in events]
    return pieces, End(reply.usage, document, tail=writer.write(last) + writer.end())


def final(document: str) -> bool:
    """Did this answer end by itself, with nothing but what it says? Only then may an equal request
    be answered with it."""
    found = json.loads(document)
    if "events" in found:
        # An end that somebody else set is named in the last events of every dialect.
        tail = found["events"][-4000:]
        return not any(mark in tail for mark in _NOT_FINAL)
    body = found.get("body")
    if body is None:
        return found.get("stop") == Stop.END and not found.get("tools")
    if "choices" in body:
        return all(c.get("finish_reason") == "stop" for c in body["choices"])
    if "content" in body:
        return body.get("stop_reason") in ("end_turn", "stop_sequence")
    if "output" in body:
        kinds = {item.get("type") for item in body["output"]}
        return body.get("status") == "completed" and kinds <= {"message", "reasoning"}
    return "data" in body


def broken(asked: Asked, refusal: Refusal, frame: Frame) -> bytes:
    """The end of a stream that has begun and cannot be ended well, in the client's dialect."""
    dialect = DIALECTS.get(asked.api)
    if dialect is None:
        return fields.sse({"type": "error", **openai.error(refusal)["error"]}, "error")
    writer = dialect.Writer(
        model=frame.model, identity=frame.identity, seconds=frame.seconds, with_usage=False
    )
    said: bytes = writer.fail(refusal)
    return said


def _whole_of_events(api: Api, text: str, document: str, frame: Frame) -> End:
    if api == "responses":
        for data in _data(text):
            if data.get("type") in ("response.completed", "response.incomplete"):
                return End(None, document, json.dumps(data["response"]).encode())
        raise ValueError("a stored stream has no end")
    reply = assemble(_events(api, text))
    dialect = DIALECTS[api]
    body = dialect.answer(reply, model=frame.model, identity=frame.identity, seconds=frame.seconds)
    return End(reply.usage, document, json.dumps(body, ensure_ascii=False).encode())


def _stream_of_body(
    asked: Asked, body: Mapping[str, Any], document: str, frame: Frame
) -> tuple[list[Piece], End]:
    if asked.api == "responses":
        events = [
            {"type": "response.created", "response": {**body, "status": "in_progress"}},
            {"type": "response.completed", "response": body},
        ]
        pieces = [
            Piece(
                f"event: {e['type']}\ndata: {json.dumps({**e, 'sequence_number': n})}\n\n".encode()
            )
            for n, e in enumerate(events)
        ]
        return pieces, End(None, document)
    return written(asked, reply_of(asked.api, body), document, frame)


def reply_of(api: Api, body: Mapping[str, Any]) -> Reply:
    """A native body (Chat Completions or Messages) in no dialect: its first answer's text and
    tools."""
    if api == "messages":
        blocks = body.get("content") or []
        text = "".join(b.get("text") or "" for b in blocks if b.get("type") == "text")
        tools = tuple(
            ToolUse(b["id"], b["name"], json.dumps(b.get("input") or {}, ensure_ascii=False))
            for b in blocks
            if b.get("type") == "tool_use"
        )
        stops = {"tool_use": Stop.TOOL, "max_tokens": Stop.LENGTH, "refusal": Stop.REFUSAL}
        return Reply(text, tools, stops.get(body.get("stop_reason") or "", Stop.END), None)
    choice = (body.get("choices") or [{}])[0]
    message = choice.get("message") or {}
    tools = tuple(
        ToolUse(c.get("id") or "", c["function"]["name"], c["function"].get("arguments") or "{}")
        for c in message.get("tool_calls") or ()
        if c.get("function")
    )
    stops = {"tool_calls": Stop.TOOL, "length": Stop.LENGTH, "content_filter": Stop.REFUSAL}
    stop = stops.get(choice.get("finish_reason") or "", Stop.END)
    return Reply(message.get("content") or "", tools, stop, None)


def _events(api: Api, text: str) -> Iterable[Event]:
    from gateway.providers import anthropic, openai  # here: they import the upstream client

    if api == "messages":
        reading = anthropic.Reading()
        for data in _data(text):
            yield from reading.take(data, "the ledger")
        yield reading.done("the ledger")
        return
    chat = openai.Reading(turn=0)
    for data in _data(text):
        yield from chat.take(data, "the ledger")
    yield from chat.done("the ledger")


def _data(text: str) -> Iterable[dict[str, Any]]:
    for line in text.splitlines():
        if line.startswith("data:") and (data := line[5:].strip()) != "[DONE]":
            yield json.loads(data)
