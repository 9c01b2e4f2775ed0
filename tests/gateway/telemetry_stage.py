"""What tests of telemetry observe, and a collector that keeps what it is sent."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from gateway.pricing import Usage
from gateway.refusals import Code
from gateway.telemetry import Observation, Outcome, Telemetry
from gateway.values import CallKey, NanoUSD, RunId, StepPath
from tests.gateway.stage import NOW, principal

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def model_call(run: str = "run-1", **changes: Any) -> Observation:
    """An answered call of a model, with every field that such a call can have."""
    values: dict[str, Any] = {
        "kind": "model",
        "outcome": Outcome.SETTLED,
        "started_at": NOW,
        "duration_us": 1_500_000,
        "first_token_us": 300_000,
        "who": principal(run, user="ada"),
        "key": CallKey(RunId(run), StepPath("7.2"), 1),
        "attempt": 1,
        "dialect": "chat",
        "streamed": True,
        "asked": "smart",
        "target": "fast",
        "model_id": "gpt-5-mini",
        "provider": "cloud",
        "provider_kind": "azure",
        "usage": Usage(310, 21, cached=100, reasoning=7),
        "cost_nano": NanoUSD(1_250_000_000),
        "price_table": "genai-prices:0.2.3",
        "label": "untrusted/internal",
        "audited": ("quiet-limit",),
        "findings": (("pii", 2), ("secrets", 1)),
    }
    return Observation(**{**values, **changes})


def tool_call(run: str = "run-1", **changes: Any) -> Observation:
    """An answered call of a tool."""
    values: dict[str, Any] = {
        "kind": "tool",
        "outcome": Outcome.SETTLED,
        "started_at": NOW,
        "duration_us": 40_000,
        "who": principal(run),
        "key": CallKey(RunId(run), StepPath("8")),
        "dialect": "mcp",
        "asked": "github.comment",
        "target": "github.comment",
        "label": "untrusted/internal",
    }
    return Observation(**{**values, **changes})


def refusal(code: Code, run: str = "run-1", **changes: Any) -> Observation:
    """A model call that was refused before anything was sent."""
    values: dict[str, Any] = {
        "kind": "model",
        "outcome": Outcome.REFUSED,
        "code": code,
        "started_at": NOW,
        "duration_us": 90,
        "who": principal(run),
        "dialect": "chat",
        "asked": "smart",
    }
    return Observation(**{**values, **changes})


def scrape(telemetry: Telemetry) -> Samples:
    """What a Prometheus server reads: every sample by name and labels."""
    found: Samples = {}
    for family in text_string_to_metric_families(telemetry.metrics().decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert (sample.name, labels) not in found, "the same series twice"
            found[sample.name, labels] = sample.value
    return found


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum over all series of a name that have these labels."""
    return sum(
        value
        for (each, having), value in samples.items()
        if each == name and labels.items() <= dict(having).items()
    )


@dataclass
class Collector:
    """A server that speaks OTLP over HTTP. `answers` are the statuses of its next answers (200
    when there is none left); `hold` makes it keep callers waiting until it is closed."""

    answers: list[int] = field(default_factory=list)
    hold: bool = False
    rejects: int = 0
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    asked: queue.Queue[str] = field(default_factory=queue.Queue)

    def __enter__(self) -> Collector:
        self.released = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.asked.put(self.path)
                if collector.hold:
                    collector.released.wait(30)
                    return
                status = collector.answers.pop(0) if collector.answers else 200
                if status == 200:
                    collector.bodies.append(body)
                    collector.headers.append(dict(self.headers.items()))
                answer = ExportTraceServiceResponse()
                answer.partial_success.rejected_spans = collector.rejects
                content = answer.SerializeToString()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.base = f"http://127.0.0.1:{self.server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def requests(self) -> list[ExportTraceServiceRequest]:
        """What was accepted, decoded."""
        return [ExportTraceServiceRequest.FromString(body) for body in self.bodies]

    def spans(self) -> list[Span]:
        """Every span that was accepted."""
        return [
            span
            for request in self.requests()
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def attributes(span: Span) -> dict[str, Any]:
    """The attributes of a span as plain values."""
    found: dict[str, Any] = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        if kind == "array_value":
            found[each.key] = [item.string_value for item in each.value.array_value.values]
        else:
            assert kind is not None
            found[each.key] = getattr(each.value, kind)
    return found
