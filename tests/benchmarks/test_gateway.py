"""What the gateway adds to a call, beside nginx, LiteLLM and Portkey in the same run.

`make bench-gateway` installs the others and runs this. Knobs, as environment variables: QUICK=1
(beside nginx only, under a minute), ROUNDS, ROUND_SECONDS, and MILLION=1 (instead of all that, a
million calls through ours with its memory on the way; another number is another count).
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.benchmarks.gateway_bench import measure, table
from tests.benchmarks.gateway_bench.contenders import (
    GATEWAY_CORE,
    INSTALLED,
    LOAD_CORE,
    ROOT,
    Absent,
    Contender,
    litellm,
    nginx,
    portkey,
    upstream,
)
from tests.benchmarks.gateway_bench.measure import Failed, Lengths
from tests.benchmarks.gateway_bench.ours import enforced, ours

pytestmark = pytest.mark.benchmark

QUICK = os.environ.get("QUICK", "0") != "0"
ROUNDS = int(os.environ.get("ROUNDS", "2" if QUICK else "5"))
LENGTHS = Lengths.of_round(float(os.environ.get("ROUND_SECONDS", "4" if QUICK else "8")))
MILLION = int(os.environ.get("MILLION", "0"))
CALLS = 1_000_000 if MILLION == 1 else MILLION

Start = Callable[[Path, int], AbstractContextManager[Contender]]
OTHERS: Mapping[str, Start] = {"nginx": nginx, "LiteLLM": litellm, "Portkey": portkey}


@dataclass
class Course:
    """What one contender did so far. `unable` says why it is not asked for a part any more."""

    contender: Contender
    rounds: list[dict[str, float]] = field(default_factory=list)
    replies: int = 0
    unable: dict[str, str] = field(default_factory=dict)

    def warm_up(self) -> float:
        """Returns its memory afterwards, in bytes."""
        for part in ("whole", "stream"):
            self._try(part, Lengths(0.2, 1, 0.2, 1))
        return self.contender.memory_bytes()

    def round(self) -> None:
        found = [self._try(part, LENGTHS) for part in ("whole", "stream")]
        self.rounds.append({name: value for each in found for name, value in each.items()})

    def _try(self, part: str, lengths: Lengths) -> measure.Figures:
        run = {"whole": measure.whole_answers, "stream": measure.streams}[part]
        if part in self.unable:
            return {}
        try:
            figures, replies = run(self.contender, lengths)
        except Failed as error:
            if self.contender.name in (table.BASE, table.OURS):
                raise
            self.unable[part] = " ".join(str(error).split())[:200]
            return {}
        self.replies += replies
        return figures


@pytest.fixture
def folder() -> Iterator[Path]:
    """On the disk of the checkout: `/tmp` may be memory, where a durable write is free."""
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=INSTALLED, prefix="run-") as made:
        yield Path(made)


@pytest.mark.skipif(bool(CALLS), reason="MILLION asks for the other one")
def test_a_call_beside_other_gateways(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = {name: "left out (QUICK)" for name in OTHERS if QUICK and name != "nginx"}
    with ExitStack() as stack:
        base = stack.enter_context(upstream())
        mine, us = stack.enter_context(ours(folder, base.port))
        courses = [Course(base)]
        for name, start in OTHERS.items():
            if name not in absent:
                try:
                    other = stack.enter_context(start(folder, base.port))
                    courses.append(Course(other))
                except Absent as error:
                    absent[name] = str(error)
        courses.insert(2, our_course := Course(mine, replies=1))
        warm = {course.contender.name: course.warm_up() for course in courses}
        durable = []
        for _ in range(ROUNDS):
            durable.append(measure.durable_write(folder))
            for course in courses:
                course.round()
        for course in courses:
            course.rounds[0]["memory warm"] = warm[course.contender.name]
            course.rounds[-1]["memory loaded"] = course.contender.memory_bytes()
        in_force, settled = enforced(mine, us)
        # Once it has ended nothing is on its way to the disk any more.
        stack.close()
        us.check(our_course.replies + settled)
    lines = [
        *table.render({course.contender.name: course.rounds for course in courses}, absent),
        "",
        f"medians of {ROUNDS} alternating rounds, and their range; direct shows its own time, to"
        " which the others add",
        f"an append of 4 KiB made durable here: {statistics.median(durable):,.0f} µs"
        f" ({min(durable):,.0f}–{max(durable):,.0f}); each call of ours waits for one",
        f"other programs had {_disturbed(courses[0]):.0%} of the gateways' core in the worst round;"
        " only a quiet machine gives figures to compare with another run's",
        f"every answer was 200 and whole; {our_course.replies + settled:,} settled rows in the"
        " ledger, and each budget is their sum",
        *(
            f"ours refuses by {name}: {'yes' if is_so else 'NO'}"
            for name, is_so in in_force.items()
        ),
        *(f"{name} is missing: {why}" for name, why in absent.items()),
        *_about(courses, folder),
    ]
    with capsys.disabled():
        print("\n" + "\n".join(lines))


def _disturbed(base: Course) -> float:
    """The largest share of the gateways' core that was used while no gateway had anything to do."""
    return max(figures["core by others"] for figures in base.rounds)


def _about(courses: list[Course], folder: Path) -> Iterator[str]:
    for course in courses:
        for part, why in course.unable.items():
            yield f"{course.contender.name} failed ({part}): {why}"
    yield f"each gateway alone on core {GATEWAY_CORE}, load generator and upstream on {LOAD_CORE};"
    yield f"Python {platform.python_version()}, uvloop {version('uvloop')}, {_node()}; started as"
    for course in courses:
        contender = course.contender
        command = contender.command.replace(f"{folder.relative_to(ROOT)}/", "")
        yield f"  {contender.name} {contender.version}".rstrip() + f": {command}"


def _node() -> str:
    try:
        said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    except OSError:
        return "no Node"
    return f"Node {said.stdout.strip()}"


@pytest.mark.skipif(not CALLS, reason="MILLION=1 runs a million calls and shows the memory")
def test_memory_over_a_million_calls(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    each = max(CALLS // 10, 1)
    done = 0
    with ExitStack() as stack:
        base = stack.enter_context(upstream())
        mine, us = stack.enter_context(ours(folder, base.port))
        while done < CALLS:
            result = measure.drive(mine, connections=64, seconds=900, replies=each)
            done += result.replies
            with capsys.disabled():
                print(
                    f"{done:>12,} calls  {mine.memory_bytes() / 1e6:6.1f} MB"
                    f"  {result.replies / result.seconds:8,.0f} requests/s",
                    flush=True,
                )
        stack.close()
        us.check(done + 1)
