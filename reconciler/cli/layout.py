"""Text laid out for a terminal: at most 100 columns, wrapped under its own column.

Colour is left out where NO_COLOR is set (no-color.org) or nobody looks at a terminal.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import click

from reconciler.cli.table import printable

WIDEST = 100


def width() -> int:
    """Columns to use: the terminal's, but at most 100; 100 where there is none."""
    return max(40, min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns))


def styled(text: str, **how: Any) -> str:
    """The text with a style, unless NO_COLOR is set."""
    return text if os.environ.get("NO_COLOR") else click.style(text, **how)


def wrapped(text: str, columns: int) -> list[str]:
    """Lines of at most `columns`; long paths and addresses are cut where they must be."""
    lines = textwrap.wrap(
        printable(text), max(8, columns), break_on_hyphens=False, break_long_words=True
    )
    return lines or [""]


def field(label: str, values: Iterable[str], *, indent: int = 14, colour: str | None = None) -> str:
    """A label and its values, one or more lines each, aligned; `""` without values."""
    lines = [
        line if number == 0 else f"  {line}"
        for value in values
        for number, line in enumerate(wrapped(value, width() - indent - 2))
    ]
    return "\n".join(
        (styled(label.ljust(indent), dim=True) if number == 0 else " " * indent)
        + (styled(line, fg=colour) if colour else line)
        for number, line in enumerate(lines)
    )


def rows(cells: Sequence[Sequence[str]], *, indent: int = 2) -> str:
    """Aligned columns, of which the last is wrapped into what is left of the line."""
    if not cells:
        return ""
    cells = [[printable(cell) for cell in row] for row in cells]
    last = len(cells[0]) - 1
    widths = [max(len(row[i]) for row in cells) for i in range(last)]
    start = indent + sum(widths) + 2 * last
    lines = []
    for row in cells:
        head = "  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row[:last]))
        if start > width() - 24:  # no room left: the last column goes below
            lines.append(f"{' ' * indent}{head}".rstrip())
            below = wrapped(row[last], width() - indent - 4) if row[last] else []
            lines += [f"{' ' * (indent + 4)}{line}" for line in below]
            continue
        for number, line in enumerate(wrapped(row[last], width() - start)):
            lead = f"{' ' * indent}{head}  " if number == 0 else " " * start
            lines.append(f"{lead}{line}".rstrip())
    return "\n".join(lines)
