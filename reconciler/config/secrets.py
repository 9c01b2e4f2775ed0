"""Which texts look like a credential that was pasted where a reference belongs.

Only forms with a marker of their own, as published by those who issue them: a rule that guesses
from entropy would refuse digests. False alarms cost a person a minute, a committed key costs more.
"""

from __future__ import annotations

import re

# Each pattern takes time linear in the text: what is scanned may have been written to hang us.
_KINDS = (
    ("an Anthropic key", r"sk-ant-[A-Za-z0-9_-]{16,}"),
    ("an OpenAI key", r"\bsk-(?:proj-|svcacct-)?[A-Za-z0-9_-]{20,}"),
    ("a GitHub token", r"\b(?:gh[opsur]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})"),
    ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("an AWS access key", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    ("a Google API key", r"\bAIza[A-Za-z0-9_-]{35}"),
    ("a Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    (
        "a JSON web token",
        r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+",
    ),
    ("a private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
)
_ANY = re.compile("|".join(f"(?P<k{i}>{pattern})" for i, (_, pattern) in enumerate(_KINDS)))


def secret_kind(text: str) -> str | None:
    """What kind of credential the text holds, in words; None when it looks like none."""
    match = _ANY.search(text) if len(text) >= 15 else None
    if match is None or match.lastgroup is None:
        return None
    return _KINDS[int(match.lastgroup[1:])][0]


def secret_offset(text: str) -> tuple[int, str] | None:
    """(offset, kind) of the first credential in a longer text; None when there is none."""
    match = _ANY.search(text)
    if match is None or match.lastgroup is None:
        return None
    return match.start(), _KINDS[int(match.lastgroup[1:])][0]
