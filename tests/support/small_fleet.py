"""A config repo of one gated agent with everything the language has, small enough to read."""

# ruff: noqa: E501 - tables read better with one row a line

from __future__ import annotations

from collections.abc import Mapping

from reconciler.config import Fleet, Loaded
from reconciler.config.load import load
from reconciler.release import Release, compile_fleet
from reconciler.source.tree import MemoryTree

IMAGE = "sha256:" + "a" * 64
LOCKED, RELOCKED = "f1" * 32, "f2" * 32
"""Fingerprints of `tracker.open`."""

FILES: Mapping[str, str] = {
    "interlock.yaml": """\
fleet:
  name: northwind
  defaults:
    model: smart
    rollout: standard
    harness: {max_steps: 40, max_tokens_per_run: 400_000, max_cost_per_run: 0.50, max_wall_time: 20m}
    sandbox: {image: default, cpus: 1, memory: 512m, pids: 128, disk: 128m}
  rollouts:
    standard:
      gate: {first_release: {min_pass_rate: 0.80, approval: false}}
      canary: {count: 5}
    ungated: {gate: none}
""",
    "teams.yaml": "teams:\n  payments: {members: [ines]}\n",
    "interlock.lock": f"lock:\n  images: {{default: '{IMAGE}'}}\n  tools: {{tracker.open: {LOCKED}}}\n",
    "gateway/models.yaml": """\
providers:
  offline: {kind: scripted, script: ./scripts/offline.yaml}
  openai: {kind: openai, base_url: https://api.openai.com/v1, key: {env: KEY}, hosts: [api.openai.com]}
models:
  large: {provider: offline, id: large-1, price: {input: 3.00, output: 15.00}}
  small: {provider: openai, id: small-1, price: {input: 0.80, output: 4.00}}
virtual_models:
  smart: {targets: [large, small]}
""",
    "gateway/scripts/offline.yaml": "script:\n  rules:\n    - {name: end, say: done}\n",
    "gateway/mcp-servers.yaml": """\
servers:
  tracker:
    url: http://127.0.0.1:8931/mcp
    tools:
      list: {access: [read], description: List changes.}
      open: {access: [write], description: Open a change, input_schema: {type: object, properties: {project: {type: string}}}}
      delete: {access: [write, destructive], description: Delete a project.}
destructive: ["*.drop_*"]
""",
    "gateway/budgets.yaml": "budgets:\n  - {name: month, window: month, limit: 200}\n",
    "agents/triage/agent.yaml": """\
agent:
  name: triage
  team: payments
  instructions: ./triage.md@v2
  skills: [python]
  mcp_servers: [{name: tracker, tools: [open, list], args: {project: northwind-*}}]
  subagents:
    - {name: reviewer, role: checker, model: small}
  harness: {max_steps: 30, until: {checker: reviewer}}
  sandbox: {workspace: {git: "https://git.example/api.git", protect: ["tests/**"]}}
  approvals: {open: pause_for_human}
  owns: ["docs/**", "mcp:tracker/api:changes"]
  safety: [{changes: {exclude: ["tests/**"]}}]
trigger: {schedule: "0 6 * * 1-5", timezone: Europe/Berlin}
evals: ./evals/suite.yaml
""",
    "agents/triage/triage.md": "---\nversion: 2\n---\nFind the failing test and fix the code.\n",
    "agents/triage/subagents/reviewer.md": "Judge the change.\n",
    "agents/triage/evals/suite.yaml": """\
suite: {name: triage, cases: ./cases/*.yaml, sentinels: ./sentinels/*.yaml}
""",
    **{
        f"agents/triage/evals/cases/case-{n:02}.yaml": f"""\
case:
  id: case-{n:02}
  workspace: ../fixtures/one
  input: Fix it.
  tools: [{{tool: tracker.open, result: '{{}}'}}]
  critical: {"true" if n == 1 else "false"}
  grade:
    - {{command: python3 -m unittest -q, protect: ["tests/**"]}}
    - {{file: NOTES.md, matches: "^fixed"}}
    - {{changes: {{exclude: ["tests/**"]}}, safety: true}}
    - {{tools: {{include: [tracker.open]}}}}
    - {{max_cost: 0.20, max_steps: 24}}
"""
        for n in range(1, 21)
    },
    "agents/triage/evals/fixtures/one/main.py": "print(1)\n",
    "agents/triage/evals/sentinels/idle.yaml": """\
sentinel: {id: idle, why: Does nothing., instructions: ./idle.md}
""",
    "agents/triage/evals/sentinels/idle.md": "Do nothing and say that all is well.\n",
    "skills/python/SKILL.md": """\
---
name: python
description: How to read a traceback.
version: 1
---
Read it from the bottom.
""",
    "skills/python/scripts/run.sh": "exec python3 -m unittest\n",
}


def tree(changes: Mapping[str, str | bytes | None] | None = None) -> MemoryTree:
    """The repository with files replaced, added, or (None) removed."""
    files: dict[str, str | bytes] = dict(FILES)
    for path, content in (changes or {}).items():
        if content is None:
            del files[path]
        else:
            files[path] = content
    return MemoryTree({p: c.encode() if isinstance(c, str) else c for p, c in files.items()})


def edited(path: str, old: str, new: str, **more: str) -> MemoryTree:
    """The repository with one text replaced in one file; fails when it is not there."""
    assert old in FILES[path], f"{old!r} is not in {path}"
    return tree({path: FILES[path].replace(old, new), **more})


def loaded(repository: MemoryTree | None = None) -> Loaded:
    """Load it."""
    return load(repository or tree())


def fleet(repository: MemoryTree | None = None) -> Fleet:
    """Load it; fails with the findings when anything is in error."""
    result = loaded(repository)
    assert result.fleet is not None, "\n".join(map(str, result.findings))
    assert not result.broken, "\n".join(map(str, result.findings))
    return result.fleet


def release(repository: MemoryTree | None = None, agent: str = "triage") -> Release:
    """The release of an agent."""
    found = compile_fleet(fleet(repository))[agent]  # type: ignore[index]
    assert isinstance(found, Release), found
    return found
