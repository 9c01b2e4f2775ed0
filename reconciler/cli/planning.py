"""`interlock plan`: what a change can newly do, touch and cost, before it is merged."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from reconciler.cli.options import NEGATIVE, WAITING, guarded, json_option, show_json

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
@json_option
@guarded
def plan_command(
    directory: Path, base: str | None, head: str | None, form: str, as_json: bool
) -> None:
    """Show what a change of the config repo in DIRECTORY can newly do, touch and cost.

    Compares two commits, or a commit and the work directory as it is; fetches nothing. Exit code 4
    when somebody has to approve something; 1 when the change is invalid, or agents collide or could
    be made to send data away; else 0.
    """
    from reconciler.operations import planning

    found = planning.plan(directory, base=base, head=head)
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
            }
        )
    elif found.plan is None:
        for finding in found.errors:
            click.echo(str(finding))
        count = len(found.errors)
        click.echo(f"\n{count} error{'s' * (count != 1)}: there is no plan, what is live stays")
    elif form == "markdown":
        click.echo(planning.comment(found.plan, live=found.base), nl=False)
    else:
        _terminal(found)
    sys.exit(NEGATIVE if found.failed else WAITING if found.asked else 0)


def _terminal(found: object) -> None:
    from shutil import get_terminal_size

    from reconciler.operations import planning

    assert isinstance(found, planning.Planned)
    assert found.plan is not None
    head = f"{found.base} → {found.head}  plan {found.plan.digest[:12]}"
    click.echo(click.style(head, dim=True) + "\n")
    width = min(120, get_terminal_size((100, 24)).columns)
    click.echo(planning.terminal(found.plan, style=_style, width=width), nl=False)
    if found.unlocked:
        names = ", ".join(found.unlocked)
        note = f"not in interlock.lock, taken to be the same on both sides: image {names}"
        click.echo(click.style(f"\n{note}", dim=True), err=True)


def _style(text: str, role: str) -> str:
    return click.style(text, **_COLOURS[role])  # type: ignore[arg-type]
