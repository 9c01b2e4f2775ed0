"""Who decides about a path: rules of teams.yaml and CODEOWNERS, the last match wins.

The patterns are those of a CODEOWNERS file, as GitHub documents them: gitignore's, without `!` and
without `[ ]`, and `docs/*` does not reach into folders of docs. Matching goes segment by segment
and never tries more than pattern times path: a pattern from a pull request cannot make it hang.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from gateway.values import TeamName
from reconciler.config import OwnerRule, TeamConfig

FLEET_FILE = "interlock.yaml"
"""Its owners decide where a path has none."""

DEEP = "**"


class Owners:
    """The rules, indexed by the folder they start with: one look-up, not one per rule."""

    def __init__(self, rules: Sequence[OwnerRule]) -> None:
        self._rules = tuple(rules)
        self._anywhere: list[int] = []
        self._below: dict[str, list[int]] = {}
        for number, rule in enumerate(self._rules):
            segments = _segments(rule.pattern)
            first = segments[0] if segments else DEEP
            if _is_literal(first):
                self._below.setdefault(first, []).append(number)
            else:
                self._anywhere.append(number)

    def of(self, path: str) -> tuple[str, ...]:
        """Owners by the last rule that matches; `()` when none does, or when it names nobody."""
        parts = _parts(path)
        below = self._below.get(parts[0], []) if parts else []
        for number in sorted([*self._anywhere, *below], reverse=True):
            if _match(_segments(self._rules[number].pattern), parts):
                return self._rules[number].owners
        return ()


def owners_of(rules: Sequence[OwnerRule], path: str) -> tuple[str, ...]:
    """Team names or logins of the last rule that matches; `()` if nobody owns the path.

    A rule that matches and names nobody takes the path away from earlier rules, as in CODEOWNERS.
    """
    parts = _parts(path)
    for rule in reversed(rules):
        if _match(_segments(rule.pattern), parts):
            return rule.owners
    return ()


def people_of(owners: Sequence[str], teams: Mapping[TeamName, TeamConfig]) -> frozenset[str]:
    """The logins behind owners: a team's members, or the login itself.

    `@login` and `@organisation/team` are read as CODEOWNERS means them. A team that is not
    declared has no members here: its name stays, and no person answers to it.
    """
    people: set[str] = set()
    for owner in owners:
        name = owner.removeprefix("@")
        team = teams.get(TeamName(name)) or teams.get(TeamName(name.rpartition("/")[2]))
        people |= {name} if team is None else {*team.members}
    return frozenset(people)


def deciders(
    rules: Sequence[OwnerRule], teams: Mapping[TeamName, TeamConfig], path: str
) -> tuple[str, ...]:
    """Owners of the path, else of interlock.yaml, else `()`.

    Owners who stand for no person (a team without members) are passed over: somebody has to be
    able to decide.
    """
    for asked in (path, FLEET_FILE):
        owners = owners_of(rules, asked)
        if people_of(owners, teams):
            return owners
    return ()


def matches(pattern: str, path: str) -> bool:
    """Whether a CODEOWNERS pattern covers the path of a file."""
    return _match(_segments(pattern), _parts(path))


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in ("", "."))


@lru_cache(maxsize=65_536)
def _segments(pattern: str) -> tuple[str, ...]:
    """The pattern as segments to match from the root; `()` matches nothing.

    A pattern without a slash, but for a trailing one, is meant at every level; a trailing slash
    means everything below a folder; and whatever names a folder means its content, except a
    last segment that is only `*`.
    """
    segments = pattern.strip().split("/")
    if segments == [""] or segments == ["", ""]:
        return ()
    if segments[0] == "":
        segments = segments[1:]
    elif len(segments) == 1 or (len(segments) == 2 and segments[1] == ""):
        segments = [DEEP, *segments]
    if segments[-1] == "":
        segments[-1] = DEEP
    elif segments[-1] not in (DEEP, "*"):
        return (*_once(segments), "")
    return _once(segments)


def _once(segments: Sequence[str]) -> tuple[str, ...]:
    """Two `**` in a row mean what one means."""
    kept: list[str] = []
    for segment in segments:
        if not (segment == DEEP and kept and kept[-1] == DEEP):
            kept.append(segment)
    return tuple(kept)


def _match(segments: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Greedy with one point of return, as for text: `**` is to segments what `*` is to letters.

    A final `**` needs something below; a final `""` is satisfied by anything below, or nothing.
    """
    if not segments or not parts:
        return False
    open_ended = segments[-1] == ""
    body = segments[:-1] if open_ended else segments
    below = not open_ended and body[-1] == DEEP
    at = here = 0
    back: tuple[int, int] | None = None
    while True:
        if at == len(body) and (open_ended or here == len(parts)):
            return True
        if at < len(body) and body[at] == DEEP:
            if below and at == len(body) - 1:
                if here < len(parts):
                    return True
            else:
                back = (at + 1, here)
                at += 1
                continue
        elif at < len(body) and here < len(parts) and _covers(body[at], parts[here]):
            at, here = at + 1, here + 1
            continue
        if back is None or back[1] >= len(parts):
            return False
        back = (back[0], back[1] + 1)
        at, here = back


def _is_literal(segment: str) -> bool:
    return bool(segment) and not any(special in segment for special in "*?\\")


def _covers(pattern: str, text: str) -> bool:
    """One segment: `*` any letters, `?` one, a backslash takes the next letter literally."""
    if _is_literal(pattern):
        return pattern == text
    tokens = _tokens(pattern)
    at = here = 0
    back: tuple[int, int] | None = None
    while here < len(text):
        if at < len(tokens) and tokens[at] == (True, "*"):
            back = (at + 1, here)
            at += 1
        elif at < len(tokens) and tokens[at] in ((True, "?"), (False, text[here])):
            at, here = at + 1, here + 1
        elif back is not None:
            back = (back[0], back[1] + 1)
            at, here = back
        else:
            return False
    return all(token == (True, "*") for token in tokens[at:])


@lru_cache(maxsize=65_536)
def _tokens(segment: str) -> tuple[tuple[bool, str], ...]:
    """Letters with whether they are special; runs of `*` are one."""
    found: list[tuple[bool, str]] = []
    escaped = False
    for letter in segment:
        if not escaped and letter == "\\":
            escaped = True
            continue
        token = (not escaped and letter in "*?", letter)
        if token != (True, "*") or found[-1:] != [token]:
            found.append(token)
        escaped = False
    return tuple(found)
