"""Credentials in a text: by the marks of their issuers, or by a name that says what they are.

Nothing is guessed from randomness alone: digests, UUIDs and commit ids are random too. Names are a
narrower list than in `reconciler.config.secrets`, because logs are full of `cache key: 9f86d0…`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import regex

from gateway.credentials import KINDS
from gateway.guardrails.scan import Pattern, Span

MASK: Final = "[secret]"

_KEY = r"PRIVATE KEY(?: BLOCK)?-----"
_BODY = r"[\s\S]*?(?:-----END [A-Z0-9 ]{0,40}" + _KEY + r"|\Z)"
_BEHIND = "(?<![A-Za-z0-9_-])"
_LOGIN = r"://[^\s:/@\"'<>]{0,64}:(?P<login>[^\s:/@\"'<>]{3,128})@"
_BEARER = r"(?i:authorization)[\"']?: ?[\"']?(?i:bearer|basic) (?P<bearer>[A-Za-z0-9+/_.~=-]{16,})"
_NAME = (
    r"(?i:passw(?:or)?d|secret|api[_-]?key|access[_-]?key|secret[_-]?key|auth[_-]?token"
    r"|access[_-]?token|refresh[_-]?token|client[_-]?secret)[\"']?[ \t]{0,3}[:=][ \t]{0,3}[\"']?"
)
_NAMED = _NAME + r"(?P<named>[A-Za-z0-9+/_.~=-]{16,200})"
_MORE: Final = (
    ("a password in an address", _LOGIN),
    ("an authorization header", _BEARER),
    ("a credential", _NAMED),
)
_EVERY: Final = (*KINDS, *_MORE)

# ASCII: a token that stands next to a letter of another script is one all the same.
_SOURCE = "(?a)" + "|".join(
    f"(?P<k{number}>{pattern}{_BODY if what == 'a private key' else ''})"
    for number, (what, pattern) in enumerate(_EVERY)
)
_QUICK = "|".join(
    # The header of a JSON web token may be longer than what is looked at in one piece.
    r"eyJ[A-Za-z0-9_-]{10}" if what == "a JSON web token" else pattern.replace(_BEHIND, "")
    for what, pattern in _EVERY
)
_PIECE = regex.compile(r"[A-Za-z0-9+/]{16,}")
_SWITCH = regex.compile(r"(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")
_SWITCHES = 3  # words hardly ever change between letters and digits as often as random text
_STAND_INS = regex.compile(r"(?i)[x*.]+|\$?\{.*|<.*|%.*|\$.*|\[.*|pass(?:word)?|secret|redacted")


def secrets(allow: Sequence[str] = ()) -> Pattern:
    """A search for credentials. `allow`: those that one of these patterns matches whole may pass.

    Raises regex.error for a pattern that is none.
    """
    passes = [regex.compile(pattern) for pattern in allow]

    def take(match: regex.Match[str]) -> Span | None:
        for group in ("login", "bearer", "named"):
            if match[group] is not None:
                break
        else:
            group = next(f"k{n}" for n in range(len(KINDS)) if match[f"k{n}"] is not None)
        value: str = match[group]
        if group == "login" and _STAND_INS.fullmatch(value):
            return None
        if group == "named" and not _random(value):
            return None
        if any(pattern.fullmatch(value, timeout=0.1) for pattern in passes):
            return None
        what = KINDS[int(group[1:])][0] if group[0] == "k" else _WORDS[group]
        return Span(match.start(group), match.end(group), what, MASK)

    return Pattern(_SOURCE, take, quick=_QUICK)


_WORDS = dict(zip(("login", "bearer", "named"), (what for what, _ in _MORE), strict=True))


def _random(value: str) -> bool:
    return any(len(_SWITCH.findall(m.group())) >= _SWITCHES for m in _PIECE.finditer(value))
