"""An observation as an OpenTelemetry span: a span for each attempt and each refusal.

Attributes follow OpenTelemetry's conventions for generative AI (spans, development status, as of
November 2026), OpenInference's where a viewer needs them (kind, session, tokens, cost), and
`interlock.*` for the rest; docs/telemetry.md lists them. No prompt, answer or argument is among
them. Imported only by a gateway that exports spans: the messages of the protocol take 4 MB.

**Which trace.** A caller that sends a valid `traceparent` is the parent, and its sampling flag is
obeyed. Otherwise the trace id follows from the run, so that all calls of a run stand in one trace
although they are spans without a parent; anybody who knows the run can compute it (`trace_of`).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from gateway.telemetry.metrics import error_type, operation_name, provider_name
from gateway.telemetry.observation import Observation
from gateway.values import NANO

Value = str | bool | int | float | tuple[str, ...]

LONGEST: Final = 256
"""Characters of a text that is kept: a caller may ask for anything."""
SAMPLED: Final = 1
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_KINDS = {"chat": "LLM", "embeddings": "EMBEDDING", "execute_tool": "TOOL"}
"""OpenInference's span kinds."""
_PARTS = {
    "cached": "gen_ai.usage.cache_read.input_tokens",
    "cache_write": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning": "gen_ai.usage.reasoning.output_tokens",
    "audio_input": "gen_ai.usage.audio.input_tokens",
    "audio_output": "gen_ai.usage.audio.output_tokens",
}


@dataclass(frozen=True, slots=True)
class Parent:
    """Where a span hangs. `span` is empty when it has no parent."""

    trace: bytes
    span: bytes
    sampled: bool


class Attributes:
    """Makes attributes. Equal ones of a batch are made once: that is most of them, and most of what
    a span costs."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._made: dict[tuple[str, Value], KeyValue] = {}

    def of(self, facts: Iterable[tuple[str, Value | None]]) -> list[KeyValue]:
        """The facts that are not None."""
        made = self._made
        found = []
        for key, value in facts:
            if value is None:
                continue
            each = made.get((key, value))
            if each is None:
                each = made[key, value] = KeyValue(key=key, value=self._value(value))
            found.append(each)
        return found

    def text(self, text: str) -> str:
        """Redacted, then cut: half a secret would not be recognized."""
        return self._redact(text)[:LONGEST]

    def _value(self, value: Value) -> AnyValue:
        if isinstance(value, bool):
            return AnyValue(bool_value=value)
        if isinstance(value, int):
            return AnyValue(int_value=value)
        if isinstance(value, float):
            return AnyValue(double_value=value)
        if isinstance(value, tuple):
            return AnyValue(array_value=ArrayValue(values=[self._value(item) for item in value]))
        return AnyValue(string_value=self.text(value))


def parent_of(header: str) -> Parent | None:
    """A W3C `traceparent` header read; None when it is not valid (then it is ignored)."""
    found = _TRACEPARENT.fullmatch(header.strip())
    if found is None or (header.startswith("00") and found[4]):
        return None
    return Parent(bytes.fromhex(found[1]), bytes.fromhex(found[2]), bool(int(found[3], 16) & 1))


def trace_of(run: str) -> bytes:
    """The trace id of a run: the first 16 bytes of SHA-256 of `interlock.trace/1:` + run id."""
    return hashlib.sha256(f"interlock.trace/1:{run}".encode()).digest()[:16]


def encode(
    batch: Iterable[Observation],
    *,
    resource: Mapping[str, str],
    version: str,
    redact: Callable[[str], str],
) -> tuple[bytes, int]:
    """A serialized ExportTraceServiceRequest, and how many spans are in it.

    Left out: calls of nobody we know (they would let strangers fill the store of traces), and
    those whose caller does not want its trace kept.
    """
    attributes = Attributes(redact)
    spans = [span for seen in batch if (span := span_of(seen, attributes)) is not None]
    request = ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(attributes=attributes.of(resource.items())),
                scope_spans=[
                    ScopeSpans(
                        scope=InstrumentationScope(name="interlock.gateway", version=version),
                        spans=spans,
                    )
                ],
            )
        ]
    )
    return request.SerializeToString(), len(spans)


def span_of(seen: Observation, attributes: Attributes) -> Span | None:
    """The span of one observation; None for those that `encode` leaves out."""
    if seen.who is None:
        return None
    parent = parent_of(seen.traceparent) if seen.traceparent else None
    if parent is None:
        parent = Parent(trace_of(seen.who.run), b"", True)
    if not parent.sampled:
        return None
    operation, error = operation_name(seen), error_type(seen)
    start = seen.started_at * 1_000_000
    name = seen.target or seen.asked or ""
    return Span(
        trace_id=parent.trace,
        span_id=os.urandom(8),
        parent_span_id=parent.span,
        flags=SAMPLED,
        name=attributes.text(f"{operation} {name}".strip()),
        kind=Span.SPAN_KIND_INTERNAL if seen.kind == "tool" else Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=start,
        end_time_unix_nano=start + seen.duration_us * 1000,
        attributes=attributes.of(_facts(seen, operation, error)),
        status=Status(code=Status.STATUS_CODE_ERROR) if error else None,
    )


def _facts(
    seen: Observation, operation: str, error: str | None
) -> Iterator[tuple[str, Value | None]]:
    who = seen.who
    yield "gen_ai.operation.name", operation
    yield "openinference.span.kind", _KINDS[operation]
    yield "error.type", error
    if seen.kind == "tool":
        yield "gen_ai.tool.name", seen.target or seen.asked
        yield "gen_ai.tool.type", "extension"
    else:
        model = seen.model_id or seen.target or seen.asked
        yield "gen_ai.provider.name", provider_name(seen) or None
        yield "gen_ai.request.model", model
        yield "llm.model_name", model
        yield "gen_ai.request.stream", seen.streamed
        if seen.first_token_us is not None:
            yield "gen_ai.response.time_to_first_chunk", seen.first_token_us / 1e6
        yield from _usage(seen)
    yield "interlock.cost_usd", seen.cost_nano / NANO
    yield "interlock.cost_nano", seen.cost_nano
    if who is not None:
        yield "gen_ai.conversation.id", who.run
        yield "session.id", who.run
        yield "user.id", who.user
        yield "gen_ai.agent.name", who.agent
        yield "interlock.agent", who.agent
        yield "interlock.team", who.team
        yield "interlock.role", who.role
        yield "interlock.run", who.run
        yield "interlock.release", who.release
        yield "interlock.purpose", str(who.purpose)
        yield "interlock.occurrence", who.occurrence
    if seen.key is not None:
        yield "interlock.call_key", str(seen.key)
        yield "interlock.step", seen.key.step
    yield "interlock.attempt", seen.attempt
    yield "interlock.outcome", str(seen.outcome)
    yield "interlock.code", None if seen.code is None else str(seen.code)
    yield "interlock.asked", seen.asked
    yield "interlock.target", seen.target
    yield "interlock.provider", seen.provider
    yield "interlock.dialect", seen.dialect
    yield "interlock.price_table", seen.price_table
    yield "interlock.label", seen.label
    yield "interlock.rule", seen.rule
    yield "interlock.audited", seen.audited or None
    yield "interlock.guardrail.rules", tuple(rule for rule, _ in seen.findings) or None
    if seen.findings:
        yield "interlock.guardrail.findings", sum(count for _, count in seen.findings)


def _usage(seen: Observation) -> Iterator[tuple[str, Value]]:
    usage = seen.usage
    if usage is None:
        return
    yield "gen_ai.usage.input_tokens", usage.input
    yield "gen_ai.usage.output_tokens", usage.output
    for part, key in _PARTS.items():
        if count := getattr(usage, part, 0):
            yield key, count
    yield "llm.token_count.prompt", usage.input
    yield "llm.token_count.completion", usage.output
    yield "llm.token_count.total", usage.input + usage.output
    yield "llm.cost.total", seen.cost_nano / NANO
