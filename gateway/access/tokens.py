"""Tokens: who speaks for which principal, until when.

Other processes write here through plain transactions (the reconciler issues and revokes, the
runner issues); the gateway reads on every call.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gateway.access import epoch
from gateway.database import Database, Row, Transaction
from gateway.policy import Grants
from gateway.refusals import Code, Refusal
from gateway.values import (
    AgentName,
    Millis,
    Occurrence,
    Principal,
    Purpose,
    ReleaseDigest,
    RunId,
    TeamName,
)

Reader = Database | Transaction
NO_RELEASE = ReleaseDigest("rel-none")
"""The release of whoever calls from outside a run."""


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated principal: what its release grants and, for evals, its recorded world."""

    token_hash: str
    principal: Principal
    grants: Grants
    recorded: tuple[Mapping[str, Any], ...] | None

    @property
    def outside(self) -> bool:
        """A person or a service that calls from outside a run: it has no release."""
        return self.principal.release == NO_RELEASE

    @property
    def sealed(self) -> bool:
        """An eval in a recorded world: none of its tool calls can leave the gateway."""
        return self.principal.purpose is Purpose.EVAL and self.recorded is not None


def hash_token(token: str) -> str:
    """SHA-256 of a token, 64 hex digits: the only form in which it is ever stored."""
    return hashlib.sha256(token.encode()).hexdigest()


def issue(
    tx: Transaction,
    principal: Principal,
    grants: Grants,
    recorded: Sequence[Mapping[str, Any]] | None,
    *,
    token: str,
    now: Millis,
    expires_at: Millis,
) -> str:
    """Let `token` speak for the principal until `expires_at`; returns the token's hash.

    `token` is a secret the caller drew (32 random bytes or more). `recorded` is a list of
    {tool, args, result, error}: the whole outside world of an eval; None for live runs. Issuing
    the same token again changes nothing, above all it does not undo a revocation.
    """
    token_hash = hash_token(token)
    tx.execute(
        "INSERT INTO tokens (token_hash, run, agent, team, role, release, purpose, occurrence,"
        " grants, recorded, issued_at, expires_at, for_user, tags) VALUES (:token_hash, :run,"
        " :agent, :team, :role, :release, :purpose, :occurrence, :grants, :recorded, :now,"
        " :expires_at, :user, :tags)"
        " ON CONFLICT (token_hash) DO NOTHING",
        token_hash=token_hash,
        run=principal.run,
        agent=principal.agent,
        team=principal.team,
        role=principal.role,
        release=principal.release,
        purpose=str(principal.purpose),
        occurrence=principal.occurrence,
        grants=grants.model_dump_json(),
        recorded=None if recorded is None else json.dumps([dict(r) for r in recorded]),
        now=now,
        expires_at=expires_at,
        user=principal.user,
        tags=" ".join(principal.tags) or None,
    )
    return token_hash


def revoke(
    tx: Transaction,
    *,
    why: str,
    now: Millis,
    run: RunId | None = None,
    release: ReleaseDigest | None = None,
    agent: AgentName | None = None,
) -> int:
    """Take back every token of a run, a release or an agent (exactly one of them is given).

    Works from the next call on, and cuts running streams. Returns how many tokens it took.
    """
    given = {"run": run, "release": release, "agent": agent}
    named = {field: value for field, value in given.items() if value is not None}
    if len(named) != 1:
        raise ValueError("revoke needs exactly one of run, release, agent")
    ((field, value),) = named.items()
    epoch.move(tx)
    return tx.execute(
        f"UPDATE tokens SET revoked_at = :now, revoked_why = :why"  # noqa: S608
        f" WHERE {field} = :value AND revoked_at IS NULL",
        now=now,
        why=why,
        value=value,
    )


def find(reader: Reader, token_hash: str) -> Row:
    """The row of a token that has not been revoked. Raises Refusal: unauthenticated, revoked."""
    row = reader.one("SELECT * FROM tokens WHERE token_hash = :hash", hash=token_hash)
    if row is None:
        raise Refusal(Code.UNAUTHENTICATED, "unknown token: it was never issued for a run")
    if row["revoked_at"] is not None:
        raise Refusal(Code.REVOKED, f"run {row['run']} was revoked: {row['revoked_why']}")
    return row


def unexpired(row: Row, now: Millis) -> None:
    """Raises Refusal (unauthenticated) when the token's time is over."""
    if row["expires_at"] <= now:
        raise Refusal(Code.UNAUTHENTICATED, f"the token of run {row['run']} has expired")


def caller_of(row: Row) -> Caller:
    """The principal that a row of `tokens` speaks for."""
    recorded = row["recorded"]
    return Caller(
        token_hash=row["token_hash"],
        principal=Principal(
            run=RunId(row["run"]),
            agent=AgentName(row["agent"]),
            team=TeamName(row["team"]),
            role=row["role"],
            release=ReleaseDigest(row["release"]),
            purpose=Purpose(row["purpose"]),
            occurrence=Occurrence(row["occurrence"]),
            user=row["for_user"],
            tags=tuple((row["tags"] or "").split()),
        ),
        grants=_grants(row["grants"]),
        recorded=None if recorded is None else tuple(json.loads(recorded)),
    )


@lru_cache(maxsize=512)
def _grants(document: str) -> Grants:
    return Grants.model_validate_json(document)


def open_socket(tx: Transaction, run: RunId, token_hash: str, *, now: Millis) -> None:
    """Remember which principal a run's socket stands for.

    Raises Refusal: unauthenticated for an unknown token, not_granted for another run's.
    """
    row = tx.one("SELECT run FROM tokens WHERE token_hash = :hash", hash=token_hash)
    if row is None:
        raise Refusal(Code.UNAUTHENTICATED, "unknown token: issue it before opening its socket")
    if row["run"] != run:
        raise Refusal(Code.NOT_GRANTED, f"the token belongs to {row['run']}, not to {run}")
    tx.execute(
        "INSERT INTO sockets (run, token_hash, opened_at) VALUES (:run, :hash, :now)"
        " ON CONFLICT (run) DO UPDATE SET token_hash = :hash",
        run=run,
        hash=token_hash,
        now=now,
    )


def close_socket(tx: Transaction, run: RunId) -> None:
    """Forget a run's socket."""
    tx.execute("DELETE FROM sockets WHERE run = :run", run=run)


def with_sockets(reader: Reader) -> list[RunId]:
    """Every run whose socket nobody has closed, whether it may still call or not."""
    return [RunId(row["run"]) for row in reader.read("SELECT run FROM sockets ORDER BY run")]


def sockets(reader: Reader, *, now: Millis) -> list[tuple[RunId, str]]:
    """(run, token hash) of every socket whose principal may still call."""
    return [
        (RunId(row["run"]), row["token_hash"])
        for row in reader.read(
            "SELECT s.run, s.token_hash FROM sockets s JOIN tokens t ON t.token_hash = s.token_hash"
            " WHERE t.revoked_at IS NULL AND t.expires_at > :now ORDER BY s.run",
            now=now,
        )
    ]
