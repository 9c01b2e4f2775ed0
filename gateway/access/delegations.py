"""Refresh tokens that must outlive a process: a person's delegation of a tool server, and what an
authorization server has put in the place of a token that was given.

Rows of `oauth_tokens`, readable for whoever may read the state directory's database (mode 0700):
they are not encrypted, for the key would lie beside them. They are in no record, log or answer.
"""

from __future__ import annotations

import hashlib

from gateway.database import Database, Transaction
from gateway.values import Millis


def delegate(tx: Transaction, *, server: str, user: str, refresh_token: str, now: Millis) -> None:
    """Let runs for `user` act on `server` as that person; replaces an earlier delegation."""
    keep(tx, server, user, seed=seed_of(refresh_token), token=refresh_token, now=now)


def withdraw(tx: Transaction, *, server: str, user: str) -> bool:
    """Take a delegation back, from the next call on; whether there was one."""
    return bool(
        tx.execute(
            "DELETE FROM oauth_tokens WHERE server = :server AND person = :user",
            server=server,
            user=user,
        )
    )


def kept(reader: Database | Transaction, server: str, user: str) -> tuple[str, str] | None:
    """(seed, refresh token) of a server and a person ("" for the server's own)."""
    row = reader.one(
        "SELECT seed, refresh_token FROM oauth_tokens WHERE server = :server AND person = :user",
        server=server,
        user=user,
    )
    return None if row is None else (row["seed"], row["refresh_token"])


def keep(tx: Transaction, server: str, user: str, *, seed: str, token: str, now: Millis) -> None:
    """Keep a token; `seed` says by which given one it was got."""
    tx.execute(
        "INSERT INTO oauth_tokens (server, person, seed, refresh_token, updated_at) VALUES"
        " (:server, :user, :seed, :token, :now) ON CONFLICT (server, person) DO UPDATE SET"
        " seed = :seed, refresh_token = :token, updated_at = :now",
        server=server,
        user=user,
        seed=seed,
        token=token,
        now=now,
    )


def seed_of(token: str) -> str:
    """What tells a token that was given from another one: its SHA-256."""
    return hashlib.sha256(token.encode()).hexdigest()
