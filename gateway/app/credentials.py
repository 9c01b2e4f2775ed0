"""Who is calling, and what comes with a request besides its body."""

from __future__ import annotations

from functools import lru_cache

from gateway import access
from gateway.app.exchange import Exchange
from gateway.door import Head
from gateway.refusals import Code, Refusal


def head(exchange: Exchange) -> Head:
    """What comes with a request besides its body."""
    return Head(exchange.header(b"x-interlock-call-key"), exchange.header(b"traceparent"))


def credential(exchange: Exchange) -> str:
    """The token hash of whoever calls. Raises Refusal (unauthenticated)."""
    if exchange.principal is not None:
        return exchange.principal
    bearer = exchange.headers.get(b"authorization", b"")
    return _hash_of(bearer, exchange.headers.get(b"x-api-key", b""))


@lru_cache(maxsize=4096)
def _hash_of(bearer: bytes, api_key: bytes) -> str:
    scheme, _, token = bearer.partition(b" ")
    if scheme.lower() != b"bearer" or not token.strip():
        token = api_key
    if not token.strip():
        raise Refusal(
            Code.UNAUTHENTICATED,
            "no credentials: send the run's token as `Authorization: Bearer` or `x-api-key`, or "
            "connect to the run's socket",
        )
    return access.hash_token(token.strip().decode("latin-1"))
