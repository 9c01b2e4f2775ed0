"""What a whole tick costs beside git, once a fleet of ten thousand agents is in force.

A real repository, a real mirror, a real database: a tick with nothing new, and what follows when a
commit touches one agent, from the index of versions to what is in force. Times are of this
process's CPU, which other work on the machine changes less than the clock on the wall; both are
shown, beside the time git needs to compare the two commits. `make bench-config`, or with
`SIZES=1000` for one size.
"""

from __future__ import annotations

import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import fleet_generator

pytestmark = pytest.mark.benchmark

SIZES = [int(size) for size in os.environ.get("SIZES", "10000").split(",")]
ROUNDS = 7
ROWS = ("first tick", "nothing new", "commit of one agent: declare", "commit of one agent: tick")


@pytest.mark.parametrize("size", SIZES)
def test_ticks_beside_git(size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child = subprocess.run(
        [sys.executable, __file__, str(tmp_path), str(size)],
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
    assert rows["nothing new"]["cpu"] < rows["first tick"]["cpu"] / 100
    assert rows["commit of one agent: declare"]["cpu"] < rows["first tick"]["cpu"] / 20
    assert figures["opened"] == [1] * ROUNDS, "each commit opens the rollout of one agent"


def table(size: int, figures: dict[str, Any]) -> str:
    """The figures of one size, aligned."""
    git = figures["git"]
    lines = [f"{'':30}{'CPU':>11}{'wall':>11}{'/ diff-tree':>13}"]
    for name in ROWS:
        row = figures["rows"][name]
        lines.append(
            f"{name:30}{row['cpu']:>8,.1f} ms{row['wall']:>8,.1f} ms{row['cpu'] / git:>13,.1f}"
        )
    load = " ".join(f"{one:.1f}" for one in figures["load_average"])
    return f"{size:,} agents; git diff-tree {git:.1f} ms; load average {load}\n" + "\n".join(lines)


def measure(folder: Path, size: int) -> dict[str, Any]:
    """Every figure for one size, in this process."""
    from reconciler.forge.local import LocalForge
    from reconciler.forge.model import Login
    from reconciler.source.mirror import Mirror
    from reconciler.tick import tick
    from reconciler.tick.context import Context
    from reconciler.tick.declare import declare
    from tests.support.rollout_world import FakeClock, opened

    repo = fleet_generator.generate(folder / "fleet.git", size, gates=False)
    clock = FakeClock()
    config = Mirror.open_or_clone(str(repo.path), folder / "mirror.git")
    forge = LocalForge(
        config,
        clock=clock,
        login=Login("interlock"),
        bot=True,
        sleep=lambda _: None,
        draw=random.Random(1).random,
    )
    context = Context(
        database=opened(folder / "interlock.sqlite"),
        clock=clock,
        state=folder / "state",
        config=config,
        branch="main",
        machine="bench",
        job=False,
        signer=None,
        mirror=Mirror.open_or_clone,
        seeded=random.Random,
        fetch_every_ms=10**9,
        forge=forge,
    )
    first, ticked = timed(lambda: tick(context))
    assert ticked.opened == size, ticked.problems
    timed(lambda: tick(context))  # looks once at what the first one wrote
    idle = [timed(lambda: tick(context)) for _ in range(ROUNDS)]
    assert not any(done.changed or done.problems for _, done in idle)
    declares, ticks, gits, moved = [], [], [], []
    for number in range(ROUNDS):
        path = f"{fleet_generator.agent_folder(size // 2 + number)}/agent.yaml"
        old, text = repo.head(), repo.read(path)
        fewer = re.sub(r"max_steps: (\d)", lambda found: f"max_steps: {int(found[1]) - 1}", text)
        new = repo.commit({path: fewer})
        config.fetch()
        spent, declared = timed(lambda: declare(context))
        assert declared is not None
        assert declared.commit == new
        declares.append(spent)
        spent, ticked = timed(lambda: tick(context))
        ticks.append(spent)
        moved.append(ticked.opened)
        begun = time.perf_counter()
        subprocess.run(
            ["git", "-C", str(repo.path), "diff-tree", "-r", old, new],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        gits.append((time.perf_counter() - begun) * 1000)
    spent_of = ([first], [spent for spent, _ in idle], declares, ticks)
    return {
        "rows": {
            name: {
                "cpu": statistics.median(cpu for cpu, _ in spent),
                "wall": statistics.median(wall for _, wall in spent),
            }
            for name, spent in zip(ROWS, spent_of, strict=True)
        },
        "git": statistics.median(gits),
        "opened": moved,
        "load_average": os.getloadavg(),
    }


def timed(work: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    """((CPU, wall) in milliseconds, result)."""
    begun, used = time.perf_counter(), time.process_time()
    made = work()
    cpu = (time.process_time() - used) * 1000
    return (cpu, (time.perf_counter() - begun) * 1000), made


if __name__ == "__main__":
    json.dump(measure(Path(sys.argv[1]), int(sys.argv[2])), sys.stdout)
