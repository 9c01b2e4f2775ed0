"""What the reconciler has published: the policy in force and the ceiling of each agent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from gateway.access import epoch
from gateway.database import Database, Transaction
from gateway.policy import AgentPolicy, Policy
from gateway.refusals import Code, Refusal
from gateway.values import AgentName, Millis

Reader = Database | Transaction


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
    epoch.move(tx)
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
    if written:
        epoch.move(tx)
    return written


def drop_ceilings(tx: Transaction, agents: Iterable[AgentName]) -> int:
    """These agents may do nothing from the next call on; returns how many had a ceiling."""
    epoch.move(tx)
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
