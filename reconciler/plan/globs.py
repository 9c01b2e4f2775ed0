"""Which of two sets of globs allows more: decided only where it is sure, else it counts as more.

Whether one glob covers another cannot be decided cheaply in general. Here `covers` is true only
when that is certain, so an uncertain case is shown and asked about, never waved through.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

WILD = "*?["


def covers(wide: str, narrow: str) -> bool:
    """Whether every text that `narrow` matches is surely matched by `wide` too."""
    if wide in (narrow, "*"):
        return True
    if not any(special in narrow for special in WILD):
        return fnmatchcase(narrow, wide)
    prefix = wide.removesuffix("*")
    plain = wide.endswith("*") and not any(special in prefix for special in WILD)
    return plain and narrow.startswith(prefix)


def newly_allowed(before: Iterable[str] | None, after: Sequence[str] | None) -> tuple[str, ...]:
    """Patterns of `after` that nothing of `before` covers; None allows everything.

    `("*",)` when a restriction was lifted altogether.
    """
    if before is None:
        return ()
    if after is None:
        return ("*",)
    known = tuple(before)
    return tuple(sorted({p for p in after if not any(covers(old, p) for old in known)}))


def no_longer_allowed(before: Sequence[str] | None, after: Iterable[str] | None) -> tuple[str, ...]:
    """Patterns of `before` that nothing of `after` covers: what a change takes away."""
    return newly_allowed(after, before)
