"""Tokens of an answer, as each API counts them.

Every number comes from the other side. Without sound totals there is no usage at all (the call is
then charged as reserved); a part that is no count is taken for nothing, and parts never exceed the
whole.
"""

from __future__ import annotations

from typing import Any

from gateway.pricing import Usage


def of_chat(usage: Any) -> Usage | None:
    """`usage` of OpenAI Chat Completions; None without sound totals."""
    return _openai(usage, "prompt_tokens", "completion_tokens")


def of_responses(usage: Any) -> Usage | None:
    """`usage` of OpenAI Responses; None without sound totals."""
    return _openai(usage, "input_tokens", "output_tokens")


def _openai(usage: Any, input_name: str, output_name: str) -> Usage | None:
    if not _says(usage, input_name, output_name):
        return None
    read, said = _part(usage, f"{input_name}_details"), _part(usage, f"{output_name}_details")
    return whole(
        input_tokens=_count(usage, input_name),
        output_tokens=_count(usage, output_name),
        cached=_count(read, "cached_tokens"),
        written=_count(read, "cache_write_tokens"),
        reasoning=_count(said, "reasoning_tokens"),
        heard=_count(read, "audio_tokens"),
        spoken=_count(said, "audio_tokens"),
    )


def of_messages(usage: Any) -> Usage | None:
    """`usage` of Anthropic Messages; None without sound totals. Of a stream: `message_start`'s
    overlaid with `message_delta`'s.

    Anthropic counts what it read from and wrote to its cache beside `input_tokens`, the ledger
    counts it within.
    """
    if not _says(usage, "input_tokens", "output_tokens"):
        return None
    cached = _count(usage, "cache_read_input_tokens")
    kinds = _part(usage, "cache_creation")
    hour = _count(kinds, "ephemeral_1h_input_tokens")
    written = max(
        _count(usage, "cache_creation_input_tokens"),
        hour + _count(kinds, "ephemeral_5m_input_tokens"),
    )
    said = _part(usage, "output_tokens_details")
    return whole(
        input_tokens=_count(usage, "input_tokens") + cached + written,
        output_tokens=_count(usage, "output_tokens"),
        cached=cached,
        written=written,
        hour=hour,
        reasoning=_count(said, "thinking_tokens"),
    )


def of_embeddings(usage: Any) -> Usage | None:
    """`usage` of OpenAI embeddings; None without a sound total."""
    if not _says(usage, "prompt_tokens"):
        return None
    return Usage(_count(usage, "prompt_tokens"), 0)


def whole(
    *,
    input_tokens: int,
    output_tokens: int,
    cached: int = 0,
    written: int = 0,
    hour: int = 0,
    reasoning: int = 0,
    heard: int = 0,
    spoken: int = 0,
) -> Usage | None:
    """Totals and their parts, made to fit; None when a total is no count."""
    if not (_is_count(input_tokens) and _is_count(output_tokens)):
        return None
    cached, written, hour = max(0, cached), max(0, written), max(0, hour)
    reasoning, heard, spoken = max(0, reasoning), max(0, heard), max(0, spoken)
    cached = min(cached, input_tokens)
    written = min(written, input_tokens - cached)
    return Usage(
        input=input_tokens,
        output=output_tokens,
        cached=cached,
        reasoning=min(reasoning, output_tokens),
        cache_write=written,
        cache_write_1h=min(hour, written),
        audio_input=min(heard, input_tokens - cached - written),
        audio_output=min(spoken, output_tokens),
    )


MOST_TOKENS = 10**9
"""No answer has more; a number beyond it is no count. A hundred thousand answers of so many tokens,
at the dearest price there is, still fit the BIGINT of a budget's total."""


def _says(usage: Any, *totals: str) -> bool:
    return isinstance(usage, dict) and all(_is_count(usage.get(name)) for name in totals)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS


def _count(source: dict[str, Any], name: str) -> int:
    value = source.get(name)
    return value if isinstance(value, int) and _is_count(value) else 0


def _part(source: dict[str, Any], name: str) -> dict[str, Any]:
    value = source.get(name)
    return value if isinstance(value, dict) else {}
