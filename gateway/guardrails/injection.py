"""Markers of prompt injection: sentences that tell a model to forget what it was told.

A list of phrases stops what is copied from a list of attacks, not an attacker who knows it; labels
and approvals are the defence, this is a net in front of it. A text is read as a model would: case,
accents, look-alike forms, invisible characters and what stands between words do not hide a marker.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Final

import re2

from gateway.guardrails.scan import Open, Pattern, Search, Span

_GAP = r"[\W_]{1,40}"
_SAID = r"(?:all|any|every|the|my|of|these|those|other|system|safety)"
_BEFORE = r"(?:your|above|previous|prior|earlier|preceding|former|foregoing)"
_ORDERS = r"(?:instructions?|directions?|rules|guidelines|prompts?|commands?|messages?|context)"

BUILT_IN: Final = (
    # A word about what was said before is needed: "ignore all rules" is said of linters too.
    rf"(?:ignore|disregard|forget|override|bypass)(?:{_GAP}{_SAID}){{0,3}}{_GAP}{_BEFORE}"
    rf"(?:{_GAP}{_SAID}){{0,2}}{_GAP}{_ORDERS}",
    rf"(?:ignore|disregard|forget){_GAP}(?:all|any)(?:{_GAP}(?:of|the|other)){{0,2}}"
    rf"{_GAP}(?:instructions|prompts)",
    rf"(?:ignore|disregard|forget){_GAP}(?:everything|anything|all|what){_GAP}"
    rf"(?:above|before|previously|you{_GAP}(?:were|have{_GAP}been){_GAP}told)",
    rf"do{_GAP}not{_GAP}(?:follow|obey)(?:{_GAP}{_SAID}){{0,3}}{_GAP}{_BEFORE}{_GAP}{_ORDERS}",
    rf"new{_GAP}(?:system{_GAP})?(?:instructions?|prompt){_GAP}(?:follow|override)",
    rf"you{_GAP}are{_GAP}now{_GAP}(?:in{_GAP})?(?:dan|jailbroken|unrestricted|developer{_GAP}mode)",
    rf"(?:reveal|print|repeat|show|output){_GAP}(?:me{_GAP})?(?:your|the){_GAP}"
    rf"(?:system|hidden|initial|secret){_GAP}(?:prompt|instructions?)",
    rf"do{_GAP}not{_GAP}(?:tell|inform|mention{_GAP}(?:this|it){_GAP}to){_GAP}the{_GAP}user",
    # The control tokens and frames of chat templates.
    r"<\|(?:im_start|im_end|system|user|assistant|endoftext|start_header_id|eot_id)\|>",
    r"\[/?inst\]",
    r"<</?sys>>",
)

_WHAT: Final = "a marker of prompt injection"
_HIDDEN: Final = "text in invisible characters"

_TAGS: Final = (
    r"(?<!\N{WAVING BLACK FLAG}[\U000E0020-\U000E007F]{0,8})[\U000E0020-\U000E007E]{2,}",
    r"[\x{E0020}-\x{E007E}]{2}",
)
"""Unicode's tag characters spell ASCII that nobody sees. They belong behind a black flag only."""


def markers(own: Sequence[str] = ()) -> tuple[Search, ...]:
    """Searches for the built-in markers, those given as plain text, and hidden text."""
    source, quick = _TAGS
    hidden = Pattern(source, lambda m: Span(m.start(), m.end(), _HIDDEN, ""), quick=quick)
    return Markers(own), hidden


class Markers:
    """A search for markers, in the text as a model reads it."""

    def __init__(self, own: Sequence[str] = ()) -> None:
        patterns = (*BUILT_IN, *filter(None, map(_spelled, own)))
        self._words = Pattern(
            "|".join(patterns),
            lambda match: Span(match.start(), match.end(), _WHAT, ""),
            # RE2 calls more characters \W, and would count long repetitions one by one.
            quick="|".join(patterns).replace("{1,40}", "+"),
        )

    def find(self, text: str, start: int, *, whole: bool, until: float) -> Span | Open | None:
        """See `scan.Search`."""
        read = _read(text)
        found = self._words.find(read.text, read.index(start), whole=whole, until=until)
        match found:
            case Span():
                return Span(read.raw(found.start), read.raw(found.end - 1) + 1, found.what, "")
            case Open():
                return Open(read.raw(found.start))
        return None


class _Read:
    """A text as a model reads it, and where each of its characters stands in the real one."""

    def __init__(self, text: str) -> None:
        self.real = text
        self.text = text.lower() if text.isascii() else text.translate(_FOLDED)

    @cached_property
    def _places(self) -> Sequence[int]:
        if self.real.isascii():
            return range(len(self.real))
        return [at for at, char in enumerate(self.real) for _ in _FOLDED[ord(char)]]

    def raw(self, index: int) -> int:
        return self._places[index]

    def index(self, start: int) -> int:
        return bisect_left(self._places, start) if start else 0


@lru_cache(maxsize=2)
def _read(text: str) -> _Read:
    """Remembered for the next search of the same text, which follows at once."""
    return _Read(text)


class _Folding(dict[int, str]):
    """What each character reads as, found out when it first comes up. Bounded by Unicode."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if 0xE0020 <= code <= 0xE007E:
            folded = chr(code - 0xE0000).lower()
        else:
            plain = unicodedata.normalize("NFKD", char).casefold()
            folded = "".join(
                _LOOK_ALIKES.get(c, c)
                for c in plain
                if unicodedata.category(c) not in ("Mn", "Me", "Cf")
            )
        self[code] = folded
        return folded


_LOOK_ALIKES: Final = dict(zip("аеорсухіјѕԁһӏɡαεικνορτυ", "aeopcyxijsdhlgaeiknoptu", strict=True))
"""Cyrillic and Greek letters that are drawn like Latin ones."""
_FOLDED = _Folding()


def _spelled(marker: str) -> str:
    """A marker given as plain text, as a pattern; words may be apart by anything but words."""
    words = _Read(marker).text.split()
    return _GAP.join(re2.escape(word) for word in words)
