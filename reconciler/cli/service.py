"""Long-running and whole-machine verbs: reconcile, serve, rebuild, lock, doctor, demo, version."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli.options import (
    LACKING,
    NEGATIVE,
    F,
    fail,
    guarded,
    json_option,
    repo_option,
    show_json,
    state_option,
)

if TYPE_CHECKING:
    from reconciler.process.compose import Options


@click.command("version")
def version_command() -> None:
    """Print the version of this program."""
    from importlib.metadata import version

    click.echo(f"interlock {version('interlock')}")


def _service_options(command: F) -> F:
    command = click.option(
        "--signing-key",
        type=click.Path(path_type=Path, dir_okay=False),
        help="SSH private key that signs the record [or INTERLOCK_SIGNING_KEY: path or key].",
    )(command)
    return click.option(
        "--slots", default=4, show_default=True, help="Runs executed at the same time."
    )(command)


@click.command("reconcile")
@click.option("--once", is_flag=True, required=True, help="Tick until quiet, then out.")
@click.option(
    "--deadline",
    default=None,
    help="Begin nothing new after this time, e.g. 20m; live runs get 5 minutes more. Keep it below "
    "the CI job's time-out.",
)
@_service_options
@state_option
@repo_option
@json_option
@guarded
def reconcile_command(
    once: bool,
    deadline: str | None,
    signing_key: Path | None,
    slots: int,
    state: Path,
    repo: str | None,
    branch: str | None,
    as_json: bool,
) -> None:
    """One reconcile job: look at git, gate, promote, run what is due, commit the record.

    An empty --state directory is restored from the signed state on the reports branch first.
    """
    from reconciler.cli.progress import Watcher
    from reconciler.operations.repository import duration
    from reconciler.process import loop
    from reconciler.process.compose import Options

    seconds = None
    if deadline is not None:
        try:
            seconds = duration(deadline) / 1000
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--deadline") from None
    watcher = Watcher(quiet=as_json)
    options = Options(state, repo, branch, signing_key, slots, seconds)
    with watcher:
        ticked = loop.once(options, os.environ, watcher.watch)
    if as_json:
        show_json(
            {
                "commit": ticked.commit,
                "open_runs": ticked.open_runs,
                "problems": ticked.problems,
                "events": watcher.events,
            }
        )
    if ticked.problems:
        sys.exit(NEGATIVE)


@click.command("serve")
@click.option(
    "--gateway-listen",
    metavar="HOST:PORT",
    help="Where people and services from outside a run reach the gateway [any port of 127.0.0.1].",
)
@_service_options
@state_option
@repo_option
@guarded
def serve_command(
    gateway_listen: str | None,
    signing_key: Path | None,
    slots: int,
    state: Path,
    repo: str | None,
    branch: str | None,
) -> None:
    """The service: reconciler, gateway and runner as supervised processes, until SIGTERM."""
    from reconciler.cli.progress import Watcher
    from reconciler.process import loop
    from reconciler.process.compose import Options

    with Watcher() as watcher:
        options = Options(state, repo, branch, signing_key, slots, gateway_listen=gateway_listen)
        loop.serve(options, os.environ, watcher.watch)


def follow_run(options: Options, run: str, *, as_json: bool) -> None:
    """Wait until `run` has ended, executing it here when nobody else does; show its trace."""
    from reconciler.cli.progress import Watcher
    from reconciler.cli.reading import show_trace
    from reconciler.process import loop
    from reconciler.process.lock import holder
    from reconciler.process.store import open_database

    database = open_database(options.state)

    def ended() -> bool:
        row = database.one("SELECT status FROM runs WHERE run = :run", run=run)
        return row is not None and row["status"] == "finished"

    while holder(options.state) is not None and not ended():
        time.sleep(0.2)
    if not ended():
        with Watcher(quiet=as_json) as watcher:
            loop.once(options, os.environ, watcher.watch)
    show_trace(options.state, run, as_json=as_json)


@click.command("rebuild")
@state_option
@repo_option
@json_option
@guarded
def rebuild_command(state: Path, repo: str | None, branch: str | None, as_json: bool) -> None:
    """Restore the state directory from the signed state on the reports branch.

    Refuses unknown signers and a state that went backwards. Without a clean-shutdown mark it
    starts with assignments held and the gap charged at worst case, and says so.
    """
    from reconciler.process.compose import Options, allowed_signers, open_context, reports_branch
    from reconciler.process.lock import sole
    from reconciler.record.rebuild import rebuild

    with sole(state, "other"):
        context = open_context(Options(state, repo, branch), os.environ, job=True)
        context.config.fetch()
        rebuilt = rebuild(
            context.database,
            context.config,
            branch=reports_branch(context),
            allowed=allowed_signers(context),
            clock=context.clock,
        )
    if as_json:
        show_json(
            {
                "runs": rebuilt.runs,
                "held": rebuilt.held,
                "lost_claims": list(rebuilt.lost_claims),
                "notes": list(rebuilt.notes),
            }
        )
        return
    click.echo(f"restored {rebuilt.runs} runs from {reports_branch(context)}")
    for note in rebuilt.notes:
        click.echo(f"  {note}")


@click.command("lock")
@click.argument(
    "directory", type=click.Path(exists=True, file_okay=False, path_type=Path), default="."
)
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="NAME=REF",
    help="Image behind a name [default: default=the image that set-up made].",
)
@click.option(
    "--tools/--no-tools",
    default=None,
    help="Ask tool servers, through the gateway [default: where --state has been reconciled].",
)
@state_option
@guarded
def lock_command(directory: Path, images: tuple[str, ...], tools: bool | None, state: Path) -> None:
    """Write interlock.lock in DIRECTORY: digests of sandbox images, fingerprints of tools.

    Images are those of this machine. Tools are asked of their servers by the gateway that runs in
    --state, or by one that is started for it. Exit code 1 when a tool has vanished or a server
    could not be asked: what was locked of it stays.
    """
    from reconciler.operations.repository import lock
    from runner.sandbox.images import default_reference, image_id

    wanted = dict(item.partition("=")[::2] for item in images) or {"default": default_reference()}
    found = {}
    for name, reference in sorted(wanted.items()):
        digest = image_id(reference)
        if digest is None:
            fail(f"there is no image {reference!r} on this machine: pull or build it", LACKING)
        found[name] = str(digest)
    path = lock(directory, found)
    for name, digest in found.items():
        click.echo(f"{path}: {name} = {digest}")
    if tools or (tools is None and (state / "interlock.sqlite").exists()):
        _lock_tools(directory, state)


def _lock_tools(directory: Path, state: Path) -> None:
    from reconciler.operations.repository import lock_tools, tools_to_lock
    from reconciler.process.catalogue import catalogues, some_gateway

    servers = tools_to_lock(directory)
    if not servers:
        return
    with some_gateway(state, os.environ):
        answers = catalogues(state, servers)
    done = lock_tools(directory, answers)
    for line in done.changed:
        click.echo(line)
    if not done.changed:
        click.echo("no fingerprint of a tool has changed")
    for line in done.notes:
        click.echo(click.style(line, dim=True))
    for line in done.problems:
        click.echo(click.style(line, fg="yellow"), err=True)
    if done.problems:
        sys.exit(NEGATIVE)


@click.command("doctor")
@state_option
@json_option
def doctor_command(state: Path, as_json: bool) -> None:
    """What this machine lacks, and how to get it. Exit code 3 when something is missing."""
    from reconciler.process.doctor import examine

    found = examine(state, os.environ)
    if as_json:
        show_json([{"what": c.what, "ok": c.ok, "seen": c.seen, "fix": c.fix} for c in found])
    else:
        width = max(len(check.what) for check in found)
        for check in found:
            mark = click.style("ok", fg="green") if check.ok else click.style("--", fg="red")
            click.echo(f"{mark}  {check.what:<{width}}  {check.seen}")
            if not check.ok:
                click.echo(f"    {'':<{width}}  → {check.fix}")
    if not all(check.ok for check in found):
        sys.exit(LACKING)


@click.command("demo")
@click.option("--model", help="Tell it with a real model, e.g. gpt-5-mini [needs its API key].")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to tell it [default: a new temporary folder].",
)
@guarded
def demo_command(model: str | None, folder: Path | None) -> None:
    """The whole story on a temporary repo: gate, canary, rollback, budgets, a crash, a rebuild."""
    from reconciler.demo.story import tell

    sys.exit(tell(folder=folder, model=model, environment=dict(os.environ)))
