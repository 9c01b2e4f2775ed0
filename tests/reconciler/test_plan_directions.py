"""Which changes of a setting are looser: one table, and what it does not know counts as looser."""

# ruff: noqa: E501 - tables read better with one row a line

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy import BudgetRule, Limits, Model, Provider, ToolClass, ToolServer, VirtualModel
from gateway.policy.rules import Cache, Guardrail, RateLimit
from gateway.values import Json
from reconciler.config import CanaryPolicy, FirstReleasePolicy, GatePolicy, HarmPolicy
from reconciler.plan import FLEET_AGENTS, units_of
from reconciler.plan.directions import TABLE, compare
from reconciler.plan.globs import covers, newly_allowed
from reconciler.plan.units import GRANTS
from runner.spec import SandboxSpec, Until
from tests.support.small_fleet import fleet

CHANGES: list[tuple[str, str, Any, Any, bool]] = [
    ("budget", "limit", 5, 6, True),
    ("budget", "limit", 6, 5, False),
    ("budget", "window", "day", "run", True),
    ("budget", "window", "month", "day", True),
    ("budget", "window", "day", "month", False),
    ("budget", "window", "week", "month", True),
    ("budget", "mode", "enforce", "audit", True),
    ("budget", "mode", "audit", "enforce", False),
    ("budget", "agent", "*", "ci-*", True),
    ("budget", "agent", "ci-*", "*", False),
    ("budget", "each_agent", False, True, True),
    ("budget", "alert_at", [50, 80], [80], True),
    ("budget", "limit", 5, None, True),
    ("budget", "tokens", None, 100, False),
    ("budget", "requests", 10, 20, True),
    ("budget", "user", "*", "ines", True),
    ("budget", "tag", "batch", "*", False),
    ("budget", "alert_at", [80], [50, 80], False),
    ("rate-limit", "requests", 10, 20, True),
    ("rate-limit", "window_ms", 60_000, 1_000, True),
    ("rate-limit", "match.team", None, "docs", True),
    ("guardrail", "mode", "enforce", "enforce_but_ignore_on_error", True),
    ("guardrail", "hooks", ["model_input", "tool_input"], ["tool_input"], True),
    ("guardrail", "check", {"kind": "pii", "kinds": ["email"]}, {"kind": "pii", "kinds": []}, True),
    ("provider", "base_url", "https://a.example", "https://b.example", True),
    ("provider", "key", {"env": "A", "file": None}, {"env": "B", "file": None}, True),
    ("provider", "hosts", ["a"], ["a", "b"], True),
    ("provider", "hosts", ["a", "b"], ["a"], False),
    ("provider", "timeout_seconds", 60, 120, True),
    ("model", "id", "large-1", "large-2", True),
    ("model", "price", {"input": 3, "output": 15, "cached_input": None}, {"input": 2, "output": 15, "cached_input": None}, True),
    ("model", "price", {"input": 3, "output": 15, "cached_input": None}, {"input": 4, "output": 15, "cached_input": None}, False),
    ("model", "price", {"input": 3, "output": 15, "cached_input": None}, {"input": 3, "output": 15, "cached_input": 1}, True),
    ("model", "price", {"input": 3, "output": 15, "cached_input": None}, None, True),
    ("model", "price", {"input": 3, "output": 15, "cache_write": 4}, {"input": 3, "output": 15}, True),
    ("model", "price", {"input": 3, "output": 15}, {"input": 3, "output": 15, "cache_write": 4, "audio_output": 20}, False),
    ("model", "price", {"input": 3, "output": 15}, {"input": 3, "output": 15, "audio_input": 2}, True),
    ("model", "parameters", {}, {"temperature": "0.2"}, True),
    ("model", "retires", "2027-01-01", None, False),
    ("virtual-model", "targets", ["a"], ["a", "b"], True),
    ("virtual-model", "targets", ["a", "b"], ["b", "a"], False),
    ("virtual-model", "routing", "priority", "weight", False),
    ("virtual-model", "parameters", {}, {"a": {"x": 1}}, True),
    ("virtual-model", "retry.attempts", 2, 3, True),
    ("virtual-model", "retry.attempts", 3, 1, False),
    ("virtual-model", "retry.on", [429], [429, 503], True),
    ("virtual-model", "fallback_on", [], [400], True),
    ("virtual-model", "first_token_ms", 3000, None, True),
    ("virtual-model", "sticky", "none", "run", False),
    ("server", "command", ["a"], ["a", "b"], True),
    ("server", "env", {}, {"A": {"env": "B"}}, True),
    ("server", "oauth", None, {"token_url": "https://a.example"}, True),
    ("server", "max_result_bytes", 1024, 2048, True),
    ("server", "listing", "auto", "full", False),
    ("provider", "tape", [], [{"request": "a"}], True),
    ("provider", "apis", ["chat"], ["chat", "embeddings"], True),
    ("provider", "apis", ["chat", "embeddings"], ["chat"], False),
    ("provider", "apis", ["chat"], None, True),
    ("provider", "max_concurrent", 10, None, True),
    ("provider", "max_waiting", 20, 10, False),
    ("cache", "ttl_ms", 1000, 2000, True),
    ("cache", "namespace", "agent", "fleet", True),
    ("cache", "namespace", "fleet", "team", False),
    ("cache", "match.agent", "ci-*", "*", True),
    ("cache", "match.model", None, "smart", False),
    ("tool", "access", ["write", "destructive"], ["write"], True),
    ("tool", "access", ["read"], ["read", "write"], False),
    ("tool", "trusted", False, True, True),
    ("tool", "trusted", True, False, False),
    ("tool", "sensitivity", "secret", "internal", True),
    ("tool", "sensitivity", "public", "secret", False),
    ("tool", "idempotent", False, True, True),
    ("tool", "description", "a", "b", False),
    ("tool", "input_schema", {"type": "object"}, {"type": "object", "x": 1}, True),
    ("rollout", "gate.delta_permille", 100, 200, True),
    ("rollout", "gate.first_release.min_pass_rate_permille", 800, 700, True),
    ("rollout", "gate.first_release.approval", True, False, True),
    ("rollout", "gate.cost_ratio_permille", 1250, None, True),
    ("rollout", "canary.count", 5, 3, True),
    ("rollout", "canary.count", 3, 5, False),
    ("rollout", "on_harm.safety", "stop", "finish_pinned", True),
    ("team", "members", ["a"], ["a", "b"], True),
    ("team", "members", ["a", "b"], ["a"], False),
    ("team", "uses.models", ["small"], ["*"], True),
    ("team", "uses.models", ["*"], ["small"], False),
    ("team", "uses.models", ["small"], None, True),
    ("team", "uses.models", None, ["small"], False),
    ("team", "defaults.harness.max_steps", 10, 20, True),
    ("fleet/defaults", "harness.max_cost_per_run", 5, None, True),
    ("fleet/defaults", "harness.max_cost_per_run", None, 5, False),
    ("fleet/defaults", "approvals.merge_pr", "pause_for_human", None, True),
    ("fleet/defaults", "approvals.merge_pr", None, "pause_for_human", False),
    ("fleet/signers", "", ["a"], ["a", "b"], True),
    ("fleet/signers", "", ["a", "b"], ["a"], False),
    ("destructive", "", ["*.delete_*", "x"], ["*.delete_*"], True),
    ("destructive", "", ["a.delete_x"], ["*.delete_*", "a.*"], False),
    ("limits", "max_wall_ms", 1, 2, True),
    ("sandbox", "memory_bytes", 2, 1, False),
    ("workspace", "protect", ["tests/**"], [], True),
    ("workspace", "git", "https://a", "https://b", True),
    ("until", "command", "pytest", "true", True),
    ("until", "command", None, "pytest", False),
]  # fmt: skip


def nested(path: str, value: Json) -> Json:
    for key in reversed(path.split(".") if path else []):
        value = {key: value}
    return value


@pytest.mark.parametrize("kind, path, before, after, looser", CHANGES)
def test_a_change_is_looser_in_one_direction(
    kind: str, path: str, before: Json, after: Json, looser: bool
) -> None:
    flat = kind == "fleet/defaults"
    old = {path: before} if flat else nested(path, before)
    new = {path: after} if flat else nested(path, after)
    found = compare(kind, old, new)
    assert [(one.path, one.looser) for one in found] == [(path, looser)]
    assert found[0].text


@pytest.mark.parametrize("kind", ["budget", "provider", "rollout", "a kind of next year", "image"])
@given(value=st.one_of(st.text(), st.integers(), st.lists(st.text(max_size=3), max_size=3)))
def test_a_field_that_nobody_knows_is_looser_when_it_changes(kind: str, value: Json) -> None:
    found = compare(kind, {"new-field": value}, {"new-field": "something else entirely"})
    assert [one.looser for one in found] == [True]


@pytest.mark.parametrize("kind", sorted(TABLE))
@given(
    value=st.dictionaries(
        st.sampled_from(["limit", "hosts", "gate", "x"]), st.none() | st.integers() | st.text()
    )
)
def test_equal_values_have_no_difference(kind: str, value: dict[str, Json]) -> None:
    assert compare(kind, value, dict(value)) == ()


def test_a_gate_that_is_dropped_is_looser_and_one_that_is_added_is_not() -> None:
    gate: Json = {"delta_permille": 100}
    assert [d.looser for d in compare("rollout", {"gate": gate}, {"gate": None})] == [True]
    assert [d.looser for d in compare("rollout", {"gate": None}, {"gate": gate})] == [False]


def test_a_cache_and_a_caller_from_outside_ask_when_they_are_new_and_not_when_they_go() -> None:
    assert {"cache", "principal"} <= GRANTS


def test_true_and_one_are_not_the_same() -> None:
    assert compare("tool", {"trusted": 0}, {"trusted": False}) != ()


MODELS = {
    "provider": Provider,
    "model": Model,
    "virtual-model": VirtualModel,
    "budget": BudgetRule,
    "tool": ToolClass,
    "server": ToolServer,
    "rate-limit": RateLimit,
    "guardrail": Guardrail,
    "cache": Cache,
    "limits": Limits,
    "sandbox": SandboxSpec,
    "until": Until,
}
ELSEWHERE = {"name", "tools", "fingerprint"}
"""The name is the unit's; tools and fingerprints are units of their own."""


@pytest.mark.parametrize("kind", MODELS)
def test_every_field_of_a_model_has_a_direction_and_every_row_a_field(kind: str) -> None:
    named = {path.partition(".")[0] for path in TABLE[kind]}
    assert named == set(MODELS[kind].model_fields) - ELSEWHERE


def test_every_field_of_a_rollout_policy_has_a_direction() -> None:
    named = {path for path in TABLE["rollout"] if path not in ("name", "gate", "canary")}
    wanted = {f"gate.{f.name}" for f in fields(GatePolicy)} - {"gate.first_release"}
    wanted |= {f"gate.first_release.{f.name}" for f in fields(FirstReleasePolicy)}
    wanted |= {f"canary.{f.name}" for f in fields(CanaryPolicy)}
    wanted |= {f"on_harm.{f.name}" for f in fields(HarmPolicy)}
    assert named == wanted


@pytest.mark.parametrize(
    "wide, narrow, sure",
    [("*", "x", True), ("a*", "ab", True), ("a*", "ab*", True), ("a?", "ab", True),
     ("ab", "a*", False), ("a?", "a*", False), ("a*b", "a*", False), ("[ab]", "a", True)],
)  # fmt: skip
def test_a_glob_covers_another_only_when_that_is_sure(wide: str, narrow: str, sure: bool) -> None:
    assert covers(wide, narrow) is sure


@given(st.lists(st.text(alphabet="ab*?", max_size=4), max_size=4))
def test_nothing_is_newly_allowed_by_the_same_globs(globs: list[str]) -> None:
    assert newly_allowed(globs, list(reversed(globs))) == ()
    assert newly_allowed(None, globs) == ()


def test_the_reference_names_every_kind_of_shared_setting() -> None:
    page = (Path(__file__).parents[2] / "docs" / "plan.md").read_text(encoding="utf-8")
    units = {*units_of(fleet()), FLEET_AGENTS, "rate-limit/x", "guardrail/x"}
    units |= {"cache/x", "principal/x"}
    kinds = {name if name.startswith("fleet/") else name.partition("/")[0] for name in units}
    missing = [kind for kind in sorted(kinds) if f"`{kind}" not in page]
    assert missing == []
