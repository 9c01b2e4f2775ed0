"""`interlock init`, `new`, `import` and `schema`: files of a config repo, made and described."""

from __future__ import annotations

import dataclasses
import getpass
import json
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli.options import NEGATIVE, guarded, json_option, show_json
from reconciler.cli.table import printable, short

if TYPE_CHECKING:
    from reconciler.operations.authoring import Written
    from reconciler.operations.importing import Imported

_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


def _in_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--into",
        "directory",
        type=_DIRECTORY,
        default=".",
        show_default="here",
        help="A folder of the config repo.",
    )(command)


def _show(make: Callable[[], Written], as_json: bool) -> None:
    """Do it and say what was made; wrong usage is click's exit code 2."""
    from reconciler.operations.authoring import WrongUsage

    try:
        written = make()
    except WrongUsage as wrong:
        raise click.UsageError(str(wrong)) from None
    if as_json:
        show_json(
            {
                "root": str(written.root),
                "files": list(written.files),
                "text": written.text,
                "notes": list(written.notes),
                "next": list(written.next),
            }
        )
        return
    click.echo(written.text)
    for path in written.files:
        click.echo(f"  {click.style('+', fg='green')} {path}")
    if written.notes:
        click.echo("\nTo know")
        for note in written.notes:
            click.echo(f"  {note}")
    if written.next:
        click.echo("\nNext")
        for command in written.next:
            click.echo(f"  {command}")


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in a bare container
        return "you"


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--name", help="Name of the fleet [default: the folder's].")
@click.option("--team", default="platform", show_default=True, help="Name of the first team.")
@json_option
@guarded
def init_command(directory: Path, name: str | None, team: str, as_json: bool) -> None:
    """Start a config repo in DIR: it validates and runs as it is, offline until there is a key.

    Files that are in DIR stay as they are; when one of the new files would replace one, nothing
    is written.
    """
    from reconciler.operations.authoring import initialize

    images = _images()
    _show(
        lambda: initialize(directory, fleet=name, team=team, member=_login(), images=images),
        as_json,
    )


def _images() -> dict[str, str]:
    """The sandbox image of this machine; nothing where there is none, or no container engine."""
    from runner.sandbox.images import default_reference, image_id

    digest = image_id(default_reference())
    return {} if digest is None else {"default": str(digest)}


@click.group("new")
def new_command() -> None:
    """Add a loop or a skill to the config repo."""


@new_command.command("agent")
@click.argument("name")
@click.option("--team", help="Its owner [default: the only team].")
@click.option("--model", help="Model or virtual model [default: the fleet's].")
@click.option("--schedule", help='Cron, such as "0 6 * * 1-5" [default: only when asked].')
@click.option("--timezone", default="UTC", show_default=True, help="Time zone of the schedule.")
@_in_option
@json_option
@guarded
def new_agent_command(
    name: str,
    team: str | None,
    model: str | None,
    schedule: str | None,
    timezone: str,
    directory: Path,
    as_json: bool,
) -> None:
    """Add the loop NAME: agents/NAME/agent.yaml and instructions to fill in.

    It has no external tools and no gate until you give it some. Nothing is written over.
    """
    from reconciler.operations.authoring import new_agent

    _show(
        lambda: new_agent(
            directory, name, team=team, model=model, schedule=schedule, timezone=timezone
        ),
        as_json,
    )


@new_command.command("skill")
@click.argument("name")
@_in_option
@json_option
@guarded
def new_skill_command(name: str, directory: Path, as_json: bool) -> None:
    """Add the skill NAME: skills/NAME/SKILL.md to fill in. Nothing is written over."""
    from reconciler.operations.authoring import new_skill

    _show(lambda: new_skill(directory, name), as_json)


@click.command("import")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--name", help="Name of the loop or skill here, when PATH is a single one.")
@click.option("--team", help="Owner of the loops [default: the only team].")
@click.option("--model", help="Model of loops whose own is not known here [default: the fleet's].")
@_in_option
@json_option
@guarded
def import_command(
    path: Path,
    name: str | None,
    team: str | None,
    model: str | None,
    directory: Path,
    as_json: bool,
) -> None:
    """Bring over what is at PATH: a Claude Code agent, a skill, or a folder of them.

    PATH may be an agent's Markdown file, a folder with a SKILL.md, a folder of either, a
    .claude folder or a plugin. What has no counterpart here is said, and never granted.
    """
    from reconciler.operations.authoring import WrongUsage
    from reconciler.operations.importing import bring_in

    try:
        made = bring_in(path, directory, name=name, team=team, model=model)
    except WrongUsage as wrong:
        raise click.UsageError(str(wrong)) from None
    if as_json:
        show_json(
            {
                "root": str(made.root),
                "files": list(made.files),
                "items": [dataclasses.asdict(item) for item in made.items],
                "refused": list(made.refused),
                "unseen": list(made.unseen),
                "next": list(made.next),
            }
        )
    else:
        _show_import(made)
    sys.exit(NEGATIVE if made.refused else 0)


def _show_import(made: Imported) -> None:
    counts = [(kind, sum(i.kind == kind for i in made.items)) for kind in ("loop", "skill")]
    what = " and ".join(f"{n} {kind}{'s' * (n != 1)}" for kind, n in counts if n)
    click.echo(f"brought over {what}, {len(made.files)} files")
    for item in made.items:
        was = "" if item.called == item.name else f" (was {short(printable(item.called), 40)})"
        click.echo(f"\n{click.style('+', fg='green')} {item.kind} {item.name}{was}")
        for line in item.brought:
            click.echo(f"    {line}")
        for line in item.left:
            _wrapped(click.style("!", fg="yellow"), line)
    if made.refused:
        click.echo("\nNot brought over")
        for line in made.refused:
            _wrapped(click.style("×", fg="red"), line)
    if made.unseen:
        click.echo("\nLeft where it is: " + ", ".join(made.unseen))
    click.echo("\nNext")
    for command in made.next:
        click.echo(f"  {command}")


def _wrapped(mark: str, line: str) -> None:
    """A reason, folded to the terminal, the rest of it under its beginning."""
    for number, part in enumerate(line.splitlines()):
        width = max(40, shutil.get_terminal_size().columns - 6)
        folded = textwrap.wrap(printable(part), width, break_on_hyphens=False) or [""]
        for fold, text in enumerate(folded):
            click.echo(f"    {mark} {text}" if number + fold == 0 else f"      {text}")


@click.command("schema")
@click.argument("kind", required=False)
@click.option("--list", "as_list", is_flag=True, help="Name the kinds and the files they are in.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (schemas always are).")
@guarded
def schema_command(kind: str | None, as_list: bool, as_json: bool) -> None:
    """Print the JSON Schema of KIND for editors; without KIND, of every YAML document.

    The schema knows the shape of a document. What it refers to is checked by `interlock validate`.
    """
    from reconciler.cli.table import table
    from reconciler.operations.authoring import document_kinds, document_schema

    known = document_kinds()
    if as_list:
        if as_json:
            show_json([{"kind": name, "file": file} for name, file in known.items()])
        else:
            click.echo(table(["kind", "file"], list(known.items()), right=frozenset()))
        sys.exit(0)
    if kind is not None and kind not in known:
        import difflib

        close = difflib.get_close_matches(kind, known, 1)
        hint = f"did you mean {close[0]}?" if close else f"kinds: {', '.join(known)}"
        raise click.UsageError(f"there is no kind {kind!r}; {hint}")
    # In the order in which the keys are explained, not sorted: people read it too.
    click.echo(json.dumps(document_schema(kind), indent=2, ensure_ascii=False))
