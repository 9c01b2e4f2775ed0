"""SIGKILL at random moments of scheduled runs: the story ends as an undisturbed one would.

The moments are numbers of journal rows, drawn from a seeded source, so that a failure can be
repeated and nothing sleeps.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from reconciler.demo import tracker
from reconciler.demo.world import HERE, StoryFailed
from runner.spec import RunOutcome
from tests.system.story_world import ungated_world

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@pytest.mark.parametrize("seed", [1, 2])
def test_random_kills_change_nothing_about_the_end(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    mornings = ("mon 06:01", "tue 06:01", "wed 06:01")
    kills = 0
    with ungated_world(tmp_path / "world") as world:
        world.reconcile()
        for morning, change in zip(mornings, (None, "second-bug", "third-bug"), strict=True):
            if change is not None:
                world.commit(world.project, HERE / "project-changes" / change, change)
            world.clock(morning)

            def journaled() -> int:
                return int(world.rows("SELECT count(*) AS n FROM journal")[0]["n"])

            target = journaled()
            for _ in range(3):
                target += draw.randint(1, 14)
                goal = target
                try:
                    world.reconcile_until(lambda goal=goal: journaled() >= goal)
                    kills += 1
                except StoryFailed:
                    break  # the morning's runs ended before that many rows were written
            world.reconcile()
        rows = world.rows(
            "SELECT * FROM runs WHERE agent = 'ci-triage' AND purpose = 'live' ORDER BY created_at"
        )
        outcomes = [RunOutcome.model_validate_json(row["outcome"]) for row in rows]
        effects = tracker.effects(world.folder / "tracker")
        reserved = world.rows("SELECT run FROM calls WHERE state = 'reserved'")
    assert kills >= 4
    assert len(rows) == 3
    assert [str(o.stop) for o in outcomes if o.stop not in ("until_met", "outcome_unknown")] == []
    # Each accepted run opened exactly one change request; one that cannot know says so instead.
    surely = sum(o.stop == "until_met" for o in outcomes)
    assert surely <= len(effects) <= 3
    assert len({line["key"] for line in effects}) == len(effects)
    assert reserved == []
