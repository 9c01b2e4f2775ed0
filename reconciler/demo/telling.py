"""How the story shows what people say and what Interlock answers, in the columns of a job.

A comment is Markdown for a forge; here its few deciding lines are shown as plain text.
"""

from __future__ import annotations

import html
import re
import textwrap

import click

LINE = 96
"""Columns of everything the story itself prints."""
_INDENT = 30
"""Where the words of a job's lines begin: 12 for what happened, 17 for whom, and a space."""
_MOST = 3
"""Lines of one sentence; the rest stands in the pull request."""


def line(word: str, subject: str, text: str, *, colour: str = "cyan") -> None:
    """One thing that was said or found, wrapped below itself."""
    wrapped = textwrap.wrap(
        plain(text), LINE - _INDENT, max_lines=_MOST, placeholder=" …", break_on_hyphens=False
    ) or [""]
    click.echo(f"{click.style(f'{word:<12}', fg=colour)}{subject:<17} {wrapped[0]}".rstrip())
    for more in wrapped[1:]:
        click.echo(" " * _INDENT + more)


def acts(who: str, command: str) -> None:
    """A command that somebody types."""
    click.echo(click.style(f"  {who}$ {command}", dim=True))


def plan(pull: int, body: str) -> None:
    """The deciding lines of a plan comment: its headline, what it needs, the verdicts."""
    first = next((row for row in body.splitlines() if row.startswith("**")), "")
    line("plan", f"#{pull}", first)
    for scope, what, needs in rows(body, "scope"):
        texts = [re.sub(r"<sub>.*?</sub>", "", text) for text in what.split("<br>")]
        asked = f"{scope.partition('<br>')[0]}: {'; '.join(texts)}"
        line("needs", plain(needs), asked, colour="yellow")
        place = re.search(r"stricter in `([^`]*)`", f"{scope}{what}")
        if place is not None:
            click.echo(" " * _INDENT + click.style(f"stricter in {place[1]}", dim=True))
    for agent, verdict, why in rows(body, "agent", "verdict"):
        colour = {"pass": "green", "fail": "red"}.get(verdict, "yellow")
        line(verdict, agent, why, colour=colour)


def rows(body: str, *header: str) -> list[tuple[str, ...]]:
    """Cells of the table in a Markdown text whose header begins with these words."""
    lines = iter(body.splitlines())
    start = "| " + " | ".join(header) + " |"
    if not any(text.startswith(start) for text in lines):
        return []
    next(lines, "")  # the rule below the header
    found = []
    for text in lines:
        if not text.startswith("| "):
            break
        cells = re.split(r"(?<!\\)\|", text.strip().strip("|"))
        found.append(tuple(cell.strip() for cell in cells))
    return found


def plain(markdown: str) -> str:
    """One line without Markdown's marks."""
    text = re.sub(r"<[^>]*>", " ", markdown)
    text = text.replace("**", "").replace("`", "").replace("\u200b", "").replace("\\", "")
    return " ".join(html.unescape(text).split())
