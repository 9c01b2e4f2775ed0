"""What a provider's answer is to the door: bytes for the client, and an end that says what it was.

Whether the provider speaks the client's dialect or is translated makes no difference from here on.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.pricing import Usage


@dataclass(frozen=True, slots=True)
class Piece:
    """More of a stream, in the client's dialect."""

    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The whole answer is there.

    `body` is the response of a client that does not stream, `tail` what is still to be sent to one
    that does. `usage` is None when the provider did not say. `stored` is the answer as the ledger
    keeps it, JSON (docs/formats/calls.md).
    """

    usage: Usage | None
    stored: str
    body: bytes = b""
    tail: bytes = b""
