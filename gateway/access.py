"""Who is calling and what they may reach: tokens, stops, the current policy and its ceilings.

Other processes write here through plain transactions (the reconciler issues, revokes, publishes);
the gateway reads on every call, and again inside the transaction that reserves, so that a
revocation that commits first always wins.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gateway.database import Database, Row, Transaction
from gateway.policy import AgentPolicy, Grants, Policy, effective, in_recorded_world
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


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated principal: what its release grants and, for evals, its recorded world."""

    token_hash: str
    principal: Principal
    grants: Grants
    recorded: tuple[Mapping[str, Any], ...] | None

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
        " grants, recorded, issued_at, expires_at) VALUES (:token_hash, :run, :agent, :team,"
        " :role, :release, :purpose, :occurrence, :grants, :recorded, :now, :expires_at)"
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
    return tx.execute(
        f"UPDATE tokens SET revoked_at = :now, revoked_why = :why"  # noqa: S608
        f" WHERE {field} = :value AND revoked_at IS NULL",
        now=now,
        why=why,
        value=value,
    )


def stop(
    tx: Transaction,
    agent: str,
    *,
    reason: str,
    actor: str,
    now: Millis,
    expires_at: Millis | None = None,
) -> None:
    """Refuse every call of an agent (`*`: of everyone) until `unstop` or expiry.

    Works from the next call on, and cuts running streams.
    """
    tx.execute(
        "INSERT INTO stops (agent, reason, actor, at, expires_at)"
        " VALUES (:agent, :reason, :actor, :now, :expires_at) ON CONFLICT (agent) DO UPDATE"
        " SET reason = :reason, actor = :actor, at = :now, expires_at = :expires_at",
        agent=agent,
        reason=reason,
        actor=actor,
        now=now,
        expires_at=expires_at,
    )


def unstop(tx: Transaction, agent: str) -> bool:
    """Lift a stop; False when there was none."""
    return tx.execute("DELETE FROM stops WHERE agent = :agent", agent=agent) == 1


def publish(tx: Transaction, policy: Policy, *, now: Millis) -> str:
    """Make a policy the current one, from the next call on; returns its digest. Idempotent.

    What each agent may do of it is published beside it, by `put_ceilings`.
    """
    digest = policy.digest()
    tx.execute(
        "INSERT INTO policies (digest, document, published_at) VALUES (:digest, :document, :now)"
        " ON CONFLICT (digest) DO NOTHING",
        digest=digest,
        document=policy.model_dump_json(),
        now=now,
    )
    tx.execute(
        "INSERT INTO current_policy (id, digest) VALUES (1, :digest)"
        " ON CONFLICT (id) DO UPDATE SET digest = :digest",
        digest=digest,
    )
    return digest


def put_ceilings(tx: Transaction, ceilings: Mapping[AgentName, AgentPolicy]) -> int:
    """Make these the ceilings of these agents, from the next call on; the other agents keep
    theirs. Writes only what differs, and returns how many that were."""
    written = 0
    for agent, ceiling in ceilings.items():
        document = ceiling.model_dump_json()
        written += tx.execute(
            "INSERT INTO ceilings (agent, document, digest) VALUES (:agent, :document, :digest)"
            " ON CONFLICT (agent) DO UPDATE SET document = :document, digest = :digest"
            " WHERE ceilings.digest <> :digest",
            agent=agent,
            document=document,
            digest=hashlib.sha256(document.encode()).hexdigest(),
        )
    return written


def drop_ceilings(tx: Transaction, agents: Iterable[AgentName]) -> int:
    """These agents may do nothing from the next call on; returns how many had a ceiling."""
    return sum(
        tx.execute("DELETE FROM ceilings WHERE agent = :agent", agent=agent) for agent in agents
    )


def with_ceiling(reader: Reader) -> frozenset[AgentName]:
    """Every agent that may do anything at all."""
    return frozenset(AgentName(r["agent"]) for r in reader.read("SELECT agent FROM ceilings"))


def agent_policy(reader: Reader, agent: str) -> AgentPolicy | None:
    """What an agent may do today; None: nothing."""
    row = reader.one("SELECT document, digest FROM ceilings WHERE agent = :agent", agent=agent)
    if row is None:
        return None
    known = _CEILINGS.get(row["digest"])
    if known is None:
        while len(_CEILINGS) >= 1024:
            _CEILINGS.pop(next(iter(_CEILINGS)))
        known = _CEILINGS[row["digest"]] = AgentPolicy.model_validate_json(row["document"])
    return known


_CEILINGS: dict[str, AgentPolicy] = {}
"""Parsed ceilings by digest: a document never changes under its digest."""


def current_digest(reader: Reader) -> str | None:
    """The identity of the policy in force; None when none has been published yet."""
    row = reader.one("SELECT digest FROM current_policy WHERE id = 1")
    return row["digest"] if row is not None else None


def current_policy(reader: Reader) -> tuple[str, Policy]:
    """The policy in force and its digest. Raises Refusal (no_policy) when there is none."""
    digest = current_digest(reader)
    if digest is None:
        raise Refusal(
            Code.NO_POLICY, "no policy has been published yet: run `interlock reconcile --once`"
        )
    known = _POLICIES.get(digest)
    if known is None:
        document = reader.one("SELECT document FROM policies WHERE digest = :digest", digest=digest)
        if document is None:
            raise Refusal(Code.NO_POLICY, f"policy {digest[:12]} is current but not stored")
        # A policy never changes under its digest; only the newest few are worth keeping.
        while len(_POLICIES) >= 4:
            _POLICIES.pop(next(iter(_POLICIES)))
        known = _POLICIES[digest] = Policy.model_validate_json(document["document"])
    return digest, known


_POLICIES: dict[str, Policy] = {}


def caller(reader: Reader, token_hash: str, *, now: Millis) -> Caller:
    """The principal behind a token, if it may call at all right now.

    Raises Refusal: unauthenticated (unknown, expired), revoked, or stopped, each with its reason.
    """
    return _caller(_admitted(reader, token_hash, now))


def barred_among(reader: Reader, token_hashes: Sequence[str], *, now: Millis) -> dict[str, Refusal]:
    """Those of these tokens that have been revoked or whose agent is stopped, with what a call
    of theirs would hear. A token that merely expired does not end what it began."""
    found: dict[str, Refusal] = {}
    for token_hash in token_hashes:
        try:
            _admitted(reader, token_hash, now)
        except Refusal as refusal:
            if refusal.code in (Code.REVOKED, Code.STOPPED):
                found[token_hash] = refusal
    return found


def _admitted(reader: Reader, token_hash: str, now: Millis) -> Row:
    row = reader.one("SELECT * FROM tokens WHERE token_hash = :hash", hash=token_hash)
    if row is None:
        raise Refusal(Code.UNAUTHENTICATED, "unknown token: it was never issued for a run")
    if row["revoked_at"] is not None:
        raise Refusal(Code.REVOKED, f"run {row['run']} was revoked: {row['revoked_why']}")
    if row["expires_at"] <= now:
        raise Refusal(Code.UNAUTHENTICATED, f"the token of run {row['run']} has expired")
    for stopped in reader.read(
        "SELECT * FROM stops WHERE agent IN ('*', :agent) ORDER BY agent", agent=row["agent"]
    ):
        if stopped["expires_at"] is None or stopped["expires_at"] > now:
            what = "the fleet" if stopped["agent"] == "*" else f"agent {stopped['agent']}"
            raise Refusal(
                Code.STOPPED,
                f"{what} is stopped by {stopped['actor']}: {stopped['reason']}. "
                "Lift it with `interlock resume`.",
                resets_at=stopped["expires_at"],
            )
    return row


def _caller(row: Row) -> Caller:
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
        ),
        grants=_grants(row["grants"]),
        recorded=None if recorded is None else tuple(json.loads(recorded)),
    )


@lru_cache(maxsize=512)
def _grants(document: str) -> Grants:
    return Grants.model_validate_json(document)


def ceiling(reader: Reader, who: Caller) -> Grants | None:
    """Today's ceiling of the caller's role; None: it may do nothing.

    For an eval in its recorded world the ceiling says nothing about tools.
    """
    declared = agent_policy(reader, who.principal.agent)
    found = declared.roles.get(who.principal.role) if declared else None
    return in_recorded_world(who.grants, found) if who.sealed else found


def rights(who: Caller, ceiling: Grants | None) -> Grants:
    """What the caller may reach now: its release's grants ∩ its ceiling."""
    return effective(who.grants, ceiling)


def sides(who: Caller, ceiling: Grants | None) -> tuple[Grants, ...]:
    """Both sides of `rights`: what the release grants, and today's ceiling where there is one."""
    return (who.grants,) if ceiling is None else (who.grants, ceiling)


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
