"""Secrets leave a text before it enters the journal, and so never reach a trace or a commit.

Two sources: values that this process knows to be secret (run tokens), and the shapes of keys that
providers and forges issue. The shapes are narrow on purpose: the loop works on what is journaled,
so a false alarm would change what the agent reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

REDACTED = "[redacted]"

_SHAPES = re.compile(
    "|".join(
        (
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
    )
)


class Redactor:
    """Replaces known secret values and key shapes by `[redacted]`."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: list[str] = []
        self.learn(values)

    def learn(self, values: Iterable[str]) -> None:
        """Know these values as secrets from now on."""
        # Longest first, so that a secret that contains another goes as a whole. Very short
        # values would blank ordinary text.
        known = {*self._values, *(value for value in values if len(value) >= 8)}
        self._values = sorted(known, key=lambda value: (-len(value), value))

    def text(self, text: str) -> str:
        """The text without secrets."""
        for value in self._values:
            text = text.replace(value, REDACTED)
        return _SHAPES.sub(REDACTED, text)

    def json(self, value: Any) -> Any:
        """A JSON value with every string in it (keys too) redacted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self.json(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.json(item) for item in value]
        return value
