"""Secrets leave a text before anybody else may read it: a journal, a log line, a span.

Two sources: values that this process knows to be secret (run tokens, provider keys), and the shapes
of keys that providers and forges issue. `KEYS` is narrow on purpose: the loop works on what is
journaled, so a false alarm would change what the agent reads. `SUSPECTS` is for what only people
read: whatever looks like a credential goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

REDACTED: Final = "[redacted]"
SHORTEST: Final = 8
"""Characters. Shorter values are not learned: they would blank ordinary text."""

_KEY_SHAPES = (
    r"\bilk_[A-Za-z0-9_-]{40,}",  # run tokens, of earlier leases too
    r"\bsk-(?:ant-|proj-|svcacct-)?[A-Za-z0-9_-]{20,}",  # OpenAI, Anthropic
    r"\bgh[pousr]_[A-Za-z0-9]{36,}",  # GitHub
    r"\bgithub_pat_[A-Za-z0-9_]{22,}",
    r"\bglpat-[A-Za-z0-9_-]{20,}",  # GitLab
    r"\bxox[abprs]-[A-Za-z0-9-]{10,}",  # Slack
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",  # AWS access key id
    r"\bAIza[0-9A-Za-z_-]{35}\b",  # Google
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
)
KEYS: Final = re.compile("|".join(_KEY_SHAPES))
SUSPECTS: Final = re.compile(
    "|".join(
        (
            *_KEY_SHAPES,
            r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",  # JSON Web Tokens
            r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)",  # user and password of an address
            r"(?i:\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}",
            r"(?i:\b(?:api[_-]?key|token|secret|password|authorization)[\"']?\s*[:=]\s*[\"']?)"
            r"(?i:(?:bearer|basic)\s+)?[^\s\"',;&]{4,}",
            # Long, with both cases and a digit: a random string. Our digests are lower-case hex.
            r"(?<![A-Za-z0-9_+=-])(?=[a-z0-9_+=-]*[A-Z])(?=[A-Z0-9_+=-]*[a-z])"
            r"(?=[A-Za-z_+=-]*\d)[A-Za-z0-9_+=-]{32,}",
        )
    )
)


class Redactor:
    """Replaces known secret values and key shapes by `[redacted]`."""

    def __init__(self, values: Iterable[str] = (), shapes: re.Pattern[str] = KEYS) -> None:
        self._shapes = shapes
        self._known: frozenset[str] = frozenset()
        self._values: tuple[str, ...] = ()
        self.learn(values)

    def learn(self, values: Iterable[str]) -> None:
        """Know these values as secrets from now on. Costs little for values that are known."""
        new = {value for value in values if len(value) >= SHORTEST and value not in self._known}
        if new:
            self._known |= new
            # Longest first, so that a secret that contains another goes as a whole.
            self._values = tuple(sorted(self._known, key=lambda value: (-len(value), value)))

    def text(self, text: str) -> str:
        """The text without secrets."""
        for value in self._values:
            if value in text:
                text = text.replace(value, REDACTED)
        # No shape is shorter than that.
        return self._shapes.sub(REDACTED, text) if len(text) >= SHORTEST else text

    def json(self, value: Any) -> Any:
        """A JSON value with every string in it (keys too) redacted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self.json(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.json(item) for item in value]
        return value
