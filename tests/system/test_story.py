"""The whole story for real, then a look at what it left: git, containers, ledger."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from pathlib import Path

import docker
import pytest

from gateway.database import Database
from gateway.values import Millis
from reconciler.demo import tracker
from reconciler.demo.story import CHAPTERS, tell
from reconciler.demo.world import TRACKER_TOKEN
from reconciler.operations import pulls
from reconciler.process.forge import open_desk
from reconciler.process.store import open_database
from reconciler.record import audit, views
from reconciler.record.rebuild import rebuild
from reconciler.source.mirror import Mirror
from reconciler.source.signing import public_key
from runner.spec import RunOutcome

pytestmark = [pytest.mark.system, pytest.mark.timeout(2400)]

REPORTS = "interlock/reports"
PULLS = "interlock/pulls"
PROVIDER_KEY = "sk-demo-0f6b2c9a71d84e53"


class Told:
    """What is on disk after the story."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database: Database = open_database(folder / "state")
        self.mirror = Mirror.open_or_clone(str(folder / "config.git"), folder / "look.git")
        self.signer = public_key(folder / "signing-key")

    def pulls(self) -> dict[int, pulls.Shown]:
        """Every pull request with what was said and checked."""
        with open_desk(self.folder / "state", {}, repo=None, branch=None, login="mara") as desk:
            found = pulls.listing(desk, everything=True)
            assert found.findings == ()
            return {int(p.number): pulls.show(desk, p.number) for p in found.pulls}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("story") / "demo"
    environment = {**os.environ, "OPENAI_API_KEY": PROVIDER_KEY}
    assert tell(folder=folder, model=None, environment=environment) == 0
    return Told(folder)


def test_every_chapter_came_true_and_the_decisions_stand_in_the_store(told: Told) -> None:
    states = [
        (row["state"], row["pull"])
        for row in told.database.read(
            "SELECT state, pull FROM rollouts WHERE agent = 'ci-triage' ORDER BY opened_at, rollout"
        )
    ]
    assert len(CHAPTERS) == 8
    assert states == [("promoted", None), ("rejected", 1), ("judged", 2), ("rolled_back", None)]


def test_what_was_judged_on_its_pull_request_was_not_judged_again(told: Told) -> None:
    rows = told.database.read(
        "SELECT r.state, group_concat(DISTINCT c.kind) AS kinds FROM rollouts r JOIN receipts c"
        " ON c.rollout = r.rollout AND c.kind <> 'sentinels' WHERE r.agent = 'ci-triage'"
        " GROUP BY r.rollout, r.state"
    )
    assert {row["state"]: row["kinds"] for row in rows} == {
        "promoted": "offline",
        "rejected": "offline",
        "judged": "offline",
        "rolled_back": "canary",
    }


def test_each_pull_request_has_one_plan_comment_and_its_checks(told: Told) -> None:
    shown = told.pulls()
    assert sorted(shown) == [1, 2, 3, 4]
    for number, one in shown.items():
        plans = [c for c in one.comments if c.body.startswith("<!-- interlock:plan -->")]
        assert [c.author for c in plans] == ["interlock"], number
        assert one.pull.state.value == "merged"
    checks = {n: {s.context: s.state.value for s in one.statuses} for n, one in shown.items()}
    assert checks == {
        1: {"interlock/plan": "success", "interlock/gate": "failure"},
        2: {"interlock/plan": "success", "interlock/gate": "success"},
        3: {"interlock/plan": "pending"},
        4: {"interlock/plan": "pending"},
    }


def test_every_word_was_answered_once_and_one_approval_was_used_once(told: Told) -> None:
    said = told.database.read("SELECT * FROM pull_comments ORDER BY pull, comment")
    assert [(row["pull"], row["author"]) for row in said] == [(3, "aiko"), (3, "lena")]
    markers = [
        re.match(r"<!-- interlock:(answer-\d+) -->", comment.body)
        for comment in told.pulls()[3].comments
    ]
    answered = [found[1] for found in markers if found is not None]
    assert answered == [f"answer-{row['comment']}" for row in said]
    (approval,) = told.database.read("SELECT * FROM approvals")
    assert (approval["actor"], approval["scope"]) == ("lena", "agent/release-notes")
    assert approval["consumed_at"] is not None
    actions = [row["action"] for row in told.database.read("SELECT action FROM audit")]
    assert actions.count("in_force.baseline") == 1, "after a rebuild everything was in force again"
    assert actions.count("in_force.approved") == 1
    assert actions.count("in_force.waits") == 2


def test_no_commit_about_pull_requests_is_empty(told: Told) -> None:
    history = told.mirror.first_parent_history(PULLS)
    assert len(history) > 15
    trees = [told.mirror.commit_info(commit).tree for commit in history]
    assert all(a != b for a, b in itertools.pairwise(trees))


def test_the_rejection_names_cases_and_how_surely(told: Told) -> None:
    row = told.database.one("SELECT * FROM rollouts WHERE state = 'rejected'")
    assert row is not None
    assert "case-sensitivity (3/3 → 0/3)" in row["reason"]
    assert "surely at least" in row["reason"]


def test_every_commit_of_the_record_is_signed_by_the_one_key_and_none_is_empty(
    told: Told,
) -> None:
    history = told.mirror.first_parent_history(REPORTS)
    assert len(history) > 8
    trees = []
    for commit in history:
        assert told.mirror.verify_commit(commit, [told.signer]).good, commit
        trees.append(told.mirror.commit_info(commit).tree)
    assert all(a != b for a, b in itertools.pairwise(trees))


def test_the_watched_branch_was_never_written_by_interlock(told: Told) -> None:
    commits = told.mirror.first_parent_history("main")
    assert not any(told.mirror.commit_info(commit).own for commit in commits)


def test_the_record_has_pages_for_people_and_state_for_machines(told: Told) -> None:
    head = told.mirror.resolve(REPORTS)
    assert head is not None
    paths = {path for path, _ in told.mirror.tree(head).walk()}
    assert {"README.md", "state/manifest.json", "agents/ci-triage/README.md"} <= paths
    assert any(p.startswith("agents/ci-triage/runs/") and p.endswith(".md") for p in paths)
    assert any(p.startswith("rollouts/") and p.endswith(".json") for p in paths)
    assert any(p.startswith("costs/") for p in paths)
    manifest = json.loads(told.mirror.tree(head).read("state/manifest.json"))
    assert manifest["clean"] is True


def test_no_container_is_left(told: Told) -> None:
    client = docker.from_env()
    names = {
        row["run"] for row in told.database.read("SELECT run FROM runs WHERE purpose = 'live'")
    }
    left = [c.name for c in client.containers.list(all=True) if c.labels.get("run") in names]
    client.close()
    assert left == []


def test_the_ledger_is_settled_and_agrees_with_the_outcomes(told: Told) -> None:
    open_rows = told.database.read("SELECT run FROM calls WHERE state = 'reserved'")
    assert open_rows == []
    for row in told.database.read(
        "SELECT r.run, r.outcome, sum(c.cost_nano) AS cost FROM runs r JOIN calls c"
        " ON c.run = r.run WHERE r.purpose = 'live' GROUP BY r.run, r.outcome"
    ):
        assert RunOutcome.model_validate_json(row["outcome"]).cost_nano == row["cost"], row["run"]


def test_no_effect_happened_twice(told: Told) -> None:
    keys = [line["key"] for line in tracker.effects(told.folder / "tracker")]
    assert None not in keys
    assert len(keys) == len(set(keys))


def test_no_secret_is_in_git_or_in_the_state_directory(told: Told) -> None:
    private = (told.folder / "signing-key").read_text().splitlines()[1]
    for secret in (TRACKER_TOKEN, PROVIDER_KEY, private):
        found = subprocess.run(
            ["grep", "-rlF", secret, str(told.folder / "state"), str(told.folder / "tracker")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.stdout == ""
        revisions = subprocess.run(
            ["git", "-C", str(told.folder / "config.git"), "rev-list", "--all"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        grep = subprocess.run(
            ["git", "-C", str(told.folder / "config.git"), "grep", "-lF", secret, *revisions],
            capture_output=True,
            text=True,
            check=False,
        )
        assert grep.stdout == ""


def test_every_figure_can_be_recomputed_from_git(told: Told, tmp_path: Path) -> None:
    class Fixed:
        def now(self) -> Millis:
            row = told.database.one("SELECT max(at) AS at FROM audit")
            assert row is not None
            return Millis(row["at"] + 60_000)

    clock = Fixed()
    fresh = open_database(tmp_path / "fresh")
    restored = rebuild(fresh, told.mirror, branch=REPORTS, allowed=[told.signer], clock=clock)
    assert not restored.held
    with told.database.snapshot() as here, fresh.snapshot() as there:
        for by in (("agent",), ("team", "role"), ("model", "day"), ("purpose",)):
            assert views.costs(here, by) == views.costs(there, by)
        ours, theirs = views.fleet(here, clock.now()), views.fleet(there, clock.now())
        for mine, other in zip(ours.agents, theirs.agents, strict=False):
            assert (mine.agent, mine.stable, mine.runs_week, mine.accepted_week) == (
                other.agent,
                other.stable,
                other.runs_week,
                other.accepted_week,
            )
            assert mine.cost_week == other.cost_week
        rows = there.read("SELECT * FROM audit ORDER BY seq")
    assert audit.first_break(rows) is None
