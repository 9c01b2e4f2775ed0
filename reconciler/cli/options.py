"""Options that many commands share, and how errors become messages and exit codes."""

from __future__ import annotations

import functools
import getpass
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

NEGATIVE = 1
LACKING = 3
WAITING = 4


def state_option(command: F) -> F:
    """`--state DIR`: where the database, mirrors and logs are."""
    return click.option(
        "--state",
        type=click.Path(path_type=Path, file_okay=False),
        default=lambda: Path(os.environ.get("INTERLOCK_STATE", ".interlock")),
        show_default="$INTERLOCK_STATE or .interlock",
        help="State directory.",
    )(command)


def repo_option(command: F) -> F:
    """`--repo URL`, `--branch NAME`: the config repo; remembered in the state directory."""
    command = click.option(
        "--repo",
        envvar="INTERLOCK_REPO",
        help="URL or path of the config repo [env: INTERLOCK_REPO; remembered].",
    )(command)
    return click.option("--branch", help="The watched branch [default: the repo's own].")(command)


def json_option(command: F) -> F:
    """`--json`: the same facts for machines."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def actor_option(command: F) -> F:
    """`--as NAME`: who does it, for the audit."""
    return click.option(
        "--as",
        "actor",
        default=lambda: os.environ.get("INTERLOCK_ACTOR") or getpass.getuser(),
        show_default="$INTERLOCK_ACTOR or your login",
        help="Who does this, for the audit.",
    )(command)


def reason_option(command: F) -> F:
    """`--reason TEXT`, required: the next person on call will ask."""
    return click.option("--reason", required=True, help="Why; it stands in the audit.")(command)


def guarded(command: F) -> F:
    """Turn the errors this program knows into one message and its exit code; bugs stay bugs.

    The known errors are imported only when something was raised: a quick look must not pay for
    git, Docker and HTTP.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            from reconciler.process.errors import exit_code

            code = exit_code(error)
            if code is None:
                raise
            fail(str(error), code)

    return run  # type: ignore[return-value]


def fail(message: str, code: int) -> None:
    """Say it on stderr and leave with this exit code."""
    click.echo(f"interlock: {message}", err=True)
    sys.exit(code)


def show_json(value: object) -> None:
    """Machine-readable output: indented, keys in order."""
    click.echo(json.dumps(value, indent=2, sort_keys=True, default=str))
