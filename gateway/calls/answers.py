"""Answers of equal requests: which settled call answers the next one, and until when.

The answer itself stays where it is, in the ledger. A hit is a row of its own there, settled at no
cost, that names the call it was taken from.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from gateway.database import Row, Transaction
from gateway.policy import Cache, Policy
from gateway.values import Millis, Principal, Purpose


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where answers to a principal's requests for a model are kept."""

    rule: Cache
    namespace: str


def shelf(policy: Policy, who: Principal, model: str) -> Shelf | None:
    """The first cache rule that is about this call. None: it is always sent.

    An eval is always sent: its attempts would otherwise measure the first one again and again.
    """
    if not policy.caches or who.purpose is not Purpose.LIVE:
        return None
    for rule in policy.caches:
        match = rule.match
        if (
            fnmatchcase(who.agent, match.agent)
            and fnmatchcase(who.team, match.team)
            and (match.model is None or fnmatchcase(model, match.model))
        ):
            names = {"agent": f"agent:{who.agent}", "team": f"team:{who.team}", "fleet": "fleet"}
            return Shelf(rule, names[rule.namespace])
    return None


def find(tx: Transaction, where: Shelf, request_hash: str, policy: str, now: Millis) -> Row | None:
    """The settled row that answers an equal request, if there is one that is not too old and was
    made under the same policy: another one may have another model behind the name."""
    return tx.one(
        "SELECT c.* FROM cached_answers a JOIN calls c ON c.run = a.run AND c.step = a.step"
        " AND c.call = a.call AND c.attempt = a.attempt"
        " WHERE a.cache = :cache AND a.namespace = :namespace AND a.request_hash = :hash"
        " AND a.expires_at > :now AND c.response IS NOT NULL AND c.policy = :policy",
        cache=where.rule.name,
        namespace=where.namespace,
        hash=request_hash,
        policy=policy,
        now=now,
    )


def keep(tx: Transaction, where: Shelf, row: Row, now: Millis) -> None:
    """From now on this row answers requests that are equal to its own."""
    tx.execute("DELETE FROM cached_answers WHERE expires_at <= :now", now=now)
    tx.execute(
        "INSERT INTO cached_answers (cache, namespace, request_hash, run, step, call, attempt,"
        " expires_at) VALUES (:cache, :namespace, :hash, :run, :step, :call, :attempt, :until)"
        " ON CONFLICT (cache, namespace, request_hash) DO UPDATE SET run = :run, step = :step,"
        " call = :call, attempt = :attempt, expires_at = :until",
        cache=where.rule.name,
        namespace=where.namespace,
        hash=row["request_hash"],
        run=row["run"],
        step=row["step"],
        call=row["call"],
        attempt=row["attempt"],
        until=now + where.rule.ttl_ms,
    )
