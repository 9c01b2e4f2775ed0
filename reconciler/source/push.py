"""What became of a push, decided from what was said and what the remote holds now.

A push has three ends, not two. Once bytes have left, a silent connection proves neither success
nor failure, and even a later look that shows the old value does not: a slow server may still
apply it. Calling that `rejected` would let a claim be made twice; it is `unknown`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.source.diagnosis import refusal_is_retryable
from reconciler.source.objects import CommitId, ObjectId
from reconciler.source.remote import Conversation

Updates = Mapping[str, tuple[CommitId | None, CommitId]]
"""Ref → (what the remote must hold now, None = the ref must not exist; what it shall hold)."""


class PushOutcome(StrEnum):
    """`pushed`: seen on the remote. `rejected`: not there, nor later. `unknown`: ask again."""

    PUSHED = "pushed"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class PushResult:
    """The end of a push. With several refs, `pushed` means all of them.

    `retryable`: a fetch, a rebuild on the new head and another push may succeed. `remote` is
    what each ref was last seen to hold (None: no such ref), empty if nobody could look.
    """

    outcome: PushOutcome
    reason: str = ""
    retryable: bool = False
    remote: Mapping[str, CommitId | None] = field(default_factory=dict)

    @property
    def pushed(self) -> bool:
        return self.outcome is PushOutcome.PUSHED


def seen(refs: Mapping[str, str], updates: Updates) -> dict[str, CommitId | None]:
    """The remote's value of each ref that is being pushed."""
    return {ref: CommitId(ObjectId(refs[ref])) if refs.get(ref) else None for ref in updates}


def judge(
    updates: Updates,
    said: Conversation,
    look: Callable[[], Mapping[str, CommitId | None] | None],
    contains: Callable[[str, CommitId], bool],
) -> PushResult:
    """The result of a push.

    `look` asks the remote again (None: it does not answer); `contains(ref, commit)` fetches and
    tells whether the remote's ref has the commit in its history: somebody may have built on ours
    between the push and the look. Both are called only when the answer depends on them.
    """
    if said.answer is None and not said.sending:
        return PushResult(PushOutcome.REJECTED, said.failure, said.retryable)
    if said.answer is None:
        return _after_silence(updates, said.failure, look(), contains)
    remote = seen(said.answer["remote"], updates)
    if _all_ours(updates, remote):
        return PushResult(PushOutcome.PUSHED, remote=remote)
    moved: Mapping[str, str] = said.answer["moved"]
    if moved:
        reason = "; ".join(
            f"{ref} is at {oid[:12] or 'nothing'}, expected {_short(updates[ref][0])}: "
            "somebody else pushed first"
            for ref, oid in sorted(moved.items())
        )
        return PushResult(PushOutcome.REJECTED, reason, True, remote)
    refused: Mapping[str, str] = said.answer["refused"]
    if refused:
        reason = "; ".join(f"{ref}: {text}" for ref, text in sorted(refused.items()))
        retryable = all(refusal_is_retryable(text) for text in refused.values())
        return PushResult(PushOutcome.REJECTED, reason, retryable, remote)
    if all(remote[r] == new or contains(r, new) for r, (_, new) in updates.items()):
        return PushResult(PushOutcome.PUSHED, remote=remote)
    return PushResult(
        PushOutcome.UNKNOWN,
        "the server accepted the push, but the remote does not hold it; look at its hooks",
        True,
        remote,
    )


def _after_silence(
    updates: Updates,
    failure: str,
    remote: Mapping[str, CommitId | None] | None,
    contains: Callable[[str, CommitId], bool],
) -> PushResult:
    if remote is None:
        return PushResult(PushOutcome.UNKNOWN, failure, True)
    if _all_ours(updates, remote):
        return PushResult(PushOutcome.PUSHED, remote=remote)
    if any(remote[ref] in (old, None) for ref, (old, _) in updates.items()):
        return PushResult(PushOutcome.UNKNOWN, failure, True, remote)
    if all(remote[r] == new or contains(r, new) for r, (_, new) in updates.items()):
        return PushResult(PushOutcome.PUSHED, remote=remote)
    if len(updates) == 1:
        # The ref has left the value that our push would be compared with: it cannot land later.
        return PushResult(PushOutcome.REJECTED, failure, True, remote)
    return PushResult(PushOutcome.UNKNOWN, failure, True, remote)


def _all_ours(updates: Updates, remote: Mapping[str, CommitId | None]) -> bool:
    return all(remote[ref] == new for ref, (_, new) in updates.items())


def _short(commit: CommitId | None) -> str:
    return commit[:12] if commit else "nothing"
