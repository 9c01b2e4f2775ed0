"""`interlock plan`: what a change can newly do, touch and cost, before it is merged."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.clock import SystemClock
from reconciler.cli.options import (
    NEGATIVE,
    WAITING,
    guarded,
    json_option,
    show_json,
    state_option,
)

if TYPE_CHECKING:  # made when the command runs: its imports are slow
    from reconciler.operations.planning import Planned
    from reconciler.plan.backtest import Backtest

_COLOURS: dict[str, dict[str, object]] = {
    "add": {"fg": "green"},
    "remove": {"fg": "red"},
    "change": {"fg": "yellow"},
    "ask": {"fg": "magenta", "bold": True},
    "title": {"bold": True},
    "name": {"fg": "cyan"},
    "dim": {"dim": True},
}


@click.command("plan")
@click.argument(
    "directory", type=click.Path(exists=True, file_okay=False, path_type=Path), default="."
)
@click.option("--base", metavar="REF", help="What is live [default: the default branch].")
@click.option(
    "--head", metavar="REF", help="What is asked for [default: the work directory, or HEAD]."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["terminal", "markdown", "json"]),
    default="terminal",
    show_default=True,
    help="For a person, for a comment, for a program.",
)
@click.option(
    "--backtest",
    "back",
    metavar="AGE",
    help="Replay recorded calls of this long (30d, 12h), whatever changes "
    "[default: 7d, when something changes that the gateway enforces].",
)
@state_option
@json_option
@guarded
def plan_command(
    directory: Path,
    base: str | None,
    head: str | None,
    form: str,
    back: str | None,
    state: Path,
    as_json: bool,
) -> None:
    """Show what a change of the config repo in DIRECTORY can newly do, touch and cost.

    Compares two commits, or a commit and the work directory as it is; fetches nothing. Where the
    state directory has recorded calls, they are replayed against the change. Exit code 4 when
    somebody has to approve something; 1 when the change is invalid, or agents collide or could be
    made to send data away; else 0.
    """
    from reconciler.operations import planning

    age = _age(back)
    found = planning.plan(directory, base=base, head=head)
    replayed = _backtest(found, state, age)
    if as_json or form == "json":
        show_json(
            {
                "base": found.base,
                "head": found.head,
                "valid": not found.failed,
                "findings": [finding.as_json() for finding in found.findings],
                "plan": {**found.plan.as_json(), "digest": found.plan.digest}
                if found.plan
                else None,
                "backtest": replayed.as_json() if replayed else None,
            }
        )
    elif found.plan is None:
        for finding in found.errors:
            click.echo(str(finding))
        count = len(found.errors)
        click.echo(f"\n{count} error{'s' * (count != 1)}: there is no plan, what is live stays")
    elif form == "markdown":
        click.echo(planning.comment(found.plan, live=found.base, backtest=replayed), nl=False)
    else:
        _terminal(found, replayed)
    sys.exit(NEGATIVE if found.failed else WAITING if found.asked else 0)


def _age(text: str | None) -> int | None:
    from reconciler.operations.repository import duration

    if text is None:
        return None
    try:
        return duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--backtest") from None


def _backtest(found: Planned, state: Path, back: int | None) -> Backtest | None:
    """None without recorded calls: a plan is made on machines that have never run anything."""
    from reconciler.cli.reading import snapshot
    from reconciler.operations import planning

    if back is None and not (state / "interlock.sqlite").exists():
        return None
    with snapshot(state) as tx:
        now = SystemClock.from_environment(os.environ).now()
        return planning.backtest(found, tx, now=now, back=back)


def _terminal(found: Planned, replayed: Backtest | None) -> None:
    from shutil import get_terminal_size

    from reconciler.operations import planning

    assert found.plan is not None
    head = f"{found.base} → {found.head}  plan {found.plan.digest[:12]}"
    click.echo(click.style(head, dim=True) + "\n")
    width = min(120, get_terminal_size((100, 24)).columns)
    click.echo(
        planning.terminal(found.plan, backtest=replayed, style=_style, width=width), nl=False
    )
    if found.unlocked:
        names = ", ".join(found.unlocked)
        note = f"not in interlock.lock, taken to be the same on both sides: image {names}"
        click.echo(click.style(f"\n{note}", dim=True), err=True)


def _style(text: str, role: str) -> str:
    return click.style(text, **_COLOURS[role])  # type: ignore[arg-type]
