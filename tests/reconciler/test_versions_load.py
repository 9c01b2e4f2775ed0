"""Versions through the loader: what is pinned reaches the config, and the record of it is kept."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.values import AgentName
from reconciler.config.fleet import AgentConfig, Loaded
from reconciler.config.load import load
from reconciler.release import Release, compile_fleet
from reconciler.source.tree import MemoryTree
from tests.support.history import MemoryHistory, commit_id
from tests.support.small_fleet import tree

TRIAGE = AgentName("triage")
AGENT = "agents/triage/agent.yaml"
TEXT = "agents/triage/triage.md"
SKILL = "skills/python/SKILL.md"
REVIEWER = "agents/triage/subagents/reviewer.md"


def repository(changes: Mapping[str, str | None], *edits: tuple[str, str]) -> MemoryTree:
    """The small fleet with other files, and with replacements in its agent's file."""
    text = tree().read(AGENT).decode()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return tree({AGENT: text, **changes})


def agent(loaded: Loaded) -> AgentConfig:
    assert loaded.fleet is not None
    assert loaded.broken == {}, [str(f) for f in loaded.findings]
    return loaded.fleet.agents[TRIAGE]


def digest(loaded: Loaded) -> str:
    assert loaded.fleet is not None
    release = compile_fleet(loaded.fleet)[TRIAGE]
    assert isinstance(release, Release)
    return release.digest


def markdown(number: int, body: str) -> str:
    return f"---\nversion: {number}\n---\n{body}\n"


def python_skill(number: int, body: str) -> str:
    return f"---\nname: python\ndescription: Python.\nversion: {number}\n---\n{body}\n"


def test_an_agent_pinned_to_a_version_keeps_its_digest_when_the_text_goes_on() -> None:
    pinned = ("skills: [python]", "skills: [python@v2]")
    first = repository({SKILL: python_skill(2, "Do.")}, pinned)
    later = repository({TEXT: markdown(3, "Else."), SKILL: python_skill(3, "Else.")}, pinned)
    history = MemoryHistory([first, later])
    before, after = load(first, history=history), load(later, history=history)
    assert digest(before) == digest(after)
    main = agent(after).main
    assert (main.instructions.version, main.instructions.pin) == (2, "v2")
    assert [(s.version, s.pin) for s in main.skills] == [(2, "v2")]
    unpinned = repository({TEXT: markdown(3, "Else.")}, ("@v2", ""))
    main = agent(load(unpinned, history=history)).main
    assert (main.instructions.version, main.instructions.pin) == (3, None)


def test_a_sub_agents_text_can_be_pinned_to_a_commit() -> None:
    old = repository({REVIEWER: "Judge as we did then.\n"})
    head = repository(
        {REVIEWER: "Judge anew.\n"},
        ("role: checker", f"role: checker, instructions: ./subagents/reviewer.md@{commit_id(0)}"),
    )
    reviewer = agent(load(head, history=MemoryHistory([old, head]))).subagents[0]
    assert reviewer.instructions.body == "Judge as we did then.\n"
    assert reviewer.instructions.pin == commit_id(0)


def test_changed_content_under_a_released_number_breaks_its_agent_only() -> None:
    other = {
        "agents/audit/agent.yaml": "agent: {name: audit, team: payments, instructions: ./audit.md,"
        " rollout: ungated}\ntrigger: manual\n",
        "agents/audit/audit.md": "Audit.\n",
    }
    first = repository(other)
    head = repository({**other, TEXT: markdown(2, "Changed.")})
    loaded = load(head, history=MemoryHistory([first, head]))
    assert loaded.fleet is not None
    assert list(loaded.fleet.agents) == ["audit"]
    (finding,) = loaded.broken[TRIAGE]
    assert (finding.id, finding.file, finding.line) == ("version-changed", TEXT, 2)


def test_a_skill_that_is_gone_from_the_head_goes_on_where_it_is_pinned() -> None:
    pinned = ("skills: [python]", "skills: [python@v2]")
    first = repository({SKILL: python_skill(2, "Do.")}, pinned)
    gone = {path: None for path, _ in first.walk("skills/python")}
    head = repository(gone, pinned)
    history = MemoryHistory([first, head])
    assert dict(agent(load(head, history=history)).main.skills[0].files)["SKILL.md"] == "Do.\n"
    unpinned = load(repository(gone), history=history)
    assert "not defined" in unpinned.broken[TRIAGE][0].message


def test_a_load_that_goes_on_from_another_sees_what_history_has_learnt() -> None:
    asks = repository({}, ("@v2", "@v3"))
    history = MemoryHistory([asks])
    broken = load(asks, history=history)
    assert TRIAGE in broken.broken
    brings = repository({TEXT: markdown(3, "Three.")}, ("@v2", "@v3"))
    grown = MemoryHistory([asks, brings, asks])
    again = load(asks, history=grown, previous=broken)
    assert agent(again).main.instructions.body == "Three.\n"


def test_a_pinned_agent_is_the_same_object_after_its_text_went_on() -> None:
    shared = "../../prompts/triage.md@v2"
    pinned = ("./triage.md@v2", shared)
    first = repository({"prompts/triage.md": markdown(2, "Two.")}, pinned)
    head = repository({"prompts/triage.md": markdown(3, "Three.")}, pinned)
    before = load(first, history=MemoryHistory([first]))
    after = load(head, history=MemoryHistory([first, head]), previous=before)
    assert agent(after).main.instructions.body == "Two.\n"
    assert agent(after) is agent(before)
