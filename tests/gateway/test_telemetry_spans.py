"""What a collector of traces is sent, and what it cannot do to the gateway."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.redact import REDACTED, SUSPECTS, Redactor
from gateway.refusals import Code
from gateway.telemetry import Observation, Outcome, Telemetry
from gateway.telemetry.otlp import BATCH, Exporter, OtlpSettings
from gateway.telemetry.spans import Attributes, parent_of, span_of, trace_of
from gateway.values import CallKey, RunId, StepPath
from tests.gateway.stage import NOW, principal
from tests.gateway.telemetry_stage import (
    Collector,
    attributes,
    model_call,
    refusal,
    scrape,
    tool_call,
    total,
)

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def settings(collector: Collector, **environment: str) -> OtlpSettings:
    found = OtlpSettings.from_environment(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.base, **environment}
    )
    assert found is not None
    return found


def sent(collector: Collector, *seen: Observation, **environment: str) -> list[Span]:
    """The spans that arrive when these are observed and the gateway stops."""
    telemetry = Telemetry(otlp=settings(collector, **environment))
    for each in seen:
        telemetry.observe(each)
    telemetry.close(20)
    return collector.spans()


def test_a_model_call_is_a_span_with_the_conventions_attributes(collector: Collector) -> None:
    (span,) = sent(collector, model_call())
    assert span.name == "chat fast"
    assert span.kind == Span.SPAN_KIND_CLIENT
    assert span.start_time_unix_nano == NOW * 1_000_000
    assert span.end_time_unix_nano - span.start_time_unix_nano == 1_500_000_000
    assert span.status.code == Status.STATUS_CODE_UNSET
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.request.model": "gpt-5-mini",
        "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": 0.3,
        "gen_ai.usage.input_tokens": 310,
        "gen_ai.usage.output_tokens": 21,
        "gen_ai.usage.cache_read.input_tokens": 100,
        "gen_ai.usage.reasoning.output_tokens": 7,
        "gen_ai.agent.name": "triage",
        "gen_ai.conversation.id": "run-1",
        "openinference.span.kind": "LLM",
        "llm.cost.total": 1.25,
        "interlock.cost_usd": 1.25,
        "interlock.cost_nano": 1_250_000_000,
        "interlock.team": "platform",
        "interlock.release": "rel-000000000001",
        "interlock.call_key": "run-1/7.2/1",
        "interlock.step": "7.2",
        "interlock.attempt": 1,
        "interlock.guardrail.rules": ["pii", "secrets"],
        "interlock.guardrail.findings": 3,
        "user.id": "ada",
    }
    assert expected.items() <= attributes(span).items()


def test_a_tool_call_is_a_span_of_its_tool(collector: Collector) -> None:
    (span,) = sent(collector, tool_call())
    assert span.name == "execute_tool github.comment"
    assert span.kind == Span.SPAN_KIND_INTERNAL
    expected = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "github.comment",
        "openinference.span.kind": "TOOL",
    }
    assert expected.items() <= attributes(span).items()
    assert "gen_ai.request.model" not in attributes(span)


def test_embeddings_are_an_operation_of_their_own(collector: Collector) -> None:
    (span,) = sent(collector, model_call(dialect="embeddings"))
    assert span.name == "embeddings fast"


@pytest.mark.parametrize(
    "seen, error",
    [
        (refusal(Code.BUDGET_EXCEEDED, rule="month"), "budget_exceeded"),
        (model_call(outcome=Outcome.RELEASED, code=Code.PROVIDER_BUSY), "provider_busy"),
        (tool_call(outcome=Outcome.UNKNOWN), "unknown"),
    ],
)
def test_what_did_not_end_well_is_an_error_with_its_type(
    collector: Collector, seen: Observation, error: str
) -> None:
    (span,) = sent(collector, seen)
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes(span).get("gen_ai.provider.name") != ""
    assert attributes(span)["error.type"] == error


def test_all_calls_of_a_run_share_a_trace_that_follows_from_the_run(collector: Collector) -> None:
    spans = sent(collector, model_call("run-1"), tool_call("run-1"), model_call("run-2"))
    assert [span.trace_id for span in spans[:2]] == [trace_of("run-1")] * 2
    assert spans[2].trace_id == trace_of("run-2")
    assert trace_of("run-5f2c9e0d1a7b3c44").hex() == "12f15b8a0406736c97bb6d9087cd5f7e"
    assert {span.parent_span_id for span in spans} == {b""}


def test_attempts_and_replays_of_one_call_are_spans_of_their_own(collector: Collector) -> None:
    spans = sent(
        collector,
        model_call(attempt=0),
        model_call(attempt=1),
        model_call(attempt=1, outcome=Outcome.REPLAYED),
    )
    assert len({span.span_id for span in spans}) == 3


def test_the_callers_traceparent_is_the_parent(collector: Collector) -> None:
    (span,) = sent(collector, model_call(traceparent=PARENT))
    assert span.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert span.parent_span_id.hex() == "00f067aa0ba902b7"


def test_a_caller_that_does_not_sample_gets_no_span(collector: Collector) -> None:
    unsampled = PARENT.removesuffix("01") + "00"
    assert sent(collector, model_call(traceparent=unsampled), model_call("run-2")) != []
    assert [attributes(span)["interlock.run"] for span in collector.spans()] == ["run-2"]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        PARENT.upper(),
        PARENT.replace("00-", "ff-", 1),
        PARENT + "-more",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
    ],
)
def test_a_traceparent_that_is_not_valid_is_ignored(header: str) -> None:
    assert parent_of(header) is None
    span = span_of(model_call(traceparent=header), Attributes(str))
    assert span is not None
    assert span.trace_id == trace_of("run-1")


def test_a_later_version_of_traceparent_may_say_more() -> None:
    assert parent_of(PARENT.replace("00-", "01-", 1) + "-more") is not None


def test_strangers_make_no_spans(collector: Collector) -> None:
    assert sent(collector, refusal(Code.UNAUTHENTICATED, who=None)) == []
    assert collector.bodies == []


def test_the_resource_is_what_the_operator_says(collector: Collector) -> None:
    sent(
        collector,
        model_call(),
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=prod,team=a%20b",
        OTEL_SERVICE_NAME="gateway-eu",
        OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20very-secret-key",
    )
    (request,) = collector.requests()
    found = {
        each.key: each.value.string_value for each in request.resource_spans[0].resource.attributes
    }
    assert found["service.name"] == "gateway-eu"
    assert found["deployment.environment.name"] == "prod"
    assert found["team"] == "a b"
    assert found["service.version"]
    assert collector.headers[0]["authorization"] == "Bearer very-secret-key"
    assert collector.asked.get_nowait() == "/v1/traces"


def test_a_collector_that_is_busy_is_asked_again(collector: Collector) -> None:
    collector.answers = [503, 429]
    exporter = Exporter(
        settings(collector),
        lambda batch: (b"", len(batch)),
        rejected=lambda content: 0,
        tell=lambda text: None,
        jitter=lambda: -1.0,  # no pause at all
    )
    exporter.put(model_call())
    for _ in range(3):
        collector.asked.get(timeout=20)
    exporter.close(20)
    assert (exporter.counts.sent, exporter.dropped) == (1, 0)


def test_a_collector_that_says_no_is_not_asked_again(collector: Collector) -> None:
    collector.answers = [400]
    told: list[str] = []
    telemetry = Telemetry(otlp=settings(collector), tell=told.append)
    telemetry.observe(model_call())
    telemetry.close(20)
    samples = scrape(telemetry)
    assert total(samples, "interlock_spans_total", result="dropped") == 1
    assert total(samples, "interlock_spans_total", result="sent") == 0
    assert told == ["spans are dropped: 127.0.0.1 answered HTTP 400"]


def test_spans_that_the_collector_rejects_are_counted(collector: Collector) -> None:
    collector.rejects = 1
    telemetry = Telemetry(otlp=settings(collector))
    telemetry.observe(model_call())
    telemetry.observe(tool_call())
    telemetry.close(20)
    samples = scrape(telemetry)
    assert total(samples, "interlock_spans_total", result="sent") == 1
    assert total(samples, "interlock_spans_total", result="rejected") == 1


def test_many_spans_go_in_batches(collector: Collector) -> None:
    spans = sent(collector, *(tool_call(f"run-{n}") for n in range(2 * BATCH + 1)))
    assert len(spans) == 2 * BATCH + 1
    assert len(collector.bodies) < 10


def test_a_full_batch_goes_without_waiting_for_the_end(collector: Collector) -> None:
    telemetry = Telemetry(otlp=settings(collector))
    for number in range(BATCH):
        telemetry.observe(tool_call(f"run-{number}"))
    assert collector.asked.get(timeout=20) == "/v1/traces"
    telemetry.close(20)


def test_a_collector_that_never_answers_costs_spans_and_no_time() -> None:
    with Collector(hold=True) as stuck:
        taken: list[int] = []

        def encode(batch: list[Observation]) -> tuple[bytes, int]:
            taken.append(len(batch))
            return b"", len(batch)

        exporter = Exporter(
            settings(stuck),
            encode,
            rejected=lambda content: 0,
            tell=lambda text: None,
            queue=BATCH,
        )
        for _ in range(BATCH):
            exporter.put(model_call())
        stuck.asked.get(timeout=20)  # its thread hangs in the first request now
        for _ in range(3 * BATCH):
            exporter.put(model_call())
        exporter.close(0.05)
        # All but the batch that hangs were dropped, and every one of them is counted.
        assert len(taken) == 1
        assert exporter.overflowed == 4 * BATCH - taken[0]


def test_after_the_end_spans_are_dropped_and_counted(collector: Collector) -> None:
    telemetry = Telemetry(otlp=settings(collector))
    telemetry.close(20)
    telemetry.observe(model_call())
    assert total(scrape(telemetry), "interlock_spans_total", result="dropped") == 1


def test_no_span_is_lost_between_many_threads(collector: Collector) -> None:
    telemetry = Telemetry(otlp=settings(collector))

    def observe(name: int) -> None:
        for number in range(200):
            telemetry.observe(tool_call(f"run-{name}-{number}"))

    threads = [threading.Thread(target=observe, args=(name,)) for name in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    telemetry.close(30)
    assert len({span.span_id for span in collector.spans()}) == 1600


def test_nothing_is_exported_unless_somebody_says_where() -> None:
    assert OtlpSettings.from_environment({}) is None
    there = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://there:4318"}
    assert OtlpSettings.from_environment({**there, "OTEL_SDK_DISABLED": "true"}) is None
    assert OtlpSettings.from_environment({**there, "OTEL_TRACES_EXPORTER": "none"}) is None


@pytest.mark.parametrize(
    "environment, url, target",
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318/"}, None, "http://a:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://a/in"}, None, "https://a/in"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, "http://b:1", "http://b:1/v1/traces"),
    ],
)
def test_where_spans_go_follows_opentelemetrys_variables(
    environment: dict[str, str], url: str | None, target: str
) -> None:
    found = OtlpSettings.from_environment(environment, url=url)
    assert found is not None
    assert found.url == target


@pytest.mark.parametrize(
    "environment, says",
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "http://HOST:4318"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "4318",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_EXPORTER_OTLP_TIMEOUT": "10s"},
            "milliseconds",
        ),
    ],
)
def test_settings_that_cannot_work_say_what_to_write(
    environment: dict[str, str], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        OtlpSettings.from_environment(environment)


def test_the_collectors_key_is_not_in_the_settings_text() -> None:
    shown = repr(OtlpSettings("http://a", {"authorization": "Bearer very-secret-key"}))
    assert "very-secret-key" not in shown


SECRETS = st.text(min_size=8, max_size=60, alphabet=st.characters(codec="utf-8"))


@given(SECRETS, st.sampled_from(["asked", "target", "provider", "label", "rule", "price_table"]))
def test_a_known_secret_never_is_in_a_span(secret: str, place: str) -> None:
    held: dict[str, Any] = {place: f"before{secret}after"}
    span = span_of(model_call(**held), Attributes(Redactor([secret]).text))
    assert span is not None
    value = attributes(span)[f"interlock.{place}"]
    assert REDACTED in value
    assert not any(secret in part for part in value.split(REDACTED))
    assert not any(secret in part for part in span.name.split(REDACTED)) or secret in "chat fast"


def test_a_key_in_the_callers_own_words_is_not_in_its_span() -> None:
    key = "sk-live-VERYSECRETKEY1234567890"
    seen = refusal(
        Code.UNKNOWN_MODEL,
        asked=key,
        key=CallKey(RunId("run-1"), StepPath(key)),
        who=principal(user=key),
    )
    span = span_of(seen, Attributes(Redactor(shapes=SUSPECTS).text))
    assert span is not None
    assert key.encode() not in span.SerializeToString()
