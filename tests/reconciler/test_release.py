"""The release digest: same behaviour, same digest; other behaviour, another one."""

# ruff: noqa: E501 - tables read better with one row a line

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.values import AgentName, canonical_json, content_hash
from reconciler.config.load import load
from reconciler.findings import Finding
from reconciler.release import (
    BadRelease,
    Release,
    changed_leaves,
    compile_fleet,
    parse_document,
    release_of,
    root_hash,
    variant,
)
from reconciler.source.tree import MemoryTree
from tests.support.small_fleet import FILES, LOCKED, RELOCKED, edited, fleet, release, tree

AGENT = "agents/triage/agent.yaml"
MODELS = "gateway/models.yaml"
SERVERS = "gateway/mcp-servers.yaml"
GOLDEN = "rel-d1c49aaf74cb"


def test_the_digest_of_a_fixed_fleet_is_frozen() -> None:
    assert release().digest == GOLDEN


def test_the_digest_is_what_the_format_says() -> None:
    leaves = {path: content_hash(leaf) for path, leaf in release().leaves.items()}
    root = content_hash({"format": "interlock.release/1", "leaves": leaves})
    assert release().digest == f"rel-{root[:12]}"
    assert root_hash(release().leaves) == root


SAME = {
    "comment": (AGENT, "agent:\n", "# a comment\nagent:\n"),
    "layout": (AGENT, "skills: [python]", "skills:\n    - python"),
    "quotes": (AGENT, "name: triage", 'name: "triage"'),
    "way to write a number": ("interlock.yaml", "400_000", "400000"),
    "way to write a duration": ("interlock.yaml", "20m", "1200s"),
    "way to write a size": ("interlock.yaml", "memory: 512m", "memory: 524288k"),
    "way to write money": ("interlock.yaml", "0.50", "0.5"),
    "order of tools": (AGENT, "[open, list]", "[list, open]"),
    "order of targets (routing)": (MODELS, "[large, small]", "[small, large]"),
    "how targets are chosen": (MODELS, "[large, small]", "[large, {model: small, weight: 2}], routing: weight, retry: {attempts: 4}, first_token: 3s"),
    "empty parameters spelled out": (MODELS, "id: large-1", "id: large-1, parameters: {}"),
    "default spelled out": (AGENT, "role: checker,", "role: checker, skills: [],"),
    "tags": (AGENT, "team: payments", "team: payments\n  tags: [batch]"),
    "schedule": (AGENT, "0 6 * * 1-5", "0 7 * * *"),
    "claims": (AGENT, '"docs/**", ', ""),
    "gate policy": ("interlock.yaml", "count: 5", "count: 9"),
    "budgets": ("gateway/budgets.yaml", "200", "300"),
    "prices": (MODELS, "3.00", "4.00"),
    "provider's address": (MODELS, "/v1,", "/v2,"),
    "team": ("teams.yaml", "ines", "tom"),
    "suite": ("agents/triage/evals/cases/case-02.yaml", "Fix it.", "Fix this."),
    "sentinel": ("agents/triage/evals/sentinels/idle.md", "nothing", "little"),
    "skill's version and licence": ("skills/python/SKILL.md", "version: 1", "version: 1\nlicense: MIT"),
    "agent's name": (AGENT, "name: triage", "name: triage-two"),
    "ungranted tool": (SERVERS, "Delete a project.", "Delete all."),
}  # fmt: skip

OTHER = {
    "instructions": ("agents/triage/triage.md", "failing", "broken", ["main/instructions"]),
    "admissible models": (MODELS, "[large, small]", "[large]", ["main/model"]),
    "provider's model id": (MODELS, "id: large-1", "id: large-2", ["main/model"]),
    "a model's parameters": (MODELS, "id: large-1", "id: large-1, parameters: {temperature: 0.2}", ["main/model"]),
    "a target's parameters": (MODELS, "[large, small]", "[{model: large, parameters: {top_k: 4}}, small]", ["main/model"]),
    "provider's kind": (MODELS, "kind: openai", "kind: anthropic", ["main/model", "subagents/reviewer/model"]),
    "parameters": (AGENT, "  skills:", "  parameters: {temperature: 0.2}\n  skills:", ["main/parameters"]),
    "built-in tools": (AGENT, "  skills:", "  tools: [shell]\n  skills:", ["main/builtin"]),
    "skill's text": ("skills/python/SKILL.md", "bottom", "top", ["main/skills/python"]),
    "skill's description": ("skills/python/SKILL.md", "traceback", "trace", ["main/skills/python"]),
    "skill's other file": ("skills/python/scripts/run.sh", "python3", "python", ["main/skills/python"]),
    "tool's access": (SERVERS, "open: {access: [write]", "open: {access: [write, egress]", ["main/tools/tracker.open"]),
    "tool's description": (SERVERS, "Open a change", "Open changes", ["main/tools/tracker.open"]),
    "tool's schema": (SERVERS, "{type: string}", "{type: integer}", ["main/tools/tracker.open"]),
    "tool's fingerprint": ("interlock.lock", LOCKED, RELOCKED, ["main/tools/tracker.open"]),
    "tool's arguments": (AGENT, "northwind-*", "northwind-api", ["main/tools/tracker.list", "main/tools/tracker.open"]),
    "approvals": (AGENT, "{open: pause_for_human}", "{}", ["main/tools/tracker.open"]),
    "granted tools": (AGENT, "tools: [open, list]", "tools: [open]", ["main/tools/tracker.list"]),
    "limits": (AGENT, "max_steps: 30", "max_steps: 29", ["limits", "subagents/reviewer/limits"]),
    "until": (AGENT, "{checker: reviewer}", "{command: make test}", ["until"]),
    "image": ("interlock.lock", "sha256:a", "sha256:b", ["sandbox"]),
    "memory": ("interlock.yaml", "512m", "256m", ["sandbox"]),
    "safety": (AGENT, 'safety: [{changes: {exclude: ["tests/**"', 'safety: [{changes: {exclude: ["ci/**"', ["safety"]),
    "workspace": (AGENT, "api.git", "web.git", ["workspace"]),
    "protected files": (AGENT, 'protect: ["tests/**"]', "protect: []", ["workspace"]),
    "sub-agent's text": ("agents/triage/subagents/reviewer.md", "Judge", "Praise", ["subagents/reviewer/instructions"]),
    "sub-agent's model": (AGENT, "model: small", "model: large", ["subagents/reviewer/model"]),
    "sub-agent's tools": (AGENT, "model: small}", "model: small, tools: [shell]}", ["subagents/reviewer/builtin"]),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_what_is_not_behaviour_does_not_change_the_digest(name: str) -> None:
    path, old, new = SAME[name]
    agent = "triage-two" if name == "agent's name" else "triage"
    assert release(edited(path, old, new), agent).digest == release().digest


@pytest.mark.parametrize("name", OTHER)
def test_what_is_behaviour_changes_the_digest_and_only_its_leaf(name: str) -> None:
    path, old, new, leaves = OTHER[name]
    after = release(edited(path, old, new))
    assert after.digest != release().digest
    assert list(changed_leaves(release(), after)) == leaves


def shuffled(value: object, draw: st.DrawFn) -> object:
    if isinstance(value, dict):
        keys = draw(st.permutations(list(value)))
        return {key: shuffled(value[key], draw) for key in keys}
    return [shuffled(v, draw) for v in value] if isinstance(value, list) else value


@st.composite
def respelled(draw: st.DrawFn) -> MemoryTree:
    """The same documents: other key order, style, indentation, comments, unrelated files."""
    changes: dict[str, str] = {}
    for path in (AGENT, "interlock.yaml", MODELS, SERVERS, "interlock.lock"):
        # BaseLoader keeps scalars as they are written; the quotes that make text of them are
        # not needed again in these files.
        data = yaml.load(FILES[path], Loader=yaml.BaseLoader)
        text = yaml.dump(
            shuffled(data, draw),
            sort_keys=False,
            default_flow_style=draw(st.booleans()),
            indent=draw(st.integers(2, 6)),
            width=draw(st.integers(40, 200)),
            Dumper=yaml.SafeDumper,
        )
        # Quoted by the dumper because YAML 1.1 would read them as numbers, which they are.
        text = re.sub(r"'(\d[\d_.]*|true|false)'", r"\1", text)
        comment = draw(st.text(alphabet="abc #:{}[]", max_size=20))
        changes[path] = f"# {comment}\n{text}\n\n"
    changes[draw(st.sampled_from(["README.md", "docs/x.md", "agents/triage/notes.txt"]))] = "x"
    return tree(changes)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(respelled())
def test_spelling_and_unrelated_files_never_change_the_digest(repository: MemoryTree) -> None:
    assert release(repository).digest == release().digest


def test_a_release_survives_its_document() -> None:
    original = release()
    assert parse_document(original.text()) == original
    assert parse_document(original.document()) == original
    assert json.loads(original.text())["digest"] == original.digest


def spoiled(**changes: object) -> str:
    return json.dumps({**release().document(), **changes})


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", "not a release"),
        ("[]", "not a JSON object"),
        ("{}", "format None"),
        (spoiled(format="interlock.release/2"), "upgrade Interlock"),
        (spoiled(digest="rel-000000000000"), "it was altered"),
        (spoiled(leaves={**release().leaves, "main/instructions": "Obey."}), "it was altered"),
        (spoiled(leaves={}), "it lacks limits"),
        (spoiled(leaves={**release().leaves, "limits": {"max_steps": 1.5}}), "a float"),
        (spoiled(more=1), "expected the keys"),
        ('{"format": 1, "format": 2}', "given twice"),
        ("[" * 100_000, "not a release"),
    ],
)
def test_a_tampered_document_is_refused(text: str, words: str) -> None:
    with pytest.raises(BadRelease, match=words):
        parse_document(text)


def test_no_leaf_can_hold_a_float() -> None:
    with pytest.raises(TypeError, match="float"):
        release_of({"main/parameters": {"temperature": 0.2}})
    hot = release(edited(AGENT, "  skills:", "  parameters: {temperature: 0.20}\n  skills:"))
    assert hot.leaves["main/parameters"] == {"temperature": "0.2"}


def test_the_first_release_is_all_new() -> None:
    assert set(changed_leaves(None, release())) == set(release().leaves)
    assert changed_leaves(release(), release()) == {}


def test_an_image_without_a_digest_is_a_finding_unless_this_machine_knows_it() -> None:
    unlocked = fleet(tree({"interlock.lock": None}))
    found = compile_fleet(unlocked)[AgentName("triage")]
    assert isinstance(found, tuple)
    assert str(found[0]).startswith('interlock.yaml:7:22 image "default" has no digest')
    known = compile_fleet(unlocked, images={"default": "sha256:" + "c" * 64})
    assert isinstance(known[AgentName("triage")], Release)


def test_the_lock_wins_over_what_the_machine_says() -> None:
    assert compile_fleet(fleet(), images={"default": "sha256:x"}) == compile_fleet(fleet())


def test_a_sentinel_is_the_agent_with_its_change_only() -> None:
    declared = fleet()
    agent = declared.agents[AgentName("triage")]
    assert agent.suite is not None
    bad = variant(agent, agent.suite.sentinels[0], declared)
    assert isinstance(bad, Release)
    assert list(changed_leaves(release(), bad)) == ["main/instructions"]
    assert bad.leaves["main/instructions"] == "Do nothing and say that all is well.\n"


def test_every_leaf_has_a_canonical_form() -> None:
    assert all(canonical_json(leaf) for leaf in release().leaves.values())


def test_findings_of_a_tree_are_never_releases() -> None:
    result = load(edited(AGENT, "model: small", "model: smll"))
    assert result.fleet is not None
    assert compile_fleet(result.fleet) == {}
    assert all(isinstance(f, Finding) for f in result.findings)


def test_the_example_of_the_format_page_is_a_release() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats" / "release.md").read_text("utf-8")
    example = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert example is not None
    parsed = parse_document(example[1])
    for path, leaf in parsed.leaves.items():
        assert content_hash(leaf)[:12] in page, path
    assert root_hash(parsed.leaves) in page


def test_the_format_page_names_every_kind_of_leaf() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats" / "release.md").read_text("utf-8")
    for path in release().leaves:
        kind = re.sub(r"^(main|subagents/[^/]+)/", "P/", path)
        kind = re.sub(r"/(skills|tools)/.*", r"/\1/NAME", kind)
        assert f"`{kind}`" in page, kind
