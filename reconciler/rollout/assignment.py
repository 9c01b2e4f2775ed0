"""Which release a due occurrence gets. Pure: the one place that may say "candidate".

Invariants 1 and 2 of the design live here: no release without a promoted rollout or an open
canary that assigned it, and never one that is quarantined.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from gateway.values import ReleaseDigest
from reconciler.rollout.model import Hold


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where an agent's assignments may go."""

    stable: ReleaseDigest | None
    candidate: ReleaseDigest | None = None
    rollout: str | None = None
    count: int = 0
    """How many runs the open canary may have in all."""
    assigned: int = 0
    """How many it has had."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """A release, and the rollout whose canary gave it (None: stable)."""

    release: ReleaseDigest
    rollout: str | None


@dataclass(frozen=True, slots=True)
class Unassigned:
    """Why the occurrence gets nothing now."""

    reason: str


def assign(
    pointer: Pointer | None, *, quarantined: Collection[str], hold: Hold | None
) -> Assigned | Unassigned:
    """The release for the next occurrence: the canary's turn first, else stable.

    Deny beats allow: a hold on assignment, or a quarantined digest, wins over everything.
    """
    if hold is not None:
        return Unassigned(f"held by {hold.actor}: {hold.reason}")
    if pointer is None:
        return Unassigned("no release has been promoted yet")
    canary_open = pointer.candidate is not None and pointer.assigned < pointer.count
    if canary_open and pointer.candidate and pointer.candidate not in quarantined:
        return Assigned(pointer.candidate, pointer.rollout)
    if pointer.stable is None:
        return Unassigned("no release has been promoted yet")
    if pointer.stable in quarantined:
        return Unassigned(f"stable {pointer.stable} is quarantined; roll back to another release")
    return Assigned(pointer.stable, None)
