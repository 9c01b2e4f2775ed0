"""YAML in the manner of articles about agent loops: it loads as it is, or says the line to change.

Each file of articles/ starts with what is expected: `# loads`, or one `# says: …` for each fix.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.config.load import load
from reconciler.findings import Severity
from reconciler.source.tree import MemoryTree

ARTICLES = sorted((Path(__file__).parent / "articles").glob("*.yaml"))

FLEET = {
    "interlock.yaml": """\
fleet:
  name: northwind
  defaults:
    model: smart
    rollout: ungated
    harness: {max_steps: 80, max_cost_per_run: 5, max_wall_time: 4h, max_tokens_per_run: 2_000_000}
  rollouts: {ungated: {gate: none}}
""",
    "teams.yaml": "teams: {platform: {members: [mara]}}\n",
    "gateway/models.yaml": """\
providers: {offline: {kind: scripted, script: ./scripts/x.yaml}}
models:
  smart: {provider: offline, id: one}
  other-smart: {provider: offline, id: two}
""",
    "gateway/scripts/x.yaml": "script: {rules: [{name: end, say: done}]}\n",
    "gateway/mcp-servers.yaml": """\
servers:
  github:
    url: http://127.0.0.1:8931/mcp
    tools:
      read_pr: {access: [read]}
      create_pr: {access: [write]}
      merge_pr: {access: [write]}
  ci: {url: "http://127.0.0.1:8932/mcp", tools: {read_logs: {access: [read]}}}
""",
    "skills/ci-runbook/SKILL.md": "---\nname: ci-runbook\ndescription: Reading logs.\n---\nRead.\n",
    "agents/it/triage.md": "Find out why the build broke.\n",
}


def test_there_are_articles() -> None:
    assert len(ARTICLES) >= 12


@pytest.mark.parametrize("path", ARTICLES, ids=lambda path: path.stem)
def test_an_article_loads_or_says_the_line_to_change(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    files = {**FLEET, "agents/it/agent.yaml": text}
    result = load(MemoryTree({name: content.encode() for name, content in files.items()}))
    errors = [f for f in result.findings if f.severity is Severity.ERROR]
    assert result.fleet is not None
    if text.startswith("# loads\n"):
        assert errors == []
        assert len(result.fleet.agents) == 1
        return
    expected = [line[8:] for line in text.splitlines() if line.startswith("# says: ")]
    assert expected
    said = "\n".join(map(str, errors))
    assert [fix for fix in expected if fix not in said] == [], said
    assert [str(f) for f in errors if not f.fix] == []
    assert len(errors) == len(expected), said
    assert result.fleet.agents == {}


words = st.sampled_from(
    [
        "agent",
        "agents",
        "name",
        "model",
        "harness",
        "approvals",
        "subagents",
        "trigger",
        "schedule",
        "cron",
        "tools",
        "skills",
        "owns",
        "to",
        "from",
        "claim",
        "formerly",
        "budget",
        "max_usd",
        "timeout",
        "until",
        "role",
        "instructions",
        "mcp_servers",
        "spec",
        "kind",
        "metadata",
        "apiVersion",
        "rollout",
        "sandbox",
        "github.create_pr",
        "Bash",
        "reviewer",
        "required",
        "./x.md",
        "2h",
    ]
)
scalars = words | st.none() | st.booleans() | st.integers(-(10**9), 10**13) | st.text(max_size=12)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(words, values, max_size=4), st.dictionaries(words, values, max_size=6))
def test_whatever_is_written_is_read_or_refused_with_a_place(
    top: dict[str, object], agent: dict[str, object]
) -> None:
    known = {"name": "it", "team": "platform", "instructions": "Do this."}
    for document in (top, {"trigger": "manual", **top, "agent": {**known, **agent}}):
        files = {**FLEET, "agents/it/agent.yaml": json.dumps(document)}
        result = load(MemoryTree({name: content.encode() for name, content in files.items()}))
        assert result.fleet is not None
        assert bool(result.broken) != bool(result.fleet.agents)
        assert all(f.line == 1 and f.column >= 1 and f.message for f in result.findings)
        assert all("\n" not in str(f) for f in result.findings)
