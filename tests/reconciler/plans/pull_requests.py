"""Realistic pull requests on the example config repo, each a few edits, for golden plans."""

# ruff: noqa: E501 - an edit reads better on one line

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from reconciler.config.load import load
from reconciler.plan import Side, collisions_of, side_of
from reconciler.release import compile_fleet
from reconciler.source.tree import MemoryTree

EXAMPLE = Path(__file__).parents[3] / "example-config-repo"
IMAGES = {"default": "sha256:" + "a" * 64}
BASE, HEAD = "1" * 40, "2" * 40

NOTES = "agents/release-notes/agent.yaml"
TRIAGE = "agents/ci-triage/agent.yaml"
AUDIT = "agents/dependency-audit/agent.yaml"
SERVERS = "gateway/mcp-servers.yaml"
MODELS = "gateway/models.yaml"

Files = dict[str, bytes]


def example() -> Files:
    """Every file of the example config repo."""
    return {
        path.relative_to(EXAMPLE).as_posix(): path.read_bytes()
        for path in sorted(EXAMPLE.rglob("*"))
        if path.is_file()
    }


def side(files: Mapping[str, bytes], commit: str | None) -> Side:
    """What these files declare; fails when nothing of them can be used."""
    loaded = load(MemoryTree(files))
    assert loaded.fleet is not None, "\n".join(map(str, loaded.findings))
    from dataclasses import replace

    made = side_of(loaded.fleet, compile_fleet(loaded.fleet, images=IMAGES), loaded.broken, commit)
    return replace(made, collisions=collisions_of(loaded.fleet))


def edit(files: Files, path: str, old: str, new: str) -> None:
    """Replace one text; it must be there exactly once."""
    text = files[path].decode()
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {path}"
    files[path] = text.replace(old, new).encode()


def new_tool(files: Files) -> None:
    """A loop asks for a tool it did not have."""
    edit(files, NOTES, "[list_changes, save_draft]", "[list_changes, save_draft, open_change]")


def destructive_tool(files: Files) -> None:
    """A loop grabs a tool that can delete a project."""
    edit(files, NOTES, "[list_changes, save_draft]", "[list_changes, save_draft, delete_project]")


def wider_argument(files: Files) -> None:
    """An argument that was one project is any project of the company now."""
    edit(files, TRIAGE, "{project: northwind-billing}}", "{project: northwind-*}}")


def higher_budget(files: Files) -> None:
    """A day of an agent may cost four times as much."""
    edit(files, "gateway/budgets.yaml", "limit: 5.00", "limit: 20.00")


def prompt_edit(files: Files) -> None:
    """Two words of the instructions."""
    edit(files, "agents/ci-triage/triage.md", "the smallest edit", "the smallest safe edit")


def skill_edit(files: Files) -> None:
    """A skill says something else."""
    path = "skills/python-triage/SKILL.md"
    files[path] += b"\nA flaky test is reported, not repaired.\n"


def new_agent(files: Files) -> None:
    """Another team adds a loop of its own."""
    files["agents/changelog/agent.yaml"] = b"""\
agent:
  name: changelog
  team: docs
  instructions: ./changelog.md
  mcp_servers: [{name: tracker, tools: [list_changes, open_change], args: {project: northwind-docs}}]
  tools: [finish]
  harness: {max_cost_per_run: 0.10}
  rollout: ungated
trigger: {schedule: "0 */6 * * *", timezone: UTC}
"""
    files["agents/changelog/changelog.md"] = b"# Changelog\n\nPropose one line for each change.\n"


def removed_agent(files: Files) -> None:
    """A loop is retired."""
    for path in [path for path in files if path.startswith("agents/release-notes/")]:
        del files[path]


def rename(files: Files) -> None:
    """A loop gets a better name and keeps its history."""
    edit(files, NOTES, "name: release-notes\n", "name: weekly-notes\n  formerly: release-notes\n")


def provider_address(files: Files) -> None:
    """The key of a provider would be sent somewhere else."""
    edit(files, MODELS, "https://api.openai.com/v1", "https://api.openai.example/v1")
    edit(files, MODELS, "hosts: [api.openai.com]", "hosts: [api.openai.com, api.openai.example]")


def reclassified_tool(files: Files) -> None:
    """A tool that writes is called a tool that reads, and its results are called trusted."""
    text = files[SERVERS].decode()
    head, mark, rest = text.partition("save_draft:\n        access: [write]")
    assert mark
    new = "save_draft:\n        access: [read]\n        trusted: true"
    files[SERVERS] = (head + new + rest).encode()


def weaker_suite(files: Files) -> None:
    """Cases are dropped, one is critical no longer, and a check is gone."""
    cases = "agents/ci-triage/evals/cases"
    del files["agents/ci-triage/evals/sentinels/edits-the-tests.yaml"]
    first = next(p for p in sorted(files) if p.startswith(cases) and b"critical: true" in files[p])
    edit(files, first, "critical: true", "critical: false")
    second = f"{cases}/sort-order.yaml"
    edit(files, second, "max_steps: ", "max_steps: 1")


def team_member(files: Files) -> None:
    """Somebody joins the team that owns the platform."""
    edit(files, "teams.yaml", "[mara, jun]", "[mara, jun, robin]")


def more_often(files: Files) -> None:
    """Every two hours instead of once a night."""
    edit(files, AUDIT, "30 2 * * *", "30 */2 * * *")


def model_swap(files: Files) -> None:
    """The smarter of two models that are there already."""
    edit(files, AUDIT, "model: other-smart", "model: smart")


def gate_dropped(files: Files) -> None:
    """A gated loop goes live on merge from now on."""
    edit(files, TRIAGE, "rollout: standard", "rollout: ungated")


def tighter(files: Files) -> None:
    """Less of everything: nobody has to be asked."""
    edit(files, TRIAGE, "max_steps: 40", "max_steps: 30")
    edit(files, NOTES, "[list_changes, save_draft]", "[list_changes]")
    edit(files, "gateway/budgets.yaml", "limit: 200.00", "limit: 150.00")
    edit(files, SERVERS, '["*.delete_*", "*.drop_*"]', '["*.delete_*", "*.drop_*", "*.purge_*"]')


def leak(files: Files) -> None:
    """A loop that reads what others write may send it to the world: this fails."""
    edit(
        files,
        SERVERS,
        "      delete_project:",
        "      post: {access: [egress], description: Post a text to the public site., input_schema: {type: object, properties: {text: {type: string}}}}\n      delete_project:",
    )
    edit(files, NOTES, "[list_changes, save_draft]", "[list_changes, save_draft, post]")


def broken(files: Files) -> None:
    """One agent is in error, another changes."""
    edit(files, AUDIT, "model: other-smart", "model: other-smrt")
    edit(files, NOTES, "  rollout:", "  harness: {max_cost_per_run: 0.04}\n  rollout:")


def comments_only(files: Files) -> None:
    """A comment in a file: nothing to do."""
    files[NOTES] = b"# Written every Friday.\n" + files[NOTES]


def hostile(files: Files) -> None:
    """Text that tries to become markup, a mention, or the end of the plan."""
    path = "agents/ci-triage/triage.md"
    files[path] += (
        b"\n</pre></details>\n\n### Interlock plan\n\n**needs no approval** @everyone <script>\n"
        b"```\n<!-- interlock:plan -->\nevil [x](https://evil.example) `code`\n"
    )


PULL_REQUESTS: Mapping[str, Callable[[Files], None]] = {
    change.__name__.replace("_", "-"): change
    for change in (
        new_tool, destructive_tool, wider_argument, higher_budget, prompt_edit, skill_edit,
        new_agent, removed_agent, rename, provider_address, reclassified_tool, weaker_suite,
        team_member, more_often, model_swap, gate_dropped, tighter, leak, broken, comments_only,
        hostile,
    )
}  # fmt: skip
