"""Two texts compared word by word, within the lines that differ.

A prompt is prose: one word in a paragraph of one line is the change, and a diff of lines would show
two walls of text. Lines are compared first, which keeps the cost near that of a line diff; words
are compared only between lines that were replaced. A comparison that would be too expensive is
told as one text removed and one added: it is bounded, whatever a pull request contains.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

Op = Literal["same", "removed", "added"]

CONTEXT = 1
"""Unchanged lines shown around a change."""
MOST_LINES = 2_000
"""Lines of one text that are compared; longer texts are told as replaced."""
MOST_WORDS = 1_500
"""Words of a group of lines that are compared with each other."""
ALIKE = 0.35
"""Share of words two groups of lines must have in common to be shown interleaved."""

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of text that is the same on both sides, or on one of them only."""

    op: Op
    text: str


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines around one change. `line` counts from 1 in the newer text (the older, if removed)."""

    line: int
    lines: tuple[tuple[Piece, ...], ...]


def compare_texts(before: str | None, after: str | None) -> tuple[Hunk, ...]:
    """The changes between two texts; None is a text that is not there."""
    old, new = _lines(before), _lines(after)
    if max(len(old), len(new)) > MOST_LINES:
        return (Hunk(1, (*_whole(old, "removed"), *_whole(new, "added"))),)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    return tuple(_hunk(group, old, new) for group in matcher.get_grouped_opcodes(CONTEXT))


def _lines(text: str | None) -> list[str]:
    return [] if text is None else text.splitlines()


def _hunk(
    group: Sequence[tuple[str, int, int, int, int]], old: Sequence[str], new: Sequence[str]
) -> Hunk:
    lines: list[tuple[Piece, ...]] = []
    for op, i1, i2, j1, j2 in group:
        if op == "equal":
            lines += _whole(new[j1:j2], "same")
        elif op == "replace":
            lines += _replaced(old[i1:i2], new[j1:j2])
        else:
            lines += [*_whole(old[i1:i2], "removed"), *_whole(new[j1:j2], "added")]
    first = group[0]
    return Hunk((first[3] if new else first[1]) + 1, tuple(lines))


def _whole(lines: Sequence[str], op: Op) -> Iterator[tuple[Piece, ...]]:
    for line in lines:
        yield (Piece(op, line),)


def _replaced(old: Sequence[str], new: Sequence[str]) -> list[tuple[Piece, ...]]:
    """Word by word where the lines have enough in common, else all old ones, then all new ones."""
    one, other = _WORDS.findall("\n".join(old)), _WORDS.findall("\n".join(new))
    if max(len(one), len(other)) <= MOST_WORDS:
        matcher = SequenceMatcher(None, one, other, autojunk=False)
        if matcher.ratio() >= ALIKE:
            return _split(_pieces(matcher, one, other))
    return [*_whole(old, "removed"), *_whole(new, "added")]


def _pieces(
    matcher: SequenceMatcher[str], old: Sequence[str], new: Sequence[str]
) -> Iterator[Piece]:
    for op, i1, i2, j1, j2 in matcher.get_opcodes():
        if op == "equal":
            yield Piece("same", "".join(new[j1:j2]))
            continue
        if i2 > i1:
            yield Piece("removed", "".join(old[i1:i2]))
        if j2 > j1:
            yield Piece("added", "".join(new[j1:j2]))


def _split(pieces: Iterator[Piece]) -> list[tuple[Piece, ...]]:
    """Pieces cut at line ends."""
    lines: list[list[Piece]] = [[]]
    for piece in pieces:
        for number, part in enumerate(piece.text.split("\n")):
            if number:
                lines.append([])
            if part:
                lines[-1].append(Piece(piece.op, part))
    return [tuple(line) for line in lines]
