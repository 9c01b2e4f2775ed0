"""A provider of OpenAI Chat Completions that is never the bottleneck: every answer is ready bytes.

    python -m tests.benchmarks.gateway_bench.upstream      # writes its port, serves until killed

A whole answer is 600 bytes with usage. A stream is 21 events, each sent in a turn of the event loop
of its own so that a gateway has to forward them one by one; the last one before `[DONE]` has the
usage.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httptools
import uvloop

MARKER = "never-the-bottleneck"
"""What every answer says, in its first token when streamed: a client looks for it."""
EVENTS = 21
INPUT_TOKENS, OUTPUT_TOKENS = 130, 60


def _document(kind: str, **fields: Any) -> dict[str, Any]:
    shared = {"id": "chatcmpl-bench", "object": kind, "created": 1_763_000_000, "model": "bench-1"}
    return {**shared, **fields}


USAGE = {
    "prompt_tokens": INPUT_TOKENS,
    "completion_tokens": OUTPUT_TOKENS,
    "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
}


def _whole() -> bytes:
    def body(padding: str) -> bytes:
        message = {"role": "assistant", "content": f"{MARKER} {padding}", "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        document = _document("chat.completion", choices=[choice], usage=USAGE)
        return json.dumps(document).encode()

    text = body("x" * (600 - len(body(""))))
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        len(text),
        text,
    )


def _events() -> list[bytes]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _document("chat.completion.chunk", choices=[choice])

    words = [MARKER, *(f" word{n}" for n in range(EVENTS - 4))]
    documents = [
        chunk({"role": "assistant", "content": words[0]}),
        *(chunk({"content": word}) for word in words[1:]),
        chunk({}, "stop"),
        _document("chat.completion.chunk", choices=[], usage=USAGE),
    ]
    texts = [*(json.dumps(document) for document in documents), "[DONE]"]
    return [b"data: %s\n\n" % text.encode() for text in texts]


WHOLE = _whole()
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
CHUNKS = [b"%x\r\n%s\r\n" % (len(event), event) for event in _events()]
CHUNKS[-1] += b"0\r\n\r\n"
assert len(CHUNKS) == EVENTS


class Provider(asyncio.Protocol):
    """One connection: whatever is posted gets the one answer, streamed when it says so."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._body = b""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if b'"stream":true' in self._body or b'"stream": true' in self._body:
            self._transport.write(STREAM_HEAD)
            self._continue(0)
        else:
            self._transport.write(WHOLE)

    def _continue(self, event: int) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(CHUNKS[event])
        if event + 1 < EVENTS:
            self._loop.call_soon(self._continue, event + 1)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
