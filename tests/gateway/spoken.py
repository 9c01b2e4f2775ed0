"""Requests, targets and provider answers for tests of dialects and translation, without a
process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from gateway.policy import Model, Provider
from gateway.providers.conversation import Event
from gateway.providers.upstream import Answer
from gateway.routing import Target


def target(provider: Provider, **model: Any) -> Target:
    """A target of this provider; `model` are fields of the policy's model."""
    return Target("m", Model(provider="p", id="model-x", **model), "p", provider)


OPENAI = target(Provider(kind="openai"))
LOCAL = target(Provider(kind="openai", base_url="http://127.0.0.1:8080/v1"))
CLAUDE = target(Provider(kind="anthropic"))
ELSEWHERE = target(Provider(kind="anthropic", base_url="http://127.0.0.1:8080"))


class Head:
    """A response that has been received: its body in the pieces it came in."""

    def __init__(self, *pieces: bytes, status: int = 200, kind: str = "text/event-stream") -> None:
        self.status = status
        self.body_reader = self
        self._pieces = list(pieces)
        self._kind = kind

    def get_header(self, name: str) -> str | None:
        return self._kind if name == "content-type" else None

    async def read_chunk(self) -> bytes | None:
        return self._pieces.pop(0) if self._pieces else None


def answer(*pieces: bytes, **head: Any) -> Answer:
    """An answer whose body is this."""
    return Answer(Head(*pieces, **head), "provider p", 5, None)


def chunks(*documents: Any, done: bool = True) -> bytes:
    """A stream of OpenAI's."""
    lines = [f"data: {json.dumps(document)}\n\n" for document in documents]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """One chunk of a chat."""
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def all_of(source: Any) -> list[Event]:
    """Everything an asynchronous iterator gives."""

    async def read() -> list[Event]:
        return [event async for event in source]

    return asyncio.run(read())


def data_of(stream: bytes) -> list[dict[str, Any]]:
    """The JSON of a stream's events, `[DONE]` left out."""
    found: Iterable[str] = (
        line[6:] for line in stream.decode().splitlines() if line.startswith("data: ")
    )
    return [json.loads(line) for line in found if line != "[DONE]"]
