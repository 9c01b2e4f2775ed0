"""Keeping the index of versions: grown by what each new commit of the watched branch changed.

Rows are only ever added. What the index was grown up to is kept beside it, and both are part of
`state/`, so that a job without a database of its own looks at new commits only. A rewritten branch
takes nothing back: numbers that were given stay given, and the tick says what happened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.database import Database, Transaction
from gateway.values import Millis
from reconciler.config.history import GitHistory, additions
from reconciler.config.versions import Key, Released, VersionKind
from reconciler.record import audit
from reconciler.source.history import Line
from reconciler.source.mirror import Mirror
from reconciler.source.objects import CommitId, ObjectId


@dataclass(frozen=True, slots=True)
class Growth:
    """The history up to a commit, what that commit and those before it added, and what is odd."""

    history: GitHistory
    added: tuple[Released, ...]
    problems: tuple[str, ...]


def grow(
    database: Database,
    mirror: Mirror,
    *,
    branch: str,
    head: CommitId,
    now: Millis,
    previous: GitHistory | None = None,
) -> Growth:
    """Index the commits of `branch` up to `head` and store what they release.

    To be called before `head` is loaded, since the first to declare a number may be `head` itself.
    `previous` is what the last call returned: it saves reading the index and the trees again.
    Safe to repeat; when the process dies half way nothing is stored.
    """
    line = Line.of_mirror(mirror, head, before=previous.line if previous else None)
    with database.snapshot() as tx:
        until = _until(tx, branch)
        index: Mapping[Key, Released]
        if previous is not None and previous.line.head == until:
            index = previous.index
        else:
            index = _read(tx)
    if until == head:
        return Growth(GitHistory(line, index), (), ())
    problems: tuple[str, ...] = ()
    known: frozenset[CommitId] = frozenset()
    if until is not None and line.contains(until):
        known = frozenset({until})
    elif until is not None:
        problems = (
            f"the history of {branch!r} was rewritten: it no longer contains commit {until[:12]}; "
            "versions that were released before stay what they were",
        )
        if mirror.resolve(until) is not None:
            known = Line.of_mirror(mirror, until).commits
    added = additions(line, index, known=known)
    with database.transaction() as tx:
        for one in added:
            _keep(tx, one)
        tx.execute(
            "INSERT INTO versions_until (branch, commit_id) VALUES (:branch, :commit)"
            " ON CONFLICT (branch) DO UPDATE SET commit_id = :commit",
            branch=branch,
            commit=head,
        )
        if problems:
            audit.append(
                tx,
                now=now,
                actor="interlock",
                action="history.rewritten",
                subject=head,
                reason=problems[0],
            )
    if added:
        index = {**index, **{(one.path, one.number): one for one in added}}
    return Growth(GitHistory(line, index), added, problems)


def _until(tx: Transaction, branch: str) -> CommitId | None:
    row = tx.one("SELECT commit_id FROM versions_until WHERE branch = :branch", branch=branch)
    return CommitId(ObjectId(row["commit_id"])) if row else None


def _read(tx: Transaction) -> dict[Key, Released]:
    return {
        (row["path"], row["number"]): Released(
            row["path"],
            row["number"],
            ObjectId(row["oid"]),
            VersionKind(row["kind"]),
            CommitId(ObjectId(row["commit_id"])),
            Millis(row["at"]),
        )
        for row in tx.read("SELECT * FROM versions")
    }


def _keep(tx: Transaction, one: Released) -> None:
    tx.execute(
        "INSERT INTO versions (path, number, kind, oid, commit_id, at, shard)"
        " VALUES (:path, :number, :kind, :oid, :commit, :at, :shard)"
        " ON CONFLICT (path, number) DO NOTHING",
        path=one.path,
        number=one.number,
        kind=one.kind.value,
        oid=one.oid,
        commit=one.commit,
        at=one.at,
        shard=shard(one.path),
    )


def shard(path: str) -> str:
    """The file of `state/versions/` that holds a path: two hex digits of its SHA-256.

    Not the path itself, which is somebody's choice and could collide with another one's file name.
    """
    return hashlib.sha256(path.encode()).hexdigest()[:2]
