"""Large results, kept for the run that got them and for nobody else.

Written in the transaction that settles the call, so that a preview never points at nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.database import Database, Transaction
from gateway.mcp.results import Artifact
from gateway.refusals import Code, Refusal
from gateway.values import Label, Millis, RunId

Reader = Database | Transaction


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of an artifact. `label` is that of the result: reading it is reading that."""

    content: bytes
    offset: int
    total: int
    media: str
    label: Label

    @property
    def next_offset(self) -> int | None:
        """Where the next piece begins; None at the end."""
        end = self.offset + len(self.content)
        return end if end < self.total else None

    @property
    def text(self) -> str:
        """The piece as text."""
        return self.content.decode(errors="replace")


def store(
    tx: Transaction, artifact: Artifact, *, run: RunId, tool: str, label: Label, now: Millis
) -> None:
    """Keep it; the same one again changes nothing."""
    tx.execute(
        "INSERT INTO artifacts (id, run, tool, media, label, bytes, content, created_at) VALUES"
        " (:id, :run, :tool, :media, :label, :bytes, :content, :now) ON CONFLICT (id) DO NOTHING",
        id=artifact.id,
        run=run,
        tool=tool,
        media=artifact.media,
        label=str(label),
        bytes=len(artifact.content),
        content=artifact.content,
        now=now,
    )


def read(tx: Reader, identity: str, run: RunId, offset: int, limit: int) -> Piece:
    """At most `limit` bytes from `offset` on, ending between two characters.

    Raises Refusal (not_found) when this run has no such artifact, whoever else may have.
    """
    row = tx.one(
        "SELECT media, label, bytes, substr(content, :first, :limit) AS piece FROM artifacts"
        " WHERE id = :id AND run = :run",
        id=identity,
        run=run,
        first=max(0, offset) + 1,
        limit=max(1, limit),
    )
    if row is None:
        raise Refusal(Code.NOT_FOUND, "this run has no such artifact")
    piece = bytes(row["piece"])
    if max(0, offset) + len(piece) < row["bytes"]:
        piece = _whole_characters(piece)
    return Piece(piece, max(0, offset), row["bytes"], row["media"], Label.parse(row["label"]))


def listed(tx: Reader, run: RunId, *, skip: int, limit: int) -> list[dict[str, Any]]:
    """The run's artifacts, oldest first: {id, tool, media, bytes}."""
    return tx.read(
        "SELECT id, tool, media, bytes FROM artifacts WHERE run = :run"
        " ORDER BY created_at, id LIMIT :limit OFFSET :skip",
        run=run,
        limit=limit,
        skip=skip,
    )


def drop(tx: Transaction, *, before: Millis) -> int:
    """Forget those made before a time; how many."""
    return tx.execute("DELETE FROM artifacts WHERE created_at < :before", before=before)


def _whole_characters(piece: bytes) -> bytes:
    """Without the beginning of a UTF-8 character at its end, unless nothing else would be left."""
    for back in range(1, min(4, len(piece)) + 1):
        lead = piece[-back]
        if lead < 0x80:
            return piece
        if lead >= 0xC0:
            needs = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return piece[:-back] or piece if needs > back else piece
    return piece
