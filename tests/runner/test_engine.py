"""The engine runs a leased run to its outcome, and survives everything that may happen to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.policy import Limits
from gateway.values import CallKey, NanoUSD, StepPath
from runner import queue
from runner.client import CallRefused, GatewayUnreachable, Reply
from runner.engine import MAX_FRUITLESS, Finished, Yielded
from runner.sandbox.contract import SandboxLost, SandboxUnavailable
from runner.spec import (
    ChangeCheck,
    CommandCheck,
    FileCheck,
    LimitCheck,
    RoleKind,
    RunOutcome,
    StallKind,
    StopReason,
    ToolCheck,
    Until,
    Workspace,
)
from runner.trace import trace
from tests.support.runner_world import (
    Crash,
    Fuse,
    Message,
    World,
    call,
    role,
    run_spec,
    say,
    script,
    tool_grants,
)


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Any]:
    made: list[World] = []

    def make(model: Any, name: str = "world") -> World:
        made.append(World(tmp_path / name, model))
        return made[-1]

    yield make
    for world in made:
        world.close()


def run(world: World, spec: Any, **kwargs: Any) -> RunOutcome:
    world.enqueue(spec)
    result = asyncio.run(world.take(**kwargs))
    assert isinstance(result, Finished)
    return result.outcome


DONE = call("finish", outcome="fixed", evidence="tests pass")


# ---------------------------------------------------------------------- the plain paths


def test_a_run_ends_with_the_agents_words_its_change_and_its_use(worlds: Any) -> None:
    world = worlds(script(main=[call("write_file", path="a.txt", content="hello\n"), DONE]))
    outcome = run(world, run_spec())
    assert (outcome.stop, outcome.summary) == (StopReason.DONE, "fixed\ntests pass")
    assert outcome.changed == ("a.txt",)
    assert "+hello" in outcome.diff
    assert (outcome.steps, outcome.tokens, outcome.cost_nano) == (3, 30, 2000)
    assert outcome.accepted is None
    assert asyncio.run(world.sandboxes.count()) == 0


def test_the_run_sees_its_workspace_and_the_original_stays(worlds: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "code.txt").write_text("broken\n")
    model = script(main=[call("edit_file", path="code.txt", old="broken", new="fixed"), DONE])
    outcome = run(worlds(model), run_spec(workspace=Workspace(path=str(source))))
    assert outcome.changed == ("code.txt",)
    assert (source / "code.txt").read_text() == "broken\n"


def test_an_edit_that_matches_twice_is_refused_and_nothing_changes(worlds: Any) -> None:
    model = script(
        main=[
            call("write_file", path="a", content="x x"),
            call("edit_file", path="a", old="x", new="y"),
            call("read_file", path="a"),
            DONE,
        ]
    )
    world = worlds(model)
    run(world, run_spec())
    results = [m["content"] for m in world.gateway.requests[-1]["messages"] if m["role"] == "tool"]
    assert "found 2 times" in results[1]
    assert results[2] == "x x"


def test_unknown_tools_and_wrong_arguments_are_told_to_the_model(worlds: Any) -> None:
    broken: Message = call("shell", command="x")
    broken["tool_calls"][0]["function"]["arguments"] = "{not json"
    world = worlds(script(main=[call("teleport"), call("shell", cmd="ls"), broken, DONE]))
    assert run(world, run_spec()).stop is StopReason.DONE
    results = [m["content"] for m in world.gateway.requests[-1]["messages"] if m["role"] == "tool"]
    assert "there is no tool 'teleport'" in results[0]
    assert "'command' is missing" in results[1]
    assert "not a JSON object" in results[2]


def test_checks_are_graded_on_the_result(worlds: Any) -> None:
    world = worlds(
        script(main=[call("write_file", path="a", content="42"), call("ci__retry", job=1), DONE])
    )
    world.gateway.tools["ci__retry"] = lambda arguments: "retried"
    spec = run_spec(
        roles={"main": role(grants=tool_grants("ci.retry"))},
        checks=(
            CommandCheck(id="command", command="grep -q 42 a"),
            FileCheck(id="file", path="a", matches="^7$"),
            ChangeCheck(id="changes", exclude=("b",)),
            ToolCheck(id="tools", include=("ci.retry",), exclude=("ci.merge*",)),
            LimitCheck(id="limits", max_steps=2),
        ),
    )
    outcome = run(world, spec)
    assert {g.check: g.status for g in outcome.grades} == {
        "command": "passed",
        "file": "failed",
        "changes": "passed",
        "tools": "passed",
        "limits": "failed",
    }


def test_a_run_until_a_command_passes_goes_on_after_a_failed_one(worlds: Any) -> None:
    world = worlds(script(main=[DONE, call("write_file", path="ok", content=""), DONE]))
    outcome = run(world, run_spec(until=Until(command="test -f ok")))
    assert (outcome.stop, outcome.accepted) == (StopReason.UNTIL_MET, True)
    told = [m["content"] for m in world.gateway.requests[1]["messages"] if m["role"] == "user"]
    assert "`test -f ok`: exit 1" in told[-1]


def test_the_makers_word_never_ends_a_run_until_done(worlds: Any) -> None:
    outcome = run(
        worlds(script(main=[DONE])),
        run_spec(until=Until(command="test -f ok"), limits=Limits(max_steps=10)),
    )
    assert (outcome.stop, outcome.accepted) == (StopReason.STALLED, False)


def checker_run() -> dict[str, Any]:
    return {
        "roles": {"main": role(), "judge": role("judge", kind=RoleKind.CHECKER)},
        "until": Until(checker="judge"),
    }


def test_a_checker_judges_a_read_only_copy_with_its_own_identity(worlds: Any) -> None:
    def model(name: str, messages: list[Message]) -> Message:
        taken = sum(m["role"] == "assistant" for m in messages)
        if name == "main":
            turns = [DONE, call("write_file", path="ok", content="1"), DONE]
            return turns[min(taken, 2)]
        if taken == 0:
            return call("shell", command="cat ok || true")
        good = messages[-1]["content"].startswith("exit 0\n1")
        verdict = "accept" if good else "reject"
        return call("finish", verdict=verdict, reasons="ok holds 1" if good else "ok is missing")

    world = worlds(model)
    outcome = run(world, run_spec(**checker_run()))
    assert (outcome.stop, outcome.accepted) == (StopReason.UNTIL_MET, True)
    seen = trace(world.database, world.database.one("SELECT run FROM runs")["run"])
    judge = [step for step in seen.walk() if step.role == "judge"]
    assert {step.kind for step in judge} == {"model", "exec", "finish"}
    assert sum(step.cost_nano for step in judge) == 4000
    assert outcome.cost_nano == 7000
    rows = world.database.read("SELECT DISTINCT role FROM calls ORDER BY role")
    assert [row["role"] for row in rows] == ["judge", "main"]


def test_a_checker_has_no_tool_that_writes(worlds: Any) -> None:
    world = worlds(script(main=[DONE], judge=[call("finish", verdict="accept", reasons="fine")]))
    run(world, run_spec(**checker_run()))
    offered = {tool["function"]["name"] for tool in world.gateway.requests[1]["tools"]}
    assert offered == {"shell", "read_file", "list_files", "finish"}


def test_a_delegate_works_in_the_same_workspace_with_its_own_context(worlds: Any) -> None:
    world = worlds(
        script(
            main=[
                call("delegate", name="helper", task="make b"),
                call("read_file", path="b"),
                DONE,
            ],
            helper=[call("write_file", path="b", content="made"), DONE],
        )
    )
    outcome = run(world, run_spec(roles={"main": role(), "helper": role("helper")}))
    assert outcome.changed == ("b",)
    helper = world.gateway.requests[1]["messages"]
    assert helper[0]["content"].startswith("You are helper.")
    assert "make b" in helper[1]["content"]
    assert "Fix it." not in str(helper)
    answer = world.gateway.requests[3]["messages"][-1]["content"]
    assert answer == "outcome: fixed\nevidence: tests pass"
    assert outcome.steps == 8


def test_what_a_sub_agent_uses_counts_for_the_run(worlds: Any) -> None:
    world = worlds(
        script(
            main=[call("delegate", name="helper", task="loop"), DONE],
            helper=[call("shell", command=f"echo {n}") for n in range(50)],
        )
    )
    outcome = run(
        world,
        run_spec(roles={"main": role(), "helper": role("helper")}, limits=Limits(max_steps=9)),
    )
    assert outcome.stop is StopReason.MAX_STEPS
    assert outcome.steps <= 10


def test_notes_stay_until_they_are_replaced(worlds: Any) -> None:
    kept = run(worlds(script(main=[DONE]), "a"), run_spec(notes="old"))
    changed = run(worlds(script(main=[call("note", text="new"), DONE]), "b"), run_spec(notes="old"))
    assert (kept.notes, changed.notes) == ("old", "new")


# ---------------------------------------------------------------------- ends


@pytest.mark.parametrize(
    "turns, kind",
    [
        ([call("shell", command="echo same")], StallKind.SAME_RESULT),
        ([call("shell", command="exit 3")], StallKind.SAME_ERROR),
        ([say("I am thinking.")], StallKind.MONOLOGUE),
        (
            [call("shell", command=f"echo {'ab'[n % 2]}") for n in range(40)],
            StallKind.ALTERNATING,
        ),
    ],
)
def test_a_stalled_run_is_nudged_once_and_then_stopped(
    worlds: Any, turns: list[Message], kind: StallKind
) -> None:
    world = worlds(script(main=turns))
    outcome = run(world, run_spec())
    assert (outcome.stop, outcome.stall) == (StopReason.STALLED, kind)
    nudges = world.database.read("SELECT * FROM journal WHERE kind = 'nudge' AND event = 'intent'")
    assert len(nudges) == 1


@pytest.mark.parametrize(
    "limits, reason",
    [
        (Limits(max_steps=3), StopReason.MAX_STEPS),
        (Limits(max_tokens=20), StopReason.TOKEN_BUDGET),
        (Limits(max_cost=1500), StopReason.COST_BUDGET),
        (Limits(max_wall_ms=1), StopReason.TIME_BUDGET),
    ],
)
def test_a_ceiling_ends_the_run_and_says_which(
    worlds: Any, limits: Limits, reason: StopReason
) -> None:
    turns = [call("shell", command=f"echo {n}") for n in range(50)]
    outcome = run(worlds(script(main=turns)), run_spec(limits=limits))
    assert outcome.stop is reason
    assert outcome.detail


@pytest.mark.parametrize(
    "code, details, reason",
    [
        ("budget_exceeded", {"rule": "daily", "left_nano": 0}, StopReason.COST_BUDGET),
        ("budget_exceeded", {"rule": "run", "left_tokens": 0}, StopReason.TOKEN_BUDGET),
        ("revoked", {}, StopReason.KILLED),
        ("stopped", {}, StopReason.KILLED),
        ("not_granted", {}, StopReason.REFUSED),
        ("outcome_unknown", {}, StopReason.OUTCOME_UNKNOWN),
        ("provider_error", {}, StopReason.ERROR),
    ],
)
def test_a_refused_model_call_ends_the_run_with_its_reason(
    worlds: Any, code: str, details: dict[str, Any], reason: StopReason
) -> None:
    world = worlds(script(main=[DONE]))
    world.gateway.refuse = lambda kind, key: CallRefused(code, "because", details)
    outcome = run(world, run_spec())
    assert outcome.stop is reason
    assert "because" in outcome.detail
    if "rule" in details:
        assert details["rule"] in outcome.detail


def test_a_refused_tool_is_an_error_the_model_reads(worlds: Any) -> None:
    world = worlds(script(main=[call("ci__retry"), DONE]))
    world.gateway.tools["ci__retry"] = lambda arguments: "never"
    world.gateway.refuse = lambda kind, key: (
        CallRefused("not_granted", "ci.retry is not granted") if kind == "tool" else None
    )
    spec = run_spec(
        roles={"main": role(grants=tool_grants("ci.retry"))},
        checks=(ToolCheck(id="calls", include=("ci.retry",)),),
    )
    outcome = run(world, spec)
    assert outcome.stop is StopReason.DONE
    assert "not granted" in world.gateway.requests[-1]["messages"][-1]["content"]
    assert outcome.grades[0].status == "failed"


def test_a_write_with_unknown_outcome_stops_the_run(worlds: Any) -> None:
    world = worlds(script(main=[call("ci__retry"), DONE]))
    world.gateway.tools["ci__retry"] = lambda arguments: "never"
    world.gateway.refuse = lambda kind, key: (
        CallRefused("outcome_unknown", "it may have happened") if kind == "tool" else None
    )
    outcome = run(world, run_spec(roles={"main": role(grants=tool_grants("ci.retry"))}))
    assert outcome.stop is StopReason.OUTCOME_UNKNOWN
    assert world.gateway.effects == []


def test_a_refusal_of_the_agent_is_an_end_of_its_own(worlds: Any) -> None:
    turns = [call("finish", outcome="refused", evidence="it would delete data")]
    outcome = run(worlds(script(main=turns)), run_spec(until=Until(command="false")))
    assert (outcome.stop, outcome.detail) == (StopReason.REFUSED, "it would delete data")


def test_a_run_killed_before_it_begins_calls_nobody(worlds: Any) -> None:
    world = worlds(script(main=[DONE]))
    world.enqueue(run_spec())
    with world.database.transaction() as tx:
        queue.kill(tx, agent=None, reason="on-call said so")
    result = asyncio.run(world.take())
    assert (result.outcome.stop, result.outcome.detail) == (StopReason.KILLED, "on-call said so")
    assert world.gateway.asked == 0


def test_a_kill_ends_a_step_under_way(worlds: Any) -> None:
    world = worlds(script(main=[call("shell", command="sleep 60"), DONE]))

    async def scenario() -> Any:
        world.enqueue(run_spec())
        executing = asyncio.Event()

        async def on_exec(key: Any) -> None:
            executing.set()
            await asyncio.Event().wait()

        async def sleep(seconds: float) -> None:
            await executing.wait()
            with world.database.transaction() as tx:
                queue.kill(tx, agent=None, reason="stop it")

        world.sandboxes.on_exec = on_exec
        work = world.queue()
        return await world.engine(work, sleep=sleep).advance(work.lease())

    result = asyncio.run(scenario())
    assert (result.outcome.stop, result.outcome.detail) == (StopReason.KILLED, "stop it")
    assert result.outcome.cost_nano == 1000
    assert asyncio.run(world.sandboxes.count()) == 0


def test_a_step_that_hangs_beyond_the_wall_time_is_given_up(worlds: Any) -> None:
    world = worlds(script(main=[call("shell", command="sleep 60"), DONE]))

    async def scenario() -> Any:
        world.enqueue(run_spec(limits=Limits(max_wall_ms=5_000)))
        executing = asyncio.Event()

        async def on_exec(key: Any) -> None:
            executing.set()
            await asyncio.Event().wait()

        async def sleep(seconds: float) -> None:
            await executing.wait()
            world.clock.time += 5_001

        world.sandboxes.on_exec = on_exec
        work = world.queue()
        return await world.engine(work, sleep=sleep).advance(work.lease())

    result = asyncio.run(scenario())
    assert result.outcome.stop is StopReason.TIME_BUDGET
    assert "5000 ms" in result.outcome.detail


def test_a_cancelled_engine_gives_the_run_back_and_keeps_its_container(worlds: Any) -> None:
    world = worlds(script(main=[call("shell", command="sleep 60"), DONE]))

    async def scenario() -> None:
        world.enqueue(run_spec())
        executing = asyncio.Event()

        async def on_exec(key: Any) -> None:
            executing.set()
            await asyncio.Event().wait()

        world.sandboxes.on_exec = on_exec
        work = world.queue()
        task = asyncio.create_task(world.engine(work).advance(work.lease()))
        await executing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert world.database.one("SELECT status FROM runs")["status"] == "queued"
    assert asyncio.run(world.sandboxes.count()) == 1


def test_a_fault_of_the_surroundings_gives_the_run_back_and_loses_nothing(worlds: Any) -> None:
    world = worlds(script(main=[call("shell", command="echo hi"), DONE]))
    world.sandboxes.unavailable = SandboxUnavailable("no engine")
    world.enqueue(run_spec())
    result = asyncio.run(world.take())
    assert isinstance(result, Yielded)
    assert result.retry_ms > 0
    assert "no engine" in result.reason
    world.sandboxes.unavailable = None
    assert asyncio.run(world.take()).outcome.stop is StopReason.DONE
    assert world.gateway.asked == 2


@pytest.mark.parametrize("fault", [SandboxUnavailable("no engine"), SandboxLost("it is gone")])
@pytest.mark.parametrize(
    "judged",
    [{"until": Until(command="true")}, {"checks": (CommandCheck(id="c", command="true"),)}],
)
def test_a_verdict_that_finds_no_container_gives_the_run_back(
    worlds: Any, fault: Exception, judged: dict[str, Any]
) -> None:
    world = worlds(script(main=[DONE]))
    world.sandboxes.once_fault = fault
    world.enqueue(run_spec(**judged))
    result = asyncio.run(world.take())
    assert isinstance(result, Yielded)
    assert str(fault) in result.reason
    assert world.database.one("SELECT status, stop FROM runs") == {"status": "queued", "stop": None}
    world.sandboxes.once_fault = None
    outcome = asyncio.run(world.take()).outcome
    assert outcome.stop in (StopReason.UNTIL_MET, StopReason.DONE)
    assert outcome.accepted or [grade.status for grade in outcome.grades] == ["passed"]
    assert world.gateway.asked == 1


def test_a_run_that_kills_its_runner_every_time_is_given_up(worlds: Any) -> None:
    def deadly(name: str, messages: list[Message]) -> Message:
        if any(m["role"] == "assistant" for m in messages):
            raise Crash
        return call("shell", command="echo hi")

    world = worlds(deadly)
    world.enqueue(run_spec())
    # The first life does a step; only those after it are in vain.
    for _ in range(1 + MAX_FRUITLESS):
        with pytest.raises(Crash):
            asyncio.run(world.take())
        world.clock.time += 60_000
    outcome = asyncio.run(world.take()).outcome
    assert outcome.stop is StopReason.ERROR
    assert f"given up after {MAX_FRUITLESS} tries" in outcome.detail
    assert outcome.steps == 2, "what was done is still told"
    assert asyncio.run(world.sandboxes.count()) == 0


def test_a_run_that_always_loses_its_container_is_given_up(worlds: Any) -> None:
    world = worlds(script(main=[DONE]))
    world.sandboxes.once_fault = SandboxLost("killed from inside")
    world.enqueue(run_spec(until=Until(command="true")))
    for _ in range(1 + MAX_FRUITLESS):
        assert isinstance(asyncio.run(world.take()), Yielded)
    assert asyncio.run(world.take()).outcome.stop is StopReason.ERROR


def test_surroundings_that_are_broken_for_long_end_no_run(worlds: Any) -> None:
    world = worlds(script(main=[call("shell", command="echo hi"), DONE]))
    world.sandboxes.unavailable = SandboxUnavailable("no engine")
    world.enqueue(run_spec())
    for _ in range(3 * MAX_FRUITLESS):
        assert isinstance(asyncio.run(world.take()), Yielded)
    world.sandboxes.unavailable = None
    assert asyncio.run(world.take()).outcome.stop is StopReason.DONE


def test_what_a_command_calls_through_the_socket_is_graded_and_counted_too(worlds: Any) -> None:
    world = worlds(script(main=[call("shell", command="./sneak"), DONE]))

    async def on_exec(key: CallKey) -> None:
        row = world.database.one("SELECT * FROM tokens")
        sneaked = CallKey(key.run, StepPath("x.1"))
        world.gateway.settle(sneaked, row, "tool", Reply({}), asked="ci.merge")
        bought = Reply({}, tokens=700, cost_nano=NanoUSD(9000))
        world.gateway.settle(CallKey(key.run, StepPath("x.2")), row, "model", bought)

    world.sandboxes.on_exec = on_exec
    checks = (
        ToolCheck(id="no merge", exclude=("ci.merge",), safety=True),
        LimitCheck(id="cheap", max_cost=NanoUSD(5000)),
    )
    outcome = run(world, run_spec(checks=checks))
    assert [grade.status for grade in outcome.grades] == ["failed", "failed"]
    assert (outcome.steps, outcome.tokens, outcome.cost_nano) == (3, 730, 11_000)


def test_a_gateway_that_is_gone_gives_the_run_back(worlds: Any) -> None:
    def gone(name: str, messages: list[Message]) -> Message:
        raise GatewayUnreachable("connection refused")

    world = worlds(gone)
    world.enqueue(run_spec())
    assert isinstance(asyncio.run(world.take()), Yielded)
    world.gateway.model = script(main=[DONE])
    assert asyncio.run(world.take()).outcome.stop is StopReason.DONE


def test_a_fault_that_keeps_coming_back_is_the_outcome(worlds: Any) -> None:
    def buggy(name: str, messages: list[Message]) -> Message:
        raise ZeroDivisionError("surprise")

    outcome = run(worlds(buggy), run_spec())
    assert outcome.stop is StopReason.ERROR
    assert "ZeroDivisionError: surprise" in outcome.detail


def test_a_lost_container_is_rebuilt_from_the_journal_within_the_run(worlds: Any) -> None:
    turns = [
        call("write_file", path="a", content="1"),
        call("shell", command="echo 2 >> a"),
        call("edit_file", path="a", old="1", new="one "),
        call("shell", command="cat a"),
        DONE,
    ]
    world = worlds(script(main=turns))
    executed = 0

    async def scenario() -> Any:
        async def on_exec(key: Any) -> None:
            nonlocal executed
            executed += 1
            if executed == 2:
                world.sandboxes.lose_all()

        world.sandboxes.on_exec = on_exec
        world.enqueue(run_spec())
        return await world.take()

    outcome = asyncio.run(scenario()).outcome
    assert outcome.stop is StopReason.DONE
    assert "+one 2" in outcome.diff
    assert len(world.sandboxes.opened) == 2


def test_a_container_that_never_lives_gives_the_run_back(worlds: Any) -> None:
    world = worlds(script(main=[call("shell", command="echo hi"), DONE]))

    async def scenario() -> Any:
        async def on_exec(key: Any) -> None:
            raise SandboxLost("again")

        world.sandboxes.on_exec = on_exec
        world.enqueue(run_spec())
        return await world.take()

    assert isinstance(asyncio.run(scenario()), Yielded)


def test_a_fenced_runner_drops_the_run_and_leaves_the_container_alone(worlds: Any) -> None:
    world = worlds(script(main=[call("shell", command="echo hi"), DONE]))

    async def scenario() -> Any:
        world.enqueue(run_spec())
        work = world.queue()
        lease = work.lease()

        async def on_exec(key: Any) -> None:
            # Meanwhile the lease ran out and another runner took the run.
            world.clock.time += 60_000
            assert world.queue().lease().fence == lease.fence + 1

        world.sandboxes.on_exec = on_exec
        return await world.engine(work).advance(lease)

    result = asyncio.run(scenario())
    assert result == Yielded("fenced")
    assert world.database.one("SELECT status FROM runs")["status"] == "leased"
    outcomes = world.database.read("SELECT * FROM journal WHERE kind='exec' AND event='outcome'")
    assert outcomes == []
    assert asyncio.run(world.sandboxes.count()) == 1


def test_a_call_under_way_is_waited_for_before_its_token_is_revoked(worlds: Any) -> None:
    """A revocation would cut the call off in the gateway and make its outcome unknown."""
    world = worlds(script(main=[call("ci__retry"), call("shell", command="true"), DONE]))
    world.gateway.tools["ci__retry"] = lambda arguments: "retried"
    alive: list[tuple[str, int]] = []

    def look(kind: str, key: Any) -> None:
        sql = "SELECT count(*) AS n FROM tokens WHERE revoked_at IS NULL"
        alive.append((kind, world.database.one(sql)["n"]))

    world.enqueue(run_spec(roles={"main": role(grants=tool_grants("ci.retry"))}))
    with pytest.raises(Crash):
        asyncio.run(world.take(Fuse(at=7)))  # the tool's answer is lost with the runner
    world.clock.time += 60_000
    world.gateway.refuse = look
    assert asyncio.run(world.take()).outcome.stop is StopReason.DONE
    assert alive == [("tool", 2), ("model", 1), ("model", 1)]
    assert len(world.gateway.effects) == 1


def test_budgets_know_a_run_by_its_tags(worlds: Any) -> None:
    world = worlds(script(main=[DONE]))
    run(world, run_spec(tags=("batch", "nightly")))
    assert {row["tags"] for row in world.database.read("SELECT tags FROM tokens")} == {
        "batch nightly"
    }


def test_tokens_of_an_earlier_lease_are_revoked_and_none_is_stored(worlds: Any) -> None:
    world = worlds(script(main=[call("shell", command="echo $T ilk_test_token_00000001"), DONE]))
    world.enqueue(run_spec())
    with pytest.raises(Crash):
        asyncio.run(world.take(Fuse(at=5)))
    world.clock.time += 60_000
    asyncio.run(world.take())
    rows = world.database.read("SELECT revoked_why FROM tokens ORDER BY issued_at")
    assert [row["revoked_why"] for row in rows] == [
        "the run was taken up again",
        "the run is finished",
    ]
    assert "[redacted]" in str(world.database.read("SELECT body FROM journal"))
    assert "ilk_test_token_00000001" not in str(world.database.read("SELECT body FROM journal"))
