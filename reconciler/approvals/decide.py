"""Whether a person's word counts, and whether a subject has all the words it needs. Pure.

Everything here fails closed: the actor is unknown, so the answer is no. Owners and teams are always
those in force, never those a change brings along. What nobody owns is decided by whoever operates
the reconciler (its state directory and signing key), never by a comment: otherwise a fleet that
began without owners could never be given one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.values import Millis, TeamName
from reconciler.config import TeamConfig
from reconciler.fleet.owners import people_of
from reconciler.plan.model import Subject

VALID_MS = 14 * 86_400_000
"""How long an approval that nothing has used yet can still be used."""


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's yes to one subject. `consumed_at` is set when it has let the subject through."""

    id: str
    subject: str
    scope: str
    pull: int | None
    head: str
    actor: str
    reason: str
    at: Millis
    expires_at: Millis
    consumed_at: Millis | None = None

    def usable(self, now: Millis) -> bool:
        """Neither used nor expired."""
        return self.consumed_at is None and now < self.expires_at


def objection(
    subject: Subject,
    actor: str,
    *,
    teams: Mapping[TeamName, TeamConfig],
    author: bool,
    operator: bool = False,
) -> str | None:
    """Why this person's approval of the subject does not count; None when it does.

    `author`: the actor opened or pushed the change; nobody approves their own. `operator`: said on
    the command line of the reconciler, not in a comment. Logins are compared without regard to
    case, as forges do.
    """
    if author:
        return f"{actor} is an author of this change; somebody else must approve it"
    asked = [owners for owners in subject.owners if owners]
    if not asked and operator and actor:
        return None
    if len(asked) < len(subject.owners) and not operator:
        return (
            "nobody owns what is loosened, so it is decided by an operator: "
            "`interlock approve ID`, see `interlock approvals`"
        )
    if any(_among(actor, owners, teams) for owners in asked):
        return None
    wanted = " or ".join(dict.fromkeys(name for owners in asked for name in owners))
    return f"{actor} is not among {wanted}"


def lacking(
    subject: Subject,
    approvals: Iterable[Approval],
    *,
    teams: Mapping[TeamName, TeamConfig],
    now: Millis,
) -> tuple[tuple[str, ...], ...]:
    """The sets of owners of which nobody has approved yet; `()` when the subject is approved.

    A set without owners needs an operator's word. A subject without loosenings lacks nothing.
    """
    given = [a for a in approvals if a.subject == subject.digest and a.usable(now)]
    return tuple(
        owners
        for owners in subject.owners
        if not any(
            _among(one.actor, owners, teams) if owners else one.pull is None for one in given
        )
    )


def approved(
    subjects: Sequence[Subject],
    approvals: Sequence[Approval],
    *,
    teams: Mapping[TeamName, TeamConfig],
    now: Millis,
) -> frozenset[str]:
    """Digests of the subjects that lack nobody's approval."""
    return frozenset(
        subject.digest
        for subject in subjects
        if not lacking(subject, approvals, teams=teams, now=now)
    )


def _among(actor: str, owners: Sequence[str], teams: Mapping[TeamName, TeamConfig]) -> bool:
    people = {person.casefold() for person in people_of(owners, teams)}
    return actor.casefold() in people
