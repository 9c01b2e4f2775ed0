"""Unattended readiness: every rule fires on what it is about, and on nothing else."""

# ruff: noqa: E501 - tables read better with one row a line

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from gateway.values import AgentName
from reconciler.config import Fleet, GrantedTool
from reconciler.findings import Finding, Place, Severity
from reconciler.fleet.lint import lint, rules
from tests.support import small_fleet

TODAY = date(2026, 11, 21)
DOCS = Path(__file__).parents[2] / "docs" / "lint.md"
AGENT = "agents/triage/agent.yaml"
MODELS = "gateway/models.yaml"
LOCK = "interlock.lock"
SERVERS = "gateway/mcp-servers.yaml"
OWNED = "teams:\n  payments: {members: [ines], owns: [interlock.yaml]}\n"
"""With this, nothing is left to say about the small fleet."""

SECRET = """\
servers:
  vault:
    url: http://127.0.0.1:8932/mcp
    tools:
      get: {access: [read], sensitivity: secret, trusted: true, description: Read a secret.}
"""
POST = """\
servers:
  chat:
    url: http://127.0.0.1:8933/mcp
    tools:
      post:
        access: [write, egress]
        description: Send a message.
        input_schema: {type: object, properties: {channel: {type: string}}}
"""


def fleet_with(
    *edits: tuple[str, str, str], files: dict[str, str | bytes | None] | None = None
) -> Fleet:
    """The small fleet, owned, with texts replaced in files and files added."""
    changes: dict[str, str | bytes | None] = {"teams.yaml": OWNED, **(files or {})}
    for path, old, new in edits:
        text = changes.get(path, small_fleet.FILES.get(path))
        assert isinstance(text, str)
        assert old in text, f"{old!r} is not in {path}"
        changes[path] = text.replace(old, new)
    return small_fleet.fleet(small_fleet.tree(changes))


def ids(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.id for finding in findings]


SERVER_LINE = "mcp_servers: [{name: tracker, tools: [open, list], args: {project: northwind-*}}]"


def test_a_fleet_that_is_ready_has_no_findings() -> None:
    assert lint(fleet_with(), TODAY) == ()


@pytest.mark.parametrize(
    "rule, edits, files",
    [
        ("no-owner", [("teams.yaml", "[ines]", "[]")], {}),
        ("unowned-fleet", [("teams.yaml", "owns: [interlock.yaml]", "owns: [docs/]")], {}),
        ("unused-team", [("teams.yaml", "teams:\n", "teams:\n  idle: {members: [tom]}\n")], {}),
        (
            "no-stop",
            [
                ("interlock.yaml", "max_steps: 40, ", ""),
                ("interlock.yaml", ", max_wall_time: 20m", ""),
                (AGENT, "max_steps: 30, ", ""),
            ],
            {},
        ),
        ("no-budget", [("gateway/budgets.yaml", "window: month", "window: run")], {}),
        ("no-budget", [("gateway/budgets.yaml", "limit: 200", "limit: 200, mode: audit")], {}),
        ("no-budget", [("gateway/budgets.yaml", "limit: 200", "limit: 200, model: large")], {}),
        ("until-by-maker", [(AGENT, ", until: {checker: reviewer}", "")], {}),
        (
            "same-checker",
            [(AGENT, "role: checker, model: small", "role: checker, model: smart")],
            {"agents/triage/subagents/reviewer.md": "Find the failing test and fix the code.\n"},
        ),
        ("overlapping-runs", [(AGENT, '"0 6 * * 1-5"', '"*/10 * * * *"')], {}),
        ("tainted-write", [(AGENT, "approvals: {open: pause_for_human}", "approvals: {}")], {}),
        ("ungated-writes", [(AGENT, "  owns:", "  rollout: ungated\n  owns:")], {}),
        ("unclaimed-write", [(AGENT, ', "mcp:tracker/api:changes"', "")], {}),
        ("model-retires", [(MODELS, "id: small-1", 'id: small-1, retires: "2026-12-31"')], {}),
        ("single-target", [(MODELS, "[large, small]", "[large]")], {}),
        ("wide-key", [(MODELS, "hosts: [api.openai.com]", "hosts: [api.openai.com, a.b]")], {}),
        ("unused-server", [(LOCK, f"tools: {{tracker.open: {small_fleet.LOCKED}}}", "tools: {}")], {"gateway/chat.yaml": POST}),
        ("unlocked-server", [(AGENT, SERVER_LINE, SERVER_LINE[:-1] + ", {name: chat, args: {channel: ci}}]"),
                             (AGENT, '"mcp:tracker/api:changes"', '"mcp:tracker/api:changes", "mcp:chat/ci"')], {"gateway/chat.yaml": POST}),
        ("unknown-price", [(MODELS, "large-1, price: {input: 3.00, output: 15.00}", "large-1")], {}),
        ("unknown-price", [(MODELS, "small-1, price: {input: 0.80, output: 4.00}", "no-such-model")], {}),
        ("one-provider", [(MODELS, "[large, small]", "[large, other]"), (MODELS, "  small: {", "  other: {provider: offline, id: o, price: {input: 1, output: 1}}\n  small: {")], {}),
    ],
)  # fmt: skip
def test_a_rule_fires_on_what_it_is_about(
    rule: str, edits: list[tuple[str, str, str]], files: dict[str, str | bytes | None]
) -> None:
    found = lint(fleet_with(*edits, files=files), TODAY)
    # A team without members is nobody: then nobody owns the fleet either.
    assert set(ids(found)) - ({"unowned-fleet"} if rule == "no-owner" else set()) == {rule}
    assert all(finding.fix and finding.message for finding in found)


def test_a_price_of_the_table_is_known() -> None:
    edit = (MODELS, "small-1, price: {input: 0.80, output: 4.00}", "gpt-5-mini")
    assert lint(fleet_with(edit), TODAY) == ()


def test_a_server_and_a_team_of_somebody_from_outside_are_in_use() -> None:
    files: dict[str, str | bytes | None] = {
        "gateway/chat.yaml": POST,
        "gateway/principals.yaml": "principals:\n  - {name: ines, kind: person, team: idle, "
        "servers: [chat]}\n",
    }
    fleet = fleet_with(
        ("teams.yaml", "teams:\n", "teams:\n  idle: {members: [tom]}\n"), files=files
    )
    assert set(ids(lint(fleet, TODAY))) == {"unlocked-server"}


def test_a_finding_points_at_the_line_that_is_to_change() -> None:
    (found,) = lint(fleet_with((MODELS, "[large, small]", "[large]")), TODAY)
    assert (found.file, found.line) == (MODELS, 8)
    fleet = fleet_with((AGENT, "  owns:", "  rollout: ungated\n  owns:"))
    (found,) = lint(fleet, TODAY)
    assert (found.file, found.line) == (AGENT, 12)


def trifecta(grants: str, *, approvals: str = "{}") -> tuple[Finding, ...]:
    fleet = fleet_with(
        (AGENT, SERVER_LINE, f"mcp_servers: {grants}"),
        (AGENT, "approvals: {open: pause_for_human}", f"approvals: {approvals}"),
        files={"gateway/chat.yaml": POST, "gateway/vault.yaml": SECRET},
    )
    return tuple(f for f in lint(fleet, TODAY) if f.id in ("lethal-trifecta", "tainted-write"))


def test_untrusted_input_secret_data_and_a_free_way_out_fail_the_plan() -> None:
    (found,) = trifecta("[vault, chat]")
    assert (found.id, found.severity) == ("lethal-trifecta", Severity.ERROR)
    assert "git.example/api.git" in found.message
    assert "vault.get (secret)" in found.message
    assert "chat.post" in found.message


def test_internal_files_may_not_leave_the_house_either() -> None:
    assert ids(trifecta("[chat]")) == ["lethal-trifecta"]


def test_an_approval_breaks_the_trifecta() -> None:
    assert trifecta("[vault, chat]", approvals="{chat.post: pause_for_human}") == ()


def test_exactly_one_allowed_value_counts_as_approved_and_a_glob_does_not() -> None:
    assert trifecta("[{name: chat, args: {channel: ci}}]") == ()
    assert ids(trifecta('[{name: chat, args: {channel: "ci*"}}]')) == ["lethal-trifecta"]
    assert ids(trifecta("[{name: chat, args: {channel: [ci, all]}}]")) == ["lethal-trifecta"]


def test_taint_flows_from_role_to_role() -> None:
    fleet = fleet_with(
        (AGENT, SERVER_LINE, "mcp_servers: [chat]"),
        (AGENT, "approvals: {open: pause_for_human}", "approvals: {}"),
        (AGENT, "role: checker, model: small", "role: checker, model: small, mcp_servers: [vault]"),
        files={"gateway/chat.yaml": POST, "gateway/vault.yaml": SECRET},
    )
    found = next(f for f in lint(fleet, TODAY) if f.id == "lethal-trifecta")
    assert "vault.get (secret)" in found.message


def test_internal_data_may_be_written_to_where_internal_readers_see_it() -> None:
    fleet = fleet_with((AGENT, "approvals: {open: pause_for_human}", "approvals: {}"))
    assert ids(lint(fleet, TODAY)) == ["tainted-write"]


def test_without_untrusted_input_nothing_is_tainted() -> None:
    trusted = "list: {access: [read], trusted: true,"
    fleet = fleet_with(
        (AGENT, "approvals: {open: pause_for_human}", "approvals: {}"),
        (AGENT, 'sandbox: {workspace: {git: "https://git.example/api.git", protect: ["tests/**"]}}',
         "sandbox: {}"),
        (AGENT, '"docs/**", ', ""),
        (SERVERS, "list: {access: [read],", trusted),
    )  # fmt: skip
    assert lint(fleet, TODAY) == ()


def changed_tools(fleet: Fleet, tools: dict[str, GrantedTool]) -> Fleet:
    agent = fleet.agents[AgentName("triage")]
    main = replace(agent.main, tools={**agent.main.tools, **tools})
    return replace(fleet, agents={agent.name: replace(agent, main=main)})


def test_a_destructive_tool_waits_for_somebody() -> None:
    fleet = fleet_with((AGENT, "tools: [open, list]", "tools: [open, list, delete]"))
    assert "destructive-unapproved" in ids(lint(fleet, TODAY))
    calm = changed_tools(fleet, {"tracker.delete": GrantedTool(approval=True)})
    assert "destructive-unapproved" not in ids(lint(calm, TODAY))


def test_a_tool_nobody_classified_is_reported_and_counts_as_write_and_egress() -> None:
    fleet = changed_tools(fleet_with(), {"tracker.mystery": GrantedTool()})
    assert set(ids(lint(fleet, TODAY))) == {"unclassified-tool", "lethal-trifecta"}


def test_a_model_is_warned_about_45_days_ahead_and_an_error_once_it_is_gone() -> None:
    def severities(retires: str) -> list[Severity]:
        edit = (MODELS, "id: small-1", f'id: small-1, retires: "{retires}"')
        return [f.severity for f in lint(fleet_with(edit), TODAY)]

    assert severities("2027-01-06") == []
    assert severities("2027-01-05") == [Severity.WARNING]
    assert severities("2026-11-21") == [Severity.WARNING]
    assert severities("2026-11-20") == [Severity.ERROR]


def test_a_skill_nobody_reads_is_found_when_the_repository_s_skills_are_given() -> None:
    there = {"python": Place("skills/python/SKILL.md"), "old": Place("skills/old/SKILL.md")}
    assert [f.file for f in lint(fleet_with(), TODAY, skills=there)] == ["skills/old/SKILL.md"]


def test_one_text_that_is_not_pinned_stands_out_in_a_pinned_fleet_only() -> None:
    fleet = fleet_with()
    agent = fleet.agents[AgentName("triage")]
    loose = replace(agent.main.instructions, pin=None)
    unpinned = replace(
        agent,
        main=replace(
            agent.main,
            instructions=loose,
            skills=tuple(replace(s, pin=None) for s in agent.main.skills),
        ),
    )
    pinned = replace(
        agent,
        main=replace(
            agent.main,
            instructions=replace(loose, pin="v2"),
            skills=tuple(replace(s, pin="v1") for s in agent.main.skills),
        ),
    )

    def with_agents(*agents: object) -> Fleet:
        named = {
            AgentName(f"a{n}"): replace(one, name=AgentName(f"a{n}"))  # type: ignore[type-var]
            for n, one in enumerate(agents)
        }
        return replace(fleet, agents=named)

    assert "unpinned-text" not in ids(lint(with_agents(unpinned, unpinned), TODAY))
    assert "unpinned-text" not in ids(lint(with_agents(pinned, pinned), TODAY))
    assert ids(lint(with_agents(pinned, pinned, unpinned), TODAY)) == ["unpinned-text"]
    assert "unpinned-text" not in ids(lint(with_agents(pinned, unpinned, unpinned), TODAY))


def many(count: int, schedule: str) -> Fleet:
    fleet = fleet_with()
    agent = fleet.agents[AgentName("triage")]
    names = [AgentName(f"a{number:05}") for number in range(count)]
    trigger = replace(agent.trigger, schedule=schedule)
    return replace(fleet, agents={n: replace(agent, name=n, trigger=trigger) for n in names})


def test_ten_that_start_in_one_minute_are_a_pile_up_told_once() -> None:
    assert ids(lint(many(9, "0 6 * * *"), TODAY)) == []
    (found,) = lint(many(10, "0 6 * * *"), TODAY)
    assert found.id == "schedule-pile-up"
    assert "10 agents start on" in found.message


def test_ten_that_start_every_minute_are_busy_and_no_pile_up() -> None:
    assert "schedule-pile-up" not in ids(lint(many(10, "* * * * *"), TODAY))


def test_agents_that_start_each_other_in_a_circle_fail_the_plan() -> None:
    fleet = many(2, "0 6 * * *")
    one, other = fleet.agents.values()
    circle = {
        mine.name: replace(
            mine, trigger=replace(mine.trigger, kind="after", schedule=None, after=(next_one.name,))
        )
        for mine, next_one in ((one, other), (other, one))
    }
    (found,) = lint(replace(fleet, agents=circle), TODAY)
    assert (found.id, found.severity) == ("trigger-cycle", Severity.ERROR)
    assert '"a00000" → "a00001" → "a00000"' in found.message


def test_the_same_fleet_gives_the_same_findings_in_whatever_order_its_agents_come() -> None:
    fleet = replace(many(30, "0 6 * * *"), teams={})
    turned = replace(fleet, agents=dict(reversed(fleet.agents.items())))
    assert lint(fleet, TODAY) == lint(turned, TODAY) != ()


def test_every_rule_has_a_section_and_every_section_a_rule() -> None:
    sections = set(re.findall(r"^### ([a-z-]+)$", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    assert sections == set(rules())
    assert all(rule.why for rule in rules().values())
