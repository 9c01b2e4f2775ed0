"""Git, and nothing but git: the only room that touches pygit2.

Why a room of its own: libgit2 has sharp edges (a push that the server rejects returns normally;
a network call may never come back; one `Repository` belongs to one thread), and everything above
wants to think in trees, commits and refs. The edges end here.

Two halves. `tree` and `objects` are pure enough for `compile` to depend on and import nothing
heavy; `mirror`, `writing`, `push` and `signing` hold pygit2 and processes. The names below are
the room's face; those of the second half are loaded when first used, so that importing
`reconciler.source.tree` stays cheap (pygit2 alone takes 90 ms). Pure modules (`release`, `plan`)
import from `reconciler.source.tree` and `.objects` directly: the face would lead them to pygit2.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from reconciler.source.objects import BlobId, CommitId, ObjectId, TreeId
from reconciler.source.tree import (
    DirectoryTree,
    Entry,
    Kind,
    MemoryTree,
    MissingPath,
    SourceTooLarge,
    Tree,
    UnsafePath,
    changed_paths,
    join_path,
)

if TYPE_CHECKING:
    from reconciler.source.errors import (
        HistoryRewritten,
        MirrorMismatch,
        RemoteUnavailable,
        ShallowHistory,
        SigningFailed,
        SourceError,
    )
    from reconciler.source.integrate import backoff_delays, integrate_and_push
    from reconciler.source.mirror import CommitInfo, GitTree, Mirror
    from reconciler.source.push import PushOutcome, PushResult, Updates
    from reconciler.source.remote import Auth, Timeouts
    from reconciler.source.signing import (
        SignatureStatus,
        Signer,
        Verification,
        generate_key,
        public_key,
    )
    from reconciler.source.writing import INTERLOCK, Changes, Identity

_HOMES = {
    "errors": (
        "HistoryRewritten",
        "MirrorMismatch",
        "RemoteUnavailable",
        "ShallowHistory",
        "SigningFailed",
        "SourceError",
    ),
    "integrate": ("backoff_delays", "integrate_and_push"),
    "mirror": ("CommitInfo", "GitTree", "Mirror"),
    "push": ("PushOutcome", "PushResult", "Updates"),
    "remote": ("Auth", "Timeouts"),
    "signing": ("SignatureStatus", "Signer", "Verification", "generate_key", "public_key"),
    "writing": ("INTERLOCK", "Changes", "Identity"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


__all__ = [
    "INTERLOCK",
    "Auth",
    "BlobId",
    "Changes",
    "CommitId",
    "CommitInfo",
    "DirectoryTree",
    "Entry",
    "GitTree",
    "HistoryRewritten",
    "Identity",
    "Kind",
    "MemoryTree",
    "Mirror",
    "MirrorMismatch",
    "MissingPath",
    "ObjectId",
    "PushOutcome",
    "PushResult",
    "RemoteUnavailable",
    "ShallowHistory",
    "SignatureStatus",
    "Signer",
    "SigningFailed",
    "SourceError",
    "SourceTooLarge",
    "Timeouts",
    "Tree",
    "TreeId",
    "UnsafePath",
    "Updates",
    "Verification",
    "backoff_delays",
    "changed_paths",
    "generate_key",
    "integrate_and_push",
    "join_path",
    "public_key",
]
