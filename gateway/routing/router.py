"""The order in which targets are asked, and a call's way from one to the next.

The door drives a route like this:

    route = router.plan(name, targets, virtual, run=…, agent=…, now=…, chance=random.random)
    try:
        while True:
            match route.next(now()):
                case Wait(ms): sleep(ms)
                case Exhausted(failures): refuse with them
                case Try(target, first_token_ms): ask it; then say route.answered(…), and return,
                    or route.failed(…), or route.skip(…)
    finally:
        route.end()

A route ends after at most `attempts` tries of each target, and leads to no other target than those
it was given. What is known of targets is kept in memory: after a restart all are well and none has
been measured.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.policy import Retry, VirtualModel
from gateway.routing.failures import Failure
from gateway.routing.health import STALE_MS, Health, State
from gateway.routing.targets import Target
from gateway.values import Millis

EXPLORE_SHARE: Final = 0.1
"""Latency routing: the share of calls that may be sent to a target to measure it again."""
UNUSABLE: Final = frozenset({401, 403, 404})
"""Statuses after which a target is of no use to anybody: no valid key, or no such model."""
MOST_TARGETS: Final = 1024
MOST_STICKY: Final = 10_000
"""What is remembered at most; the oldest is forgotten first."""

_NOT_REACHED: Final = 503
_PLAIN: Final = VirtualModel(targets=())
"""How a model is asked that is not behind a virtual one."""


@dataclass(frozen=True, slots=True)
class Try:
    """Ask this target. When it says nothing for `first_token_ms` give it up (None: never) with a
    Failure that is `done` and has no status. `probe`: its breaker is open, and this finds out."""

    target: Target
    first_token_ms: int | None
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait so many milliseconds, then ask for the next step."""

    ms: int


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Nobody is left to ask. Every failure on the way, in order; also of targets that were not
    asked because their breaker is open."""

    failures: tuple[Failure, ...]


class Standing(NamedTuple):
    """A target's health, for metrics. `first_token_ms`: average, None when never measured."""

    provider: str
    model: str
    state: State
    first_token_ms: float | None


class Router:
    """The health of all targets, and who stays with which. One per process."""

    def __init__(self) -> None:
        self._health: dict[tuple[str, str], Health] = {}
        self._sticky: OrderedDict[tuple[str, str], str] = OrderedDict()

    def plan(
        self,
        name: str,
        targets: tuple[Target, ...],
        virtual: VirtualModel | None,
        *,
        run: str,
        agent: str,
        now: Millis,
        chance: Callable[[], float],
    ) -> Route:
        """A way through `targets` for a call that asked for `name`. `virtual` is what the name
        stands for in the policy, None for a model itself. `chance` draws from [0, 1)."""
        rules = virtual or _PLAIN
        stays = None if rules.sticky == "none" else (name, run if rules.sticky == "run" else agent)
        order = list(targets)
        if len(order) > 1:
            kept = self._kept(stays, targets, now)
            explores = False
            if rules.routing == "weight":
                order = weighted(targets, rules.weights, chance)
            elif rules.routing == "latency":
                order = self._fastest_first(targets)
                explores = kept is None and self._explore(order, now, chance)
            if kept is not None:
                order = [kept, *(target for target in order if target is not kept)]
            elif explores:
                # One call of a run measures; the run does not stay there for that.
                stays = None
            elif stays is not None:
                self._stay(stays, self._first_well(order, now))
        return Route(self, order, rules, stays, chance)

    def health(self, target: Target) -> Health:
        """What is known of a target: of the model as its provider names it."""
        key = (target.provider_name, target.model.id)
        found = self._health.get(key)
        if found is None:
            if len(self._health) >= MOST_TARGETS:
                del self._health[next(iter(self._health))]
            found = self._health[key] = Health()
        return found

    def standing(self, now: Millis) -> list[Standing]:
        """The health of every target that was ever asked."""
        return [
            Standing(*key, health.state(now), health.first_token_ms)
            for key, health in self._health.items()
        ]

    def served(self, stays: tuple[str, str] | None, target: Target) -> None:
        """Who stays with the target that served last stays with this one."""
        if stays is not None:
            self._stay(stays, target)

    def _stay(self, stays: tuple[str, str], target: Target) -> None:
        self._sticky[stays] = target.name
        self._sticky.move_to_end(stays)
        if len(self._sticky) > MOST_STICKY:
            self._sticky.popitem(last=False)

    def _kept(
        self, stays: tuple[str, str] | None, targets: Iterable[Target], now: Millis
    ) -> Target | None:
        """The target the caller stays with, as long as it is well."""
        name = None if stays is None else self._sticky.get(stays)
        found = next((target for target in targets if target.name == name), None)
        return found if found is not None and self._well(found, now) else None

    def _well(self, target: Target, now: Millis) -> bool:
        return self.health(target).state(now) is State.CLOSED

    def _first_well(self, order: Sequence[Target], now: Millis) -> Target:
        return next((target for target in order if self._well(target, now)), order[0])

    def _fastest_first(self, targets: Iterable[Target]) -> list[Target]:
        """By the time to the first token; those never measured last, in the order given."""
        return sorted(targets, key=lambda target: _time(self.health(target)))

    def _explore(self, order: list[Target], now: Millis, chance: Callable[[], float]) -> bool:
        """Put a target in front that has to be measured, when it is time; tells whether.

        One never measured at once; one measured more than `STALE_MS` ago by `EXPLORE_SHARE` of
        the calls. Either once in `STALE_MS`, so that a slow target costs one call a minute.
        """
        due = [
            (health.first_token_ms is not None, health.measured_at, index)
            for index, target in enumerate(order)
            if (health := self.health(target)).state(now) is State.CLOSED
            and (health.first_token_ms is None or now - health.measured_at > STALE_MS)
            and (health.explored_at is None or not 0 <= now - health.explored_at <= STALE_MS)
        ]
        if not due:
            return False
        measured, _, index = min(due)
        if measured and (index == 0 or chance() >= EXPLORE_SHARE):
            return False
        order.insert(0, order.pop(index))
        self.health(order[0]).explored_at = now
        return True


def weighted(
    targets: Iterable[Target], weights: Mapping[str, int], chance: Callable[[], float]
) -> list[Target]:
    """A shuffle in which each next one is drawn in proportion to its weight among those left.

    What weighs nothing comes last, in the order given.
    """
    left = [(target, weights.get(target.name, 1)) for target in targets]
    nothing = [target for target, weight in left if weight <= 0]
    left = [(target, weight) for target, weight in left if weight > 0]
    order = []
    while left:
        point = chance() * sum(weight for _, weight in left)
        drawn = 0
        while drawn < len(left) - 1 and point >= left[drawn][1]:
            point -= left[drawn][1]
            drawn += 1
        order.append(left.pop(drawn)[0])
    return order + nothing


class Route:
    """One call's way. Not shared; made by `Router.plan`."""

    def __init__(
        self,
        router: Router,
        order: Sequence[Target],
        rules: VirtualModel,
        stays: tuple[str, str] | None,
        chance: Callable[[], float],
    ) -> None:
        self._router = router
        self._rules = rules
        self._stays = stays
        self._chance = chance
        self._ahead = deque(order)
        self._resting: deque[Target] = deque()
        """Targets whose breaker was open when it was their turn: asked in the last resort."""
        self._last_resort = False
        self._target: Target | None = None
        self._attempts = 0
        self._pause = 0
        self._asked = False
        self._probe = False
        self._over = False
        self.failures: list[Failure] = []

    def next(self, now: Millis) -> Try | Wait | Exhausted:
        """The next step. A try that nobody said anything about counts as skipped."""
        if self._asked:
            self._leave()
        while not self._over:
            if self._target is None and not self._advance():
                break
            assert self._target is not None
            health = self._router.health(self._target)
            state = health.state(now)
            if self._attempts:
                if state is not State.CLOSED:
                    self._leave()
                    continue
                if self._pause:
                    pause, self._pause = self._pause, 0
                    return Wait(pause)
            elif state is not State.CLOSED:
                may = state is State.HALF_OPEN or self._last_resort
                if not (may and health.claim(now, self._target.provider.timeout_seconds * 1000)):
                    self._rest(health, now)
                    continue
                self._probe = True
            self._attempts += 1
            self._asked = True
            return Try(self._target, self._patience(now), self._probe)
        self.end()
        return Exhausted(tuple(self.failures))

    def answered(
        self, target: Target, first_token_ms: int | None, total_ms: int, now: Millis
    ) -> None:
        """It gave a whole answer; the route is over. `first_token_ms` is from sending to the first
        piece of the answer; None when it came in one piece."""
        measured = total_ms if first_token_ms is None else first_token_ms
        self._router.health(target).answered(now, measured, probe=self._probe)
        self._probe = False
        self._router.served(self._stays, target)
        self.end()

    def failed(self, target: Target, failure: Failure, now: Millis) -> None:
        """It gave no whole answer. Counts for its health, unless the caller is to blame."""
        self._asked = False
        self.failures.append(failure)
        health = self._router.health(target)
        probe, self._probe = self._probe, False
        if failure.fallback:
            unusable = failure.status in UNUSABLE
            health.failed(now, failure.message, probe=probe, unusable=unusable)
        else:
            health.refused(probe=probe)
        if failure.begun:
            self._over = True
        elif (pause := self._pause_before_retry(failure)) is not None:
            # Unless its breaker is open by then: `next` looks.
            self._pause = pause
        elif failure.fallback or failure.status in self._rules.fallback_on:
            self._leave()
        else:
            self._over = True

    def skip(self, failure: Failure) -> None:
        """It was not asked after all, for a reason of ours (no place, no budget): it is not to
        blame, and the next target's turn has come."""
        self.failures.append(failure)
        self._leave()

    def end(self) -> None:
        """The call is over, whatever came of it; does nothing when the route is already."""
        self._leave()
        self._over = True

    def _advance(self) -> bool:
        """Go on to the next target; those that rest come when there is no other."""
        if not self._ahead and not self._last_resort:
            self._last_resort = True
            self._ahead, self._resting = self._resting, self._ahead
        if not self._ahead:
            return False
        self._target = self._ahead.popleft()
        return True

    def _leave(self) -> None:
        if self._probe and self._target is not None:
            self._router.health(self._target).unclaim()
        self._target = None
        self._attempts = self._pause = 0
        self._asked = self._probe = False

    def _rest(self, health: Health, now: Millis) -> None:
        """This target is not asked now: later, or not at all."""
        assert self._target is not None
        if self._last_resort:
            seconds = max(1, -(-health.rests_ms(now) // 1000))
            self.failures.append(
                Failure(
                    f"{self._target.name} is not asked (another call is finding out whether it is "
                    f"well again), after: {health.last_failure}",
                    done=False,
                    retry_after=seconds,
                )
            )
        else:
            self._resting.append(self._target)
        self._leave()

    def _pause_before_retry(self, failure: Failure) -> int | None:
        """Milliseconds until the same target is asked again; None: it is not.

        Exponential back-off with full jitter (M. Brooker, “Exponential Backoff And Jitter”, AWS
        Architecture Blog, 2015), or what the target asks for, as far as that is bearable.
        """
        retry: Retry = self._rules.retry
        status = failure.status
        if status is None and not failure.done:
            status = _NOT_REACHED
        if self._attempts >= retry.attempts or status not in retry.on:
            return None
        if failure.retry_after is not None:
            asked = failure.retry_after * 1000
            return asked if asked <= retry.max_backoff_ms else None
        longest = min(retry.max_backoff_ms, retry.backoff_ms * 2 ** (self._attempts - 1))
        return int(self._chance() * longest)

    def _patience(self, now: Millis) -> int | None:
        """The wait for the first token: endless when there is nobody better to ask."""
        limit = self._rules.first_token_ms
        if limit is None:
            return None
        others = (self._router.health(target).state(now) for target in self._ahead)
        return limit if any(state is not State.OPEN for state in others) else None


def _time(health: Health) -> float:
    return float("inf") if health.first_token_ms is None else health.first_token_ms
