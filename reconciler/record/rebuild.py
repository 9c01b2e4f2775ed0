"""State from git alone: how a fresh machine, or one that fell behind, goes on.

What is believed, and why: the branch's head must be signed by a key that the watched branch names.
A commit's hash covers its tree and its parents' hashes, so one good signature on the head covers
every byte of every commit below it; checking each of them (ssh-keygen takes milliseconds, a branch
has thousands) would prove nothing more about the state that is restored. What a signature cannot
show is that a *newer* head was taken away: that is compared with what this machine remembers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gateway.database import Database, Transaction
from gateway.values import Clock, Millis, RunId, derived_id
from reconciler.record import audit, claims, state
from reconciler.record import mark as marks
from reconciler.record.calendar import iso
from reconciler.rollout import store
from reconciler.rollout.model import Hold
from reconciler.source.mirror import Mirror, full_ref
from reconciler.source.objects import CommitId
from reconciler.source.signing import SignatureStatus
from reconciler.source.tree import Kind

MAX_BYTES = 64 * 1024 * 1024

Kinds = Literal["unsigned", "unknown_signer", "bad_signature", "went_back", "tampered"]


class RebuildRefused(state.StateError):
    """The branch is not believed. Nothing in the database was changed; the text says what to do."""

    def __init__(self, kind: Kinds, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What the machine goes on from. `manifest` None: there is no record yet, a fresh start.

    `held`: assignment of the whole fleet is held until a person says `interlock resume`.
    """

    manifest: dict[str, Any] | None
    runs: int = 0
    held: bool = False
    lost_claims: tuple[RunId, ...] = ()
    notes: tuple[str, ...] = ()


def rebuild(
    database: Database,
    mirror: Mirror,
    *,
    branch: str,
    allowed: Sequence[str],
    clock: Clock,
) -> Rebuilt:
    """Replace this database's state by the record's. All or nothing, in one transaction.

    Raises RebuildRefused or StateError when the record cannot be believed or understood, and
    RemoteUnavailable when it cannot be fetched.
    """
    head = mirror.fetch().get(full_ref(branch))
    if head is None:
        return _nothing_there(database, branch)
    _check_signature(mirror, head, allowed, branch)
    tree = mirror.tree(head)
    files: dict[str, bytes] = {}
    for path, entry in tree.walk():
        if not state.wanted(path):
            continue
        if entry.kind is not Kind.BLOB:
            raise RebuildRefused("tampered", f"{branch}: {path} is a {entry.kind}, not a file")
        files[path] = tree.read(path, limit=MAX_BYTES)
    manifest = state.check(files)
    with database.snapshot() as tx:
        _check_direction(tx, mirror, head, manifest, branch)
    now = clock.now()
    with database.transaction() as tx:
        restored = state.restore(tx, files)
        lost = claims.lose(tx, now=now)
        marks.remember(
            tx,
            marks.Mark(head, manifest["tick"], Millis(manifest["written_at"]), _seq(manifest)),
        )
        held = not manifest["clean"]
        notes = [*restored.notes, *(_note(run) for run in lost)]
        if held:
            notes.append(_hold(tx, head, manifest, lost, now))
    return Rebuilt(manifest, restored.runs, held, lost, tuple(notes))


def _nothing_there(database: Database, branch: str) -> Rebuilt:
    with database.snapshot() as tx:
        known = marks.last(tx)
    if known is not None:
        raise RebuildRefused(
            "went_back",
            f"{branch} is gone, and this machine knows that it was at {known.head[:12]}: put it "
            f"back (git push origin {known.head}:refs/heads/{branch})",
        )
    return Rebuilt(None, notes=(f"there is no branch {branch} yet: a fresh start",))


def _check_signature(mirror: Mirror, head: CommitId, allowed: Sequence[str], branch: str) -> None:
    found = mirror.verify_commit(head, allowed)
    if found.good:
        return
    who = mirror.commit_info(head).author
    commit = f"commit {head} on {branch} (by {who.name} <{who.email}>)"
    then = f"nothing is restored. Look at it, and put {branch} back to the last good commit"
    if found.status is SignatureStatus.UNSIGNED:
        raise RebuildRefused("unsigned", f"{commit} is not signed; {then}")
    if found.status is SignatureStatus.UNKNOWN_SIGNER:
        raise RebuildRefused(
            "unknown_signer",
            f"{commit} is signed by a key that the watched branch does not name "
            f"({found.key or 'not an SSH key'}); {then}, or, if the key is a reconciler's, add it "
            "to fleet.reports.signers in interlock.yaml",
        )
    raise RebuildRefused("bad_signature", f"{commit} has a signature that does not hold; {then}")


def _check_direction(
    tx: Transaction, mirror: Mirror, head: CommitId, manifest: dict[str, Any], branch: str
) -> None:
    """The record only grows: against this machine's memory, and against its own last step."""
    known = marks.last(tx)
    if known is not None:
        commit = mirror.resolve(known.head)
        behind = commit is not None and not mirror.is_ancestor(commit, head)
        if behind or known.tick > manifest["tick"]:
            raise RebuildRefused(
                "went_back",
                f"{branch} is at {head[:12]} (tick {manifest['tick']}), but this machine has seen "
                f"{known.head[:12]} (tick {known.tick}), which is not in its history: somebody "
                "took commits away. Put the branch back; to accept the loss, start from an empty "
                "--state directory",
            )
    parents = mirror.commit_info(head).parents
    if parents and mirror.tree(parents[0]).exists(state.MANIFEST):
        before = state.read_manifest(mirror.tree(parents[0]).read(state.MANIFEST))
        if before["tick"] > manifest["tick"]:
            raise RebuildRefused(
                "went_back",
                f"{branch}: tick {manifest['tick']} follows tick {before['tick']}: an old state "
                "was written over a newer one; put the branch back to the commit before",
            )


def _hold(
    tx: Transaction,
    head: CommitId,
    manifest: dict[str, Any],
    lost: tuple[RunId, ...],
    now: Millis,
) -> str:
    reason = (
        f"rebuilt from {head[:12]} of {iso(manifest['written_at'])}, which was not a clean "
        f"shutdown: what happened after it is unknown. {len(lost)} claimed runs and every open "
        "call are charged at worst case. Check, then `interlock resume`"
    )
    store.place_hold(
        tx,
        Hold(
            id=derived_id("hold", "rebuild", head),
            agent="*",
            kind="assignment",
            reason=reason,
            actor="interlock",
            at=now,
        ),
    )
    audit.append(tx, now=now, actor="interlock", action="rebuild.held", subject=head, reason=reason)
    return reason


def _note(run: RunId) -> str:
    return f"{run} was claimed and has no outcome: charged as fully spent, not run again"


def _seq(manifest: dict[str, Any]) -> int:
    return int(manifest["audit"]["seq"]) if manifest["audit"] else 0
