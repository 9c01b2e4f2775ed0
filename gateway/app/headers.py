"""What the gateway says of a call in the head of its response (docs/gateway-http.md)."""

from __future__ import annotations

from gateway.live import Finished, LiveCall


def known(call: LiveCall) -> dict[bytes, bytes]:
    """What is known when somebody begins to answer."""
    headers = {b"X-Interlock-Call-Key": str(call.key).encode()}
    if call.target is not None:
        headers[b"X-Interlock-Model"] = call.target.encode()
    if call.label is not None:
        headers[b"X-Interlock-Label"] = str(call.label).encode()
    if call.effect_key is not None:
        headers[b"X-Interlock-Effect-Key"] = call.effect_key.encode()
    return headers


def figures(end: Finished) -> dict[bytes, bytes]:
    """What is known at the end."""
    headers = {
        b"X-Interlock-Cost-Nano": str(end.cost_nano).encode(),
        b"X-Interlock-Tokens": b"%d,%d" % (end.input_tokens, end.output_tokens),
    }
    if end.replayed:
        headers[b"X-Interlock-Replayed"] = b"1"
    if end.cached:
        headers[b"X-Interlock-Cached"] = b"1"
    return headers
