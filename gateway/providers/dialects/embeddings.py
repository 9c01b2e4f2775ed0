"""OpenAI embeddings as clients speak them.

https://platform.openai.com/docs/api-reference/embeddings. The official Python client asks for
base64 unless told otherwise.
"""

from __future__ import annotations

import base64
from typing import Any

from gateway.policy import Api
from gateway.pricing import Usage
from gateway.providers.dialects import fields, openai
from gateway.providers.embeddings import EmbeddingReply, EmbeddingRequest, floats
from gateway.refusals import Refusal

API: Api = "embeddings"
PATH = "/v1/embeddings"
MOST_INPUTS = 2048
MOST_DIMENSIONS = 65_536


def read(body: dict[str, Any]) -> EmbeddingRequest:
    """A client's request. Raises Refusal (invalid_request) naming the field."""
    encoding = fields.optional_text(body, "encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise fields.invalid("`encoding_format` must be float or base64")
    dimensions = fields.count(body, "dimensions")
    if dimensions is not None and dimensions > MOST_DIMENSIONS:
        raise fields.invalid(f"`dimensions` must be no more than {MOST_DIMENSIONS}")
    return EmbeddingRequest(
        model=fields.text(body, "model"),
        inputs=_inputs(body.get("input")),
        dimensions=dimensions,
        user=fields.optional_text(body, "user") or None,
        base64=encoding == "base64",
    )


def _inputs(given: Any) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(given, str):
        return (_text(given),)
    if not isinstance(given, list) or not given:
        raise fields.invalid("`input` must be a string, a list of strings, or tokens")
    if _is_tokens(given):
        return (tuple(given),)
    if len(given) > MOST_INPUTS:
        raise fields.invalid(f"`input` may hold {MOST_INPUTS} texts at most")
    found: list[str | tuple[int, ...]] = []
    for index, item in enumerate(given):
        if isinstance(item, str):
            found.append(_text(item))
        elif isinstance(item, list) and item and _is_tokens(item):
            found.append(tuple(item))
        else:
            raise fields.invalid(f"`input[{index}]` must be a string or a list of tokens")
    return tuple(found)


def _text(text: str) -> str:
    if not text:
        raise fields.invalid("`input` must not hold an empty text")
    return text


def _is_tokens(items: list[Any]) -> bool:
    return all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in items)


def answer(reply: EmbeddingReply, *, model: str, request: EmbeddingRequest) -> dict[str, Any]:
    """A whole list of embeddings; `model` is the name the client asked for."""
    counted = reply.usage or Usage(0, 0)
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(vector).decode()
                if request.base64
                else floats(vector),
            }
            for index, vector in enumerate(reply.vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": counted.input, "total_tokens": counted.input},
    }


def error(refusal: Refusal) -> dict[str, Any]:
    """OpenAI's error object with the gateway's code and facts."""
    return openai.error(refusal)
