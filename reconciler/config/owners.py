"""Who decides about which path: `teams.*.owns`, then a CODEOWNERS file where there is one.

The last rule that matches counts. CODEOWNERS comes last, so that a repository that has one already
keeps meaning what it says on its forge. Its form and its places are GitHub's
(docs.github.com, "About code owners"): a pattern and owners on each line, `#` comments, no `!` and
no `[ ]`; the first of .github/, the top and docs/ that holds one counts; a line that cannot be
understood is passed over, here with a warning.
"""

from __future__ import annotations

import re

from reconciler.config import positions
from reconciler.config.common import Shared
from reconciler.config.fleet import OwnerRule
from reconciler.config.reader import Notes, Reader
from reconciler.findings import Place, did_you_mean, quoted
from reconciler.source.tree import MissingPath, SourceTooLarge, UnsafePath

CODEOWNERS = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS")
"""Where it may be; the first one counts."""

_OWNER = re.compile(r"@(?:[A-Za-z0-9_.-]+/)*[A-Za-z0-9_.-]+|[^\s@]+@[^\s@]+\.[^\s@]+")
MAX_RULES = 10_000


def owner_rules(reader: Reader, shared: Shared, notes: Notes) -> tuple[OwnerRule, ...]:
    """Every rule, in the order in which they are tried from the end."""
    return (*_of_teams(shared), *_codeowners(reader, shared, notes))


def _of_teams(shared: Shared) -> list[OwnerRule]:
    """A pattern that several teams list belongs to all of them; its place is the last one's."""
    rules: dict[str, OwnerRule] = {}
    for name, team in shared.teams.items():
        for index, pattern in enumerate(team.owns):
            place = shared.team_documents[name].at(["teams", name, "owns", index])
            before = rules.pop(pattern, None)
            owners = dict.fromkeys((*(before.owners if before else ()), name))
            rules[pattern] = OwnerRule(pattern, tuple(owners), place)
    return list(rules.values())


def _codeowners(reader: Reader, shared: Shared, notes: Notes) -> list[OwnerRule]:
    for path in CODEOWNERS:
        try:
            raw = reader.tree.read(path, limit=positions.MAX_BYTES)
        except MissingPath:
            continue
        except UnsafePath as unsafe:
            notes.error("unsafe-path", Place(path), str(unsafe))
            return []
        except SourceTooLarge as large:
            notes.error("too-large", Place(path), str(large).replace("; ", ": ", 1))
            return []
        try:
            text = positions.decode(path, raw)
        except positions.Refused as refused:
            notes.findings.append(refused.finding)
            return []
        return _parse(path, text, shared, notes)
    return []


def _parse(path: str, text: str, shared: Shared, notes: Notes) -> list[OwnerRule]:
    rules: list[OwnerRule] = []
    for number, line in enumerate(text.split("\n"), 1):
        pattern, owners = _split(line)
        if not pattern:
            continue
        place = Place(path, number, len(line) - len(line.lstrip()) + 1)
        bad = next((owner for owner in owners if not _OWNER.fullmatch(owner)), None)
        if bad is not None:
            notes.warn(
                "codeowners",
                place,
                f"{quoted(bad)} is not an owner: the line is passed over",
                "write @login, @organisation/team or an address",
            )
        elif pattern.startswith("!") or "[" in pattern:
            notes.warn(
                "codeowners",
                place,
                f"{quoted(pattern)} is not a pattern of CODEOWNERS: the line is passed over",
                "write it without ! and [ ]",
            )
        else:
            known = [_owner(owner, shared, place, notes) for owner in owners]
            rules.append(OwnerRule(pattern, tuple(dict.fromkeys(known)), place))
        if len(rules) > MAX_RULES:
            notes.error("too-large", place, f"more than {MAX_RULES:,} rules", "join some of them")
            return []
    return rules


def _split(line: str) -> tuple[str, list[str]]:
    """Pattern and owners of a line; a blank in a pattern is written `\\ `, `#` starts a comment."""
    words = re.findall(r"(?:\\.|[^\s\\]|\\$)+", line)
    kept: list[str] = []
    for word in words:
        if word.startswith("#"):
            break
        kept.append(word)
    if not kept:
        return "", []
    return re.sub(r"\\([ #])", r"\1", kept[0]), kept[1:]


def _owner(owner: str, shared: Shared, place: Place, notes: Notes) -> str:
    """A team's name for `@organisation/team`, a login for `@login`, an address as it is."""
    if not owner.startswith("@"):
        return owner
    name = owner[1:].rpartition("/")[2]
    if "/" in owner and name not in shared.teams:
        notes.warn(
            "codeowners",
            place,
            f"{quoted(owner)} is not a team of teams.yaml: nobody can approve for it here",
            did_you_mean(name, list(shared.teams)) or f"add {quoted(name)} to teams.yaml",
        )
    return name
