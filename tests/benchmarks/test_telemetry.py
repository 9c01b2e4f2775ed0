"""What it costs to tell of a call, beside a loop of plain additions in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from gateway.pricing import Usage
from gateway.telemetry import Telemetry
from tests.gateway.telemetry_stage import model_call

pytestmark = pytest.mark.benchmark

TIMES = 2000


def test_observing_a_call(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = Telemetry()
    seen = model_call(findings=(), audited=(), usage=Usage(3, 4))

    def additions() -> None:
        total = 0
        for number in range(250):
            total += number

    told, added = best(lambda: telemetry.observe(seen)), best(additions)
    assert b"interlock_calls_total" in telemetry.metrics()
    with capsys.disabled():
        print(
            f"\ntelling of a call: {told * 1e6:.1f} µs, 250 additions {added * 1e6:.1f} µs, "
            f"ratio {told / added:.2f}"
        )


def best(work: Callable[[], None]) -> float:
    """Seconds of one call, the best of fifteen rounds."""
    found = []
    for _ in range(15):
        begun = time.perf_counter()
        for _ in range(TIMES):
            work()
        found.append((time.perf_counter() - begun) / TIMES)
    return min(found)
