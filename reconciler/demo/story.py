"""The story, chapter by chapter: each acts as a user would, then looks whether it came true.

A chapter that does not end as told raises StoryFailed: the demo is a test that people can watch.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from gateway.values import show_usd
from reconciler.demo import found, pulls, tracker
from reconciler.demo.found import expect
from reconciler.demo.telling import LINE
from reconciler.demo.world import HERE, StoryFailed, World, build, key_of


@dataclass(frozen=True)
class Chapter:
    """What is told, and how."""

    title: str
    intro: str
    tell: Callable[[World], str]
    """Does it; returns the one sentence that sums it up."""


def tell(*, folder: Path | None, model: str | None, environment: dict[str, str]) -> int:
    """Tell the whole story; 0 when every chapter came true. The folder is kept for looking at.

    A real model may decide otherwise than the story expects; then that chapter says so (1).
    """
    place = folder or Path(tempfile.mkdtemp(prefix="interlock-demo-"))
    place.mkdir(parents=True, exist_ok=True)
    if any(place.iterdir()):
        click.echo(f"{place} is not empty: give --dir an empty folder", err=True)
        return 2
    if model is not None and not environment.get(key_of(model)):
        click.echo(f"{model} needs {key_of(model)} in the environment", err=True)
        return 3
    started = time.monotonic()
    click.echo(f"Interlock demo in {place}")
    told: list[float] = []
    bought = 0
    try:
        with build(place, environment, model=model) as world:
            for number, chapter in enumerate(CHAPTERS, 1):
                begun = time.monotonic()
                _heading(world, number, chapter)
                summary = chapter.tell(world)
                click.echo(click.style("✓ ", fg="green") + summary)
                told.append(time.monotonic() - begun)
                # The record keeps verdicts, not eval runs: after a rebuild there are none.
                bought = max(bought, found.evals(world))
            _last_screen(world, told, bought, time.monotonic() - started)
    except StoryFailed as error:
        click.echo(click.style("✗ ", fg="red") + f"the story went another way: {error}", err=True)
        click.echo(f"  everything is still in {place}; logs in {place}/state/logs", err=True)
        return 1
    return 0


def first_release(world: World) -> str:
    """The first commit compiles, is gated against its threshold, and is promoted."""
    world.reconcile()
    rollout = found.rollout(world, "ci-triage")
    expect(rollout["state"] == "promoted", f"ci-triage's first release is {rollout['state']}")
    n = world.rows("SELECT count(*) AS n FROM attempts WHERE rollout = :r", r=rollout["rollout"])
    return f"{rollout['candidate']} is live after {n[0]['n']} sandboxed eval runs"


def scheduled_runs(world: World) -> str:
    """Three mornings: the maker repairs, the checker judges, each with a cost of its own."""
    changes = HERE / "project-changes"
    for morning, change in (("mon", None), ("tue", "second-bug"), ("wed", "third-bug")):
        if change is not None:
            world.commit(world.project, changes / change, f"Billing: {change.replace('-', ' ')}")
        world.clock(f"{morning} 06:01")
        world.reconcile()
    runs = found.live(world, "ci-triage")
    good = [r for r in runs if found.outcome(r).accepted]
    expect(len(good) == 3, f"{len(good)} of {len(runs)} morning runs were accepted")
    roles = world.rows(
        "SELECT role, sum(cost_nano) AS cost FROM calls WHERE run = :run AND kind = 'model'"
        " GROUP BY role ORDER BY role",
        run=runs[-1]["run"],
    )
    expect(len(roles) >= 2, "the checker has no calls of its own")
    costs = ", ".join(f"{r['role']} {show_usd(r['cost'])}" for r in roles)
    return f"3 of 3 mornings repaired and accepted; the last one cost {costs}"


def stopped_loops(world: World) -> str:
    """A loop that retries against a broken environment is stopped: by stall, and by budget."""
    world.commit(
        world.project, HERE / "project-changes" / "broken-audit", "Drop the advisory mirror"
    )
    (world.folder / "tracker" / "broken").touch()
    world.clock("fri 10:00")
    world.interlock("run", "dependency-audit", "--key", "demo-stall", "--input", "Audit now.")
    world.interlock("run", "release-notes", "--key", "demo-budget", "--input", "Draft the notes.")
    world.reconcile()
    (world.folder / "tracker" / "broken").unlink()
    expect(found.waiting(world) == [], f"after the revert {found.waiting(world)} waits")
    stalled = found.outcome(found.live(world, "dependency-audit")[-1])
    broke = found.outcome(found.live(world, "release-notes")[-1])
    expect(stalled.stop == "stalled", f"dependency-audit ended with {stalled.stop}")
    expect(broke.stop == "cost_budget", f"release-notes ended with {broke.stop}")
    return (
        f"dependency-audit: {stalled.stop} ({stalled.stall}) after {stalled.steps} steps; "
        f"release-notes: {broke.stop} after {show_usd(broke.cost_nano)}"
    )


def crash_and_rebuild(world: World) -> str:
    """SIGKILL in the middle of a run, then the loss of the whole state directory."""
    world.clock("fri 12:00")
    before = len(tracker.effects(world.folder / "tracker"))
    world.interlock("run", "ci-triage", "--key", "demo-crash", "--input", "The job is red again.")
    run = world.rows("SELECT run FROM runs WHERE occurrence = 'manual:demo-crash'")[0]["run"]

    def effect_is_done() -> bool:
        return bool(
            world.rows(
                "SELECT 1 FROM calls WHERE run = :run AND kind = 'tool' AND state = 'settled'",
                run=run,
            )
        )

    world.reconcile_until(effect_is_done)
    half = world.rows("SELECT status FROM runs WHERE run = :run", run=run)[0]["status"]
    if sys.stdout.isatty():
        click.echo("\r\x1b[2K", nl=False)  # the killed job's moving line
    click.echo(f"  SIGKILL right after the change request was opened; the run is {half!r}")
    expect(half != "finished", "the run had ended before the kill")
    world.reconcile()
    outcome = found.outcome(world.rows("SELECT * FROM runs WHERE run = :run", run=run)[0])
    expect(bool(outcome.accepted), f"after the restart the run ended with {outcome.stop}")
    effects = len(tracker.effects(world.folder / "tracker")) - before
    expect(effects == 1, f"the tracker saw {effects} change requests of that run")
    stable, runs = found.stable(world, "ci-triage"), len(found.live(world, "ci-triage"))
    granted, decided = found.tools(world, "release-notes"), found.decisions(world)
    shutil.rmtree(world.state)
    click.echo(f"  the whole state directory is deleted: {world.state}")
    world.interlock("rebuild", "--repo", str(world.config))
    expect(
        found.stable(world, "ci-triage") == stable, "another release is stable after the rebuild"
    )
    expect(len(found.live(world, "ci-triage")) == runs, "runs are missing after the rebuild")
    expect(found.decisions(world) == decided, "approvals, or what is in force, is another")
    world.clock("mon 06:01")
    world.reconcile()
    last = found.live(world, "ci-triage")[-1]
    expect(last["release"] == stable, "the run after the rebuild got another release")
    expect(bool(found.outcome(last).accepted), "the run after the rebuild was not accepted")
    expect(found.tools(world, "release-notes") == granted, "what lena approved is asked for again")
    expect(found.waiting(world) == [], f"after the rebuild {found.waiting(world)} waits")
    return "the run went on; one change request, not two; git alone brought all back, approvals too"


CHAPTERS = (
    Chapter(
        "The first commit",
        "Three loops are pushed. ci-triage has a suite of 24 cases: it must pass before it runs.",
        first_release,
    ),
    Chapter(
        "Three mornings",
        "06:00 in Berlin: ci-triage repairs what broke overnight; a read-only checker judges.",
        scheduled_runs,
    ),
    Chapter(
        "A pull request that makes it worse",
        "“Be quick, skip the reading.” Its head and what is live run the suite, interleaved.",
        pulls.worse,
    ),
    Chapter(
        "A pull request that passes, and harms in real life",
        "“Correct outdated values in tests.” No case has one. The real project does.",
        pulls.harmful,
    ),
    Chapter(
        "A pull request that grabs a tool",
        "release-notes would like to open change requests. Somebody who owns it has to say yes.",
        pulls.grabbing,
    ),
    Chapter(
        "A pull request that sends a key elsewhere",
        "Two values in gateway/models.yaml, and openai’s calls, with its key, go to another host.",
        pulls.stealing,
    ),
    Chapter(
        "Two loops against a broken world",
        "The advisory database is gone, and the tracker answers 503. Both loops keep trying.",
        stopped_loops,
    ),
    Chapter(
        "A crash, and a lost machine",
        "SIGKILL in the middle of a run. Then the state directory is deleted.",
        crash_and_rebuild,
    ),
)


def _heading(world: World, number: int, chapter: Chapter) -> None:
    click.echo()
    click.echo(click.style(f"{number}  {chapter.title}", bold=True))
    click.echo(f"   {chapter.intro}")


def _last_screen(world: World, told: list[float], bought: int, seconds: float) -> None:
    click.echo("\n" + "─" * LINE)
    click.echo(click.style("What was decided, and why", bold=True))
    for row in world.rows(
        "SELECT * FROM rollouts WHERE agent = 'ci-triage' ORDER BY opened_at, rollout"
    ):
        by = f"#{row['pull']}: " if row["pull"] else ""
        _decided(row["state"], row["candidate"], by + row["reason"])
    for row in world.rows("SELECT * FROM audit WHERE action LIKE 'in_force.%' ORDER BY seq"):
        scope, _, what = row["reason"].partition(" ")
        if row["action"] != "in_force.baseline":
            _decided(row["action"].partition(".")[2], row["agent"] or scope, what)
    for key in ("demo-stall", "demo-budget", "demo-crash"):
        row = world.rows("SELECT * FROM runs WHERE occurrence = :o", o=f"manual:{key}")[0]
        outcome = found.outcome(row)
        _decided(outcome.stop, row["agent"], outcome.detail or outcome.summary)
    spent = world.rows("SELECT coalesce(sum(cost_nano), 0) AS n FROM calls")[0]["n"]
    click.echo(f"\n  model cost {show_usd(spent)} (at list prices; the offline model is free)")
    at = ", ".join(f"{chapter:.0f}" for chapter in told)
    click.echo(f"  {len(told)} chapters, {bought} eval runs, {seconds:.0f} s: {at}")
    click.echo(click.style("\nWhere it all stands", bold=True))
    click.echo(f"  branch interlock/reports of {world.config}")
    click.echo("  pull requests with their plans and answers: branch interlock/pulls")
    click.echo(click.style("\nThree commands to try next", bold=True))
    click.echo(f"  export INTERLOCK_STATE={world.state}")
    last = found.live(world, "ci-triage")[-1]["run"]
    for command in (
        "interlock status",
        f"interlock trace {last}",
        "interlock pr show 3",
    ):
        click.echo(f"  {command}")


_COLOURS = {
    "promoted": "green",
    "approved": "green",
    "until_met": "green",
    "rejected": "red",
    "rolled_back": "red",
}


def _decided(word: str, what: str, why: str) -> None:
    state = click.style(f"{word:<12}", fg=_COLOURS.get(word, "yellow"))
    click.echo(f"  {state} {what:<16}  {_short(why.replace('`', ''), LINE - 33)}")


def _short(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
