"""docs/telemetry.md and the example of alerts say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway.log import EVENTS, LEVELS
from gateway.pricing import Usage
from gateway.refusals import Code
from gateway.telemetry import BudgetLevel, Outcome, Readings, Telemetry
from gateway.telemetry.metrics import TOKEN_KINDS
from gateway.telemetry.otlp import OtlpSettings
from gateway.telemetry.spans import Attributes, span_of, trace_of
from gateway.values import Millis, Purpose
from tests.gateway.stage import principal
from tests.gateway.telemetry_stage import attributes, model_call, refusal, tool_call

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "telemetry.md").read_text()
ALERTS = yaml.safe_load((ROOT / "docs" / "examples" / "alerts.yml").read_text())
SUFFIXES = re.compile(r"_(bucket|count|sum|created)$")


def table(*header: str) -> list[list[str]]:
    """The cells of the table with this header."""
    text = PAGE.split(f"| {' | '.join(header)} |\n", 1)[1].split("\n\n")[0]
    return [re.findall(r"(?<=\|)(.*?)(?=\|)", line) for line in text.splitlines()[1:]]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture(scope="module")
def exposed() -> dict[str, tuple[str, set[str]]]:
    """Every metric of a gateway that has seen everything: its type and labels."""
    telemetry = Telemetry(otlp=OtlpSettings("http://127.0.0.1:9/v1/traces"))
    telemetry.watch(
        Readings(
            reservations=lambda: 1,
            budgets=lambda: [BudgetLevel("month", 1, 2)],
            waiting=lambda: {"cloud": 1},
            breakers=lambda: {"fast": "closed"},
            last_tick=lambda: Millis(1),
        )
    )
    telemetry.observe(model_call())
    telemetry.observe(model_call(outcome=Outcome.UNKNOWN))
    telemetry.observe(tool_call(outcome=Outcome.UNKNOWN))
    telemetry.observe(refusal(Code.RATE_LIMITED, rule="quick"))
    telemetry.observe_commit(1, 0.001)
    text = telemetry.metrics().decode()
    telemetry.close(0)
    found: dict[str, tuple[str, set[str]]] = {}
    for family in text_string_to_metric_families(text):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert family.documentation, f"{name} says nothing"
        found[name] = (family.type, labels)
    return found


def test_every_metric_is_documented_with_its_type_and_labels(
    exposed: dict[str, tuple[str, set[str]]],
) -> None:
    documented = {
        names(name)[0]: (kind.strip(), set(names(labels)))
        for name, kind, labels, _ in table("Metric", "Type", "Labels", "Says")
    }
    assert documented == exposed


def test_the_values_of_labels_are_the_documented_ones() -> None:
    documented = {
        label: names(values) for label, values in table("Label", "Values") for label in names(label)
    }
    assert documented["outcome"] == list(Outcome)
    assert documented["purpose"] == list(Purpose)
    assert set(TOKEN_KINDS) <= set(documented["token_kind"])


def test_every_attribute_of_a_span_is_documented() -> None:
    seen = (
        model_call(who=principal(user="ada"), rule="month", code=Code.GUARDRAIL),
        model_call(outcome=Outcome.UNKNOWN, usage=Usage(1, 2, cached=1, reasoning=1)),
        tool_call(),
    )
    found: set[str] = set()
    for each in seen:
        span = span_of(each, Attributes(str))
        assert span is not None
        found |= set(attributes(span))
    documented = {names(name)[0]: of for name, of, _ in table("Attribute", "Of", "Is")}
    # Tokens of these kinds are told when `pricing.Usage` knows them.
    later = {f"gen_ai.usage.{kind}_tokens" for kind in ("audio.input", "audio.output")}
    later.add("gen_ai.usage.cache_creation.input_tokens")
    assert found - documented.keys() == set()
    assert documented.keys() - found <= later


def test_every_event_of_the_log_is_documented() -> None:
    documented = {
        names(name)[0]: (level.strip(), set(names(facts)))
        for name, level, facts, _ in table("Event", "Level", "Facts", "Means")
    }
    assert documented == {name: (each.level, each.facts) for name, each in EVENTS.items()}
    assert all(f"`{level}`" in PAGE for level in LEVELS)


def test_the_example_line_has_facts_of_its_event() -> None:
    line = json.loads(PAGE.split("```json\n", 1)[1].split("```")[0])
    assert line.keys() - {"at", "level", "event"} <= EVENTS[line["event"]].facts


def test_the_example_of_a_trace_id_is_right() -> None:
    run, trace = re.findall(r"`(run-[0-9a-f]+)` has the trace `([0-9a-f]+)`", PAGE)[0]
    assert trace_of(run).hex() == trace


def test_every_variable_that_is_read_is_documented() -> None:
    source = (ROOT / "gateway" / "telemetry" / "otlp.py").read_text()
    read = set(re.findall(r'read\("(OTEL_[A-Z_]+)"\)', source))
    assert read == {names(name)[0] for name, _ in table("Variable", "Means")}


def test_the_scrape_example_is_a_configuration() -> None:
    example = yaml.safe_load(PAGE.split("```yaml\n", 1)[1].split("```")[0])
    (job,) = example["scrape_configs"]
    assert example["rule_files"] == ["alerts.yml"]
    alerts = [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]
    up = [expression for expression in alerts if "up{" in expression]
    assert up
    assert all(f'job="{job["job_name"]}"' in expression for expression in up)


def test_alerts_name_metrics_and_labels_that_exist(
    exposed: dict[str, tuple[str, set[str]]],
) -> None:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert len(rules) >= 6
    for rule in rules:
        texts = [rule["expr"], *rule["annotations"].values()]
        used = re.findall(r"\b(?:interlock|gen_ai)_\w+", " ".join(texts))
        assert used or "up{" in rule["expr"]
        for name in used:
            assert {name, SUFFIXES.sub("", name)} & exposed.keys(), f"{rule['alert']}: {name}"
        for name, matchers in re.findall(r"\b(interlock_\w+)\{([^}]*)\}", rule["expr"]):
            assert set(re.findall(r"(\w+)=", matchers)) <= exposed[name][1], rule["alert"]
        for grouped in re.findall(r"by \(([^)]*)\)", rule["expr"]):
            labels = set(re.split(r",\s*", grouped))
            assert all(labels <= exposed[n][1] for n in used if n in rule["expr"]), rule["alert"]
        assert {"summary", "action"} <= rule["annotations"].keys()
