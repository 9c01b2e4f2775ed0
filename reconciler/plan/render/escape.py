"""Texts from a repository, put into a comment so that they stay texts.

A comment is rendered by a forge: Markdown, HTML, links, mentions, references to issues. A plan's
sentences carry values between backticks (`phrases.tick`); those become code spans, in which
nothing is rendered, and everything else is escaped.
"""

from __future__ import annotations

import re

from reconciler.findings import printable

_MARKUP = re.compile(r"([\\`*_{}\[\]|~!$])")
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# A backslash does not stop a mention or a reference: forges look at the rendered text. An
# invisible space after the sign does.
_SIGN = re.compile(r"([@#])(?=\w)")
_LINK = re.compile(r"(?i)\b(https?|ftp|www|mailto)(?=[:.])")
# Characters that hide or change direction show another text than the one that is there
# (CVE-2021-42574). Line feeds and tabs stay.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufe00-\ufe0e\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)


def sentence(text: str) -> str:
    """One of the plan's sentences as Markdown on one line."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a value without its end: nothing of it is trusted
        return words(text)
    return "".join(code(part) if odd % 2 else words(part) for odd, part in enumerate(parts))


def words(text: str) -> str:
    """Text without markup, links or mentions, on one line."""
    escaped = _MARKUP.sub(r"\\\1", " ".join(visible(text).split(" "))).translate(_HTML)
    escaped = _LINK.sub(r"\1&#8203;", escaped.replace("\n", " "))
    return _SIGN.sub(r"\1&#8203;", escaped)


def code(value: str) -> str:
    """A code span. In a table a bar ends the cell even within code."""
    shown = printable(visible(value)).replace("`", "ˋ").replace("|", "\\|")
    if not shown:
        return ""
    return f"`{shown}`" if shown.strip() else f"`{len(shown)} spaces`"


def html(text: str) -> str:
    """Text within `<pre>`: no tag, no entity, no mention, and no line that ends it."""
    return visible(text).translate(_HTML).replace("@", "&#64;").replace("\n", " ")


def visible(text: str) -> str:
    """What hides is shown as an escape."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
