"""`interlock pr`: pull requests of the built-in local forge."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.options import F, guarded, json_option, repo_option, show_json, state_option
from reconciler.cli.reading import plain
from reconciler.cli.table import moment, printable, short, table

if TYPE_CHECKING:
    from reconciler.operations.pulls import Desk, Shown


@click.group("pr", short_help="pull requests of the built-in forge")
def pr_command() -> None:
    """Pull requests kept in the config repo itself (branch interlock/pulls): no server needed.

    The local forge believes the login a writer gives; whoever can push can speak as anyone.
    """


def _shared(command: F) -> F:
    """Options of every `pr` command: where, as whom, how shown."""
    command = click.option(
        "--as",
        "login",
        help="Your login [default: $INTERLOCK_LOGIN, git's user.name, or your account].",
    )(guarded(command))
    return state_option(repo_option(json_option(command)))


@contextmanager
def _desk(given: dict[str, Any]) -> Iterator[Desk]:
    from reconciler.process.forge import default_login, open_desk

    login = given["login"] or default_login(os.environ)
    with open_desk(
        given["state"], os.environ, repo=given["repo"], branch=given["branch"], login=login
    ) as desk:
        yield desk


def _perform(given: dict[str, Any], do: Callable[[Desk], Any]) -> None:
    with _desk(given) as desk:
        done = do(desk)
    if given["as_json"]:
        show_json(plain(done))
        return
    click.echo(printable(done.text))
    if done.commit:
        click.echo(f"commit {done.commit}")


@pr_command.command("list")
@click.option("--all", "everything", is_flag=True, help="Merged and closed ones too.")
@_shared
def list_command(everything: bool, **given: Any) -> None:
    """Open pull requests, newest first."""
    from reconciler.operations import pulls

    with _desk(given) as desk:
        found = pulls.listing(desk, everything=everything)
    if given["as_json"]:
        show_json({"pulls": plain(found.pulls), "findings": [f.as_json() for f in found.findings]})
        return
    if found.pulls:
        rows: list[tuple[str, ...]] = [
            (
                f"#{p.number}",
                p.state.value,
                short(printable(p.title), 48),
                f"{short(p.source, 30)} → {short(p.target, 20)}",
                p.opener,
                moment(p.opened_at),
            )
            for p in found.pulls
        ]
        header: tuple[str, ...] = ("pull", "state", "title", "branches", "by", "opened (UTC)")
        if not everything:
            header, rows = _without(header, 1), [_without(row, 1) for row in rows]
        click.echo(table(header, rows, right=frozenset()))
    elif everything or not found.closed:
        click.echo("no pull requests yet; push a branch, then: interlock pr open --from BRANCH")
    else:
        click.echo(f"no open pull requests; {found.closed} merged or closed (--all shows them)")
    for finding in found.findings:
        click.echo(str(finding), err=True)


@pr_command.command("show", short_help="One pull request, with its checks and comments.")
@click.argument("number", type=click.IntRange(min=1))
@_shared
def show_command(number: int, **given: Any) -> None:
    """Pull request NUMBER: what it is, whether it merges, its checks and comments."""
    from reconciler.operations import pulls

    with _desk(given) as desk:
        shown = pulls.show(desk, number)
    if given["as_json"]:
        show_json(plain(shown))
    else:
        _show(shown)


@pr_command.command("open")
@click.option("--from", "source", required=True, help="The branch to merge; push it first.")
@click.option("--into", "target", help="Where to [default: the watched or default branch].")
@click.option("--title", help="One line [default: that of the branch's last commit].")
@click.option("--body", default="", help="Why; Markdown. `-` reads it from standard input.")
@_shared
def open_command(
    source: str, target: str | None, title: str | None, body: str, **given: Any
) -> None:
    """Open a pull request for a branch that has been pushed."""
    from reconciler.operations import pulls

    text = _text(body)
    _perform(
        given,
        lambda desk: pulls.open_pull(desk, source=source, target=target, title=title, body=text),
    )


@pr_command.command("comment", short_help="Say something to it, or ask the reconciler.")
@click.argument("number", type=click.IntRange(min=1))
@click.argument("text")
@click.option("--head", help="Only if this is still its head (7 digits at least).")
@_shared
def comment_command(number: int, text: str, head: str | None, **given: Any) -> None:
    """Say TEXT (`-`: standard input) to pull request NUMBER: `/interlock approve`, for one.

    A comment is bound to the head it is made at; --head makes sure that is the one you looked at.
    """
    from reconciler.operations import pulls

    said = _text(text)
    with _desk(given) as desk:
        found = pulls.comment(desk, number, said, head=head)
    if given["as_json"]:
        show_json(plain(found))
        return
    where = f" at {found.head[:12]}" if found.head else ""
    click.echo(f"{printable(found.done.text)}{where}")
    for asked in found.asked:
        click.echo(f"asks to {printable(asked)}; the reconciler answers at its next tick")
    for mistake in found.mistakes:
        click.echo(mistake.partition("\n\n")[0].replace("`", ""), err=True)


@pr_command.command("merge")
@click.argument("number", type=click.IntRange(min=1))
@click.option("--squash", is_flag=True, help="As one commit, instead of a merge commit.")
@click.option("--head", help="Only if this is still its head (7 digits at least).")
@_shared
def merge_command(number: int, squash: bool, head: str | None, **given: Any) -> None:
    """Merge pull request NUMBER into its target."""
    from reconciler.operations import pulls

    _perform(given, lambda desk: pulls.merge(desk, number, head=head, squash=squash))


@pr_command.command("close")
@click.argument("number", type=click.IntRange(min=1))
@_shared
def close_command(number: int, **given: Any) -> None:
    """Close pull request NUMBER without merging it. Its branch stays."""
    from reconciler.operations import pulls

    _perform(given, lambda desk: pulls.close(desk, number))


def _show(shown: Shown) -> None:
    pull = shown.pull
    click.echo(click.style(f"#{pull.number}  {printable(pull.title)}", bold=True))
    head = pull.head[:12] if pull.head else "gone"
    count = "" if shown.commits is None else f", {shown.commits} commit{'s' * (shown.commits != 1)}"
    click.echo(f"{pull.state}  {pull.source} → {pull.target}  head {head}{count}")
    click.echo(f"opened by {pull.opener}, {moment(pull.opened_at)} UTC")
    if pull.open:
        click.echo(printable(shown.obstacle) if shown.obstacle else f"merges into {pull.target}")
    elif pull.closed_at is not None:
        commit = f" as {pull.merged[:12]}" if pull.merged else ""
        click.echo(f"{pull.state} by {pull.closer}, {moment(pull.closed_at)} UTC{commit}")
    if pull.body.strip():
        click.echo(f"\n{_indented(pull.body)}")
    if shown.statuses:
        click.echo(f"\n{click.style('Checks of this head', bold=True)}")
        rows = [(s.state.value, s.context, printable(s.description)) for s in shown.statuses]
        lines = table(("state", "check", "says"), rows, right=frozenset()).splitlines()
        click.echo("\n".join(f"  {line}" for line in lines))
    for comment in shown.comments:
        marks = [
            *(["bot"] if comment.bot else []),
            *(["edited"] if comment.edited_at is not None else []),
            *([f"at {comment.head[:12]}"] if comment.head else []),
        ]
        told = f" ({', '.join(marks)})" if marks else ""
        click.echo(f"\n{click.style(comment.author, bold=True)}, {moment(comment.at)} UTC{told}")
        click.echo(_indented(comment.body))


def _indented(body: str) -> str:
    """A text below a heading; the marker by which a program finds its comment is left out."""
    lines = printable(body.replace("\t", "    ").replace("\r\n", "\n")).split("\n")
    if lines[0].startswith("<!-- interlock:"):
        lines = lines[1:]
    return "\n".join(f"  {line}".rstrip() for line in lines).strip("\n")


def _text(given: str) -> str:
    return sys.stdin.read() if given == "-" else given


def _without(row: tuple[str, ...], column: int) -> tuple[str, ...]:
    return (*row[:column], *row[column + 1 :])
