"""Checking a text while it streams: what cannot belong to a match any more is released.

Each rule is a stage that takes text and gives on what it has decided about, so that a row of them
does to a stream what the rules do to the whole text, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.guardrails.scan import WINDOW, Search, replaced, scan
from gateway.guardrails.verdict import Book, CheckError
from gateway.policy.rules import Guardrail

HELD = 65_536
"""Characters that may be held back for one match that has begun and does not end."""


class Stage:
    """One rule over a stream. Holds back from the first character that may begin a match."""

    def __init__(self, rule: Guardrail, searches: Sequence[Search], book: Book) -> None:
        self._rule = rule
        self._searches = searches
        self._book = book
        self._text = ""
        self._at = 0  # what is before this in `_text` was released, and is kept for look-behind
        self._due = 0  # the length at which looking again is worth it
        self._off = False

    def feed(self, text: str, *, last: bool = False) -> str:
        """What may go on now. Raises Refused."""
        if self._off:
            return text
        self._text += text
        if not last and len(self._text) < self._due:
            return ""
        try:
            spans, decided = scan(self._searches, self._text, self._at, whole=last)
            if len(self._text) - decided > HELD:
                raise CheckError(f"what may be a match is longer than {HELD:,} characters")
        except CheckError as error:
            self._book.fails(self._rule, error)
            self._off = True
            return self._text[self._at :]
        if not self._book.changes(self._rule, (span.what for span in spans)):
            spans = []
        out = replaced(self._text, spans, self._at, decided)
        kept = max(0, decided - WINDOW)
        self._text, self._at = self._text[kept:], decided - kept
        # A long match that is still open is not looked through again for every few characters.
        held = len(self._text) - self._at
        self._due = len(self._text) + (held // 8 if held > WINDOW else 0)
        return out
