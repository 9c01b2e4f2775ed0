"""Places at a provider: teams take turns, nobody is forgotten, leaving leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.limits import Lanes
from gateway.policy import Provider
from gateway.refusals import Code, Refusal
from gateway.values import Millis


def provider(places: int | None, waiting: int = 256) -> Provider:
    return Provider(kind="openai", max_concurrent=places, max_waiting=waiting)


class Stage:
    """Calls at one provider, each of which holds its place until it is told to end."""

    def __init__(self, places: int | None, waiting: int = 256) -> None:
        self.now = Millis(0)
        self.lanes = Lanes(lambda: self.now)
        self.provider = provider(places, waiting)
        self.served: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def call(self, name: str, team: str, cost: int = 1) -> asyncio.Task[None]:
        self.ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self.carry_out(name, team, cost))
        return self.tasks[name]

    async def carry_out(self, name: str, team: str, cost: int) -> None:
        async with self.lanes.place("house", self.provider, team, cost):
            self.served.append(name)
            await self.ends[name].wait()

    async def serve_all(self) -> list[str]:
        """End one call after the other; returns the order in which they were served."""
        ended = 0
        await settle()
        while ended < len(self.served):
            self.ends[self.served[ended]].set()
            ended += 1
            await settle()
        return self.served

    def occupancy(self) -> tuple[int, int]:
        return self.lanes.occupancy()["house"]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def play(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))  # type: ignore[arg-type]


def test_with_room_a_call_goes_on_without_a_switch_to_another_task() -> None:
    lanes = Lanes(lambda: Millis(0))
    entering = lanes.place("house", provider(1), "a", 1).__aenter__()
    # Not a single suspension: the coroutine ends at its first step, without any event loop.
    with pytest.raises(StopIteration):
        entering.send(None)  # type: ignore[attr-defined]
    assert lanes.occupancy() == {"house": (1, 0)}


def test_a_provider_without_a_limit_has_no_lane() -> None:
    async def story() -> None:
        lanes = Lanes(lambda: Millis(0))
        async with lanes.place("house", provider(None), "a", 1):
            assert lanes.occupancy() == {}

    play(story)


def test_a_team_that_floods_and_one_with_ten_calls_are_served_alternately() -> None:
    async def story() -> None:
        stage = Stage(1, waiting=1000)
        for number in range(1001):
            stage.call(f"flood-{number}", "flood")
        await settle()
        for number in range(10):
            stage.call(f"few-{number}", "few")
        order = [name.split("-")[0] for name in await stage.serve_all()]
        assert order[1:21] in (["few", "flood"] * 10, ["flood", "few"] * 10)
        assert order[21:] == ["flood"] * (len(order) - 21)
        assert len(order) == 1011

    play(story)


def test_a_team_that_comes_late_has_no_claim_on_what_others_had_before() -> None:
    async def story() -> None:
        stage = Stage(1)
        for number in range(150):
            stage.call(f"early-{number}", "early")
        await settle()
        for number in range(100):
            stage.ends[f"early-{number}"].set()
            await settle()
        for number in range(20):
            stage.call(f"late-{number}", "late")
        order = [name.split("-")[0] for name in await stage.serve_all()][101:141]
        assert order in (["late", "early"] * 20, ["early", "late"] * 20)

    play(story)


def test_teams_get_equal_work_however_large_their_calls_are() -> None:
    async def story() -> None:
        stage = Stage(1)
        stage.call("first-0", "first")
        await settle()
        for number in range(20):
            stage.call(f"large-{number}", "large", 1000)
        for number in range(200):
            stage.call(f"small-{number}", "small", 100)
        order = [name.split("-")[0] for name in (await stage.serve_all())[1:]]
        for some in range(11, 221):
            work = {t: order[:some].count(t) * c for t, c in (("large", 1000), ("small", 100))}
            if work["large"] < 20_000 and work["small"] < 20_000:
                assert abs(work["large"] - work["small"]) <= 1000

    play(story)


def test_a_teams_own_calls_keep_their_order() -> None:
    async def story() -> None:
        stage = Stage(2)
        for number in range(20):
            stage.call(str(number), "a", cost=number % 3 + 1)
        assert await stage.serve_all() == [str(number) for number in range(20)]

    play(story)


def test_a_full_queue_refuses_with_the_time_it_takes_to_empty() -> None:
    async def story() -> None:
        stage = Stage(2, waiting=3)
        for number in range(5):
            stage.call(str(number), "a")
        await settle()
        late = stage.call("late", "a")
        await settle()
        refusal = late.exception()
        assert isinstance(refusal, Refusal)
        assert refusal.code is Code.QUEUE_FULL
        # Nothing has ended yet: four calls of a second each at two places.
        assert refusal.facts == {"retry_after": 2}
        # Another team's queue is its own.
        stage.call("other", "b")
        await settle()
        assert stage.occupancy() == (2, 4)
        # It learns how long calls really last.
        for number in range(40):
            stage.now = Millis(stage.now + 20_000)
            stage.ends[stage.served[number]].set()
            stage.call(f"next-{number}", "a" if number % 2 else "b")
            await settle()
        while stage.occupancy()[1] < 6:
            stage.call(f"more-{len(stage.tasks)}", "a")
            stage.call(f"more-{len(stage.tasks)}", "b")
            await settle()
        late = stage.call("too-late", "a")
        await settle()
        refusal = late.exception()
        assert isinstance(refusal, Refusal)
        assert refusal.facts["retry_after"] == 60
        for task in stage.tasks.values():
            task.cancel()
        await asyncio.gather(*stage.tasks.values(), return_exceptions=True)
        assert stage.occupancy() == (0, 0)

    play(story)


def test_a_call_that_is_cut_while_it_waits_leaves_nothing_behind() -> None:
    async def story() -> None:
        stage = Stage(1)
        for name in ("runs", "cut", "next"):
            stage.call(name, "a")
        await settle()
        stage.tasks["cut"].cancel()
        await settle()
        assert stage.occupancy() == (1, 1)
        assert await stage.serve_all() == ["runs", "next"]
        assert stage.occupancy() == (0, 0)

    play(story)


@pytest.mark.parametrize("cut_first", [False, True])
def test_a_place_given_to_a_call_that_is_cut_at_that_moment_goes_to_the_next(
    cut_first: bool,
) -> None:
    async def story() -> None:
        lanes, one = Lanes(lambda: Millis(0)), provider(1)
        served = []

        async def call(name: str) -> None:
            async with lanes.place("house", one, "a", 1):
                served.append(name)

        held = lanes.place("house", one, "a", 1)
        await held.__aenter__()
        cut, after = asyncio.create_task(call("cut")), asyncio.create_task(call("after"))
        await settle()
        # Both in one step of the loop: `cut` learns of its place and of its end together.
        if cut_first:
            cut.cancel()
            await held.__aexit__(None, None, None)
        else:
            await held.__aexit__(None, None, None)
            cut.cancel()
        await asyncio.gather(cut, after, return_exceptions=True)
        assert served == ["after"]
        assert cut.cancelled()
        assert lanes.occupancy() == {"house": (0, 0)}

    play(story)


def test_a_changed_limit_is_honoured_both_ways() -> None:
    async def story() -> None:
        stage = Stage(1)
        for number in range(6):
            stage.call(str(number), "a")
        await settle()
        assert stage.occupancy() == (1, 5)
        stage.provider = provider(4)
        stage.call("6", "a")
        await settle()
        assert stage.occupancy() == (4, 3)
        stage.provider = provider(2)
        stage.call("7", "a")
        await settle()
        for number in range(2):
            stage.ends[str(number)].set()
            await settle()
        # Two have ended, two are left: no new one yet.
        assert stage.occupancy() == (2, 4)
        stage.ends["2"].set()
        await settle()
        assert stage.occupancy() == (2, 3)
        stage.provider = provider(None)
        stage.call("8", "a")
        await settle()
        assert stage.occupancy() == (6, 0)

    play(story)


class Interleavings(RuleBasedStateMachine):
    """Arrivals, ends, cuts and changed limits in any order, with the event loop given any number
    of steps in between. Whoever is not cut is served."""

    @initialize(places=st.integers(1, 3))
    def begin(self, places: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.run(self.set_up(places))
        self.count = 0
        self.cut: set[str] = set()
        self.most = places

    async def set_up(self, places: int) -> None:
        self.stage = Stage(places)

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    def holding(self) -> list[str]:
        return [n for n in self.stage.served if not self.stage.tasks[n].done()]

    def waiting(self) -> list[str]:
        tasks = self.stage.tasks
        return [n for n in tasks if n not in self.stage.served and not tasks[n].done()]

    @rule(team=st.sampled_from(["a", "b", "c"]), cost=st.integers(1, 50))
    def arrive(self, team: str, cost: int) -> None:
        self.count += 1

        async def go() -> None:
            self.stage.call(str(self.count), team, cost)

        self.run(go())

    @rule(steps=st.integers(1, 3))
    def turn(self, steps: int) -> None:
        for _ in range(steps):
            self.run(asyncio.sleep(0))

    @precondition(lambda self: hasattr(self, "stage") and self.holding())
    @rule(data=st.data())
    def end(self, data: Any) -> None:
        self.stage.ends[data.draw(st.sampled_from(self.holding()))].set()

    @precondition(lambda self: hasattr(self, "stage") and self.stage.tasks)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        name = data.draw(st.sampled_from(sorted(self.stage.tasks)))
        if self.stage.tasks[name].cancel():
            self.cut.add(name)

    @precondition(lambda self: hasattr(self, "stage") and self.holding() and self.waiting())
    @rule(data=st.data(), hops=st.integers(0, 2))
    def end_and_cancel(self, data: Any, hops: int) -> None:
        """One ends and another is cut so few steps later that both are still under way."""
        ends = data.draw(st.sampled_from(self.holding()))
        cut = data.draw(st.sampled_from(self.waiting()))

        async def go() -> None:
            self.stage.ends[ends].set()
            for _ in range(hops):
                await asyncio.sleep(0)
            if self.stage.tasks[cut].cancel():
                self.cut.add(cut)

        self.run(go())

    @rule(places=st.integers(1, 3))
    def change(self, places: int) -> None:
        self.stage.provider = provider(places)

    @precondition(lambda self: hasattr(self, "stage"))
    @invariant()
    def never_more_than_places(self) -> None:
        if self.stage.lanes.occupancy():
            assert self.stage.occupancy()[0] <= 3

    def teardown(self) -> None:
        if not hasattr(self, "stage"):
            return
        try:
            self.run(self.stage.serve_all())
            while self.holding():
                self.run(self.stage.serve_all())
            assert set(self.stage.tasks) - self.cut <= set(self.stage.served)
            assert all(task.done() for task in self.stage.tasks.values())
            assert self.stage.lanes.occupancy() in ({}, {"house": (0, 0)})
        finally:
            self.run(self.cut_all())
            self.loop.close()

    async def cut_all(self) -> None:
        for task in self.stage.tasks.values():
            task.cancel()
        await asyncio.gather(*self.stage.tasks.values(), return_exceptions=True)


Interleavings.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestInterleavings = Interleavings.TestCase
