"""Where our gateway's time goes: `python -m tests.benchmarks.gateway_bench.profile [--stream]`.

Ten seconds of load at 64 connections, then the dearest functions of its main thread, per request.
"""

from __future__ import annotations

import argparse
import pstats
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.gateway_bench import measure
from tests.benchmarks.gateway_bench.contenders import INSTALLED, ROOT, upstream
from tests.benchmarks.gateway_bench.ours import ours

PROFILED = "tests.benchmarks.gateway_bench.profiled"


def show(file: Path, requests: int, order: str, top: int) -> None:
    """One list of functions. Times in microseconds per request, calls per request."""
    stats = pstats.Stats(str(file)).stats  # type: ignore[attr-defined]
    at = {"own": 2, "cumulative": 3}[order]
    print(f"\n     own  cumulative   calls  by {order} time, µs per request")
    for (path, line, name), figures in sorted(stats.items(), key=lambda e: -e[1][at])[:top]:
        _, times, own, cumulative, _ = figures
        where = name if path == "~" else f"{_short(path)}:{line} {name}"
        per = 1e6 / requests
        print(f"{own * per:8.1f}  {cumulative * per:10.1f}  {times / requests:6.2f}  {where}")


def _short(path: str) -> str:
    return path.removeprefix(f"{ROOT}/").rpartition("site-packages/")[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--stream", action="store_true", help="streams instead of whole answers")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--top", type=int, default=40, help="functions of each list")
    given = parser.parse_args()
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=INSTALLED)))
        file = folder / "gateway.stats"
        running = stack.enter_context(ExitStack())
        base = running.enter_context(upstream())
        mine, us = running.enter_context(ours(folder, base.port, ("-m", PROFILED, str(file))))
        before = mine.cpu_seconds()
        result = measure.drive(
            mine, connections=given.connections, seconds=given.seconds, stream=given.stream
        )
        spent = mine.cpu_seconds() - before
        running.close()
        us.check(result.replies + 1)
        print(
            f"{result.replies:,} requests, {result.replies / result.seconds:,.0f}/s and"
            f" {spent / result.replies * 1e6:.0f} µs of CPU each, with the profiler's own cost"
        )
        for order in ("own", "cumulative"):
            show(file, result.replies + 1, order, given.top)


if __name__ == "__main__":
    main()
