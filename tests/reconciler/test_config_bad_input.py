"""What people get wrong: each mistake is found where it is, and the message says what to do."""

# ruff: noqa: E501 - tables read better with one row a line

from __future__ import annotations

import pytest

from reconciler.config.load import load
from reconciler.source.tree import MemoryTree
from tests.support.small_fleet import FILES, edited, loaded, tree

AGENT = "agents/triage/agent.yaml"
CASE = "agents/triage/evals/cases/case-03.yaml"
MODELS = "gateway/models.yaml"

EDITS = {
    "unknown key": (AGENT, "skills:", "skils:", f'{AGENT}:5:3 unknown key "skils" in agent; did you mean "skills"?'),
    "missing key": (AGENT, "  name: triage\n", "", f'{AGENT}:2:3 key "name" is missing in agent'),
    "wrong type": (AGENT, "max_steps: 30", "max_steps: many", f'{AGENT}:9:24 max_steps: expected a whole number, not "many"'),
    "negative limit": (AGENT, "max_steps: 30", "max_steps: -1", f"{AGENT}:9:24 max_steps: input should be greater than 0"),
    "control character in a name": (AGENT, "name: triage", 'name: "tri\\x1bage"', f"{AGENT}:2:9 name: not a valid name"),
    "path as a name": (AGENT, "name: triage", "name: ../x", f"{AGENT}:2:9 name: not a valid name"),
    "unknown model": (AGENT, "model: small", "model: smll", f'{AGENT}:8:46 model "smll" is not defined; did you mean "small"? ({MODELS})'),
    "unknown default model": ("interlock.yaml", "model: smart", "model: smrt", 'interlock.yaml:4:12 model "smrt" is not defined; did you mean "smart"?'),
    "unknown team": (AGENT, "team: payments", "team: payment", f'{AGENT}:3:9 team "payment" is not defined; did you mean "payments"? (teams.yaml)'),
    "unknown server": (AGENT, "name: tracker", "name: traker", f'{AGENT}:6:24 server "traker" is not defined; did you mean "tracker"?'),
    "unknown tool": (AGENT, "[open, list]", "[opn, list]", f'{AGENT}:6:41 server "tracker" declares no tool "opn"; did you mean "open"?'),
    "unknown argument": (AGENT, "args: {project:", "args: {open: {projct: x}, project:", f'{AGENT}:6:68 no granted tool has an argument "projct"; did you mean "project"?'),
    "unknown skill": (AGENT, "[python]", "[pyton]", f'{AGENT}:5:12 skill "pyton" is not defined; did you mean "python"?'),
    "unknown rollout": (AGENT, "approvals:", "rollout: standrd\n  approvals:", f'{AGENT}:11:12 rollout policy "standrd" is not defined; did you mean "standard"?'),
    "unknown approval": (AGENT, "approvals: {open:", "approvals: {opne:", f'{AGENT}:11:15 tool "opne" is not granted'),
    "unknown checker": (AGENT, "until: {checker: reviewer}", "until: {checker: reviwer}", f'{AGENT}:9:45 there is no sub-agent "reviwer"; did you mean "reviewer"?'),
    "maker as checker": (AGENT, "role: checker", "role: maker", f'{AGENT}:9:45 sub-agent "reviewer" is a maker, not a checker'),
    "checker that writes files": (AGENT, "model: small}", "tools: [edit_file]}", f"{AGENT}:8:47 a checker must not have edit_file"),
    "checker that writes outside": (AGENT, "model: small}", "mcp_servers: [tracker]}", "a checker must not have tracker.open (access: write)"),
    "subagent that delegates": (AGENT, "model: small}", "tools: [delegate]}", "a sub-agent cannot delegate"),
    "subagent called main": (AGENT, "name: reviewer", "name: main", f"{AGENT}:8:14 main is the name of the agent itself"),
    "missing instructions": (AGENT, "./triage.md@v2", "./triag.md", f'{AGENT}:4:17 there is no file "agents/triage/triag.md"'),
    "path traversal": (AGENT, "./triage.md@v2", "../../../etc/passwd", f"{AGENT}:4:17 \"../../../etc/passwd\": leads out of the repository"),
    "absolute path": (AGENT, "./triage.md@v2", "/etc/passwd", f"{AGENT}:4:17 instructions: an absolute path is not allowed"),
    "git directory": (AGENT, "./triage.md@v2", "../../.git/config", "a '.git' segment is not allowed"),
    "wrong version": (AGENT, "@v2", "@v3", f"{AGENT}:4:17 agents/triage/triage.md declares version 2, not 3; refer to it as @v2"),
    "no version": (AGENT, "skills: [python]", "skills: [python@v4]", f"{AGENT}:5:12 skill python declares version 1, not 4"),
    "not a version": (AGENT, "@v2", "@latest", f'{AGENT}:4:17 "@latest" is not a version'),
    "no money limit": ("interlock.yaml", " max_cost_per_run: 0.50,", "", f'{AGENT}:2:9 nothing limits what one run of "triage" may cost'),
    "finer than money": ("interlock.yaml", "0.50", "0.0000000001", "interlock.yaml:6:77 max_cost_per_run: finer than one nano-dollar"),
    "bad schedule": (AGENT, "0 6 * * 1-5", "0 25 * * *", f"{AGENT}:14:21 schedule: not a cron schedule"),
    "never due": (AGENT, "0 6 * * 1-5", "0 0 30 2 *", f"{AGENT}:14:21 schedule: "),
    "bad zone": (AGENT, "Europe/Berlin", "Europe/Berln", f"{AGENT}:14:46 timezone: not a time zone"),
    "zone traversal": (AGENT, "Europe/Berlin", "../../etc/passwd", f"{AGENT}:14:46 timezone: not a time zone"),
    "canary that cannot fire": ("interlock.yaml", "count: 5", "count: 2", "interlock.yaml:11:23 a canary of 2 could not be rolled back even if every run of it failed; use a count of 3"),
    "unknown horizon": ("interlock.yaml", "count: 5", "count: 5, horizon: 40", "interlock.yaml:11:35 a horizon of 40"),
    "canary beyond horizon": ("interlock.yaml", "count: 5", "count: 31", "interlock.yaml:11:23 a canary of 31 runs is longer than its horizon"),
    "no gate by omission": ("interlock.yaml", "{gate: none}", "{gate: }", "interlock.yaml:12:21 gate: write none"),
    "no evals": (AGENT, "evals: ./evals/suite.yaml\n", "", f'{AGENT}:2:9 the rollout of "triage" has a gate, and there are no evals; add evals: ./evals/suite.yaml, or use a rollout with gate: none'),
    "few cases": ("agents/triage/evals/suite.yaml", "./cases/*.yaml", "./cases/case-0*.yaml", f"{AGENT}:15:8 the suite has 9 cases, and a gate needs 20; add cases, or use a rollout with gate: none"),
    "no cases": ("agents/triage/evals/suite.yaml", "./cases/*.yaml", "./cases/*.yml", "agents/triage/evals/suite.yaml:1:30 no file matches"),
    "duplicate case": (CASE, "id: case-03", "id: case-04", 'agents/triage/evals/cases/case-04.yaml:2:7 case "case-04" is defined twice (first at agents/triage/evals/cases/case-03.yaml:2:7)'),
    "unknown check": (CASE, "- {file: NOTES.md", "- {fil: NOTES.md", f"{CASE}:9:7 grade: a check has one of the keys"),
    "bad expression": (CASE, '"^fixed"', '"("', f"{CASE}:9:33 matches: not a regular expression"),
    "missing workspace": (CASE, "../fixtures/one", "../fixtures/two", f"{CASE}:3:14 there is no directory"),
    "recorded unknown tool": (CASE, "tool: tracker.open", "tool: tracker.opn", f'{CASE}:5:18 tool "tracker.opn" is not defined; did you mean "tracker.open"?'),
    "empty instructions": ("agents/triage/triage.md", "Find the failing test and fix the code.", "", "agents/triage/triage.md:1:1 the file has no text"),
    "bad front matter": ("agents/triage/triage.md", "version: 2", "version: two", "agents/triage/triage.md:2:10 version: expected a whole number"),
    "skill of another name": ("skills/python/SKILL.md", "name: python", "name: pyton", "skills/python/SKILL.md:2:7 the skill calls itself"),
    "skill without front matter": ("skills/python/SKILL.md", "---\nname", "name", "skills/python/SKILL.md:1:1 there is no front matter"),
    "duplicate model": (MODELS, "  smart:", "  large:", f'{MODELS}:8:3 model "large" is defined twice (first at {MODELS}:5:3)'),
    "duplicate key": (MODELS, "  small:", "  large:", f'{MODELS}:6:3 key "large" is given twice (first at {MODELS}:5:3)'),
    "unknown provider": (MODELS, "provider: openai", "provider: opnai", f'{MODELS}:6:3 provider "opnai" is not defined; did you mean "openai"?'),
    "unknown target": (MODELS, "[large, small]", "[large, smal]", f'{MODELS}:8:3 model "smal" is not defined; did you mean "small"?'),
    "inexact price": (MODELS, "3.00", "3.0001", f"{MODELS}:5:58 input: finer than one nano-dollar a token"),
    "key in clear": (MODELS, "{env: KEY}", "sk-proj-" + "a1B2" * 8, f"{MODELS}:3:68 this looks like an OpenAI key"),
    "key as text": (MODELS, "{env: KEY}", "secret", f"{MODELS}:3:68 key: expected a mapping"),
    "key to another host": (MODELS, "hosts: [api.openai.com]", "hosts: [evil.example]", f"{MODELS}:3:11 openai: the key may not be sent to api.openai.com"),
    "password in an address": (AGENT, "https://git.example", "https://me:pw@git.example", f"{AGENT}:10:24 workspace: an address must not hold a user name or password"),
    "git remote helper": (AGENT, "https://git.example/api.git", "ext::sh -c id", "not the address of a git repository"),
    "reports on the watched branch": ("interlock.yaml", "  defaults:", "  reports: {branch: main}\n  defaults:", "interlock.yaml:3:21 reports must not go to the watched branch"),
    "claim on an unknown server": (AGENT, "mcp:tracker/", "mcp:traker/", f'{AGENT}:12:21 server "traker" is not defined'),
    "unknown document": ("gateway/budgets.yaml", "budgets:", "bugdets:", 'gateway/budgets.yaml:1:1 unknown document "bugdets"; did you mean "budgets"?'),
    "fraction in a schema": ("gateway/mcp-servers.yaml", "{type: string}", "{multipleOf: 0.5}", "0.5 has a fraction"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_a_mistake_is_found_at_its_place(name: str) -> None:
    path, old, new, expected = EDITS[name]
    result = loaded(edited(path, old, new))
    assert expected in "\n".join(str(f) for f in result.findings)
    assert result.fleet is None or "triage" in result.broken


WHOLE = {
    "malformed yaml": b"agent: {name: [\n",
    "latin-1": "agent: {name: caf\u00e9}\n".encode("latin-1"),
    "ten megabytes": b"# " + b"x" * 10_000_000,
    "larger than the tree reads": b"# " + b"x" * 20_000_000,
    "empty": b"",
    "only a comment": b"# nothing\n",
    "a list": b"- 1\n",
    "text": b"agent\n",
    "null": b"agent:\n",
    "another kind": b"suite: {name: x, cases: y}\n",
}


@pytest.mark.parametrize("path", [AGENT, "interlock.yaml", CASE, MODELS])
@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_is_no_document_is_a_finding_in_it(name: str, path: str) -> None:
    result = loaded(tree({path: WHOLE[name]}))
    assert any(f.file == path and f.line >= 1 and f.column >= 1 for f in result.findings)
    assert result.fleet is None or "triage" in result.broken


def linked(path: str, target: str) -> MemoryTree:
    files = {p: c.encode() for p, c in FILES.items() if p != path and not p.startswith(path + "/")}
    return MemoryTree(files, links={path: target})


@pytest.mark.parametrize(
    "path",
    [AGENT, "agents/triage/triage.md", "agents/triage", "agents", "interlock.yaml", "gateway",
     "skills/python/SKILL.md", "skills/python", "skills", CASE, "agents/triage/evals/fixtures/one",
     "gateway/scripts/offline.yaml"],
)  # fmt: skip
@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../../etc", "loop", "missing"])
def test_a_symbolic_link_out_of_the_tree_is_never_followed(path: str, target: str) -> None:
    target = path.rpartition("/")[2] if target == "loop" else target
    result = load(linked(path, target))
    assert result.fleet is None or "triage" not in result.fleet.agents
    assert all(f.line >= 1 for f in result.findings)


def test_two_agents_of_one_name_are_both_refused_and_see_each_other() -> None:
    copy = (
        FILES[AGENT]
        .replace("./triage.md@v2", "../triage/triage.md")
        .replace("./evals", "../triage/evals")
    )
    result = loaded(tree({"agents/twin/agent.yaml": copy}))
    assert result.fleet is not None
    assert not result.fleet.agents
    text = "\n".join(str(f) for f in result.findings)
    assert (
        f'agents/twin/agent.yaml:2:9 agent "triage" is defined twice (also at {AGENT}:2:9)' in text
    )
    assert (
        f'{AGENT}:2:9 agent "triage" is defined twice (also at agents/twin/agent.yaml:2:9)' in text
    )


@pytest.mark.parametrize("claim", ["docs/**", "docs/a.md", "mcp:tracker/api:*"])
def test_an_artifact_is_claimed_once(claim: str) -> None:
    other = f"""\
agent:
  name: other
  team: payments
  instructions: ../triage/triage.md
  rollout: ungated
  sandbox: {{workspace: {{git: "https://git.example/api.git"}}}}
  owns: ["{claim}"]
trigger: manual
"""
    result = loaded(tree({"agents/other/agent.yaml": other}))
    assert set(result.broken) == {"other", "triage"}
    assert any("is also claimed by agent" in f.message for f in result.findings)


def test_a_path_may_be_claimed_in_another_repository() -> None:
    other = """\
agent:
  name: other
  team: payments
  instructions: ../triage/triage.md
  rollout: ungated
  sandbox: {workspace: {git: "https://git.example/web.git"}}
  owns: ["docs/**"]
trigger: manual
"""
    assert loaded(tree({"agents/other/agent.yaml": other})).findings == ()


def test_a_skill_nobody_uses_is_checked_and_breaks_nobody() -> None:
    result = loaded(tree({"skills/idle/SKILL.md": "no front matter\n"}))
    assert [f.file for f in result.findings] == ["skills/idle/SKILL.md"]
    assert not result.broken


def test_a_binary_file_in_a_skill_is_a_finding() -> None:
    result = loaded(tree({"skills/python/logo.png": b"\x89PNG\r\n\x1a\n\x00"}))
    assert "skills/python/logo.png:1:1 byte 0x89 is not UTF-8" in str(result.findings[0])
    assert "triage" in result.broken


def test_a_key_in_instructions_is_found() -> None:
    text = "Use this key: ghp_" + "a1B2" * 9 + "\n"
    result = loaded(tree({"agents/triage/triage.md": "---\nversion: 2\n---\n" + text}))
    assert "agents/triage/triage.md:4:15 this looks like a GitHub token" in str(result.findings[0])
