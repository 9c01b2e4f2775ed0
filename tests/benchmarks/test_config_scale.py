"""What reading a config repo costs, from a thousand agents to fifty thousand, beside git itself.

Each size runs in a process of its own, so that its peak memory is its own. Every figure stands
beside the time git needs for the same objects in the same run: seconds of one machine say little
about another, ratios do. `make bench-config`, or with `SIZES=1000` for one size.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support import fleet_generator

pytestmark = pytest.mark.benchmark

SIZES = [int(size) for size in os.environ.get("SIZES", "1000,10000,50000").split(",")]
ROUNDS = 5
ROWS = (
    "cold compile",
    "no-op",
    "one agent",
    "skill shared by 1 %",
    "a budget",
    "a team's members",
)
HEADER = ("", "load", "compile", "both", "git", "ratio", "agents")


def test_loading_beside_git(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for size in SIZES:
        child = subprocess.run(
            [sys.executable, __file__, str(tmp_path / str(size)), str(size)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": "."},
            check=True,
        )
        figures = json.loads(child.stdout)
        with capsys.disabled():
            print("\n" + table(size, figures))
        rows = figures["rows"]
        # What must hold on any machine, loaded or not: the cost follows the change.
        assert rows["one agent"]["agents"] == 1
        assert rows["skill shared by 1 %"]["agents"] == size // 100
        assert rows["one agent"]["ms"] < rows["cold compile"]["ms"] / 10
        assert rows["no-op"]["ms"] < 10


def table(size: int, figures: dict[str, Any]) -> str:
    """The figures of one size, aligned."""
    lines = [HEADER]
    for name in ROWS:
        row = figures["rows"][name]
        lines.append(
            (
                name,
                show(row["load"]),
                show(row["compile"]),
                show(row["ms"]),
                show(row["git"]),
                f"{row['ms'] / row['git']:.1f}",
                f"{row['agents']:,}",
            )
        )
    widths = [max(len(line[n]) for line in lines) for n in range(len(HEADER))]
    body = "\n".join(
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
    load = " ".join(f"{one:.1f}" for one in figures["load_average"])
    return (
        f"{size:,} agents in {figures['files']:,} files; peak memory {figures['peak_mib']:,} MiB;"
        f" load average {load}\n{body}"
    )


def show(ms: float) -> str:
    """A duration with the digits that mean something."""
    if ms >= 1000:
        return f"{ms / 1000:.2f} s"
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.1f} ms"


def measure(path: Path, size: int) -> dict[str, Any]:
    """Every figure for one size, in this process."""
    from reconciler.config import Loaded
    from reconciler.config.load import load
    from reconciler.release import Compiled, compile_loaded

    repo = fleet_generator.generate(path, size)
    rows: dict[str, dict[str, float]] = {}
    load_ms, loaded = timed(lambda: load(repo.tree()))
    assert loaded.fleet is not None, loaded.findings[:3]
    assert len(loaded.fleet.agents) == size
    compile_ms, compiled = timed(lambda: compile_loaded(loaded))
    git_ms, _ = timed(lambda: read_all(path))
    rows["cold compile"] = figures_of([load_ms], [compile_ms], [git_ms], size)
    state: tuple[Loaded, Compiled] = loaded, compiled

    def step(name: str, change: Callable[[int], str]) -> None:
        nonlocal state
        loads, compiles, gits, agents = [], [], [], 0
        for number in range(ROUNDS):
            old = repo.head()
            new = change(number)
            tree = repo.tree(new)
            before, done = state
            load_ms, after = timed(partial(load, tree, previous=before))
            compile_ms, done = timed(partial(compile_loaded, after, previous=done))
            git_ms, _ = timed(partial(diff, path, old, new))
            loads.append(load_ms)
            compiles.append(compile_ms)
            gits.append(git_ms)
            agents = len(done.changed)
            state = after, done
        rows[name] = figures_of(loads, compiles, gits, agents)

    skill = f"skills/{fleet_generator.SHARED_SKILL}/SKILL.md"
    one = f"{fleet_generator.agent_folder(size // 2)}/agent.yaml"
    budgets, teams = repo.read("gateway/budgets.yaml"), repo.read("teams.yaml")
    text, agent = repo.read(skill), repo.read(one)
    step("no-op", lambda _: repo.head())
    step(
        "one agent",
        lambda n: repo.commit({one: agent.replace("max_steps: ", f"max_steps: {n + 1}")}),
    )
    step("skill shared by 1 %", lambda n: repo.commit({skill: f"{text}\nRule {n}.\n"}))
    step(
        "a budget",
        lambda n: repo.commit(
            {"gateway/budgets.yaml": budgets.replace("limit: 2", f"limit: {n + 3}", 1)}
        ),
    )
    step(
        "a team's members",
        lambda n: repo.commit({"teams.yaml": teams.replace("dev-3", f"new-{n}", 1)}),
    )
    return {
        "files": repo.files,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "load_average": os.getloadavg(),
        "rows": rows,
    }


def figures_of(
    loads: list[float], compiles: list[float], gits: list[float], agents: int
) -> dict[str, float]:
    """Medians, in milliseconds."""
    load, compiled = statistics.median(loads), statistics.median(compiles)
    return {
        "load": load,
        "compile": compiled,
        "ms": load + compiled,
        "git": statistics.median(gits),
        "agents": agents,
    }


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds and the result."""
    begun = time.perf_counter()
    made = work()
    return (time.perf_counter() - begun) * 1000, made


def read_all(path: Path) -> None:
    """Git reads every blob of the head."""
    listed = subprocess.run(
        ["git", "-C", str(path), "ls-tree", "-r", "--object-only", "HEAD"],
        capture_output=True,
        check=True,
    )
    subprocess.run(
        ["git", "-C", str(path), "cat-file", "--batch"],
        input=listed.stdout,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def diff(path: Path, old: str, new: str) -> None:
    """Git compares two commits."""
    subprocess.run(
        ["git", "-C", str(path), "diff-tree", "-r", old, new],
        stdout=subprocess.DEVNULL,
        check=True,
    )


if __name__ == "__main__":
    json.dump(measure(Path(sys.argv[1]), int(sys.argv[2])), sys.stdout)
