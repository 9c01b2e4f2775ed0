"""The verbs that change something: run, rollback, hold, resume, stop."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from reconciler.cli.options import (
    actor_option,
    guarded,
    json_option,
    reason_option,
    repo_option,
    show_json,
    state_option,
)


def _show(done: object, as_json: bool) -> None:
    text, subject = done.text, done.subject  # type: ignore[attr-defined]
    if as_json:
        show_json({"done": text, "subject": subject})
    else:
        click.echo(text)


@click.command("rollback")
@click.argument("agent")
@click.option("--to", help="Release to go back to [default: the one before].")
@reason_option
@actor_option
@state_option
@json_option
@guarded
def rollback_command(
    agent: str, to: str | None, reason: str, actor: str, state: Path, as_json: bool
) -> None:
    """Take back what is live now, in one transaction.

    An open canary is taken back first. What is taken back is quarantined; automatic promotion is
    held until `interlock resume`.
    """
    from gateway.clock import SystemClock
    from reconciler import operations
    from reconciler.process.store import open_database

    database = open_database(state)
    clock = SystemClock.from_environment(os.environ)
    _show(operations.rollback(database, clock, agent, to=to, reason=reason, actor=actor), as_json)


@click.command("hold")
@click.argument("agent")
@click.option("--for", "duration", help="How long: 30m, 4h, 2d [default: until resume].")
@reason_option
@actor_option
@state_option
@json_option
@guarded
def hold_command(
    agent: str, duration: str | None, reason: str, actor: str, state: Path, as_json: bool
) -> None:
    """No new runs and no promotions of AGENT (`*`: the fleet). Open runs go on."""
    from gateway.clock import SystemClock
    from reconciler import operations
    from reconciler.operations.repository import duration as parse_duration
    from reconciler.process.store import open_database

    expires = None
    if duration is not None:
        try:
            expires = parse_duration(duration)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--for") from None
    done = operations.hold(
        open_database(state),
        SystemClock.from_environment(os.environ),
        agent,
        reason=reason,
        actor=actor,
        expires_in_ms=expires,
    )
    _show(done, as_json)


@click.command("stop")
@click.argument("agents", nargs=-1)
@reason_option
@actor_option
@state_option
@json_option
@guarded
def stop_command(
    agents: tuple[str, ...], reason: str, actor: str, state: Path, as_json: bool
) -> None:
    """Refuse every call of AGENTS (none given: of all) from now on, and end their runs."""
    from gateway.clock import SystemClock
    from reconciler import operations
    from reconciler.process.store import open_database

    clock = SystemClock.from_environment(os.environ)
    _show(operations.stop(open_database(state), clock, agents, reason=reason, actor=actor), as_json)


@click.command("resume")
@click.argument("agent")
@reason_option
@actor_option
@state_option
@repo_option
@json_option
@guarded
def resume_command(
    agent: str,
    reason: str,
    actor: str,
    state: Path,
    repo: str | None,
    branch: str | None,
    as_json: bool,
) -> None:
    """Lift holds and stops of AGENT (`*`: those on the fleet); let its held rollout go on."""
    from reconciler import operations
    from reconciler.process.compose import Options, open_context

    context = open_context(Options(state, repo, branch), os.environ, job=True)
    _show(operations.resume(context, agent, reason=reason, actor=actor), as_json)


@click.command("run")
@click.argument("agent")
@click.option("--input", "text", default="", help="What the run is told.")
@click.option(
    "--event",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file whose text is what the run is told.",
)
@click.option("--key", help="Names the occurrence: the same key twice is one run.")
@click.option("--follow", is_flag=True, help="Execute it now and show its steps.")
@actor_option
@state_option
@repo_option
@json_option
@guarded
def run_command(
    agent: str,
    text: str,
    event: Path | None,
    key: str | None,
    follow: bool,
    actor: str,
    state: Path,
    repo: str | None,
    branch: str | None,
    as_json: bool,
) -> None:
    """Start a run of AGENT on whatever release is its turn.

    The service or the next `interlock reconcile --once` executes it; --follow does so at once.
    """
    from reconciler import operations
    from reconciler.process.compose import Options, open_context
    from reconciler.process.lock import in_use

    options = Options(state, repo, branch)
    # In the service's hands the run is queued at once; otherwise the next job claims it first.
    context = open_context(options, os.environ, job=not in_use(state))
    given = event.read_text() if event is not None else text
    done = operations.run(
        context, agent, text=given, actor=actor, token=key or secrets.token_hex(8)
    )
    _show(done, as_json)
    if follow:
        from reconciler.cli.service import follow_run

        follow_run(options, done.subject, as_json=as_json)
