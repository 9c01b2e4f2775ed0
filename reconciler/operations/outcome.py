"""What an operation answers: what it did, or why it makes no sense now. Nothing else.

By itself, since every face and every operation needs these two, and most need nothing heavier.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Done", "Refused"]


class Refused(Exception):
    """The operation makes no sense now; the text says why and what would. Exit code 1."""


@dataclass(frozen=True, slots=True)
class Done:
    """What an operation did, in one sentence, with the ids it touched."""

    text: str
    subject: str
