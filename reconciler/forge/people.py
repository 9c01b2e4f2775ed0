"""Who made a change: nobody may approve their own. Pure.

A commit says who wrote it in the writer's own words, a forge knows people by login, and only the
forge's word is proved. So this errs on one side: every name that a commit gives counts as an
author, and spellings of it that are likely to be somebody's login do too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from reconciler.forge.model import Login

if TYPE_CHECKING:
    from reconciler.source.mirror import CommitInfo

MACHINES = frozenset({"noreply", "no-reply", "github", "gitlab", "gitea", "forgejo"})
"""Committers that only say which forge pressed the button."""
OURS = frozenset({"Interlock", "Interlock forge"})
"""Names under which Interlock itself commits: the record, and merges of the built-in forge."""

_TOGETHER = re.compile(
    r"^co-authored-by:[ \t]*([^<\n]*)<([^>\n]*)>[ \t]*$", re.IGNORECASE | re.MULTILINE
)


def authors_of(
    opener: Login, commits: Iterable[CommitInfo], *, requester: Login | None = None
) -> tuple[str, ...]:
    """Opener ∪ pushers ∪ requester, the opener first, then by name.

    `commits` are those from the target to the head. A commit gives the names of its author, its
    committer and its `Co-authored-by` lines, and the local parts of their addresses.
    """
    asked = {str(opener), *([str(requester)] if requester else [])}
    found: set[str] = set()
    for commit in commits:
        for name, email in _people(commit):
            found.update(_names(name), _logins(email))
    rest = {name for name in asked | found if name.casefold() != str(opener).casefold()}
    return (str(opener), *sorted(rest))


def is_author(login: str, authors: Collection[str]) -> bool:
    """Whether `login` may be one of them: letters and digits count, case and the rest do not."""
    return _folded(login) in {_folded(name) for name in authors}


def _people(commit: CommitInfo) -> Iterator[tuple[str, str]]:
    for identity in (commit.author, commit.committer):
        yield identity.name, identity.email
    yield from _TOGETHER.findall(commit.message)


def _names(name: str) -> set[str]:
    name = " ".join(name.split())
    if not name or name.casefold() in MACHINES or name in OURS:
        return set()
    words = name.split()
    return {name} if len(words) == 1 else {name, *(mark.join(words) for mark in ("", "-", "."))}


def _logins(email: str) -> set[str]:
    """`7+anna@users.noreply.github.com` and `anna+git@example.org` are both anna's."""
    local, at, host = email.strip().rpartition("@")
    local = local if at else host
    if not local or local.casefold() in MACHINES or host.endswith("interlock.invalid"):
        return set()
    first, plus, last = local.partition("+")
    if plus and "noreply" in host:
        return {last} if last else set()
    return {first} if first else set()


def _folded(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in plain if c.isalnum()) or plain
