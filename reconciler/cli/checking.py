"""`interlock validate`: findings of a work directory, before anything is pushed."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from reconciler.cli.options import NEGATIVE, guarded, json_option, show_json


@click.command("validate")
@click.argument(
    "directory", type=click.Path(exists=True, file_okay=False, path_type=Path), default="."
)
@json_option
@guarded
def validate_command(directory: Path, as_json: bool) -> None:
    """Check the config repo in DIRECTORY: every finding with file:line:column and its fix.

    Exit code 1 when there is an error. What is valid here compiles to the digests shown.
    """
    from reconciler.operations.repository import validate

    found = validate(directory)
    errors = found.errors
    if as_json:
        show_json(
            {
                "valid": not errors,
                "findings": [f.as_json() for f in found.findings],
                "releases": dict(found.releases),
            }
        )
    else:
        for finding in found.findings:
            click.echo(str(finding))
        if errors:
            click.echo(f"\n{len(errors)} error{'s' * (len(errors) != 1)} in {directory}")
        else:
            width = max((len(name) for name in found.releases), default=0)
            for name, digest in found.releases.items():
                click.echo(f"{name:<{width}}  {digest}")
            click.echo(f"{len(found.releases)} agents are valid")
    sys.exit(NEGATIVE if errors else 0)
