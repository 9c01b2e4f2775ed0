"""The verbs that change something: run, rollback, hold, resume, stop."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from reconciler.cli.options import (
    F,
    actor_option,
    guarded,
    json_option,
    reason_option,
    repo_option,
    show_json,
    state_option,
)


def where(command: F) -> F:
    """Options of every verb: who, where, and with which key it is written into the record."""
    command = click.option(
        "--signing-key",
        type=click.Path(path_type=Path, dir_okay=False),
        help="SSH key that signs the record [or INTERLOCK_SIGNING_KEY]; not needed beside serve.",
    )(command)
    return actor_option(state_option(repo_option(json_option(guarded(command)))))


def perform(given: dict[str, Any], do: Callable[[Any], Any], *, record: bool = True) -> Any:
    """Carry the operation out where it holds."""
    from reconciler.process.compose import Options
    from reconciler.process.oncall import act

    options = Options(given["state"], given["repo"], given["branch"], given["signing_key"])
    return act(options, os.environ, do, record=record)


def act(given: dict[str, Any], do: Callable[[Any], Any], *, record: bool = True) -> Any:
    """Carry the operation out where it holds, and show what it did."""
    done = perform(given, do, record=record)
    if given["as_json"]:
        show_json({"done": done.text, "subject": done.subject})
    else:
        click.echo(done.text)
    return done


@click.command("rollback")
@click.argument("agent")
@click.option("--to", help="Release to go back to [default: the one before].")
@reason_option
@where
def rollback_command(agent: str, to: str | None, reason: str, actor: str, **given: Any) -> None:
    """Take back what is live now, in one transaction.

    An open canary is taken back first. What is taken back is quarantined; automatic promotion is
    held until `interlock resume`.
    """
    from reconciler.operations import oncall

    act(
        given,
        lambda context: oncall.rollback(
            context.database, context.clock, agent, to=to, reason=reason, actor=actor
        ),
    )


@click.command("hold")
@click.argument("agent")
@click.option("--for", "duration", help="How long: 30m, 4h, 2d [default: until resume].")
@reason_option
@where
def hold_command(agent: str, duration: str | None, reason: str, actor: str, **given: Any) -> None:
    """No new runs and no promotions of AGENT (`*`: the fleet). Open runs go on."""
    from reconciler.operations import oncall
    from reconciler.operations.repository import duration as parse_duration

    expires = None
    if duration is not None:
        try:
            expires = parse_duration(duration)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--for") from None
    act(
        given,
        lambda context: oncall.hold(
            context.database,
            context.clock,
            agent,
            reason=reason,
            actor=actor,
            expires_in_ms=expires,
        ),
    )


@click.command("stop")
@click.argument("agents", nargs=-1)
@reason_option
@where
def stop_command(agents: tuple[str, ...], reason: str, actor: str, **given: Any) -> None:
    """Refuse every call of AGENTS (none given: of all) from now on, and end their runs."""
    from reconciler.operations import oncall

    act(
        given,
        lambda context: oncall.stop(
            context.database, context.clock, agents, reason=reason, actor=actor
        ),
    )


@click.command("resume")
@click.argument("agent")
@reason_option
@where
def resume_command(agent: str, reason: str, actor: str, **given: Any) -> None:
    """Lift holds and stops of AGENT (`*`: those on the fleet); let its held rollout go on."""
    from reconciler.operations import oncall

    act(given, lambda context: oncall.resume(context, agent, reason=reason, actor=actor))


@click.command("run")
@click.argument("agent")
@click.option("--input", "text", default="", help="What the run is told.")
@click.option(
    "--event",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file whose text is what the run is told.",
)
@click.option("--key", help="Names the occurrence: the same key twice is one run.")
@click.option(
    "--follow", is_flag=True, help="Wait for its end (or execute it now); show its steps."
)
@where
def run_command(
    agent: str,
    text: str,
    event: Path | None,
    key: str | None,
    follow: bool,
    actor: str,
    **given: Any,
) -> None:
    """Start a run of AGENT on whatever release is its turn.

    The service executes it, or the next `interlock reconcile --once` that uses this --state;
    --follow does so at once where neither is running.
    """
    from reconciler.operations import oncall

    told = event.read_text() if event is not None else text
    token = key or secrets.token_hex(8)
    done = act(
        given,
        lambda context: oncall.run(context, agent, text=told, actor=actor, token=token),
        # The claim is pushed by whoever executes the run: claimed and not executed, it would
        # have to count as spent.
        record=False,
    )
    if follow:
        from reconciler.cli.service import follow_run
        from reconciler.process.compose import Options

        options = Options(given["state"], given["repo"], given["branch"], given["signing_key"])
        follow_run(options, done.subject, as_json=given["as_json"])
