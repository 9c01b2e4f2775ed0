"""Finding things in a text from left to right, whether it is all there or still coming.

A search answers what it finds next: a `Span`, or `Open`, a place from which on it cannot tell yet
because more text may complete a match. A stream is released up to there and no further. What is
found is therefore the same however the text was cut into pieces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import re2
import regex

from gateway.guardrails.verdict import CheckError

WINDOW = 256
"""Characters that are held back where it cannot be told whether a match has begun, and that are
remembered of what was released, for look-behind."""

SECONDS = 0.1
"""Time that one search of a policy's pattern may take: it may explode on some texts."""

LOOK_SECONDS = 1.0
"""Time that one rule may take for one text: a text of nothing but near misses costs no more."""


PIECE = 16_384
REACH = 512


@dataclass(frozen=True, slots=True)
class Span:
    """A thing that was found, from `start` to before `end`; `replacement` for rules that mutate."""

    start: int
    end: int
    what: str
    replacement: str


@dataclass(frozen=True, slots=True)
class Open:
    """From `start` on, what comes next decides."""

    start: int


class Search(Protocol):
    """One kind of thing to look for."""

    def find(self, text: str, start: int, *, whole: bool, until: float) -> Span | Open | None:
        """The next thing that begins at `start` or later. `whole`: no more text will come.

        Raises CheckError, also when it is later than `until` (`perf_counter`).
        """


def scan(
    searches: Sequence[Search], text: str, start: int, *, whole: bool
) -> tuple[list[Span], int]:
    """Spans from `start` on that do not overlap (the leftmost wins, then the earlier search), and
    up to where the text is decided: `len(text)` when it is whole. Raises CheckError.
    """
    spans: list[Span] = []
    at = start
    # The time is that of the work itself: nothing is decided by when it is done.
    until = perf_counter() + LOOK_SECONDS
    ahead = [search.find(text, at, whole=whole, until=until) for search in searches]
    while True:
        first = min((a for a in ahead if a is not None), key=lambda a: a.start, default=None)
        if first is None:
            return spans, len(text)
        if isinstance(first, Open):
            return spans, max(at, first.start)
        spans.append(first)
        at = first.end
        for index, found in enumerate(ahead):
            if found is not None and found.start < at:
                ahead[index] = searches[index].find(text, at, whole=whole, until=until)


def replaced(text: str, spans: Sequence[Span], start: int = 0, end: int | None = None) -> str:
    """The text from `start` to `end` with each span replaced."""
    pieces: list[str] = []
    at = start
    for span in spans:
        pieces += (text[at : span.start], span.replacement)
        at = span.end
    return "".join((*pieces, text[at:end]))


Take = Callable[["regex.Match[str]"], Span | None]
"""What a match is worth: None when a closer look says that it is nothing."""


class Pattern:
    """A search by a regular expression.

    `quick` is a pattern for RE2 that begins to match wherever `source` does, within `REACH`
    characters: RE2 passes over texts that hold nothing many times faster. `timed` limits the time
    of a search; the patterns of this package are linear.
    """

    def __init__(
        self, source: str, take: Take, *, quick: str | None = None, timed: bool = False
    ) -> None:
        self._exact = regex.compile(source)
        self._opening, self._window = _opening(source)
        self._quick = re2.compile(quick) if quick is not None else None
        self._take = take
        self._timeout = SECONDS if timed else None

    def find(self, text: str, start: int, *, whole: bool, until: float) -> Span | Open | None:
        """See `Search`."""
        try:
            open_at = len(text) + 1 if whole else self._open(text, start)
            at = start
            while (match := self._next(text, at, until)) is not None and match.start() < open_at:
                # `$` also matches before a line end that is the last character, so far.
                if not whole and match.end() >= len(text) - 1:
                    return Open(match.start())
                span = self._take(match) if match.end() > match.start() else None
                if span is not None:
                    return span
                at = match.start() + 1
                if perf_counter() > until:
                    raise CheckError(f"looking took longer than {LOOK_SECONDS:g} s")
        except TimeoutError:
            raise CheckError(f"its pattern took longer than {SECONDS} s") from None
        return Open(open_at) if open_at < len(text) else None

    def _next(self, text: str, at: int, until: float) -> regex.Match[str] | None:
        if self._quick is None:
            # Behind its end a text would be searched at its end, again and again.
            return self._exact.search(text, at, timeout=self._timeout) if at < len(text) else None
        size = REACH
        while at < len(text):
            # In pieces, ever larger ones: RE2 encodes all it is given, at every search.
            low = max(0, at - 1)
            piece = text[low : at + size + REACH]
            hit = self._quick.search(piece if piece.isascii() else _LONE.sub("?", piece), at - low)
            if hit is None:
                at += size
                size = min(2 * size, PIECE)
                continue
            if perf_counter() > until:
                raise CheckError(f"looking took longer than {LOOK_SECONDS:g} s")
            match = self._exact.match(text, low + hit.start())
            if match is not None:
                return match
            at = low + hit.start() + 1
        return None

    def _open(self, text: str, start: int) -> int:
        match = self._opening.search(text, start, partial=True, timeout=self._timeout)
        first = len(text) if match is None else match.start()
        return max(start, min(first, len(text) - self._window))


_LONE = re.compile("[\ud800-\udfff]")
"""Halves of surrogate pairs: JSON may spell them, UTF-8, and so RE2, cannot."""

_EDGES = regex.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]")
_NEVER = r"[^\x00-\U0010ffff]"


def _opening(source: str) -> tuple[regex.Pattern[str], int]:
    """A pattern whose partial matches begin where one of `source` may, and how much more to hold.

    What can never match follows the pattern, so that every way to match runs on until it fails or
    comes to the end of the text; then the match is a partial one. Word boundaries are left out:
    at the end of a text they cannot be told, and without them only more can match. A pattern that
    makes no sense without them has everything held back by a window.
    """
    lax = _EDGES.sub(lambda m: "" if m[0] in (r"\b", r"\B") else m[0], source)
    try:
        return regex.compile(f"(?:{lax}){_NEVER}"), 0
    except regex.error:
        return regex.compile(_NEVER), WINDOW
