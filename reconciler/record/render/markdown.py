"""Texts that an agent, a tool or a stranger wrote, put into Markdown so that they stay texts.

A report is read on a forge that renders Markdown, HTML, links, mentions and formulas. Whatever a
template prints is escaped unless it is `Safe`, so that forgetting to escape is not possible; the
only makers of `Safe` are in this file.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.values import show_usd
from reconciler.record import calendar
from runner.redact import Redactor

INLINE = 160
"""Characters of a text inside a line; more is cut, with an ellipsis."""
BLOCK = 8_000
"""Characters of a text in a block; more is cut, with a note."""

NBSP = "\u00a0"
"""Keeps a moment or a duration on one line of a table's cell."""

_MARKUP = re.compile(r"([\\`*_{}\[\]|~#!$@])")
_LINK = re.compile(r"(?i)\b(https?|ftp|www|mailto)(?=[:.])")
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# Control characters, and those that change the direction or hide: they show another text than
# the one that is there (CVE-2021-42574). Line feeds and tabs stay.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


_REDACT = Redactor()


class Safe(str):
    """Markdown that was made here and is printed as it is."""

    __slots__ = ()


def finish(value: Any) -> str:
    """What a template prints for a value (jinja2's `finalize`)."""
    if isinstance(value, Safe):
        return value
    return "" if value is None else inline(value)


def inline(value: object, limit: int = INLINE) -> Safe:
    """A text within a line: one line, no markup, no link, no mention."""
    text = " ".join(visible(str(value)).split())
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    # A word joiner between scheme and colon would be invisible too; an entity ends the autolink.
    text = _MARKUP.sub(r"\\\1", text).translate(_HTML)
    return Safe(_LINK.sub(r"\1&#8203;", text))


def code(value: object, limit: int = INLINE) -> Safe:
    """An identity in code style. Backticks in it are answered with more backticks."""
    text = " ".join(visible(str(value)).split())
    if not text:
        return Safe("")
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    fence = "`" * (_longest(text) + 1)
    pad = " " if text[0] == "`" or text[-1] == "`" else ""
    # In a table a bar ends the cell even within code.
    return Safe(f"{fence}{pad}{text}{pad}{fence}".replace("|", "\\|"))


def block(value: object, language: str = "", limit: int = BLOCK) -> Safe:
    """A text of many lines in a fence that it cannot close."""
    text = visible(str(value).replace("\r\n", "\n")).rstrip("\n")
    if len(text) > limit:
        left = len(text) - limit
        text = f"{text[:limit]}\n… {left} more characters are in the JSON beside this page"
    fence = "`" * max(3, _longest(text) + 1)
    return Safe(f"{fence}{language}\n{text}\n{fence}")


def visible(text: str) -> str:
    """Control and direction characters as `\\u….`: nothing hides. Keys are blanked, also in texts
    that never went through the journal (a run's input)."""
    text = _REDACT.text(text)
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\r", "\n"))


def usd(amount: int | None) -> Safe:
    """Money."""
    return Safe("–" if amount is None else show_usd(amount))


def when(at: int | None) -> Safe:
    """A moment to the minute: `2026-11-21 05:00Z`, or a dash. The JSON has milliseconds."""
    return Safe("–" if at is None else f"{calendar.iso(at)[:16].replace('T', NBSP)}Z")


def took(ms: int | None) -> Safe:
    """A duration."""
    return Safe(calendar.span(ms).replace(" ", NBSP) or "–")


def number(value: int) -> Safe:
    """`12,345`."""
    return Safe(f"{value:,}")


def plural(count: int, one: str, many: str | None = None) -> Safe:
    """`1 run`, `2 runs`."""
    return Safe(f"{count:,} {one if count == 1 else many or one + 's'}")


def link(text: str, path: str) -> Safe:
    """A link to a file of the record. `path` is made of our own identities."""
    if not re.fullmatch(r"[A-Za-z0-9_./-]+", path):
        return code(text)
    return Safe(f"[{code(text)}]({path})")


def plain(text: object) -> Safe:
    """A name of our own that needs no escaping (an agent, a run, a label); another is escaped."""
    if re.fullmatch(r"[A-Za-z0-9_./-]+", str(text)) and ".." not in str(text):
        return Safe(str(text))
    return inline(text)


def _longest(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
