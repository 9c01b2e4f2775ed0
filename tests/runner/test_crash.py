"""Killed at any durable write and continued, a run ends as if nothing had happened.

One scripted run does everything a run can do: model calls, commands, an edit that would match
again after it was made, a write to an external system, a sub-agent, notes, a failed `until`, a
checker that first rejects. It is killed before and after each of its writes, with its container
surviving or lost, and continued by another engine under a higher fence.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.policy import Limits
from runner.engine import Finished
from runner.spec import (
    CommandCheck,
    LimitCheck,
    RoleKind,
    RunOutcome,
    StopReason,
    ToolCheck,
    Until,
    Workspace,
)
from tests.support.runner_world import (
    Crash,
    Fuse,
    Message,
    World,
    call,
    role,
    run_spec,
    tool_grants,
)

MAIN = [
    call("shell", command="echo ran >> log.txt"),
    call("edit_file", path="code.txt", old="x", new="xx"),
    call("tracker__create_issue", title="it broke"),
    call("delegate", name="helper", task="append to log.txt"),
    call("note", text="remember this"),
    call("finish", outcome="done", evidence="none"),  # `until` fails
    call("write_file", path="ok", content="1"),
    call("finish", outcome="done", evidence="ok is there"),  # the checker rejects
    call("shell", command="echo more >> log.txt"),
    call("finish", outcome="done", evidence="log.txt says more"),
]
HELPER = [call("shell", command="echo helped >> log.txt"), call("finish", outcome="appended")]


def model(name: str, messages: list[Message]) -> Message:
    """Decides by what it reads: a wrong observation would give another run."""
    taken = sum(m["role"] == "assistant" for m in messages)
    if name == "main":
        return MAIN[min(taken, len(MAIN) - 1)]
    if name == "helper":
        return HELPER[min(taken, 1)]
    if taken == 0:
        return call("shell", command="cat log.txt code.txt")
    good = messages[-1]["content"] == "exit 0\nran\nhelped\nmore\nxx"
    verdict = "accept" if good else "reject"
    return call("finish", verdict=verdict, reasons="looked at log.txt and code.txt")


def prepared(directory: Path) -> World:
    source = directory / "source"
    source.mkdir(parents=True)
    (source / "code.txt").write_text("x\n")
    world = World(directory, model)
    world.gateway.tools["tracker__create_issue"] = lambda arguments: "issue 1"
    world.enqueue(
        run_spec(
            roles={
                "main": role(grants=tool_grants("tracker.create_issue")),
                "helper": role("helper"),
                "judge": role("judge", kind=RoleKind.CHECKER),
            },
            until=Until(command="test -f ok", checker="judge"),
            workspace=Workspace(path=str(source)),
            checks=(
                CommandCheck(id="log", command="grep -c ran log.txt"),
                ToolCheck(id="tools", include=("tracker.create_issue",)),
                LimitCheck(id="limits", max_steps=100),
            ),
            limits=Limits(max_steps=100),
        )
    )
    return world


def facts(world: World, outcome: RunOutcome) -> dict[str, Any]:
    """All that must not depend on a crash."""
    return {
        "outcome": outcome.model_dump(exclude={"working_ms"}),
        "effects": world.gateway.effects,
        "calls": sorted(str(key) for key in world.gateway.ledger),
        "asked": world.gateway.asked,
        "containers": asyncio.run(world.sandboxes.count()),
        "status": world.database.one("SELECT status FROM runs"),
        "steps": world.database.read(
            "SELECT step, call, event, role, kind, name, status, body, tokens, cost_nano,"
            " effect_key FROM journal WHERE kind <> 'sandbox' ORDER BY step, call, event"
        ),
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    world = prepared(tmp_path_factory.mktemp("undisturbed"))
    fuse = Fuse()
    result = asyncio.run(world.take(fuse))
    assert isinstance(result, Finished)
    known = facts(world, result.outcome)
    world.close()
    return known, fuse.count


def test_the_undisturbed_run_does_everything_once(
    undisturbed: tuple[dict[str, Any], int],
) -> None:
    known, writes = undisturbed
    outcome = known["outcome"]
    assert outcome["stop"] is StopReason.UNTIL_MET
    assert outcome["notes"] == "remember this"
    assert outcome["changed"] == ("code.txt", "log.txt", "ok")
    assert [grade["status"] for grade in outcome["grades"]] == ["passed"] * 3
    assert len(known["effects"]) == 1
    assert known["containers"] == 0
    assert {row["kind"] for row in known["steps"]} == {
        "catalogue", "model", "exec", "file", "tool", "delegate", "note", "finish", "check",
        "result",
    }  # fmt: skip
    assert 80 < writes < 120


@pytest.mark.parametrize("lost", [False, True], ids=["container-survives", "container-lost"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_run_killed_at_any_write_ends_as_if_undisturbed(
    undisturbed: tuple[dict[str, Any], int], tmp_path: Path, after: bool, lost: bool
) -> None:
    known, writes = undisturbed
    for at in range(1, writes + 1):
        world = prepared(tmp_path / str(at))
        with pytest.raises(Crash):
            asyncio.run(world.take(Fuse(at=at, after=after)))
        if lost:
            world.sandboxes.lose_all()
        outcome = continued(world)
        if outcome is None:
            world.close()
            continue  # it was finished already: only tidying up was left, which is the reaper's
        found = facts(world, outcome)
        world.close()
        shutdown = {**found, "steps": [bodies(row) for row in found["steps"]]}
        expected = {**known, "steps": [bodies(row) for row in known["steps"]]}
        assert shutdown == expected, f"killed at write {at}"


def bodies(row: dict[str, Any]) -> dict[str, Any]:
    """A row without how long things took."""
    import re

    return {**row, "body": re.sub(r'"duration_ms": \d+', '"duration_ms": 0', row["body"])}


def continued(world: World) -> RunOutcome | None:
    """Let another engine take the run up, if it is still open."""
    row = world.database.one("SELECT status FROM runs")
    assert row is not None
    if row["status"] == "finished":
        return None
    world.clock.time += 60_000
    result = asyncio.run(world.take())
    assert isinstance(result, Finished)
    return result.outcome


def test_a_run_killed_twice_in_a_row_still_ends_as_if_undisturbed(
    undisturbed: tuple[dict[str, Any], int], tmp_path: Path
) -> None:
    """The second blow falls while the first is being repaired (the container rebuilt)."""
    known, _ = undisturbed
    for at in range(1, 12):
        world = prepared(tmp_path / str(at))
        with pytest.raises(Crash):
            asyncio.run(world.take(Fuse(at=60)))
        world.sandboxes.lose_all()
        world.clock.time += 60_000
        with pytest.raises(Crash):
            asyncio.run(world.take(Fuse(at=at, after=bool(at % 2))))
        outcome = continued(world)
        assert outcome is not None
        assert facts(world, outcome)["outcome"] == known["outcome"], f"second blow at write {at}"
        assert world.gateway.effects == known["effects"]
        world.close()
