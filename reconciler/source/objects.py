"""Names of git objects, and how git computes them.

Trees that are not in a repository (a work directory under `interlock validate`, a test's dict)
must give the same OIDs as git would, or the same content would have two identities. The formulas
are git's own: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import NewType

ObjectId = NewType("ObjectId", str)
"""40 lower-case hex digits: the SHA-1 name of any git object."""
CommitId = NewType("CommitId", ObjectId)
TreeId = NewType("TreeId", ObjectId)
BlobId = NewType("BlobId", ObjectId)

MODE_TREE = 0o040000
MODE_BLOB = 0o100644
MODE_EXECUTABLE = 0o100755
MODE_LINK = 0o120000
MODE_COMMIT = 0o160000


def is_object_id(text: str) -> bool:
    """Whether `text` is a full object name (git's abbreviations are not identities)."""
    return len(text) == 40 and all(c in "0123456789abcdef" for c in text)


def blob_id(content: bytes) -> BlobId:
    """The OID that git gives to a file with this content."""
    return BlobId(ObjectId(_sha1(b"blob", content)))


def tree_id(entries: Iterable[tuple[str, int, ObjectId]]) -> TreeId:
    """The OID that git gives to a directory of (name, mode, oid).

    Git sorts a subdirectory as if its name ended in a slash.
    """
    body = bytearray()
    # A name need not be UTF-8; as a text it holds what the file system gave.
    rows = ((os.fsencode(name), mode, oid) for name, mode, oid in entries)
    for name, mode, oid in sorted(rows, key=lambda e: e[0] + b"/" * (e[1] == MODE_TREE)):
        body += b"%o %s\0" % (mode, name) + bytes.fromhex(oid)
    return TreeId(ObjectId(_sha1(b"tree", bytes(body))))


def _sha1(kind: bytes, body: bytes) -> str:
    header = b"%s %d\0" % (kind, len(body))
    return hashlib.sha1(header + body, usedforsecurity=False).hexdigest()
