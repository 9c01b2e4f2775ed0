"""Embeddings: texts in, vectors out. OpenAI's API, which every server that has them speaks.

https://platform.openai.com/docs/api-reference/embeddings. A vector is kept as its little-endian
32-bit floats, the form in which clients get it when they ask for base64.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gateway.pricing import Usage
from gateway.providers import usage, wire
from gateway.providers.upstream import Upstream
from gateway.routing import Failure, Target

SCRIPTED_DIMENSIONS = 64


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """What is to be embedded: texts, or lists of token numbers."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    user: str | None = None
    base64: bool = False
    """How the client wants its vectors; the provider is always asked for base64."""


@dataclass(frozen=True, slots=True)
class EmbeddingReply:
    """A vector for each input, in their order. `usage` is None when the provider did not say."""

    vectors: tuple[bytes, ...]
    usage: Usage | None

    def to_json(self) -> dict[str, Any]:
        """Form in which the ledger keeps it (`response` of a model row)."""
        return {
            "vectors": [base64.b64encode(vector).decode() for vector in self.vectors],
            "usage": None if self.usage is None else asdict(self.usage),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> EmbeddingReply:
        """Inverse of `to_json`."""
        counted = document["usage"]
        return cls(
            tuple(base64.b64decode(vector) for vector in document["vectors"]),
            None if counted is None else Usage(**counted),
        )


def estimate_embedding(request: EmbeddingRequest) -> int:
    """Upper estimate of the input tokens: token numbers as they are, one token per two UTF-8
    bytes of text, 8 for each input."""
    return sum(
        8 + (-(-len(item.encode()) // 2) if isinstance(item, str) else len(item))
        for item in request.inputs
    )


async def embed(upstream: Upstream, target: Target, request: EmbeddingRequest) -> EmbeddingReply:
    """The target's vectors. Raises routing.Failure, Refusal (no key)."""
    if target.provider.kind == "scripted":
        return scripted(request)
    if "embeddings" not in wire.apis_of(target.provider):
        raise wire.unable(target, "has no embeddings")
    async with wire.ask(upstream, target, "embeddings", body(request, target)) as answer:
        return read_answer(await answer.document(), len(request.inputs), answer.where)


def body(request: EmbeddingRequest, target: Target) -> dict[str, Any]:
    """The request in OpenAI's words."""
    out: dict[str, Any] = {
        "model": target.model.id,
        "input": list(request.inputs),
        "encoding_format": "base64",
    }
    if request.dimensions is not None:
        out["dimensions"] = request.dimensions
    if request.user is not None:
        out["user"] = request.user
    return wire.overridden(out, target.model.parameters)


def read_answer(document: dict[str, Any], wanted: int, where: str) -> EmbeddingReply:
    """Vectors in the order of the inputs, whichever order and encoding they come in. Raises
    Failure (done) when they are not all there."""
    found: dict[int, bytes] = {}
    listed = document.get("data")
    for position, item in enumerate(listed if isinstance(listed, list) else []):
        if not isinstance(item, dict):
            continue
        index = item.get("index", position)
        vector = _packed(item.get("embedding"))
        if vector is not None and isinstance(index, int):
            found[index] = vector
    if set(found) != set(range(wanted)):
        raise Failure(f"{where} did not answer with {wanted} vectors", done=True)
    vectors = tuple(found[index] for index in range(wanted))
    return EmbeddingReply(vectors, usage.of_embeddings(document.get("usage")))


def _packed(vector: Any) -> bytes | None:
    try:
        if isinstance(vector, str):
            packed = base64.b64decode(vector, validate=True)
            return packed if packed and len(packed) % 4 == 0 else None
        if isinstance(vector, list) and vector:
            return struct.pack(f"<{len(vector)}f", *vector)
    except (ValueError, struct.error, OverflowError):
        return None
    return None


def floats(vector: bytes) -> list[float]:
    """The numbers of a vector."""
    return list(struct.unpack(f"<{len(vector) // 4}f", vector))


def scripted(request: EmbeddingRequest) -> EmbeddingReply:
    """Vectors without a model, always the same for the same text: each word counts in one place,
    found by its SHA-256, so that texts with words in common are near each other. Length one."""
    size = request.dimensions or SCRIPTED_DIMENSIONS
    vectors = tuple(_scripted(item, size) for item in request.inputs)
    tokens = sum(
        max(1, -(-len(item) // 4)) if isinstance(item, str) else len(item)
        for item in request.inputs
    )
    return EmbeddingReply(vectors, Usage(tokens, 0))


def _scripted(item: str | tuple[int, ...], size: int) -> bytes:
    words = re.findall(r"\w+", item.lower()) if isinstance(item, str) else [str(n) for n in item]
    values = [0.0] * size
    for word in words or [""]:
        mark = hashlib.sha256(word.encode()).digest()
        values[int.from_bytes(mark[:4]) % size] += 1.0
    length = math.sqrt(sum(value * value for value in values))
    return struct.pack(f"<{size}f", *(value / length for value in values))
