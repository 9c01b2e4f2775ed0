"""Whether two globs can mean the same thing: what a collision of claims is decided by, everywhere.

Both patterns become small automata, and the question is whether some text leads through both. So
the answer is exact, and costs at most pattern times pattern: no text is ever tried. `*` and `?`
stay within a segment, `**` does not. `docs/` and `docs/**` are a folder and all that is in it;
plain `docs` may be a folder too, and is one as soon as the other pattern says `docs/…`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

SPECIAL = "*?["
LONGEST = 256
"""Letters of a pattern; a longer one is compared by its literal beginning only: it may overlap."""

MOST_STEPS = 2_000_000
"""Steps of comparing at most, for all claims together: a few seconds. Only globs without a literal
beginning get anywhere near."""

NO_SLASH = "?"
ANY = "*"


@dataclass(frozen=True, slots=True)
class _Automaton:
    """State → states reached by nothing, and by a letter (or NO_SLASH, ANY)."""

    free: tuple[tuple[int, ...], ...]
    moves: tuple[tuple[tuple[str, bool, int], ...], ...]
    """(letter or class, whether it is a class, next state)."""
    accepting: frozenset[int]


@dataclass(slots=True)
class Meter:
    """What comparing costs, counted down: one for a pair, and one for each pair of states looked
    at. Below zero it is time to stop; a comparison that has begun is ended."""

    left: int

    @property
    def ended(self) -> bool:
        """Whether no more should be compared."""
        return self.left < 0


@lru_cache(maxsize=65_536)
def literal_prefix(pattern: str) -> str:
    """What every text that the pattern matches begins with: the folder, or the whole."""
    for at, letter in enumerate(pattern):
        if letter in SPECIAL:
            return pattern[:at].rpartition("/")[0] if "/" in pattern[:at] else ""
    return pattern.strip("/")


def is_glob(pattern: str) -> bool:
    """Whether it stands for more than itself."""
    return any(letter in SPECIAL for letter in pattern)


def can_meet(one: str, other: str, *, meter: Meter | None = None) -> bool:
    """Whether some text matches both, or one names a folder that the other reaches into."""
    meter = meter or Meter(MOST_STEPS)
    meter.left -= 1
    if one == other:
        return True
    a, b = (f"{prefix}/" if (prefix := literal_prefix(p)) else "" for p in (one, other))
    if not (a.startswith(b) or b.startswith(a)):
        return False
    if max(len(one), len(other)) > LONGEST:
        return True
    if _common(_automaton(one), _automaton(other), meter):
        return True
    return _reaches_into(one, other, meter) or _reaches_into(other, one, meter)


def _reaches_into(pattern: str, folder: str, meter: Meter) -> bool:
    """Whether `folder` matches a folder that `pattern` names in so many letters."""
    parts = literal_prefix(pattern).split("/")
    whole = len(parts) if is_glob(pattern) else len(parts) - 1
    return any(
        _common(_automaton("/".join(parts[:depth])), _automaton(folder), meter)
        for depth in range(1, whole + 1)
        if parts[0]
    )


def _common(one: _Automaton, other: _Automaton, meter: Meter) -> bool:
    seen = {(0, 0)}
    left = [(0, 0)]
    while left:
        a, b = left.pop()
        meter.left -= 1
        if a in one.accepting and b in other.accepting:
            return True
        following = [(state, b) for state in one.free[a]] + [(a, state) for state in other.free[b]]
        following += [
            (next_a, next_b)
            for letter, class_a, next_a in one.moves[a]
            for there, class_b, next_b in other.moves[b]
            if _agree(letter, class_a, there, class_b)
        ]
        for pair in following:
            if pair not in seen:
                seen.add(pair)
                left.append(pair)
    return False


def _agree(one: str, one_class: bool, other: str, other_class: bool) -> bool:
    """Whether one letter can be both."""
    if one_class and other_class:
        return True
    if one_class:
        return one == ANY or other != "/"
    if other_class:
        return other == ANY or one != "/"
    return one == other


@lru_cache(maxsize=16_384)
def _automaton(pattern: str) -> _Automaton:
    text = pattern.lstrip("/")
    folder = text.endswith(("/", "/**"))
    while text.endswith(("/", "/**")):
        text = text.removesuffix("/**").rstrip("/")
    free: list[list[int]] = [[]]
    moves: list[list[tuple[str, bool, int]]] = [[]]

    def state() -> int:
        free.append([])
        moves.append([])
        return len(free) - 1

    here = at = 0
    while at < len(text):
        if text.startswith("**", at):
            at += len(text[at:]) - len(text[at:].lstrip("*"))
            inside = state()
            free[here].append(inside)
            moves[inside].append((ANY, True, inside))
            following = state()
            if text.startswith("/", at):  # `**/x` is `x` as well, and `a/b/x`
                at += 1
                free[here].append(following)
                moves[inside].append(("/", False, following))
            else:
                free[inside].append(following)
            here = following
            continue
        letter = text[at]
        close = text.find("]", at + 2) if letter == "[" else -1
        if letter == "*":
            moves[here].append((NO_SLASH, True, here))
            following = state()
            free[here].append(following)
        elif letter == "?" or close > 0:
            following = state()
            moves[here].append((NO_SLASH, True, following))
        else:
            following = state()
            moves[here].append((letter, False, following))
        at = close + 1 if close > 0 else at + 1
        here = following
    accepting = {here}
    if folder:
        below = state()
        moves[here].append(("/", False, below))
        moves[below].append((ANY, True, below))
        accepting.add(below)
    return _Automaton(tuple(map(tuple, free)), tuple(map(tuple, moves)), frozenset(accepting))
