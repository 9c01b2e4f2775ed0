"""What can go wrong with git, said so that the reader knows what to do next.

An error says whether trying again can help (`retryable`); nobody above parses its text.
"""

from __future__ import annotations


class SourceError(Exception):
    """Base of this room's failures; `retryable` tells whether the next tick may succeed."""

    retryable = False


class RemoteUnavailable(SourceError):
    """The remote could not be talked to. Nothing was changed there by this operation.

    `reason` is one line that ends with what to do; neither it nor `url` holds a credential.
    """

    def __init__(self, url: str, reason: str, *, retryable: bool) -> None:
        super().__init__(f"git remote {url}: {reason}")
        self.url = url
        self.reason = reason
        self.retryable = retryable


class ShallowHistory(SourceError):
    """The history is cut off, so that versions and pointers cannot be proved from it."""

    def __init__(self, where: str) -> None:
        super().__init__(
            f"{where} has a shallow history, and versions can only be proved from a full one; "
            "clone without --depth (in a CI checkout: fetch-depth: 0), or git fetch --unshallow"
        )


class MirrorMismatch(SourceError):
    """The mirror's directory holds something else than a mirror of this remote."""

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(
            f"{path} {detail}; choose another directory, or remove it: a mirror can be cloned again"
        )


class HistoryRewritten(SourceError):
    """A commit that must be an ancestor of `ref` is not: someone force-pushed."""

    def __init__(self, ref: str, since: str) -> None:
        super().__init__(
            f"{ref} no longer contains commit {since[:12]}: its history was rewritten; "
            f"restore the branch, or run `interlock rebuild` to accept what is there now"
        )
        self.ref = ref
        self.since = since


class SigningFailed(SourceError):
    """ssh-keygen is missing or refused; nothing was signed or verified."""
