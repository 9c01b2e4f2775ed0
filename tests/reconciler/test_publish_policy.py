"""What a merged change does to the rights of what is live: tightening at once, models later."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import access
from gateway.database import Database
from gateway.policy import Policy
from gateway.values import AgentName, Millis
from reconciler.config.load import load
from reconciler.process.store import open_database
from reconciler.release import Release, compile_fleet
from reconciler.rollout import store
from reconciler.source.tree import MemoryTree
from reconciler.tick.context import Declared
from reconciler.tick.declare import publish_policy

ROOT = Path(__file__).resolve().parents[2] / "example-config-repo"
AGENT = "agents/ci-triage/agent.yaml"
TRIAGE = AgentName("ci-triage")


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


def published(database: Database, now: Declared) -> Policy:
    with database.transaction() as tx:
        publish_policy(tx, now, Millis(2))
        _, policy = access.current_policy(tx)
    return policy


def test_a_merged_model_change_does_not_cut_stable_off(database: Database) -> None:
    policy = published(database, declared({AGENT: ("model: smart", "model: other-smart")}))
    models = policy.agents["ci-triage"].roles["main"].models
    assert {"smart", "other-smart"} <= set(models)


def test_a_renamed_sub_agent_stays_for_the_release_that_has_it(database: Database) -> None:
    text = (ROOT / AGENT).read_text()
    renamed = declared({AGENT: (text, text.replace("reviewer", "judge"))})
    roles = published(database, renamed).agents["ci-triage"].roles
    assert set(roles) >= {"reviewer", "judge"}
    assert roles["reviewer"].models == ("offline-small", "other-smart")
    assert roles["reviewer"].tools == {}


def test_a_removed_tool_is_gone_at_once(database: Database) -> None:
    servers = (
        "- {name: tracker, tools: [open_change], args: {open_change: {project: northwind-billing}}}"
    )
    policy = published(
        database, declared({AGENT: (servers, "- {name: tracker, tools: [list_changes]}")})
    )
    assert "tracker.open_change" not in policy.agents["ci-triage"].roles["main"].tools


def test_a_model_the_platform_no_longer_has_is_gone_for_everybody(database: Database) -> None:
    gone = declared(
        {
            AGENT: ("model: smart", "model: other-smart"),
            "gateway/models.yaml": ("  smart: {targets: [offline-large]}\n", ""),
            "interlock.yaml": ("    model: smart\n", "    model: other-smart\n"),
        }
    )
    models = published(database, gone).agents["ci-triage"].roles["main"].models
    assert "smart" not in models
