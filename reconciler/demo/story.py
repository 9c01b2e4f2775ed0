"""The story, chapter by chapter: each acts as a user would, then looks whether it came true.

A chapter that does not end as told raises StoryFailed: the demo is a test that people can watch.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from gateway.database import Row
from gateway.values import show_usd
from reconciler.demo import tracker
from reconciler.demo.world import HERE, StoryFailed, World, build, key_of
from runner.spec import RunOutcome

LINE = 96


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
    told: list[tuple[Chapter, str, float]] = []
    try:
        with build(place, environment, model=model) as world:
            for number, chapter in enumerate(CHAPTERS, 1):
                begun = time.monotonic()
                _heading(world, number, chapter)
                summary = chapter.tell(world)
                click.echo(click.style("✓ ", fg="green") + summary)
                told.append((chapter, summary, time.monotonic() - begun))
            _last_screen(world, told, time.monotonic() - started)
    except StoryFailed as error:
        click.echo(click.style("✗ ", fg="red") + f"the story went another way: {error}", err=True)
        click.echo(f"  everything is still in {place}; logs in {place}/state/logs", err=True)
        return 1
    return 0


def first_release(world: World) -> str:
    """The first commit compiles, is gated against its threshold, and is promoted."""
    world.reconcile()
    rollout = _rollout(world, "ci-triage")
    _expect(rollout["state"] == "promoted", f"ci-triage's first release is {rollout['state']}")
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
    runs = _live(world, "ci-triage")
    good = [r for r in runs if _outcome(r).accepted]
    _expect(len(good) == 3, f"{len(good)} of {len(runs)} morning runs were accepted")
    roles = world.rows(
        "SELECT role, sum(cost_nano) AS cost FROM calls WHERE run = :run AND kind = 'model'"
        " GROUP BY role ORDER BY role",
        run=runs[-1]["run"],
    )
    _expect(len(roles) >= 2, "the checker has no calls of its own")
    costs = ", ".join(f"{r['role']} {show_usd(r['cost'])}" for r in roles)
    return f"3 of 3 mornings repaired and accepted; the last one cost {costs}"


def worse_commit(world: World) -> str:
    """A commit that makes the loop worse does not pass the gate; stable is untouched."""
    stable = _stable(world, "ci-triage")
    world.clock("wed 11:00")
    world.commit(world.config, HERE / "changes" / "worse", "ci-triage: be quick, skip the reading")
    world.reconcile()
    rollout = _rollout(world, "ci-triage")
    _expect(rollout["state"] == "rejected", f"the worse release is {rollout['state']}")
    _expect(_stable(world, "ci-triage") == stable, "stable was touched")
    return f"{rollout['candidate']} is rejected; {stable} goes on untouched"


def harmful_canary(world: World) -> str:
    """A commit passes offline, harms in its canary, and is taken back before the next run."""
    stable = _stable(world, "ci-triage")
    world.clock("wed 14:00")
    world.commit(
        world.config, HERE / "changes" / "stale-tests", "ci-triage: correct outdated test values"
    )
    world.reconcile()
    rollout = _rollout(world, "ci-triage")
    _expect(rollout["state"] == "canary", f"the release that harms live is {rollout['state']}")
    world.commit(
        world.project, HERE / "project-changes" / "recorded-value", "Billing: round half a cent"
    )
    world.clock("thu 06:01")
    world.reconcile()
    rollout = _rollout(world, "ci-triage", rollout["rollout"])
    _expect(rollout["state"] == "rolled_back", f"after harm the rollout is {rollout['state']}")
    barred = world.rows("SELECT * FROM quarantine WHERE digest = :d", d=rollout["candidate"])
    held = world.rows("SELECT * FROM holds WHERE agent = 'ci-triage' AND lifted_at IS NULL")
    _expect(bool(barred and held), "no quarantine or no hold after the rollback")
    world.clock("fri 06:01")
    world.reconcile()
    last = _live(world, "ci-triage")[-1]
    _expect(last["release"] == stable, f"the next run got {last['release']}")
    _expect(bool(_outcome(last).accepted), "the next run on the old release was not accepted")
    return (
        f"{rollout['candidate']} is rolled back, quarantined and held; "
        f"Friday's run got {stable} again"
    )


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
    stalled = _outcome(_live(world, "dependency-audit")[-1])
    broke = _outcome(_live(world, "release-notes")[-1])
    _expect(stalled.stop == "stalled", f"dependency-audit ended with {stalled.stop}")
    _expect(broke.stop == "cost_budget", f"release-notes ended with {broke.stop}")
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
    click.echo(f"  SIGKILL right after the change request was opened; the run is {half!r}")
    _expect(half != "finished", "the run had ended before the kill")
    world.reconcile()
    outcome = _outcome(world.rows("SELECT * FROM runs WHERE run = :run", run=run)[0])
    _expect(bool(outcome.accepted), f"after the restart the run ended with {outcome.stop}")
    effects = len(tracker.effects(world.folder / "tracker")) - before
    _expect(effects == 1, f"the tracker saw {effects} change requests of that run")
    stable, runs = _stable(world, "ci-triage"), len(_live(world, "ci-triage"))
    shutil.rmtree(world.state)
    click.echo(f"  the whole state directory is deleted: {world.state}")
    world.interlock("rebuild", "--repo", str(world.config))
    _expect(_stable(world, "ci-triage") == stable, "another release is stable after the rebuild")
    _expect(len(_live(world, "ci-triage")) == runs, "runs are missing after the rebuild")
    world.clock("mon 06:01")
    world.reconcile()
    last = _live(world, "ci-triage")[-1]
    _expect(last["release"] == stable, "the run after the rebuild got another release")
    _expect(bool(_outcome(last).accepted), "the run after the rebuild was not accepted")
    return "the run went on and ended; one change request, not two; git alone brought all back"


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
        "A commit that makes it worse",
        "“Be quick, skip the reading.” Both releases run the suite, interleaved.",
        worse_commit,
    ),
    Chapter(
        "A commit that only harms in real life",
        "“Correct outdated values in tests.” No case has one. The real project does.",
        harmful_canary,
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


def _last_screen(world: World, told: list[tuple[Chapter, str, float]], seconds: float) -> None:
    click.echo("\n" + "─" * LINE)
    click.echo(click.style("What was decided, and why", bold=True))
    words = {"promoted": "green", "rejected": "red", "rolled_back": "red"}
    for row in world.rows(
        "SELECT * FROM rollouts WHERE agent = 'ci-triage' ORDER BY opened_at, rollout"
    ):
        state = click.style(f"{row['state']:<12}", fg=words.get(row["state"], "yellow"))
        click.echo(f"  {state} {row['candidate']}  {_short(row['reason'], LINE - 34)}")
    for key in ("demo-stall", "demo-budget", "demo-crash"):
        row = world.rows("SELECT * FROM runs WHERE occurrence = :o", o=f"manual:{key}")[0]
        outcome = _outcome(row)
        ending = _short(outcome.detail or outcome.summary, LINE - 34)
        click.echo(f"  {outcome.stop:<12} {row['agent']:<16}  {ending}")
    spent = world.rows("SELECT coalesce(sum(cost_nano), 0) AS n FROM calls")[0]["n"]
    click.echo(f"\n  model cost {show_usd(spent)} (at list prices; the offline model is free)")
    click.echo(
        f"  {len(told)} chapters in {seconds:.0f} s: " + ", ".join(f"{at:.0f}" for _, _, at in told)
    )
    click.echo(click.style("\nWhere the reports are", bold=True))
    click.echo(f"  branch interlock/reports of {world.config}")
    click.echo(click.style("\nThree commands to try next", bold=True))
    click.echo(f"  export INTERLOCK_STATE={world.state}")
    last = _live(world, "ci-triage")[-1]["run"]
    for command in (
        "interlock status",
        f"interlock trace {last}",
        f"git -C {world.config} log --stat -3 interlock/reports",
    ):
        click.echo(f"  {command}")


def _short(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _expect(held: bool, otherwise: str) -> None:
    if not held:
        raise StoryFailed(otherwise)


def _rollout(world: World, agent: str, rollout: str | None = None) -> Row:
    rows = world.rows(
        "SELECT * FROM rollouts WHERE agent = :agent AND (:id IS NULL OR rollout = :id)"
        " ORDER BY opened_at DESC, rollout",
        agent=agent,
        id=rollout,
    )
    _expect(bool(rows), f"{agent} has no rollout")
    return rows[0]


def _stable(world: World, agent: str) -> str | None:
    rows = world.rows("SELECT stable FROM pointers WHERE agent = :agent", agent=agent)
    return str(rows[0]["stable"]) if rows else None


def _live(world: World, agent: str) -> list[Row]:
    return world.rows(
        "SELECT * FROM runs WHERE agent = :agent AND purpose = 'live' AND status = 'finished'"
        " ORDER BY created_at, run",
        agent=agent,
    )


def _outcome(row: Row) -> RunOutcome:
    return RunOutcome.model_validate_json(row["outcome"])
