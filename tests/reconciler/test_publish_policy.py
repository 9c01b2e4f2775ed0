"""What a merged change does to the rights of what is live: tightening at once, models later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway import access
from gateway.database import Database
from gateway.policy import AgentPolicy
from gateway.values import AgentName, Millis
from reconciler.config.load import load
from reconciler.process.store import open_database
from reconciler.release import Release, ceiling_of, compile_fleet
from reconciler.rollout import store
from reconciler.rollout.model import Rollout, RolloutPolicy, State
from reconciler.source.tree import MemoryTree
from reconciler.tick.ceilings import publish_ceilings, publish_policy
from reconciler.tick.context import Declared

ROOT = Path(__file__).resolve().parents[2] / "example-config-repo"
AGENT = "agents/ci-triage/agent.yaml"
TRIAGE = AgentName("ci-triage")
SMART = "  smart: {targets: [offline-large], retry: {attempts: 3}}"


def declared(edits: dict[str, tuple[str, str]]) -> Declared:
    files = {
        str(path.relative_to(ROOT)): path.read_bytes()
        for path in sorted(ROOT.rglob("*"))
        if path.is_file()
    }
    digest = "sha256:" + "0" * 64
    files["interlock.lock"] = f"lock:\n  images: {{default: '{digest}'}}\n".encode()
    for path, (old, new) in edits.items():
        text = files[path].decode()
        assert old in text
        files[path] = text.replace(old, new, 1).encode()
    tree = MemoryTree(files)
    loaded = load(tree)
    assert loaded.fleet is not None
    assert not loaded.broken, loaded.findings
    releases = {
        agent: result
        for agent, result in compile_fleet(loaded.fleet).items()
        if isinstance(result, Release)
    }
    return Declared("c" * 40, tree, loaded.fleet, releases, {}, {}, ())


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A store in which the example's first release of ci-triage is live."""
    opened = open_database(tmp_path)
    release = declared({}).releases[TRIAGE]
    with opened.transaction() as tx:
        store.remember_release(tx, release.digest, release.text(), commit="c", now=Millis(1))
        tx.execute(
            "INSERT INTO pointers (agent, stable, anchor, generation, since)"
            " VALUES ('ci-triage', :digest, :digest, 1, 1)",
            digest=release.digest,
        )
    return opened


def published(database: Database, now: Declared) -> AgentPolicy:
    """What ci-triage may do after this commit came in force."""
    with database.transaction() as tx:
        publish_policy(tx, now, None, now=Millis(2))
        assert access.current_policy(tx)[1] == now.fleet.platform
        found = access.agent_policy(tx, TRIAGE)
    assert found is not None
    return found


def test_a_merged_model_change_does_not_cut_stable_off(database: Database) -> None:
    now = declared({AGENT: ("model: smart", "model: other-smart")})
    models = published(database, now).roles["main"].models
    assert {"smart", "other-smart"} <= set(models)


def test_a_renamed_sub_agent_stays_for_the_release_that_has_it(database: Database) -> None:
    text = (ROOT / AGENT).read_text()
    renamed = declared({AGENT: (text, text.replace("reviewer", "judge"))})
    roles = published(database, renamed).roles
    assert set(roles) >= {"reviewer", "judge"}
    assert roles["reviewer"].models == ("offline-small", "other-smart")
    assert roles["reviewer"].tools == {}


def test_a_removed_tool_is_gone_at_once(database: Database) -> None:
    servers = (
        "- {name: tracker, tools: [open_change], args: {open_change: {project: northwind-billing}}}"
    )
    now = declared({AGENT: (servers, "- {name: tracker, tools: [list_changes]}")})
    assert "tracker.open_change" not in published(database, now).roles["main"].tools


def test_a_model_the_platform_no_longer_has_is_gone_for_everybody(database: Database) -> None:
    gone = declared(
        {
            AGENT: ("model: smart", "model: other-smart"),
            "gateway/models.yaml": (SMART, ""),
            "interlock.yaml": ("    model: smart\n", "    model: other-smart\n"),
            "teams.yaml": ("models: [smart]", "models: [other-smart]"),
        }
    )
    models = published(database, gone).roles["main"].models
    assert "smart" not in models


def opened_rollout(database: Database, release: Release, agent: str, pull: int | None) -> None:
    with database.transaction() as tx:
        store.remember_release(tx, release.digest, release.text(), commit="c", now=Millis(1))
        store.save(
            tx,
            Rollout(
                id=f"rollout-{agent}-{pull}",
                agent=AgentName(agent),
                candidate=release.digest,
                stable=None,
                anchor=None,
                policy=RolloutPolicy(name="standard"),
                suite="",
                commit="c",
                state=State.EVALUATING,
                look=0,
                reason="opened",
                opened_at=Millis(1),
                since=Millis(1),
                pull=pull,
            ),
        )


def test_a_pull_requests_release_brings_its_models_and_no_tool(database: Database) -> None:
    servers = (
        "- {name: tracker, tools: [open_change], args: {open_change: {project: northwind-billing}}}"
    )
    tools = "- {name: tracker, tools: [open_change, list_changes]}"
    asked = declared({AGENT: (servers, tools)})
    model = declared({AGENT: ("model: smart", "model: other-smart")})
    assert "tracker.list_changes" in ceiling_of(asked.releases[TRIAGE], "").roles["main"].tools
    before = published(database, declared({}))
    opened_rollout(database, asked.releases[TRIAGE], "ci-triage", pull=7)
    assert published(database, declared({})) == before
    opened_rollout(database, model.releases[TRIAGE], "ci-triage", pull=8)
    triage = published(database, declared({})).roles["main"]
    assert "other-smart" in triage.models
    assert triage.tools == before.roles["main"].tools
    opened_rollout(database, model.releases[TRIAGE], "new-agent", pull=9)
    published(database, declared({}))
    new = access.agent_policy(database, "new-agent")
    assert new is not None, "it can be evaluated"
    assert "other-smart" in new.roles["main"].models
    assert all(grants.tools == {} for grants in new.roles.values())


def test_an_agent_that_nobody_declares_may_do_nothing_whatever_was_live(
    database: Database,
) -> None:
    published(database, declared({}))
    now = declared({})
    agents = {name: config for name, config in now.fleet.agents.items() if name != TRIAGE}
    gone = replace(now, fleet=replace(now.fleet, agents=agents))
    with database.transaction() as tx:
        publish_ceilings(tx, gone, [TRIAGE])
    assert access.agent_policy(database, TRIAGE) is None
    assert access.with_ceiling(database) == set(agents)


def test_only_the_agents_that_are_named_are_published(database: Database) -> None:
    published(database, declared({}))
    before = access.agent_policy(database, "release-notes")
    tighter = declared({AGENT: ("model: smart", "model: other-smart")})
    none = replace(tighter, fleet=replace(tighter.fleet, agents={}))
    with database.transaction() as tx:
        publish_policy(tx, none, [TRIAGE], now=Millis(3))
    assert access.agent_policy(database, TRIAGE) is None
    assert access.agent_policy(database, "release-notes") == before
