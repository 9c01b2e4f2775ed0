"""Pull requests in a tick: what recent calls say of a change, and how often that is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.record import recorded
from reconciler.tick import pulls
from tests.support.config_world import ConfigWorld

DAY = 86_400_000
LOSE = ("agents/notes/agent.yaml", "tools: [list]", "tools: []")


@pytest.fixture
def world(tmp_path: Path) -> ConfigWorld:
    made = ConfigWorld.settled(tmp_path)
    with made.database.transaction() as tx:
        for step in range(3):
            tx.execute(
                "INSERT INTO calls (run, step, call, attempt, kind, state, agent, team, role,"
                " release, purpose, occurrence, target, asked, request_hash, reserved_nano,"
                " cost_nano, reserved_tokens, label, policy, reserved_at) VALUES ('run-1', :step,"
                " 0, 0, 'tool', 'settled', 'notes', 't', 'main', 'r', 'live', 'o', 'tracker.list',"
                " 'tracker.list', 'h', 0, 0, 0, 'untrusted/internal', 'p', :at)",
                step=str(step),
                at=made.clock.now() - 1000 + step,
            )
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """When the ledger was read."""
    times: list[int] = []
    replay = recorded.replay

    def counted(*args: object, **more: object) -> object:
        times.append(int(more["now"]))  # type: ignore[call-overload]
        return replay(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(pulls.recorded, "replay", counted)
    return times


def test_the_comment_tells_which_recorded_calls_a_change_would_deny(
    world: ConfigWorld, asked: list[int]
) -> None:
    world.edit(*LOSE, branch="lose")
    pull = world.pull("lose")
    world.tick(2)
    said = world.comment_of_us(pull)
    assert "#### Backtest" in said
    assert "tool `tracker.list` is not granted any more" in said
    assert "`run-1/0/0`" in said
    assert len(asked) == 1

    # Whatever is said of it, the ledger is not read again for the same head on the same day.
    world.say(pull, "/interlock plan", by="ines")
    world.tick(3)
    assert len(asked) == 1
    assert "#### Backtest" in world.comment_of_us(pull)

    world.clock.at += DAY
    world.say(pull, "/interlock plan", by="ines")
    world.tick(3)
    assert len(asked) == 2

    world.edit("agents/notes/notes.md", "what changed", "everything", branch="lose")
    world.tick(3)
    assert len(asked) == 3


def test_a_change_of_words_reads_no_ledger(world: ConfigWorld, asked: list[int]) -> None:
    world.edit("agents/notes/notes.md", "what changed", "everything", branch="words")
    pull = world.pull("words")
    world.tick(2)
    assert "Backtest" not in world.comment_of_us(pull)
    assert asked == []
