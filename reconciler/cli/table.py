"""Plain aligned tables for a terminal: no frames, colour only where it says something."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

COLOURS = {
    "promoted": "green",
    "good": "green",
    "passed": "green",
    "done": "green",
    "until_met": "green",
    "canary": "cyan",
    "evaluating": "cyan",
    "rejected": "red",
    "rolled_back": "red",
    "bad": "red",
    "failed": "red",
    "error": "red",
    "stalled": "yellow",
    "cost_budget": "yellow",
    "held": "yellow",
    "outcome_unknown": "yellow",
}


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int]) -> str:
    """Columns as wide as their longest cell; those in `right` are aligned to the right."""
    cells = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for number, row in enumerate(cells):
        parts = []
        for i, cell in enumerate(row):
            padded = cell.rjust(widths[i]) if i in right else cell.ljust(widths[i])
            if number == 0:
                padded = click.style(padded, dim=True)
            elif cell in COLOURS:
                padded = click.style(padded, fg=COLOURS[cell])
            parts.append(padded)
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def moment(millis: int | None) -> str:
    """UTC, to the minute; `-` for never."""
    if millis is None:
        return "-"
    return f"{datetime.fromtimestamp(millis / 1000, UTC):%Y-%m-%d %H:%M}"


def short(text: str, width: int) -> str:
    """One line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: max(0, width - 1)] + "…"


def printable(text: str) -> str:
    """Text that agents wrote, with control characters replaced: it must not move the cursor."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
