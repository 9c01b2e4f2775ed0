"""Places at a provider, and who gets the next one: teams take turns.

A provider that serves so many calls at once (`Provider.max_concurrent`) is a lane. As long as
there is room a call takes its place at once, without a switch to another task. Else it waits in
its team's queue, and the place that becomes free goes to the teams in turn: deficit round-robin
(Shreedhar and Varghese, 1995), so that over time every waiting team gets the same amount of work
done, measured in what calls cost (tokens), however many calls it has and however large they are.
The quantum is the smallest there is, and rounds that would serve nobody are skipped: the next is
whose first call, with all its team has had before, comes to the least.

A team waits only for its own: the length of its queue (`Provider.max_waiting`) is its own too.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from gateway.policy import Provider
from gateway.refusals import Code, Refusal
from gateway.values import Millis

FIRST_GUESS_MS: Final = 1000
"""How long a call is taken to last before one has ended."""
SMOOTHING: Final = 0.1
"""Weight of the newest call in the average duration."""
LONGEST_RETRY_SECONDS: Final = 60


class Lanes:
    """The lanes of all providers. One per process; belongs to its event loop.

    `now` tells the time in milliseconds, to learn how long calls last.
    """

    def __init__(self, now: Callable[[], Millis]) -> None:
        self._now = now
        self._lanes: dict[str, _Lane] = {}

    def place(
        self, provider_name: str, provider: Provider, team: str, cost: int
    ) -> AbstractAsyncContextManager[None]:
        """A place at the provider for as long as the context lasts; entering it waits.

        `cost` is what the call takes of the team's share, such as its estimated tokens. Entering
        raises Refusal (queue_full, with `retry_after`) when as many calls of the team wait as may.
        A limit that differs from the last one seen holds at once: more places are given out, or
        none until enough calls have ended.
        """
        lane = self._lanes.get(provider_name)
        if lane is None:
            if provider.max_concurrent is None:
                return _OPEN
            lane = self._lanes[provider_name] = _Lane(provider_name)
        if lane.limit != provider.max_concurrent:
            lane.limit = provider.max_concurrent
            lane.serve()
        return _Place(lane, self._now, team, max(1, cost), provider.max_waiting)

    def occupancy(self) -> Mapping[str, tuple[int, int]]:
        """Calls that have a place and calls that wait, by provider; for metrics."""
        return {name: (lane.taken, lane.waiting) for name, lane in self._lanes.items()}


_OPEN: Final = nullcontext()


@dataclass(slots=True)
class _Queue:
    """A team's waiting calls, with their costs, in the order they came. `had` is the work the team
    has had, as if it had waited for as long as the lane is there."""

    had: int
    waiting: OrderedDict[asyncio.Future[None], int] = field(default_factory=OrderedDict)


class _Lane:
    """One provider's places. Whenever a call waits, every place is taken."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.limit: int | None = None
        self.taken = 0
        self.had = 0
        """What every team that waits has had, but for the size of one call."""
        self.teams: dict[str, _Queue] = {}
        """Only teams that wait, in the order they began to; that decides between equals."""
        self.average_ms = float(FIRST_GUESS_MS)

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return sum(len(queue.waiting) for queue in self.teams.values())

    def has_room(self) -> bool:
        """Is there a place that nobody has?"""
        return self.limit is None or self.taken < self.limit

    def wait(self, team: str, cost: int, most: int) -> asyncio.Future[None]:
        """Line up. The future is done when the place is the caller's. Raises Refusal."""
        queue = self.teams.get(team)
        length = len(queue.waiting) if queue else 0
        if length >= most:
            raise self._full(team, length)
        if queue is None:
            queue = self.teams[team] = _Queue(self.had)
        future = asyncio.get_running_loop().create_future()
        queue.waiting[future] = cost
        return future

    def leave(self, team: str, future: asyncio.Future[None]) -> None:
        """Wait no longer."""
        queue = self.teams.get(team)
        if queue is None or future not in queue.waiting:
            return
        del queue.waiting[future]
        if not queue.waiting:
            del self.teams[team]

    def free(self) -> None:
        """A place is given up, and goes to whoever's turn it is."""
        self.taken -= 1
        self.serve()

    def serve(self) -> None:
        """Give out the places there are."""
        while self.teams and self.has_room():
            team, queue = min(self.teams.items(), key=_after_its_next)
            future, cost = queue.waiting.popitem(last=False)
            if not queue.waiting:
                del self.teams[team]
            # Who was cut, and has not been able to leave yet, is passed over.
            if not future.cancelled():
                queue.had += cost
                self.had = max(self.had, queue.had)
                self.taken += 1
                future.set_result(None)

    def lasted(self, milliseconds: int) -> None:
        """A call has ended that took so long."""
        self.average_ms += SMOOTHING * (milliseconds - self.average_ms)

    def _full(self, team: str, length: int) -> Refusal:
        # When about what the team has waiting now will have been served.
        shares = max(1, len(self.teams))
        seconds = ceil((length + 1) * self.average_ms * shares / max(1, self.limit or 1) / 1000)
        return Refusal(
            Code.QUEUE_FULL,
            f"provider {self.name} is busy ({self.taken} calls at once) and {length} calls of "
            f"team {team} wait for it already; come back later, or raise `max_waiting`",
            retry_after=min(LONGEST_RETRY_SECONDS, max(1, seconds)),
        )


def _after_its_next(entry: tuple[str, _Queue]) -> int:
    _, queue = entry
    return queue.had + next(iter(queue.waiting.values()))


class _Place:
    """One call's place, as a context."""

    __slots__ = ("_cost", "_lane", "_most", "_now", "_since", "_team")

    def __init__(
        self, lane: _Lane, now: Callable[[], Millis], team: str, cost: int, most: int
    ) -> None:
        self._lane = lane
        self._now = now
        self._team = team
        self._cost = cost
        self._most = most
        self._since = 0

    async def __aenter__(self) -> None:
        lane = self._lane
        if lane.has_room():
            lane.taken += 1
        else:
            future = lane.wait(self._team, self._cost, self._most)
            try:
                await future
            except BaseException:
                if future.done() and not future.cancelled():
                    # Cut in the moment between being given the place and coming to know of it.
                    lane.free()
                else:
                    lane.leave(self._team, future)
                raise
        self._since = self._now()

    async def __aexit__(self, *_: object) -> None:
        self._lane.lasted(max(0, self._now() - self._since))
        self._lane.free()
