"""Who is calling and what they may reach: tokens, stops, the current policy and its ceilings.

Other processes write here through plain transactions (the reconciler issues, revokes, publishes);
the gateway looks on every call, and again inside the transaction that reserves, so that a
revocation that commits first always wins.
"""

from __future__ import annotations

from gateway.access.delegations import delegate, withdraw
from gateway.access.epoch import move as changed
from gateway.access.published import (
    agent_policy,
    current_digest,
    current_policy,
    drop_ceilings,
    publish,
    put_ceilings,
    with_ceiling,
)
from gateway.access.stops import stop, unstop
from gateway.access.tokens import (
    NO_RELEASE,
    Caller,
    close_socket,
    hash_token,
    issue,
    open_socket,
    revoke,
    sockets,
    with_sockets,
)

__all__ = [
    "NO_RELEASE",
    "Caller",
    "agent_policy",
    "changed",
    "close_socket",
    "current_digest",
    "current_policy",
    "delegate",
    "drop_ceilings",
    "hash_token",
    "issue",
    "open_socket",
    "publish",
    "put_ceilings",
    "revoke",
    "sockets",
    "stop",
    "unstop",
    "with_ceiling",
    "with_sockets",
    "withdraw",
]
