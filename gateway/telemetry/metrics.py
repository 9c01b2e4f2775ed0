"""What a Prometheus server scrapes about calls: how many, how long, how many tokens, how dear.

Names under `gen_ai_` are those of OpenTelemetry's conventions for generative AI (metrics,
development status), in Prometheus' spelling; what the conventions do not know is `interlock_`.
docs/telemetry.md lists all of them. No label ever holds a run, a call or a caller's own words.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from operator import attrgetter
from typing import Final, TypeVar

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.pricing import Usage
from gateway.telemetry.observation import Observation, Outcome
from gateway.telemetry.series import Count, Spread, Table
from gateway.values import NANO, Purpose

V = TypeVar("V")

TOKEN_KINDS: Final = tuple(field.name for field in fields(Usage))
"""What is counted apart. `cached` and the like are parts of `input`, `reasoning` of `output`."""
_tokens_of = attrgetter(*TOKEN_KINDS)

SECONDS: Final = tuple(0.01 * 2**power for power in range(14))
"""Bounds of `gen_ai.client.operation.duration`, by the conventions."""
FIRST_TOKEN: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
"""Bounds of `gen_ai.server.time_to_first_token`, by the conventions."""
TOKENS: Final = tuple(4**power for power in range(14))
"""Bounds of `gen_ai.client.token.usage`, by the conventions."""
COMMIT_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
COMMIT_SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
)  # fmt: skip

MOST: Final = 2000
"""Combinations of labels of one table, before the rest is counted as `other`."""

CALLER: Final = ("kind", "purpose", "agent", "team", "model")
REFUSED: Final = ("kind", "purpose", "agent", "team", "code", "rule")
OPERATION: Final = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
TOOL: Final = ("gen_ai_tool_name",)

PROVIDER_NAMES: Final = {"azure": "azure.ai.openai"}
"""Provider kinds that the conventions call something else."""


class _Caller:
    """What one agent asked of one model or tool."""

    __slots__ = ("cost_nano", "outcomes", "tokens")

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.tokens = [0] * len(TOKEN_KINDS)
        self.cost_nano = 0


class _Tokens:
    __slots__ = ("input", "output")

    def __init__(self) -> None:
        self.input, self.output = Spread(TOKENS), Spread(TOKENS)


class Metrics(Collector):
    """Counts observations and hands the figures to a registry. Thread-safe."""

    def __init__(self, redact: Callable[[str], str], *, most: int = MOST) -> None:
        table = partial(Table, most=most, redact=redact)
        self._lock = threading.Lock()
        self._callers = table(_Caller, folds=(2, 3, 4))
        self._refused = table(Count, folds=(2, 3, 5))
        self._seconds = table(partial(Spread, SECONDS), folds=(2,))
        self._tool_seconds = table(partial(Spread, SECONDS), folds=(0,))
        self._first_token = table(partial(Spread, FIRST_TOKEN), folds=(2,))
        self._tokens = table(_Tokens, folds=(2,))
        self._found = table(Count, folds=(0,))
        self._audited = table(Count, folds=(0,))
        self._commit_size = Spread(COMMIT_SIZES)
        self._commit_seconds = Spread(COMMIT_SECONDS)

    def observe(self, seen: Observation) -> None:
        """Count one observation."""
        kind, who, outcome = seen.kind, seen.who, seen.outcome
        if who is None:
            purpose, agent, team = str(Purpose.LIVE), "", ""
        else:
            purpose, agent, team = str(who.purpose), who.agent, who.team
        target = seen.target or ""
        with self._lock:
            caller = self._callers.at((kind, purpose, agent, team, target))
            caller.outcomes[outcome] += 1
            caller.cost_nano += seen.cost_nano
            if seen.usage is not None:
                for place, count in enumerate(_tokens_of(seen.usage)):
                    caller.tokens[place] += count
            if outcome is Outcome.REFUSED:
                labels = (kind, purpose, agent, team, str(seen.code or ""), seen.rule or "")
                self._refused.at(labels).value += 1
            elif outcome.sent:
                self._sent(seen, target)
            for rule, count in seen.findings:
                self._found.at((rule,)).value += count
            for rule in seen.audited:
                self._audited.at((rule,)).value += 1

    def _sent(self, seen: Observation, target: str) -> None:
        error, seconds = error_type(seen) or "", seen.duration_us / 1e6
        if seen.kind == "tool":
            self._tool_seconds.at((target, error)).add(seconds)
            return
        operation = (operation_name(seen), provider_name(seen), seen.model_id or target)
        self._seconds.at((*operation, error)).add(seconds)
        if seen.first_token_us is not None and not error:
            self._first_token.at(operation).add(seen.first_token_us / 1e6)
        if seen.usage is not None and seen.outcome is Outcome.SETTLED:
            tokens = self._tokens.at(operation)
            tokens.input.add(seen.usage.input)
            tokens.output.add(seen.usage.output)

    def observe_commit(self, size: int, seconds: float) -> None:
        """One commit of the database: how many writes it held, and how long it took."""
        with self._lock:
            self._commit_size.add(size)
            self._commit_seconds.add(seconds)

    def collect(self) -> Iterator[Metric]:
        """The families, as the registry asks for them."""
        yield from self._of_callers()
        yield from self._of_operations()
        yield from self._of_rules()
        yield _histogram(
            "interlock_commit_size", "Writes that shared one commit.", (), [((), self._commit_size)]
        )
        yield _histogram(
            "interlock_commit_seconds",
            "How long one commit took.",
            (),
            [((), self._commit_seconds)],
        )
        tables = (
            self._callers, self._refused, self._seconds, self._tool_seconds, self._first_token,
            self._tokens, self._found, self._audited,
        )  # fmt: skip
        yield CounterMetricFamily(
            "interlock_telemetry_folded",
            "Figures counted under `other`, because there are too many labels.",
            value=sum(table.folded for table in tables),
        )

    def _of_callers(self) -> Iterator[Metric]:
        calls = CounterMetricFamily(
            "interlock_calls",
            "Attempts that ended, refusals, and answers from store.",
            labels=(*CALLER, "outcome"),
        )
        tokens = CounterMetricFamily(
            "interlock_tokens", "Tokens used.", labels=(*CALLER[1:], "token_kind")
        )
        cost = CounterMetricFamily("interlock_cost_dollars", "Dollars spent.", labels=CALLER[1:])
        for labels, caller in self._copy(self._callers):
            for outcome, count in caller.outcomes.items():
                if count:
                    calls.add_metric((*labels, str(outcome)), count)
            for kind, count in zip(TOKEN_KINDS, caller.tokens, strict=True):
                if count:
                    tokens.add_metric((*labels[1:], kind), count)
            if labels[0] == "model":
                cost.add_metric(labels[1:], caller.cost_nano / NANO)
        yield from (calls, tokens, cost)

    def _of_operations(self) -> Iterator[Metric]:
        yield _histogram(
            "gen_ai_client_operation_duration_seconds",
            "How long attempts of model calls took.",
            (*OPERATION, "error_type"),
            self._copy(self._seconds),
        )
        yield _histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "How long it took until the first piece of an answer.",
            OPERATION,
            self._copy(self._first_token),
        )
        usage = [
            ((*labels, kind), spread)
            for labels, both in self._copy(self._tokens)
            for kind, spread in (("input", both.input), ("output", both.output))
        ]
        yield _histogram(
            "gen_ai_client_token_usage",
            "Tokens of one answered model call.",
            (*OPERATION, "gen_ai_token_type"),
            usage,
        )
        yield _histogram(
            "gen_ai_execute_tool_duration_seconds",
            "How long attempts of tool calls took.",
            (*TOOL, "error_type"),
            self._copy(self._tool_seconds),
        )

    def _of_rules(self) -> Iterator[Metric]:
        for name, text, labels, table in (
            ("interlock_refusals", "Calls that were refused.", REFUSED, self._refused),
            ("interlock_guardrail_findings", "What guardrails found.", ("rule",), self._found),
            (
                "interlock_audit_hits",
                "Calls that a rule in audit mode would have refused.",
                ("rule",),
                self._audited,
            ),
        ):
            family = CounterMetricFamily(name, text, labels=labels)
            for values, count in self._copy(table):
                family.add_metric(values, count.value)
            yield family

    def _copy(self, table: Table[V]) -> list[tuple[tuple[str, ...], V]]:
        # Only the list of what there is needs the lock. A figure that grows while it is written
        # down is in this scrape or in the next one.
        with self._lock:
            return table.items()


def operation_name(seen: Observation) -> str:
    """`gen_ai.operation.name`."""
    if seen.kind == "tool":
        return "execute_tool"
    return "embeddings" if seen.dialect == "embeddings" else "chat"


def provider_name(seen: Observation) -> str:
    """`gen_ai.provider.name`: the flavour of the provider, not its name in the policy."""
    kind = seen.provider_kind or ""
    return PROVIDER_NAMES.get(kind, kind)


def error_type(seen: Observation) -> str | None:
    """`error.type`: the code, or how it ended; None when it ended well."""
    if seen.outcome in (Outcome.SETTLED, Outcome.REPLAYED, Outcome.CACHED):
        return None
    return str(seen.code or seen.outcome)


def _histogram(
    name: str, text: str, labels: tuple[str, ...], spreads: list[tuple[tuple[str, ...], Spread]]
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, spread in spreads:
        family.add_metric(values, spread.buckets(), spread.total)
    return family
