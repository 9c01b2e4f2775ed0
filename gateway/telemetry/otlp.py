"""Where spans go: OTLP over HTTP in protobuf, from a thread of its own.

Written by hand on the protocol's own messages (`opentelemetry-proto`, 4 MB) and not on the SDK with
its exporter (15 MB of a process that must stay below 100, and built around spans that are open
while something runs: ours are known whole, with ids that follow from the run). What is needed of
the rest is here: batches, a bounded queue, and when to try again (OTLP specification 1.x,
"OTLP/HTTP": 429, 502, 503, 504, with `Retry-After`).
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import unquote, urlsplit

from gateway.telemetry.observation import Observation

QUEUE: Final = 8192
BATCH: Final = 512
TIMEOUT: Final = 10.0
"""Seconds for a request, as OpenTelemetry has it."""
DELAY: Final = 1.0
"""Seconds at most between an observation and its batch."""
TRIES: Final = 5
MOST_WAIT: Final = 30.0
AGAIN: Final = frozenset({429, 502, 503, 504})
LARGEST_ANSWER: Final = 65_536
PATH: Final = "/v1/traces"


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    """Where to send, and as whom. `headers` may hold a key: it goes to `url` and nowhere else."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = TIMEOUT
    """Seconds for one request."""
    resource: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str], *, url: str | None = None
    ) -> OtlpSettings | None:
        """What OpenTelemetry's variables say; None when nothing is to be exported.

        `url` is what the command line says (the base; `/v1/traces` is added). ValueError, with
        what to write instead, for an address or a protocol that is not served.
        """

        def read(name: str) -> str:
            return environment.get(name, "").strip()

        exact = read("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        base = url or read("OTEL_EXPORTER_OTLP_ENDPOINT")
        off = read("OTEL_SDK_DISABLED").lower() == "true" or read("OTEL_TRACES_EXPORTER") == "none"
        if not (exact or base) or (off and url is None):
            return None
        protocol = read("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or read("OTEL_EXPORTER_OTLP_PROTOCOL")
        if protocol not in ("", "http/protobuf"):
            raise ValueError(
                f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}: spans are sent as http/protobuf only; "
                "leave it out, and give the address of the collector's HTTP port (4318)"
            )
        target = base.rstrip("/") + PATH if url or not exact else exact
        parts = urlsplit(target)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"{target} is no address of a collector: write http://HOST:4318 or https://HOST"
            )
        resource = {"service.name": "interlock-gateway"}
        resource.update(_pairs(read("OTEL_RESOURCE_ATTRIBUTES")))
        if name := read("OTEL_SERVICE_NAME"):
            resource["service.name"] = name
        headers = _pairs(read("OTEL_EXPORTER_OTLP_HEADERS"))
        headers.update(_pairs(read("OTEL_EXPORTER_OTLP_TRACES_HEADERS")))
        timeout = read("OTEL_EXPORTER_OTLP_TIMEOUT")
        try:
            seconds = float(timeout) / 1000 if timeout else TIMEOUT
        except ValueError:
            raise ValueError(
                f"OTEL_EXPORTER_OTLP_TIMEOUT is {timeout!r}: write milliseconds, such as 10000"
            ) from None
        return cls(target, headers, seconds, resource)


def _pairs(text: str) -> dict[str, str]:
    """`a=b,c=d` with percent-encoded values, as W3C baggage writes them."""
    found = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {unquote(key.strip()): unquote(value.strip()) for key, _, value in found}


@dataclass(slots=True)
class Counts:
    """What became of spans. `dropped`: never reached the collector; `rejected`: it said no."""

    sent: int = 0
    dropped: int = 0
    rejected: int = 0


class Exporter:
    """Takes observations and sends them as spans, a batch at a time, in the background.

    `encode` makes a request body of a batch and says how many spans it holds; `tell` hears, once
    each, that the collector cannot be reached and that it can be again.
    """

    def __init__(
        self,
        settings: OtlpSettings,
        encode: Callable[[list[Observation]], tuple[bytes, int]],
        *,
        rejected: Callable[[bytes], int],
        tell: Callable[[str], None],
        jitter: Callable[[], float] = random.random,
        queue: int = QUEUE,
    ) -> None:
        self._settings = settings
        self._encode = encode
        self._rejected = rejected
        self._tell = tell
        self._jitter = jitter
        self._most = queue
        self._queue: deque[Observation] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._losing = threading.Lock()
        self._timeout = settings.timeout
        self._well = True
        self.counts = Counts()
        self.overflowed = 0
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Spans that never reached the collector."""
        return self.counts.dropped + self.overflowed

    def put(self, seen: Observation) -> None:
        """Queue one; when the queue is full it is dropped and counted. Never waits."""
        if len(self._queue) >= self._most or self._closing.is_set():
            with self._losing:
                self.overflowed += 1
            return
        self._queue.append(seen)
        if len(self._queue) == BATCH:
            self._wake.set()

    def close(self, seconds: float) -> None:
        """Send what is queued, for at most so many seconds; the rest is dropped and counted."""
        self._timeout = min(self._timeout, max(seconds, 0.001))
        self._closing.set()
        self._wake.set()
        self._thread.join(seconds)
        with self._losing:
            self.overflowed += len(self._queue)
            self._queue.clear()

    def _run(self) -> None:
        while True:
            closing = self._closing.is_set()
            while batch := self._take():
                self._send(batch)
            if closing:
                return
            self._wake.wait(DELAY)
            self._wake.clear()

    def _take(self) -> list[Observation]:
        batch: list[Observation] = []
        while len(batch) < BATCH:
            try:
                batch.append(self._queue.popleft())
            except IndexError:
                break
        return batch

    def _send(self, batch: list[Observation]) -> None:
        try:
            body, spans = self._encode(batch)
        except Exception as error:
            self.counts.dropped += len(batch)
            self._say(f"spans cannot be written ({type(error).__name__})")
            return
        if not spans:
            return
        why = ""
        for number in range(TRIES):
            why, wait = self._post(body, spans)
            if not why:
                self._say(None)
                return
            if wait is None or number == TRIES - 1:
                break
            pause = wait or min(MOST_WAIT, 2.0**number) * (0.5 + self._jitter() / 2)
            if self._closing.wait(pause):
                break
        self.counts.dropped += spans
        self._say(f"spans are dropped: {why}")

    def _post(self, body: bytes, spans: int) -> tuple[str, float | None]:
        """Why it failed (empty: it did not), and how long to wait before the next try: None for
        never, 0 for as long as we like."""
        parts = urlsplit(self._settings.url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=self._timeout)
        try:
            connection.request(
                "POST",
                f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}",
                body,
                {**self._settings.headers, "Content-Type": "application/x-protobuf"},
            )
            answer = connection.getresponse()
            content = answer.read(LARGEST_ANSWER)
        except (OSError, HTTPException) as error:
            return f"{parts.hostname} cannot be reached ({type(error).__name__})", 0.0
        finally:
            connection.close()
        if 200 <= answer.status < 300:
            rejected = min(self._rejected(content), spans)
            self.counts.rejected += rejected
            self.counts.sent += spans - rejected
            return "", None
        why = f"{parts.hostname} answered HTTP {answer.status}"
        if answer.status not in AGAIN:
            return why, None
        after = answer.headers.get("Retry-After", "")
        return why, min(MOST_WAIT, float(after)) if after.isdigit() else 0.0

    def _say(self, trouble: str | None) -> None:
        if trouble is None and not self._well:
            self._tell("spans are sent again")
        elif trouble is not None and self._well:
            self._tell(trouble)
        self._well = trouble is None
