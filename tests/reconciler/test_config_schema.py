"""The JSON Schemas that editors are given accept what the loader accepts, and refuse its shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter, ValidationError

from reconciler.config.models import KINDS, fields, fleet
from reconciler.config.positions import parse, parse_text, split_front_matter
from reconciler.config.schema import kinds, schema, unknown_short_forms
from reconciler.config.shapes import expect, kind_of
from tests.support import small_fleet

ROOT = Path(__file__).parents[2]
EVERYTHING = Draft202012Validator(schema())
REPOSITORIES = (
    ROOT / "example-config-repo",
    ROOT / "docs" / "language" / "examples" / "minimal",
    ROOT / "docs" / "language" / "examples" / "full",
    ROOT / "reconciler" / "config" / "scaffold" / "starter",
)


def _documents() -> Iterator[tuple[str, Any]]:
    """Every document of ours in the repositories that people are shown."""
    for repository in REPOSITORIES:
        for path in sorted([*repository.rglob("*.yaml"), *repository.rglob("*.lock")]):
            text = path.read_bytes().replace(b"@IMAGES@", b" {}").replace(b"@SIGNERS@", b"[]")
            for word in (b"FLEET", b"TEAM", b"MEMBER"):
                text = text.replace(b"@%s@" % word, word.lower())
            document = parse(str(path.relative_to(ROOT)), text)
            if kind_of(document) is not None:
                yield document.file, document.data
    for name, text in small_fleet.FILES.items():
        if name.endswith((".yaml", ".lock")):
            yield f"small_fleet: {name}", parse_text(name, text).data


DOCUMENTS = dict(_documents())


def _schema_errors(data: Any, validator: Draft202012Validator = EVERYTHING) -> list[str]:
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(data)]


@pytest.mark.parametrize("file", sorted(DOCUMENTS))
def test_a_document_that_loads_is_valid_under_the_schema(file: str) -> None:
    assert _schema_errors(DOCUMENTS[file]) == []


def test_there_are_documents_of_every_kind_to_compare_with() -> None:
    seen = {key for data in DOCUMENTS.values() for key in data if key in KINDS}
    assert {KINDS[key] for key in seen} == set(KINDS.values())


@pytest.mark.parametrize("kind", list(kinds()))
def test_each_schema_is_a_schema_and_explains_every_key_of_ours(kind: str) -> None:
    made = schema(kind)
    Draft202012Validator.check_schema(made)
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    ours = [made, *[v for k, v in made["$defs"].items() if not _of_the_gateway(k)]]
    unexplained = [
        key
        for each in ours
        for key, value in each.get("properties", {}).items()
        if not value.get("description")
    ]
    assert unexplained == []


def _of_the_gateway(name: str) -> bool:
    return name.startswith("policy-")


@pytest.mark.parametrize("file", ["skills/python/SKILL.md", "agents/ci-triage/triage.md"])
def test_front_matter_has_schemas_too(file: str) -> None:
    text = (REPOSITORIES[2] / file).read_text()
    front, _, _ = split_front_matter(text)
    kind = "skill" if file.startswith("skills") else "instructions"
    data = parse_text(file, front or "").data
    validator = Draft202012Validator(schema(kind))
    assert _schema_errors(data, validator) == []
    assert _schema_errors({**data, "vresion": 1}, validator)


def test_every_short_form_of_the_models_is_in_the_table() -> None:
    assert unknown_short_forms() == [], "tell reconciler/config/schema.py how people write it"


def test_the_schema_is_plain_json_and_the_same_every_time() -> None:
    assert json.loads(json.dumps(schema())) == schema()
    assert json.dumps(schema()) == json.dumps(schema())


AGENT = {"agent": {"name": "a", "instructions": "./a.md"}, "trigger": "manual"}


def _with(path: str, value: Any, base: dict[str, Any] | None = None) -> dict[str, Any]:
    made = json.loads(json.dumps(base or AGENT))
    here = made
    *steps, last = path.split(".")
    for step in steps:
        here = here.setdefault(step, {})
    here[last] = value
    return dict(made)


FLEET = {"fleet": {"name": "f"}}
BUDGET = {"budgets": [{"name": "b", "limit": 5, "window": "day"}]}
RULE = {"suite": {"name": "s", "cases": "./*.yaml"}}
CASE = {"case": {"id": "c", "workspace": "./w", "input": "i", "grade": [{"command": "true"}]}}

BAD: dict[str, dict[str, Any]] = {
    "an unknown key": _with("agent.modle", "smart"),
    "an unknown key at the top": _with("agnet", {}),
    "a missing key": {"agent": {"name": "a"}, "trigger": "manual"},
    "no trigger": {"agent": {"name": "a", "instructions": "./a.md"}},
    "a name with capitals": _with("agent.name", "CI"),
    "a name that is too long": _with("agent.name", "a" * 65),
    "a number for a text": _with("agent.team", 7),
    "a text for a list": _with("agent.skills", "python"),
    "an unknown built-in tool": _with("agent.tools", ["shel"]),
    "a duration without a unit": _with("agent.harness.max_wall_time", 20),
    "a duration of zero": _with("agent.harness.max_wall_time", "0s"),
    "a duration in words": _with("agent.harness.max_wall_time", "20 minutes"),
    "a size without a unit": _with("agent.sandbox.memory", "512"),
    "negative dollars": _with("agent.harness.max_cost_per_run", -1),
    "dollars as text": _with("agent.harness.max_cost_per_run", "0.50 $"),
    "no steps": _with("agent.harness.max_steps", 0),
    "half a step": _with("agent.harness.max_steps", 1.5),
    "too many processes": _with("agent.sandbox.pids", 40_000),
    "no CPU": _with("agent.sandbox.cpus", 0),
    "an absolute path": _with("evals", "/etc/passwd"),
    "two ends": _with("agent.harness.until", {"command": "true", "checker": "c"}),
    "no end": _with("agent.harness.until", {}),
    "two triggers": _with("trigger", {"schedule": "0 6 * * *", "manual": True}),
    "no kind of trigger": _with("trigger", {"timezone": "UTC"}),
    "a trigger in another word": _with("trigger", "sometimes"),
    "an unknown role": _with("agent.subagents", [{"name": "r", "role": "judge"}]),
    "a safety check of another kind": _with("agent.safety", [{"command": "true"}]),
    "an approval that is no approval": _with("agent.approvals", {"open": "never"}),
    "a claim on both sides": _with("agent.owns", [{"claim": "a", "to": "b", "from": "c"}]),
    "a gate left empty": _with("fleet.rollouts", {"s": {"gate": None}}, FLEET),
    "a policy without a gate": _with("fleet.rollouts", {"s": {}}, FLEET),
    "a share above one": _with(
        "fleet.rollouts", {"s": {"gate": {"first_release": {"min_pass_rate": 2}}}}, FLEET
    ),
    "a branch with a blank": _with("fleet.branch", "my branch", FLEET),
    "a secret in both places": {
        "servers": {"t": {"url": "https://x", "key": {"env": "A", "file": "b"}, "hosts": ["x"]}}
    },
    "an address that is none": {"servers": {"t": {"url": "ftp://x"}}},
    "an unknown access": {
        "servers": {"t": {"url": "https://x", "tools": {"a": {"access": ["x"]}}}}
    },
    "a window of another length": {"budgets": [{"name": "b", "limit": 5, "window": "hour"}]},
    "an alert above the limit": {
        "budgets": [{"name": "b", "limit": 5, "window": "day", "alert_at": [101]}]
    },
    "a virtual model for nothing": {"virtual_models": {"smart": {"targets": []}}},
    "a suite without cases": {"suite": {"name": "s"}},
    "a case without checks": _with("case.grade", [], CASE),
    "a check of two kinds": _with("case.grade", [{"command": "true", "file": "a"}], CASE),
    "a sentinel like the agent": {"sentinel": {"id": "s", "why": "w"}},
    "a rate limit of nothing": {"rate_limits": [{"name": "r", "window": "minute"}]},
    "a guardrail of two kinds": {
        "guardrails": [{"name": "g", "hooks": ["tool_input"], "secrets": {}, "injection": {}}]
    },
    "a guardrail of no kind": {"guardrails": [{"name": "g", "hooks": ["tool_input"]}]},
    "a list for a mapping": {"teams": ["platform"]},
    "a rule with a misspelt key": {"script": {"rules": [{"name": "r", "wehn": {}}]}},
}


@pytest.mark.parametrize("what", sorted(BAD))
def test_what_the_loader_refuses_for_its_shape_the_schema_refuses(what: str) -> None:
    text = json.dumps(BAD[what])
    document = parse_text("x.yaml", text)
    model = kind_of(document)
    assert model is not None
    value, findings = expect(document, model)
    assert value is None
    assert findings, "the loader accepts it: not a bad document"
    assert _schema_errors(document.data)


@pytest.mark.parametrize("base", [AGENT, FLEET, BUDGET, RULE, CASE])
def test_the_documents_the_bad_ones_are_made_from_are_good(base: dict[str, Any]) -> None:
    document = parse_text("x.yaml", json.dumps(base))
    model = kind_of(document)
    assert model is not None
    assert expect(document, model)[1] == ()
    assert _schema_errors(base) == []


def test_a_document_of_no_kind_is_refused() -> None:
    assert _schema_errors({"unrelated": 1})
    assert _schema_errors([])


def test_a_number_with_underscores_is_text_to_an_editor_and_accepted() -> None:
    assert _schema_errors(_with("agent.harness.max_tokens_per_run", "400_000")) == []
    assert _schema_errors(_with("agent.harness.max_tokens_per_run", "400.000"))


SAME: dict[str, Any] = {
    "Name": fields.Name,
    "Label": fields.Label,
    "ServerName": fields.ServerName,
    "ToolName": fields.ToolName,
    "Duration": fields.Duration,
    "Size": fields.Size,
    "Reference": fields.Reference,
    "Line": fields.Line,
    "Branch": fleet.Branch,
}
PLACES = {
    "Name": lambda text: _with("agent.name", text),
    "Label": lambda text: _with("agent.model", text),
    "ServerName": lambda text: _with("agent.mcp_servers", [{"name": text}]),
    "ToolName": lambda text: _with("agent.mcp_servers", [{"name": "a", "tools": [text]}]),
    "Duration": lambda text: _with("agent.harness.max_wall_time", text),
    "Size": lambda text: _with("agent.sandbox.memory", text),
    "Reference": lambda text: _with("evals", text),
    "Line": lambda text: _with("agent.skills", [text]),
    "Branch": lambda text: _with("fleet.branch", text, FLEET),
}
TEXTS = st.text(alphabet="abzAZ019-_./:@ \n\tmhdsgkKMé", max_size=8) | st.text(max_size=6)


@pytest.mark.parametrize("kind", sorted(SAME))
def test_no_text_that_the_models_take_is_refused_by_the_schema(kind: str) -> None:
    adapter = TypeAdapter(SAME[kind])

    @given(TEXTS)
    @example("20m")
    @example("512MiB")
    @example("1h30m")
    @example("main")
    def check(text: str) -> None:
        try:
            adapter.validate_python(text)
        except ValidationError:
            return
        assert _schema_errors(PLACES[kind](text)) == []

    check()


@pytest.mark.parametrize("kind", ["Duration", "Label", "Name", "ServerName", "Size", "ToolName"])
def test_no_name_or_quantity_that_the_models_refuse_is_taken_by_the_schema(kind: str) -> None:
    adapter = TypeAdapter(SAME[kind])

    @given(TEXTS)
    @example("0s")
    @example("")
    @example("Überprüfer")
    def check(text: str) -> None:
        # `$` of JSON Schema is that of ECMAScript, the end and nothing else; the validator used
        # here searches with Python's, which allows a line end before it.
        if not text.endswith("\n") and not _schema_errors(PLACES[kind](text)):
            adapter.validate_python(text)

    check()
