"""What an agent's own file may say: short forms, triggers, claims that change hands, renames."""

from __future__ import annotations

import pytest

from gateway.values import AgentName
from reconciler.config import AgentConfig, Claim, Loaded, TriggerConfig
from reconciler.config.grants import handed_over
from reconciler.config.participants import CHECKER_TEXT, MAKER_TEXT
from reconciler.findings import Place
from reconciler.release import Release, compile_fleet
from tests.support.small_fleet import FILES, edited, fleet, loaded, tree

AGENT = "agents/triage/agent.yaml"
OTHER = "agents/notes/agent.yaml"
HEAD = "agent: {name: notes, team: payments, instructions: Write the notes., rollout: ungated"


def notes(text: str = "", trigger: str = "manual") -> Loaded:
    return loaded(tree({OTHER: f"{HEAD}{text}}}\ntrigger: {trigger}\n"}))


def agent(result: Loaded, name: str = "notes") -> AgentConfig:
    assert result.fleet is not None, result.findings
    assert AgentName(name) in result.fleet.agents, "\n".join(map(str, result.findings))
    return result.fleet.agents[AgentName(name)]


def said(result: Loaded) -> str:
    return "\n".join(map(str, result.findings))


def test_the_short_form_is_a_whole_agent() -> None:
    ungated = edited("interlock.yaml", "rollout: standard", "rollout: ungated")
    files = {**FILES, "interlock.yaml": ungated.read("interlock.yaml").decode()}
    files["agents/short/agent.yaml"] = (
        "agent:\n  name: short\n  model: small\n  instructions: ./text.md\ntrigger: manual\n"
    )
    files["agents/short/text.md"] = "Look for typos.\n"
    result = loaded(tree(files))
    short = agent(result, "short")
    assert short.main.instructions.body == "Look for typos.\n"
    assert short.limits.max_cost == 500_000_000
    assert short.subagents == ()
    assert dict(short.main.tools) == {}
    assert [f.id for f in result.findings] == ["no-team"]


def test_instructions_may_be_the_text_itself() -> None:
    body = """\
agent:
  name: notes
  team: payments
  rollout: ungated
  instructions: |
    Write the notes.
    Be short.
  mcp_servers: []
  subagents:
    - {name: critic, role: checker, instructions: Judge the notes.}
    - helper
trigger: manual
"""
    found = agent(loaded(tree({OTHER: body})))
    assert found.main.instructions.body == "Write the notes.\nBe short.\n"
    critic, helper = found.subagents
    assert critic.instructions.body == "Judge the notes.\n"
    assert helper.instructions.body == MAKER_TEXT
    assert critic.instructions.path == ""
    assert isinstance(compile_fleet(fleet(tree({OTHER: body})))[AgentName("notes")], Release)


def test_a_subagent_without_instructions_has_its_file_or_the_words_of_its_role() -> None:
    found = agent(notes(", subagents: [{name: critic, role: checker}]"))
    assert found.subagents[0].instructions.body == CHECKER_TEXT


@pytest.mark.parametrize("text", ["../../x.md", "/etc/passwd", "./not there.md", "text.md@v9"])
def test_what_looks_like_a_path_is_one(text: str) -> None:
    result = loaded(tree({OTHER: f"{HEAD}}}\ntrigger: manual\n".replace("Write the notes.", text)}))
    assert f"{OTHER}:1:52" in said(result)
    assert "notes" in result.broken


TRIGGERS = {
    "manual": ("manual", TriggerConfig(None, "UTC", kind="manual")),
    "api": ("api", TriggerConfig(None, "UTC", kind="api")),
    "mapping": ("{manual: true}", TriggerConfig(None, "UTC", kind="manual")),
    "cron": ("{cron: '0 6 * * *'}", TriggerConfig("0 6 * * *", "UTC")),
    "text": ("'0 6 * * *'", TriggerConfig("0 6 * * *", "UTC")),
    "zone": (
        "{schedule: '0 6 * * *', timezone: Europe/Berlin}",
        TriggerConfig("0 6 * * *", "Europe/Berlin"),
    ),
    "event": ("{event: push}", TriggerConfig(None, "UTC", kind="event", what="push")),
    "webhook": ("{webhook: pager}", TriggerConfig(None, "UTC", kind="webhook", what="pager")),
    "after": (
        "{after: triage}",
        TriggerConfig(None, "UTC", kind="after", after=(AgentName("triage"),)),
    ),
    "after two": (
        "{after: [triage, audit]}",
        TriggerConfig(None, "UTC", kind="after", after=(AgentName("triage"), AgentName("audit"))),
    ),
}


@pytest.mark.parametrize("name", TRIGGERS)
def test_every_kind_of_trigger_is_read_and_one_that_nothing_serves_says_so(name: str) -> None:
    text, expected = TRIGGERS[name]
    result = notes(trigger=text)
    trigger = agent(result).trigger
    assert trigger.place == Place(OTHER, 2, 10)
    assert TriggerConfig(
        trigger.schedule, trigger.timezone, trigger.kind, trigger.what, trigger.after
    ) == TriggerConfig(
        expected.schedule, expected.timezone, expected.kind, expected.what, expected.after
    )
    served = expected.kind in ("schedule", "manual")
    assert [f.id for f in result.findings] == ([] if served else ["trigger-not-served"])
    assert served or "nothing starts it yet but `interlock run`" in said(result)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("{}", "give one of schedule, manual, event, webhook, after or api"),
        ("{manual: true, api: true}", "give one of"),
        ("{after: []}", "after: "),
        ("{event: push, timezone: UTC}", "a timezone belongs to a schedule"),
        ("{on: push}", 'unknown key "on" in trigger; write event: push'),
        ("{every: 5m}", 'write schedule: and a cron expression, such as "*/30 * * * *"'),
        ("{type: cron, cron: '0 6 * * *'}", "remove it: the key schedule, event, webhook"),
        ("[manual]", "write one trigger, such as {schedule: …} or manual"),
    ],
)
def test_a_trigger_that_says_nothing_clear_is_refused(text: str, expected: str) -> None:
    result = notes(trigger=text)
    assert expected in said(result)
    assert "notes" in result.broken


def test_a_claim_is_handed_over_when_both_sides_say_so() -> None:
    to = FILES[AGENT].replace('"docs/**"', "{claim: docs/**, to: notes}")
    taken = f"{HEAD}, sandbox: {{workspace: {{git: 'https://git.example/api.git'}}}}"
    taken += ", owns: [{claim: docs/**, from: triage}]}\ntrigger: manual\n"
    result = loaded(tree({AGENT: to, OTHER: taken}))
    assert result.findings == ()
    old, new = agent(result, "triage").owns[0], agent(result).owns[0]
    assert (old.given_to, old.taken_from) == ("notes", None)
    assert (new.given_to, new.taken_from) == (None, "triage")
    assert handed_over(AgentName("triage"), old, AgentName("notes"), new) == "notes"
    for changes in (
        {OTHER: taken},
        {AGENT: to, OTHER: taken.replace("{claim: docs/**, from: triage}", "docs/**")},
        {AGENT: to.replace("to: notes", "to: audit"), OTHER: taken},
    ):
        assert set(loaded(tree(changes)).broken) == {"notes", "triage"}


def test_one_side_of_a_hand_over_is_none() -> None:
    def claim(to: str | None = None, taken: str | None = None) -> Claim:
        given = AgentName(to) if to else None
        return Claim("", "docs/**", Place("x"), given, AgentName(taken) if taken else None)

    a, b = AgentName("a"), AgentName("b")
    assert handed_over(a, claim(to="b"), b, claim(taken="a")) == b
    assert handed_over(b, claim(taken="a"), a, claim(to="b")) == b
    for mine, theirs in (
        (claim(to="b"), claim()),
        (claim(), claim(taken="a")),
        (claim(to="c"), claim(taken="a")),
        (claim(to="b"), claim(taken="c")),
        (claim(to="b"), claim(to="a")),
        (claim(taken="b"), claim(taken="a")),
    ):
        assert handed_over(a, mine, b, theirs) is None


@pytest.mark.parametrize(
    "owns, expected",
    [
        ("[{claim: a/**, to: x, from: y}]", "give either to or from"),
        ("[{claim: a/**, to: notes}]", '"notes" cannot hand a claim to itself'),
        ("[{to: x}]", 'key "claim" is missing'),
        ("[{claim: 'mcp:traker/x', to: x}]", 'server "traker" is not defined'),
    ],
)
def test_a_claim_that_means_nothing_is_refused(owns: str, expected: str) -> None:
    assert expected in said(notes(f", owns: {owns}"))


def test_a_renamed_agent_knows_its_former_name() -> None:
    assert agent(notes(", formerly: release-notes")).formerly == "release-notes"


def test_a_name_that_is_still_there_is_nobodys_former_name() -> None:
    result = notes(", formerly: triage")
    assert set(result.broken) == {"notes"}
    assert 'formerly: there is still an agent "triage"' in said(result)
    assert "that is its name now" in said(notes(", formerly: notes"))


def test_two_agents_cannot_go_on_with_one_history() -> None:
    text = f"{HEAD}, formerly: old}}\ntrigger: manual\n"
    result = loaded(
        tree({OTHER: text, "agents/more/agent.yaml": text.replace("name: notes", "name: more")})
    )
    assert set(result.broken) == {"notes", "more"}
    assert 'formerly: "notes" was "old" too (at agents/notes/agent.yaml:1:15)' in said(result)


@pytest.mark.parametrize(
    "text",
    [
        "[open]",
        "[tracker.open]",
        "{open: required}",
        "{open: human}",
        "{open: true}",
        "{tracker.open: pause_for_human}",
    ],
)
def test_approvals_may_be_written_as_people_do(text: str) -> None:
    found = agent(loaded(edited(AGENT, "{open: pause_for_human}", text)), "triage")
    assert found.main.tools["tracker.open"].approval
    assert found.origins["approvals.tracker.open"].level == "agent"
    assert not found.main.tools["tracker.list"].approval


def test_an_approval_of_a_tool_that_is_not_granted_is_found_in_a_list_too() -> None:
    result = loaded(edited(AGENT, "{open: pause_for_human}", "[list, opne]"))
    assert f'{AGENT}:11:21 tool "opne" is not granted' in said(result)


def test_a_judge_is_refused_with_what_to_use_instead() -> None:
    case = "agents/triage/evals/cases/case-03.yaml"
    rule = "- {judge: {model: large, rubric: ./r.md}}\n    - {file: NOTES.md"
    result = loaded(edited(case, "- {file: NOTES.md", rule))
    assert f"{case}:9:7 grade: judges are not supported by this version; grade by" in said(result)
