"""The figures as an aligned table: medians, the range below them, and ratios. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OURS, BASE = "ours", "direct"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table. `added`: what a gateway adds to the base in the same round."""

    title: str
    figure: str
    added: bool = False
    scale: float = 1.0


LINES = (
    Line("added, 1 connection, p50 µs", "p50 at 1", added=True),
    Line("added, 1 connection, p99 µs", "p99 at 1", added=True),
    Line("added, 64 connections, p50 µs", "p50 at 64", added=True),
    Line("added, 64 connections, p99 µs", "p99 at 64", added=True),
    Line("requests/s, 64 connections", "requests/s"),
    Line("CPU per request, µs", "cpu/request"),
    Line("added to first token, 1 stream, µs", "first token", added=True),
    Line("added to whole stream, 1 stream, µs", "whole stream", added=True),
    Line("streams/s, 16 streams", "streams/s"),
    Line("CPU per stream, µs", "cpu/stream"),
    Line("memory after warm-up, MB", "memory warm", scale=1e-6),
    Line("memory after load, MB", "memory loaded", scale=1e-6),
)

Rounds = Sequence[Mapping[str, float]]
"""What was measured of one contender: the figures of each round."""


def render(measured: Mapping[str, Rounds], absent: Mapping[str, str]) -> list[str]:
    """The table's lines. `measured` holds the base and ours; `absent` says why something is not."""
    others = [name for name in (*measured, *absent) if name not in (OURS, BASE)]
    names = [name for name in (*measured, *absent) if name != BASE]
    rows = [["", BASE, *names, *(f"{OURS}/{other}" for other in others)]]
    for line in LINES:
        values = {name: _values(line, rounds, measured[BASE]) for name, rounds in measured.items()}
        mine = values[OURS]
        rows.append(
            [
                line.title,
                *(_median(values.get(name, [])) for name in (BASE, *names)),
                *(_ratio(mine, values.get(other, [])) for other in others),
            ]
        )
        ranges = [_range(values.get(name, [])) for name in (BASE, *names)]
        if any(ranges):
            rows.append(["", *ranges, *[""] * len(others)])
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _values(line: Line, rounds: Rounds, base: Rounds) -> list[float]:
    values = []
    for figures, beside in zip(rounds, base, strict=True):
        if line.figure in figures:
            is_base = figures is beside
            less = beside[line.figure] if line.added and not is_base else 0.0
            values.append((figures[line.figure] - less) * line.scale)
    return values


def _median(values: list[float]) -> str:
    return number(statistics.median(values)) if any(values) else "–"


def _range(values: list[float]) -> str:
    return f"{number(min(values))}–{number(max(values))}" if any(values[1:]) else ""


def _ratio(mine: list[float], theirs: list[float]) -> str:
    if not any(mine) or not any(theirs) or min(map(statistics.median, (mine, theirs))) <= 0:
        return "–"
    ratio = statistics.median(mine) / statistics.median(theirs)
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"


def number(value: float) -> str:
    """Three digits are more than these figures are worth; thousands are whole."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
