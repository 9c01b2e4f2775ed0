"""What is read at the moment of a scrape, from the rooms that know it, through callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.values import NANO, Millis

BreakerState = Literal["closed", "half_open", "open"]
BREAKER_STATES: Final[tuple[BreakerState, ...]] = get_args(BreakerState)


@dataclass(frozen=True, slots=True)
class BudgetLevel:
    """What a budget has spent (settled, unknown and reserved) in the window that is now.

    `agent`: of a budget that each agent has for itself, else empty. Budgets of a run are not
    told: there is no end to runs. What has no limit in money has None.
    """

    rule: str
    spent_nano: int
    limit_nano: int | None
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Who knows what. Each is asked once a scrape, in the thread that calls `metrics()`."""

    reservations: Callable[[], int] | None = None
    """Attempts that are reserved and not yet settled."""
    budgets: Callable[[], Iterable[BudgetLevel]] | None = None
    waiting: Callable[[], Mapping[str, int]] | None = None
    """Calls that wait for a place, by provider."""
    breakers: Callable[[], Mapping[str, BreakerState]] | None = None
    """By target."""
    last_tick: Callable[[], Millis | None] | None = None
    """When the reconciler last looked at the world."""


class Gauges(Collector):
    """Asks the readings. One that fails is left out and counted: the others are still told."""

    def __init__(self) -> None:
        self.readings = Readings()
        self.faults = 0

    def collect(self) -> Iterator[Metric]:
        """The families, as the registry asks for them."""
        for read in (
            self._reservations,
            self._budgets,
            self._waiting,
            self._breakers,
            self._last_tick,
        ):
            try:
                yield from tuple(read())
            except Exception:
                self.faults += 1

    def _reservations(self) -> Iterator[Metric]:
        if (read := self.readings.reservations) is not None:
            yield GaugeMetricFamily(
                "interlock_reservations_open", "Attempts that are on their way.", value=read()
            )

    def _budgets(self) -> Iterator[Metric]:
        if (read := self.readings.budgets) is None:
            return
        labels = ("rule", "agent")
        spent = GaugeMetricFamily(
            "interlock_budget_spent_dollars", "Spent or reserved in this window.", labels=labels
        )
        limit = GaugeMetricFamily(
            "interlock_budget_limit_dollars", "What the window may cost.", labels=labels
        )
        for level in read():
            spent.add_metric((level.rule, level.agent), level.spent_nano / NANO)
            if level.limit_nano is not None:
                limit.add_metric((level.rule, level.agent), level.limit_nano / NANO)
        yield from (spent, limit)

    def _waiting(self) -> Iterator[Metric]:
        if (read := self.readings.waiting) is None:
            return
        family = GaugeMetricFamily(
            "interlock_queue_waiting", "Calls that wait for a provider.", labels=("provider",)
        )
        for provider, waiting in read().items():
            family.add_metric((provider,), waiting)
        yield family

    def _breakers(self) -> Iterator[Metric]:
        if (read := self.readings.breakers) is None:
            return
        family = GaugeMetricFamily(
            "interlock_breaker_state", "1 for the state it is in.", labels=("model", "state")
        )
        for target, state in read().items():
            for each in BREAKER_STATES:
                family.add_metric((target, each), float(each == state))
        yield family

    def _last_tick(self) -> Iterator[Metric]:
        if (read := self.readings.last_tick) is None or (at := read()) is None:
            return
        yield GaugeMetricFamily(
            "interlock_reconciler_last_tick_timestamp_seconds",
            "When the reconciler last looked at the world.",
            value=at / 1000,
        )
