"""Recorded calls: a provider that plays them (kind `cassette`), and what records them.

A tape entry is found by the digest of what was asked, in the provider's own dialect. What differs
between two runs of the same test is left out of the digest (`VOLATILE`): whether the answer is
streamed, the clamped output limit, who asks. A replay comes at once and in the recorded pieces.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.keys import scrub
from gateway.policy import Api, Provider, TapeEntry
from gateway.providers.upstream import Head, Recorder
from gateway.refusals import Code
from gateway.routing import Failure

VOLATILE = frozenset(
    {
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "user",
        "metadata",
        "safety_identifier",
        "prompt_cache_key",
        "store",
    }
)


def digest(api: Api, body: Mapping[str, Any]) -> str:
    """SHA-256 (64 hex digits) of `[api, body]` as JSON without what is volatile: keys sorted, no
    white space. Not canonical_json: a client's request may hold floats."""
    kept = {name: value for name, value in body.items() if name not in VOLATILE}
    text = json.dumps([api, kept], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def play(provider: Provider, wanted: str, *, where: str) -> Head:
    """The recorded answer to the request of this digest. Raises Failure (invalid_request, nothing
    was done) when there is none."""
    for entry in provider.tape:
        if entry.request == wanted:
            return _Played(entry)
    raise Failure(
        f"{where} has no recording of this request ({wanted[:12]}; it holds "
        f"{len(provider.tape)}): record it again with `--record`",
        done=False,
        code=Code.INVALID_REQUEST,
        fallback=False,
    )


class _Played:
    """A response off the tape."""

    def __init__(self, entry: TapeEntry) -> None:
        self.status = entry.status
        self.body_reader = self
        self._kind = "application/json" if entry.events is None else "text/event-stream"
        if entry.events is None:
            self._chunks = [json.dumps(entry.response, ensure_ascii=False).encode()]
        else:
            self._chunks = [_event(data) for data in entry.events]
        self._chunks.reverse()

    def get_header(self, name: str) -> str | None:
        """Only the kind of its body is kept."""
        return self._kind if name == "content-type" else None

    async def read_chunk(self) -> bytes | None:
        """An event, or the whole JSON."""
        return self._chunks.pop() if self._chunks else None


def _event(data: str) -> bytes:
    # Anthropic and Responses name each event as its data does; Chat Completions has no names.
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    name = found.get("type") if isinstance(found, dict) else None
    head = f"event: {name}\n" if isinstance(name, str) else ""
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    return f"{head}{lines}\n".encode()


class Recordings:
    """Recordings as JSON lines, `<provider>.jsonl` in one directory: each a `TapeEntry`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def record(self, provider: str, entry: TapeEntry) -> None:
        """Append one line; the directory is made when the first one comes."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / f"{provider}.jsonl").open("a", encoding="utf-8") as file:
            file.write(entry.model_dump_json(exclude_none=True) + "\n")


class Tee:
    """A response that keeps what is read of it. `finish` hands on what was read to its end; an
    answer that broke off is no recording."""

    def __init__(self, response: Head, recorder: Recorder, provider: str, request: str) -> None:
        self.status = response.status
        self.body_reader = self
        self._response = response
        self._recorder = recorder
        self._provider = provider
        self._request = request
        self._parts: list[bytes] = []
        self._whole = False

    def get_header(self, name: str) -> str | None:
        """The response's own."""
        return self._response.get_header(name)

    async def read_chunk(self) -> Any:
        """The response's own, kept."""
        chunk = await self._response.body_reader.read_chunk()
        if chunk is None:
            self._whole = True
        else:
            self._parts.append(bytes(chunk))
        return chunk

    def finish(self, secret: str | None) -> None:
        """Record it, without the secret."""
        text = scrub(b"".join(self._parts).decode(errors="replace"), secret)
        entry = entry_of(self._request, self, text, whole=self._whole)
        if entry is not None:
            self._recorder.record(self._provider, entry)


def entry_of(request: str, response: Head, text: str, *, whole: bool) -> TapeEntry | None:
    """A call as it is kept; None when the answer is not whole, or not JSON. `text` is its body,
    free of secrets."""
    if "text/event-stream" in (response.get_header("content-type") or ""):
        events = _data_of(text)
        if not whole and not _ended(events):
            return None
        return TapeEntry(request=request, status=response.status, events=events)
    try:
        return TapeEntry(request=request, status=response.status, response=json.loads(text))
    except (ValueError, RecursionError):
        return None


def _data_of(text: str) -> tuple[str, ...]:
    events: list[str] = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        lines = [line[5:].removeprefix(" ") for line in block.split("\n") if line[:5] == "data:"]
        if lines:
            events.append("\n".join(lines))
    return tuple(events)


def _ended(events: tuple[str, ...]) -> bool:
    """Was the last event read? A reader stops there, before the body's end."""
    last = ('"message_stop"', '"response.completed"', '"response.incomplete"')
    return bool(events) and (events[-1] == "[DONE]" or any(word in events[-1] for word in last))
