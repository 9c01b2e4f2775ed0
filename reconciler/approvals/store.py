"""Approvals, what waits for one, and what is in force, as rows.

`in_force` holds one row per scope: for a shared unit its value, for an agent its facts, the digest
of the release that was let through, and the commit whose definition holds. `waiting` is what the
newest commit asks for and may not have yet; it is written anew with every look.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.database import Database, Row, Transaction
from gateway.values import AgentName, Json, Millis, canonical_json, derived_id
from reconciler.approvals.decide import VALID_MS, Approval
from reconciler.findings import Place
from reconciler.plan.model import Loosening, Subject
from reconciler.plan.sides import FORMAT

Reader = Database | Transaction


@dataclass(frozen=True, slots=True)
class InForce:
    """One scope's value in force. `digest`: an agent's admitted release, "" for units."""

    scope: str
    value: Json
    digest: str
    place: Place
    format: str
    """What `value` is told in, see `plan.sides.FORMAT`."""
    commit: str
    since: Millis


AGENT = "agent/"
"""Scopes of agents begin with this; all others are shared units."""


def units_in_force(reader: Reader) -> dict[str, InForce]:
    """Every shared setting in force by scope; empty before the first commit was seen."""
    rows = reader.read(
        "SELECT * FROM in_force WHERE scope < 'agent/' OR scope >= 'agent0' ORDER BY scope"
    )
    return {row["scope"]: _in_force(row) for row in rows}


def agents_in_force(reader: Reader) -> list[AgentName]:
    """Agents of which something is in force, by name."""
    rows = reader.read(
        "SELECT scope FROM in_force WHERE scope >= 'agent/' AND scope < 'agent0' ORDER BY scope"
    )
    return [AgentName(row["scope"].removeprefix(AGENT)) for row in rows]


def count_of_agents(reader: Reader) -> int:
    """How many agents have something in force."""
    row = reader.one(
        "SELECT count(*) AS n FROM in_force WHERE scope >= 'agent/' AND scope < 'agent0'"
    )
    return int(row["n"]) if row else 0


def newest_commit(reader: Reader) -> str | None:
    """The commit at which something came into force last."""
    row = reader.one("SELECT commit_id FROM in_force ORDER BY since DESC, scope LIMIT 1")
    return str(row["commit_id"]) if row else None


def in_force_of(reader: Reader, scope: str) -> InForce | None:
    """One scope's value in force."""
    row = reader.one("SELECT * FROM in_force WHERE scope = :scope", scope=scope)
    return _in_force(row) if row else None


def _in_force(row: Row) -> InForce:
    return InForce(
        row["scope"],
        json.loads(row["value"]),
        row["digest"],
        Place(*json.loads(row["place"])),
        row["format"],
        row["commit_id"],
        Millis(row["since"]),
    )


def put_in_force(
    tx: Transaction,
    scope: str,
    value: Json,
    *,
    place: Place,
    digest: str,
    commit: str,
    now: Millis,
) -> None:
    """From now on this is what holds for the scope."""
    tx.execute(
        "INSERT INTO in_force (scope, value, digest, place, format, commit_id, since)"
        " VALUES (:scope, :value, :digest, :place, :format, :commit, :now)"
        " ON CONFLICT (scope) DO UPDATE SET value = :value, digest = :digest, place = :place,"
        " format = :format, commit_id = :commit, since = :now",
        scope=scope,
        value=canonical_json(value).decode(),
        digest=digest,
        place=canonical_json([place.file, place.line, place.column]).decode(),
        format=FORMAT,
        commit=commit,
        now=now,
    )


def take_out_of_force(tx: Transaction, scope: str) -> None:
    """The scope is gone."""
    tx.execute("DELETE FROM in_force WHERE scope = :scope", scope=scope)


def approve(
    tx: Transaction,
    subject: Subject,
    *,
    actor: str,
    reason: str,
    pull: int | None,
    head: str,
    now: Millis,
) -> Approval:
    """Keep a person's yes. Saying it twice is saying it once, and valid from the second time on;
    a used one is not revived."""
    approval = Approval(
        id=derived_id("approval", subject.digest, actor.casefold(), pull or 0, head),
        subject=subject.digest,
        scope=subject.scope,
        pull=pull,
        head=head,
        actor=actor,
        reason=reason,
        at=now,
        expires_at=Millis(now + VALID_MS),
    )
    tx.execute(
        "INSERT INTO approvals (approval, subject, scope, pull, head, actor, reason, at,"
        " expires_at) VALUES (:id, :subject, :scope, :pull, :head, :actor, :reason, :at,"
        " :expires_at) ON CONFLICT (approval) DO UPDATE SET reason = :reason, at = :at,"
        " expires_at = :expires_at WHERE approvals.consumed_at IS NULL",
        id=approval.id,
        subject=approval.subject,
        scope=approval.scope,
        pull=pull,
        head=head,
        actor=actor,
        reason=reason,
        at=now,
        expires_at=approval.expires_at,
    )
    return approval


def withdraw(tx: Transaction, pull: int) -> int:
    """Take back every unused approval given on a pull request; returns how many."""
    return tx.execute("DELETE FROM approvals WHERE pull = :pull AND consumed_at IS NULL", pull=pull)


def void(tx: Transaction, subject: str) -> int:
    """Take back every unused approval of a subject; returns how many."""
    return tx.execute(
        "DELETE FROM approvals WHERE subject = :subject AND consumed_at IS NULL", subject=subject
    )


def usable(reader: Reader, now: Millis) -> list[Approval]:
    """Approvals that are neither used nor expired, oldest first."""
    rows = reader.read(
        "SELECT * FROM approvals WHERE consumed_at IS NULL AND expires_at > :now"
        " ORDER BY at, approval",
        now=now,
    )
    return [_approval(row) for row in rows]


def consume(tx: Transaction, subject: str, *, commit: str, now: Millis) -> list[Approval]:
    """Use up the approvals of a subject: it has been let through, once."""
    found = [
        _approval(row)
        for row in tx.read(
            "SELECT * FROM approvals WHERE subject = :subject AND consumed_at IS NULL"
            " AND expires_at > :now ORDER BY at, approval",
            subject=subject,
            now=now,
        )
    ]
    for approval in found:
        tx.execute(
            "UPDATE approvals SET consumed_at = :now, consumed_by = :commit WHERE approval = :id",
            id=approval.id,
            commit=commit,
            now=now,
        )
    return found


def _approval(row: Row) -> Approval:
    return Approval(
        id=row["approval"],
        subject=row["subject"],
        scope=row["scope"],
        pull=row["pull"],
        head=row["head"],
        actor=row["actor"],
        reason=row["reason"],
        at=Millis(row["at"]),
        expires_at=Millis(row["expires_at"]),
        consumed_at=Millis(row["consumed_at"]) if row["consumed_at"] is not None else None,
    )


@dataclass(frozen=True, slots=True)
class Waiting:
    """A subject of the newest commit that is not approved: the value before it is in force."""

    subject: Subject
    lacking: tuple[tuple[str, ...], ...]
    """Sets of owners; one of each must still approve."""
    authors: tuple[str, ...]
    commit: str
    since: Millis

    @property
    def id(self) -> str:
        """What people type: `interlock approve ID`."""
        return waiting_id(self.subject)


def waiting_id(subject: Subject) -> str:
    """A short name of a subject."""
    return derived_id("wait", subject.digest)


def write_waiting(
    tx: Transaction,
    found: Iterable[tuple[Subject, tuple[tuple[str, ...], ...]]],
    *,
    authors: Sequence[str],
    commit: str,
    now: Millis,
) -> tuple[list[str], list[str]]:
    """Replace what waits; returns the scopes that (newly wait, wait no longer)."""
    known = {row["waiting"]: row for row in tx.read("SELECT * FROM waiting")}
    # Who made a change is noted when it is first seen: later commits are about something else.
    # Where they change what waits, whoever wrote the first part of it is an author still.
    earlier: dict[str, set[str]] = {}
    for row in known.values():
        earlier.setdefault(row["scope"], set()).update(_waiting(row).authors)
    fresh: list[str] = []
    kept: set[str] = set()
    for subject, lacking in found:
        name = waiting_id(subject)
        kept.add(name)
        before = known.get(name)
        if before is None:
            fresh.append(subject.scope)
        tx.execute(
            "INSERT INTO waiting (waiting, scope, document, commit_id, since)"
            " VALUES (:waiting, :scope, :document, :commit, :since)"
            " ON CONFLICT (waiting) DO UPDATE SET document = :document, commit_id = :commit",
            waiting=name,
            scope=subject.scope,
            document=canonical_json(
                _document(
                    subject,
                    lacking,
                    _waiting(before).authors
                    if before
                    else sorted({*authors, *earlier.get(subject.scope, ())}),
                )
            ).decode(),
            commit=commit,
            since=before["since"] if before else now,
        )
    gone = [name for name in known if name not in kept]
    for name in gone:
        tx.execute("DELETE FROM waiting WHERE waiting = :name", name=name)
    return fresh, [known[name]["scope"] for name in gone]


def waiting(reader: Reader) -> list[Waiting]:
    """What waits for an approval, by scope."""
    return [_waiting(row) for row in reader.read("SELECT * FROM waiting ORDER BY scope, waiting")]


def _document(
    subject: Subject, lacking: Sequence[Sequence[str]], authors: Sequence[str]
) -> dict[str, Json]:
    return {
        "scope": subject.scope,
        "before": subject.before,
        "after": subject.after,
        "loosenings": [
            {
                "kind": one.kind,
                "text": one.text,
                "place": [one.place.file, one.place.line, one.place.column],
                "stricter": [one.stricter.file, one.stricter.line, one.stricter.column]
                if one.stricter
                else None,
                "owners": [*one.owners],
            }
            for one in subject.loosenings
        ],
        "lacking": [[*owners] for owners in lacking],
        "authors": [*authors],
    }


def _waiting(row: Row) -> Waiting:
    found = json.loads(row["document"])
    subject = Subject(
        scope=found["scope"],
        before=found["before"],
        after=found["after"],
        loosenings=tuple(
            Loosening(
                scope=found["scope"],
                kind=one["kind"],
                text=one["text"],
                place=Place(*one["place"]),
                stricter=Place(*one["stricter"]) if one["stricter"] else None,
                owners=tuple(one["owners"]),
            )
            for one in found["loosenings"]
        ),
    )
    return Waiting(
        subject=subject,
        lacking=tuple(tuple(owners) for owners in found["lacking"]),
        authors=tuple(found["authors"]),
        commit=row["commit_id"],
        since=Millis(row["since"]),
    )
