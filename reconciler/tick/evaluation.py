"""Who a rollout is compared with: its arms, and whether the suite has to be tested first.

A suite's sentinels are bought once: that it rejects exactly these variants is a verdict about the
suite, kept as a receipt, and reused by every later gate on the same suite.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.database import Transaction
from gateway.values import Json, Millis, canonical_json, derived_id
from reconciler.gates.evidence import ANCHOR, CANDIDATE, SENTINEL, STABLE
from reconciler.gates.judge import Reading
from reconciler.release import Release
from reconciler.rollout import store
from reconciler.rollout.model import Rollout
from reconciler.tick import evals
from reconciler.tick.context import Context, Declared
from reconciler.tick.declare import shape


def evaluation_of(
    context: Context, declared: Declared | None, rollout: Rollout
) -> evals.Evaluation | None:
    """The comparison a rollout's gate makes; None when it has no gate or no suite is declared."""
    if declared is None or rollout.policy.gate is None or rollout.agent not in declared.releases:
        return None
    config = declared.fleet.agents[rollout.agent]
    if config.suite is None:
        return None
    arms = {CANDIDATE: store.release(context.database, rollout.candidate)}
    if rollout.stable is not None:
        arms[STABLE] = store.release(context.database, rollout.stable)
    if rollout.anchor is not None and rollout.anchor != rollout.stable:
        arms[ANCHOR] = store.release(context.database, rollout.anchor)
    sentinels = declared.sentinels.get(rollout.agent, {})
    if _sentinels_caught(context, rollout, sentinels):
        sentinels = {}
    for name, variant in sentinels.items():
        arms[evals.sentinel_arm(name)] = variant
    return evals.Evaluation(
        id=rollout.id,
        agent=rollout.agent,
        team=config.team,
        suite=config.suite,
        shape=shape(config.suite, sentinels=tuple(sentinels)),
        arms=arms,
    )


def _sentinel_receipt(rollout: Rollout, sentinels: Mapping[str, Release]) -> str:
    """Identity of "this suite rejects these variants at this threshold"."""
    gate = rollout.policy.gate
    threshold = gate.first_release.min_pass_rate_permille if gate is not None else 0
    digests = sorted(variant.digest for variant in sentinels.values())
    return derived_id("receipt", "sentinels", rollout.suite, threshold, *digests)


def _sentinels_caught(context: Context, rollout: Rollout, sentinels: Mapping[str, Release]) -> bool:
    """Whether an earlier gate on the same suite has rejected exactly these variants.

    It is a verdict about the suite, not about the candidate, so it need not be bought again.
    """
    row = context.database.one(
        "SELECT rollout FROM receipts WHERE receipt = :id AND rollout <> :rollout",
        id=_sentinel_receipt(rollout, sentinels),
        rollout=rollout.id,
    )
    return row is not None


def remember_sentinels(
    tx: Transaction, rollout: Rollout, declared: Declared, reading: Reading, now: Millis
) -> None:
    """Keep that the suite rejected its sentinels, once a gate has seen all of them rejected."""
    checks = [c for c in reading.checks if c.name.startswith(SENTINEL)]
    sentinels = declared.sentinels.get(rollout.agent, {})
    if len(checks) != len(sentinels) or any(c.verdict != "pass" for c in checks):
        return
    receipt = _sentinel_receipt(rollout, sentinels)
    body: Json = {
        "format": "interlock.receipt/1",
        "kind": "sentinels",
        "rollout": rollout.id,
        "agent": rollout.agent,
        "suite": rollout.suite,
        "decided_at": now,
        "evidence": [{"name": c.name, "text": c.text, "figures": dict(c.figures)} for c in checks],
    }
    tx.execute(
        "INSERT INTO receipts (receipt, rollout, kind, document, at) VALUES"
        " (:receipt, :rollout, 'sentinels', :document, :now) ON CONFLICT DO NOTHING",
        receipt=receipt,
        rollout=rollout.id,
        document=canonical_json(body).decode(),
        now=now,
    )
