"""What people can see of the gateway while it works: figures, spans and (in `gateway.log`) lines.

The door describes each attempt that ended and each refusal in one value (`Observation`) and hands
it to `Telemetry.observe`; what becomes of it is decided here. Metrics are always on. Spans are on
when the operator names a collector; only then is anything of OpenTelemetry loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from gateway.redact import Redactor
from gateway.telemetry.gauges import BreakerState, BudgetLevel, Gauges, Readings
from gateway.telemetry.metrics import MOST, Metrics
from gateway.telemetry.observation import Dialect, Observation, Outcome

if TYPE_CHECKING:
    from gateway.telemetry.otlp import Exporter, OtlpSettings

__all__ = [
    "CONTENT_TYPE",
    "BreakerState",
    "BudgetLevel",
    "Dialect",
    "Observation",
    "Outcome",
    "Readings",
    "Telemetry",
]

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
"""Of what `Telemetry.metrics` returns."""


class Telemetry:
    """Where observations go. One per process; every method may be called from any thread."""

    def __init__(
        self,
        redactor: Redactor | None = None,
        *,
        otlp: OtlpSettings | None = None,
        tell: Callable[[str], None] = lambda text: None,
        most: int = MOST,
    ) -> None:
        """`redactor` is the log's, so that what one knows to be secret the other does too. `tell`
        hears, in words, when spans cannot be sent."""
        redactor = redactor or Redactor()
        self._metrics = Metrics(redactor.text, most=most)
        self._gauges = Gauges()
        self._exporter = None if otlp is None else _exporter(otlp, redactor, tell)
        self._faults = 0
        self._registry = CollectorRegistry()
        for collector in (self._metrics, self._gauges, _Own(self)):
            self._registry.register(collector)
        ProcessCollector(registry=self._registry)

    def observe(self, seen: Observation) -> None:
        """Count it and, where spans are on, queue it. Never raises, never waits for anything."""
        try:
            self._metrics.observe(seen)
            if self._exporter is not None:
                self._exporter.put(seen)
        except Exception:
            # A call must not fail because it cannot be told about.
            self._faults += 1

    def observe_commit(self, size: int, seconds: float) -> None:
        """One commit of the database: how many writes shared it, how long it took."""
        self._metrics.observe_commit(size, seconds)

    def watch(self, readings: Readings) -> None:
        """Ask these at every scrape from now on."""
        self._gauges.readings = readings

    def metrics(self) -> bytes:
        """Everything in Prometheus' text form (`CONTENT_TYPE`).

        Takes milliseconds to a few hundred of them when there are thousands of labels, and asks
        the readings: call it from a thread when it must not hold up an event loop.
        """
        return generate_latest(self._registry)

    def close(self, seconds: float) -> None:
        """Send the spans that are queued, for at most so many seconds."""
        if self._exporter is not None:
            self._exporter.close(seconds)

    def own(self) -> Iterator[Metric]:
        """Figures about telling itself."""
        exporter = self._exporter
        if exporter is not None:
            spans = CounterMetricFamily(
                "interlock_spans", "What became of spans.", labels=("result",)
            )
            spans.add_metric(("sent",), exporter.counts.sent)
            spans.add_metric(("rejected",), exporter.counts.rejected)
            spans.add_metric(("dropped",), exporter.dropped)
            yield spans
        yield CounterMetricFamily(
            "interlock_telemetry_faults",
            "Observations and readings that could not be told.",
            value=self._faults + self._gauges.faults,
        )


class _Own(Collector):
    """Stands last in the registry, so that the faults of this scrape are in it."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def collect(self) -> Iterator[Metric]:
        yield from self._telemetry.own()


def _exporter(otlp: OtlpSettings, redactor: Redactor, tell: Callable[[str], None]) -> Exporter:
    # Here, because the messages of the protocol take 4 MB that most gateways do not need.
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    from gateway.telemetry.otlp import Exporter
    from gateway.telemetry.spans import encode

    try:
        version = version_of("interlock")
    except PackageNotFoundError:
        version = "0"
    redactor.learn(otlp.headers.values())
    resource = {**otlp.resource, "service.version": version}

    def rejected(content: bytes) -> int:
        try:
            answer = ExportTraceServiceResponse.FromString(content)
            return int(answer.partial_success.rejected_spans)
        except Exception:
            # Some collectors answer in JSON or in words: what they took, they took.
            return 0

    return Exporter(
        otlp,
        lambda batch: encode(batch, resource=resource, version=version, redact=redactor.text),
        rejected=rejected,
        tell=tell,
    )
