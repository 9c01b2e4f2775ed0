"""A release: what decides an agent's behaviour, named by its content (interlock.release/1).

The format is frozen, see docs/formats/release.md. A release is a flat map of leaves, each a JSON
value under a path. Its digest is taken of the leaves' hashes, so that two releases can be compared
leaf by leaf, and a leaf can be shown to be part of a release without the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.values import Json, ReleaseDigest, canonical_json, content_hash

FORMAT = "interlock.release/1"
REQUIRED = (
    "limits",
    "main/builtin",
    "main/instructions",
    "main/model",
    "main/parameters",
    "safety",
    "sandbox",
    "until",
    "workspace",
)
"""Leaves that every release has."""


class BadRelease(ValueError):
    """A document that is not a release, or not the one it says it is."""


@dataclass(frozen=True, slots=True)
class Release:
    """Made by `release_of` or `parse_document`; `digest` always belongs to `leaves`."""

    digest: ReleaseDigest
    leaves: Mapping[str, Json]

    def document(self) -> dict[str, Json]:
        """The whole release as JSON: enough to run it again with no git at hand."""
        return {"format": FORMAT, "digest": self.digest, "leaves": dict(self.leaves)}

    def text(self) -> str:
        """The canonical text of `document`, as it is stored and committed."""
        return canonical_json(self.document()).decode()


def release_of(leaves: Mapping[str, Json]) -> Release:
    """The release with these leaves. TypeError for a float anywhere in them."""
    return Release(ReleaseDigest(f"rel-{root_hash(leaves)[:12]}"), dict(sorted(leaves.items())))


def release_of_hashed(leaves: Mapping[str, tuple[Json, str]]) -> Release:
    """As `release_of`, of leaves with their hashes: those of shared leaves are known."""
    root = _root_hash({path: known for path, (_, known) in leaves.items()})
    return Release(
        ReleaseDigest(f"rel-{root[:12]}"), {path: leaves[path][0] for path in sorted(leaves)}
    )


def root_hash(leaves: Mapping[str, Json]) -> str:
    """SHA-256 of {"format", "leaves": {path: SHA-256 of the leaf}}, 64 hex digits."""
    return _root_hash({path: content_hash(leaf) for path, leaf in leaves.items()})


def _root_hash(hashes: dict[str, Json]) -> str:
    return hashlib.sha256(canonical_json({"format": FORMAT, "leaves": hashes})).hexdigest()


def parse_document(document: str | bytes | Mapping[str, Any]) -> Release:
    """A release from its document, digest verified. BadRelease when anything does not fit."""
    if isinstance(document, str | bytes):
        try:
            document = json.loads(document, object_pairs_hook=_no_twins)
        except (ValueError, RecursionError) as error:
            raise BadRelease(f"not a release: {error}") from None
    if not isinstance(document, Mapping):
        raise BadRelease("not a release: not a JSON object")
    if document.get("format") != FORMAT:
        raise BadRelease(f"format {document.get('format')!r} is not {FORMAT}; upgrade Interlock")
    leaves = document.get("leaves")
    if not isinstance(leaves, dict) or set(document) != {"format", "digest", "leaves"}:
        raise BadRelease("not a release: expected the keys format, digest and leaves")
    missing = [path for path in REQUIRED if path not in leaves]
    if missing:
        raise BadRelease(f"not a release: it lacks {', '.join(missing)}")
    try:
        release = release_of(leaves)
    except (TypeError, ValueError) as error:
        raise BadRelease(f"not a release: {error}") from None
    if release.digest != document.get("digest"):
        raise BadRelease(
            f"the document says {document.get('digest')!r}, its content is {release.digest}: "
            "it was altered; restore it from the signed state/"
        )
    return release


def changed_leaves(before: Release | None, after: Release) -> dict[str, tuple[Json, Json]]:
    """Path → (before, after) of every leaf that differs; None stands for a leaf that is not there.

    Without `before` (a first release) every leaf is new.
    """
    old: Mapping[str, Json] = before.leaves if before else {}
    return {
        path: (old.get(path), after.leaves.get(path))
        for path in sorted({*old, *after.leaves})
        if path not in old
        or path not in after.leaves
        or content_hash(old[path]) != content_hash(after.leaves[path])
    }


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found
