"""One round of one contender, and what a durable write costs here, as figures by name."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.gateway_bench.contenders import (
    GATEWAY_CORE,
    LOAD_CORE,
    ROOT,
    Contender,
    core_seconds,
    pinned,
)
from tests.benchmarks.gateway_bench.load import Job, Result
from tests.benchmarks.gateway_bench.upstream import MARKER

Figures = Mapping[str, float]


class Failed(Exception):
    """A contender did not answer a call as it should; the text holds what it said."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Seconds of each part of a round."""

    alone: float
    busy: float
    stream_alone: float
    stream_busy: float

    @classmethod
    def of_round(cls, seconds: float) -> Lengths:
        """A round of about so many seconds."""
        return cls(seconds * 0.2, seconds * 0.35, seconds * 0.15, seconds * 0.3)


def drive(
    contender: Contender,
    *,
    connections: int,
    seconds: float,
    stream: bool = False,
    replies: int = 0,
) -> Result:
    """Load from a process of its own. Raises Failed."""
    job = Job(
        port=contender.port,
        requests=contender.requests(stream=stream),
        marker=MARKER,
        connections=connections,
        seconds=seconds,
        replies=replies,
    )
    command = pinned(LOAD_CORE, sys.executable, "-m", "tests.benchmarks.gateway_bench.load")
    done = subprocess.run(
        command,
        cwd=ROOT,
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Failed(done.stderr.strip().rpartition("\nRuntimeError: ")[2][:1000])
    return Result(**json.loads(done.stdout))


def whole_answers(contender: Contender, lengths: Lengths) -> tuple[Figures, int]:
    """Figures of calls without streaming, and how many there were."""
    alone = drive(contender, connections=1, seconds=lengths.alone)
    begun, before, core = time.monotonic(), contender.cpu_seconds(), core_seconds(GATEWAY_CORE)
    busy = drive(contender, connections=64, seconds=lengths.busy)
    spent, core = contender.cpu_seconds() - before, core_seconds(GATEWAY_CORE) - core
    figures = {
        "p50 at 1": percentile(alone.whole_us, 50),
        "p99 at 1": percentile(alone.whole_us, 99),
        "p50 at 64": percentile(busy.whole_us, 50),
        "p99 at 64": percentile(busy.whole_us, 99),
        "requests/s": busy.replies / busy.seconds,
        "cpu/request": spent / busy.replies * 1e6,
        "core by others": max(core - spent, 0.0) / (time.monotonic() - begun),
    }
    return figures, alone.replies + busy.replies


def streams(contender: Contender, lengths: Lengths) -> tuple[Figures, int]:
    """Figures of streams, and how many there were."""
    alone = drive(contender, connections=1, seconds=lengths.stream_alone, stream=True)
    before = contender.cpu_seconds()
    busy = drive(contender, connections=16, seconds=lengths.stream_busy, stream=True)
    spent = contender.cpu_seconds() - before
    figures = {
        "first token": percentile(alone.first_us, 50),
        "whole stream": percentile(alone.whole_us, 50),
        "streams/s": busy.replies / busy.seconds,
        "cpu/stream": spent / busy.replies * 1e6,
    }
    return figures, alone.replies + busy.replies


def percentile(values: Sequence[float], percent: int) -> float:
    """Nearest rank."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, len(ranked) * percent // 100)]


def durable_write(folder: Path, writes: int = 100) -> float:
    """Microseconds (median) to append 4 KiB and have it on disk: no ledger can be quicker."""
    took = []
    with (folder / "durable").open("wb", buffering=0) as file:
        for _ in range(writes):
            begun = time.perf_counter_ns()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter_ns() - begun) / 1e3)
    return statistics.median(took)
