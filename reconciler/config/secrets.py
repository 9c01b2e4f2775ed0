"""Which texts look like a credential that was pasted where a reference belongs.

Forms with a marker of their own, as published by those who issue them, are found anywhere. A
credential without one is found only where a name says what it is (`password: …`, `api_key = …`)
and the text is no words: a rule that guesses from randomness alone would refuse digests. False
alarms cost a person a minute, a committed key costs more.
"""

from __future__ import annotations

import re

from gateway.credentials import KINDS
from reconciler.findings import Finding, Severity

_ANY = re.compile("|".join(f"(?P<k{i}>{pattern})" for i, (_, pattern) in enumerate(KINDS)))
_MARKS = (
    *("sk-", "ghp_", "gho_", "ghs_", "ghu_", "ghr_", "github_pat_", "AKIA", "ASIA", "AIza"),
    *("glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glsoat-", "glagent-", "glimt-"),
    *("glffct-", "gloas-", "GR1348941", "GOCSPX-", "AccountKey=", "xox", "xapp-", "slack.com"),
    *("sk_", "rk_", "whsec_", "npm_", "pypi-", "hf_", "api_org_", "dckr_", "dapi", "_v1_"),
    *("gsk_", "xai-", "pplx-", "r8_", "lin_", "ntn_", "SG.", "gls", "hvs.", "hvb.", "AGE-", "ilk_"),
    *("eyJ", "-----BEGIN"),
)
"""What a text must hold for any pattern to match: looking for these first is far cheaper."""
_SHARED = ("gl", "_", "A", "s", "x", "")


def _grouped() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The marks by something short that all of a group hold: most texts lack most of those."""
    left, groups = list(_MARKS), []
    for needed in _SHARED:
        groups.append((needed, tuple(mark for mark in left if needed in mark)))
        left = [mark for mark in left if needed not in mark]
    return tuple(groups)


_GROUPS = _grouped()
_NAMES = ("key", "token", "passw", "secret", "credential")

_NAMED = re.compile(
    r"(?i:key|token|passw(?:or)?d|secret|credential)s?[\"']?[ \t]{0,3}[:=][ \t]{0,3}[\"']?"
    r"(?P<value>[A-Za-z0-9+/_.~=-]{20,200})"
)
_ASSIGNED = re.compile(r"(?:key|token|passw(?:or)?d|secret|credential)s?[\"']?[ \t]{0,3}[:=]")
"""The beginning of `_NAMED` in small letters: without folding of cases a search is far faster."""
_PIECE = re.compile(r"[A-Za-z0-9+/]{16,}")
_SWITCH = re.compile(r"(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")
SWITCHES = 3
"""Words hardly ever change between letters and digits this often; random text of 16 characters
nearly always does."""


def secret_kind(text: str) -> str | None:
    """What kind of credential the text holds, in words; None when it looks like none."""
    match = _ANY.search(text) if len(text) >= 15 and _marked(text) else None
    if match is None or match.lastgroup is None:
        return None
    return KINDS[int(match.lastgroup[1:])][0]


def _marked(text: str) -> bool:
    for needed, marks in _GROUPS:
        if needed in text:
            for mark in marks:
                if mark in text:
                    return True
    return False


def secret_offset(text: str) -> tuple[int, str] | None:
    """(offset, kind) of the first credential in a longer text; None when there is none."""
    match = _ANY.search(text) if _marked(text) else None
    if match is None or match.lastgroup is None:
        return named_secret(text)
    return match.start(), KINDS[int(match.lastgroup[1:])][0]


def secret_finding(path: str, text: str) -> Finding | None:
    """The first credential in a file, where it stands; None when there is none."""
    found = secret_offset(text)
    if found is None:
        return None
    line = text.count("\n", 0, found[0]) + 1
    column = found[0] - text.rfind("\n", 0, found[0])
    message = f"this looks like {found[1]}"
    fix = "never commit a key: revoke it and remove it"
    return Finding("secret", Severity.ERROR, path, line, column, message, fix)


def named_secret(text: str) -> tuple[int, str] | None:
    """(offset, kind) of the first random text that stands after a name such as `api_key:`."""
    small = text.lower()
    if not any(name in small for name in _NAMES) or not _ASSIGNED.search(small):
        return None
    for match in _NAMED.finditer(text):
        for piece in _PIECE.finditer(match["value"]):
            if len(_SWITCH.findall(piece.group())) >= SWITCHES:
                return match.start("value"), "a credential"
    return None
