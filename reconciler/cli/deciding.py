"""The verbs of a person who decides: approvals, approve, reject."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from reconciler.cli.acting import act, where
from reconciler.cli.options import (
    WAITING,
    guarded,
    json_option,
    reason_option,
    show_json,
    state_option,
)
from reconciler.cli.reading import plain, snapshot
from reconciler.cli.table import moment, printable, short


@click.command("approvals")
@state_option
@json_option
@guarded
def approvals_command(state: Path, as_json: bool) -> None:
    """What waits for a person, and whose word it needs. Exit code 4 when anything does."""
    from reconciler.record import views

    with snapshot(state) as tx:
        found = views.waiting(tx)
    if as_json:
        show_json(plain(found))
    elif not found:
        click.echo("nothing waits for anybody")
    else:
        for number, one in enumerate(found):
            if number:
                click.echo()
            head = f"{one.id}  {printable(one.scope)}"
            click.echo(click.style(head, bold=True) + f"  since {moment(one.since)} UTC")
            places = one.places or ("",) * len(one.what)
            for text, place in zip(one.what, places, strict=True):
                click.echo(f"  {short(printable(text), 94)}")
                if place:
                    click.echo(click.style(f"    {printable(place)}", dim=True))
            click.echo(f"  needs {_needs(one.needs, one.authors)}")
        click.echo(
            "\nSay yes with `interlock approve ID --reason TEXT`, no with `interlock reject`."
        )
    if found:
        raise click.exceptions.Exit(WAITING)


def _needs(needs: tuple[tuple[str, ...], ...], authors: tuple[str, ...]) -> str:
    if not needs:
        return "an operator's decision"
    sets = [
        " or ".join(owners) if owners else "an operator: nobody owns this yet" for owners in needs
    ]
    but = f"; not {', '.join(authors)}, who made the change" if authors else ""
    return printable(" and ".join(sets) + but)


@click.command("approve")
@click.argument("name", metavar="ID")
@reason_option
@where
def approve_command(name: str, reason: str, actor: str, **given: Any) -> None:
    """Say yes to what waits under ID (see `interlock approvals`)."""
    from reconciler.operations import approvals

    act(given, lambda context: approvals.approve(context, name, reason=reason, actor=actor))


@click.command("reject")
@click.argument("name", metavar="ID")
@reason_option
@where
def reject_command(name: str, reason: str, actor: str, **given: Any) -> None:
    """Say no to what waits under ID: what is in force stays."""
    from reconciler.operations import approvals

    act(given, lambda context: approvals.reject(context, name, reason=reason, actor=actor))
