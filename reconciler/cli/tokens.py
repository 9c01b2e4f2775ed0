"""`interlock token`: who may call the gateway from outside a run, and for whom it may act."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any, TextIO

import click

from reconciler.cli.acting import act, perform, where
from reconciler.cli.options import F, guarded, json_option, show_json, state_option
from reconciler.cli.reading import plain, snapshot
from reconciler.cli.table import moment, printable, table


@click.group("token", short_help="tokens of people and services")
def token_command() -> None:
    """Tokens of people and services that call the gateway from outside a run, and of people as
    whom it uses tool servers.

    Who they are and what they may reach stands in gateway/principals.yaml.
    """


@token_command.command("new")
@click.argument("name")
@click.option("--expires", default="30d", show_default=True, help="How long it is good: 12h, 30d.")
@click.option("--for-user", "user", metavar="LOGIN", help="The person a service's calls are for.")
@where
def new_command(name: str, expires: str, user: str | None, actor: str, **given: Any) -> None:
    """A new token for NAME (`user:ines`, `service:report`, or the name alone).

    It is printed once, and kept as its hash.
    """
    from reconciler.operations import tokens
    from reconciler.operations.repository import duration

    try:
        expires_in = duration(expires)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--expires") from None
    token = "ilk_" + secrets.token_urlsafe(32)
    done = perform(
        given,
        lambda context: tokens.new(
            context.database,
            context.clock,
            name,
            token=token,
            expires_in_ms=expires_in,
            actor=actor,
            user=user,
        ),
    )
    if given["as_json"]:
        show_json({"done": done.text, "subject": done.subject, "token": token})
        return
    click.echo(token)
    click.echo(
        f"{done.text}, good for {expires}. It is not shown again; take it back with\n"
        f"interlock token revoke {done.subject}",
        err=True,
    )


@token_command.command("list")
@click.option("--all", "everything", is_flag=True, help="Expired and revoked ones too.")
@state_option
@json_option
@guarded
def list_command(everything: bool, state: Path, as_json: bool) -> None:
    """Tokens that are good, newest first."""
    from gateway.clock import SystemClock
    from reconciler.operations import tokens

    now = SystemClock.from_environment(os.environ).now()
    with snapshot(state) as tx:
        found = [one for one in tokens.listing(tx) if everything or one.state(now) == "active"]
    if as_json:
        show_json([{**plain(one), "state": one.state(now)} for one in found])
        return
    if not found:
        click.echo("there is no token; `interlock token new NAME` makes one")
        return
    rows: list[tuple[str, ...]] = [
        (
            one.id,
            printable(one.principal),
            printable(one.user or ""),
            one.state(now),
            moment(one.issued_at),
            moment(one.expires_at),
            printable(one.why or ""),
        )
        for one in found
    ]
    heads = ("ID", "PRINCIPAL", "FOR", "STATE", "ISSUED", "EXPIRES", "WHY")
    click.echo(table(heads, rows, right=frozenset()))


@token_command.command("revoke")
@click.argument("name", metavar="ID")
@click.option("--reason", default="not needed any more", show_default=True, help="Why.")
@where
def revoke_command(name: str, reason: str, actor: str, **given: Any) -> None:
    """Take back the token with this ID, from the next call on."""
    from reconciler.operations import tokens

    act(
        given,
        lambda context: tokens.revoke(
            context.database, context.clock, name, reason=reason, actor=actor
        ),
    )


def _user_option(command: F) -> F:
    return click.option("--user", metavar="LOGIN", required=True, help="The person.")(command)


@token_command.command("delegate")
@click.argument("server")
@_user_option
@click.option(
    "--refresh-token-file",
    "file",
    type=click.File("r"),
    metavar="FILE",
    help="File with the person's refresh token; - is standard input [default: asks for it].",
)
@where
def delegate_command(server: str, user: str, file: TextIO | None, actor: str, **given: Any) -> None:
    """Let runs for a person use tool server SERVER as that person.

    Replaces what the person delegated before. The token is not shown.
    """
    from reconciler.operations import tokens

    try:
        token = (
            click.prompt("Refresh token", hide_input=True, err=True)
            if file is None
            else file.read()
        )
    except UnicodeDecodeError:
        raise click.BadParameter("not a text file", param_hint="--refresh-token-file") from None
    act(
        given,
        lambda context: tokens.delegate(
            context.database,
            context.clock,
            server,
            user=user,
            refresh_token=token.strip(),
            actor=actor,
        ),
    )


@token_command.command("withdraw")
@click.argument("server")
@_user_option
@where
def withdraw_command(server: str, user: str, actor: str, **given: Any) -> None:
    """Take back a person's delegation of tool server SERVER, from the next call on."""
    from reconciler.operations import tokens

    act(
        given,
        lambda context: tokens.withdraw(
            context.database, context.clock, server, user=user, actor=actor
        ),
    )
