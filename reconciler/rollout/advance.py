"""The rollout machine: pure and total.

    evaluating ─pass─▶ [awaiting approval] ─▶ canary ─▶ promoted
        │ fail             │ hold               │ harm
        ▼                  ▼                    ▼
     rejected            held               rolled back

A rollout of a pull request's head only evaluates: it ends `judged` (pass, or hold) or rejected.

One function per state, each a screen; `advance` calls the one for the current state and nothing
else. Every transition names its reason, because the reason is what people read in the report.
Callers may call it as often as they like: with unchanged facts it changes nothing, except that
`StartEvals` is repeated, which is idempotent.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.values import Json, Millis
from reconciler.gates.statistics import canary_can_fire, canary_decision
from reconciler.rollout.model import (
    Action,
    CanaryReading,
    CloseCanary,
    Facts,
    Hold,
    OpenCanary,
    Promote,
    RollBack,
    Rollout,
    StartEvals,
    State,
    Verdict,
    WriteReceipt,
)

MAX_SILENT = 5
"""Canary runs that may be lost to errors before a person is asked: they are not turns of the
canary, so without a bound a release that only breaks would be given every run."""

Step = tuple[Rollout, tuple[Action, ...]]


def advance(rollout: Rollout, facts: Facts, now: Millis) -> Step:
    """The rollout's next state and what must be done for it. Never raises, never blocks."""
    match rollout.state:
        case State.EVALUATING:
            return _evaluating(rollout, facts, now)
        case State.AWAITING_APPROVAL:
            return _awaiting_approval(rollout, facts, now)
        case State.CANARY:
            return _canary(rollout, facts, now)
        case State.HELD:
            return _held(rollout, facts, now)
        case State.PROMOTED | State.REJECTED | State.CANCELLED | State.ROLLED_BACK | State.JUDGED:
            return rollout, ()


def _evaluating(rollout: Rollout, facts: Facts, now: Millis) -> Step:
    gone = _left_behind(rollout, facts, now)
    if gone is not None:
        return gone
    if rollout.policy.gate is None:
        return _after_pass(rollout, facts, now, "no gate: goes live on merge, proven by nothing")
    if rollout.verdict is Verdict.PASS:  # decided earlier, kept back by a hold
        return _after_pass(rollout, facts, now, "gate passed")
    gate = facts.gate
    if gate is None or gate.decision == "waiting":
        return rollout, (StartEvals(rollout.look),)
    if gate.decision == "more":
        larger = [look for look in rollout.policy.gate.looks if look > rollout.look]
        if larger:
            looked = replace(rollout, look=larger[0], reason=gate.summary)
            return looked, (StartEvals(larger[0]),)
        undecided = f"undecided at the last look: {gate.summary}"
        return _to(rollout, _undecided(rollout), now, undecided, Verdict.HOLD), (
            WriteReceipt("offline", gate.document),
        )
    receipt = WriteReceipt("offline", gate.document)
    if gate.decision == "fail":
        return _to(rollout, State.REJECTED, now, gate.summary, Verdict.FAIL), (receipt,)
    if gate.decision == "hold":
        return _to(rollout, _undecided(rollout), now, gate.summary, Verdict.HOLD), (receipt,)
    passed = replace(rollout, verdict=Verdict.PASS)
    after, actions = _after_pass(passed, facts, now, gate.summary)
    return after, (receipt, *actions)


def _undecided(rollout: Rollout) -> State:
    """A pull request needs nobody's decision before it is merged; what is merged does."""
    return State.HELD if rollout.pull is None else State.JUDGED


def _after_pass(rollout: Rollout, facts: Facts, now: Millis, summary: str) -> Step:
    if rollout.pull is not None:
        return _to(rollout, State.JUDGED, now, summary), ()
    hold = _promotion_hold(rollout, facts, now)
    if hold is not None:
        reason = f"{summary}; kept back by a hold of {hold.actor}: {hold.reason}"
        return replace(rollout, reason=reason), ()
    gate = rollout.policy.gate
    if rollout.stable is None:
        if gate is not None and gate.first_release.approval:
            return _to(
                rollout, State.AWAITING_APPROVAL, now, f"{summary}; a first release needs approval"
            ), ()
        return _to(rollout, State.PROMOTED, now, f"first release: {summary}"), (Promote(True),)
    if rollout.policy.canary is None:
        return _to(rollout, State.PROMOTED, now, summary), (Promote(False),)
    reading = facts.canary
    if reading is not None and not canary_can_fire(
        rollout.policy.canary.count,
        reading.stable_fails,
        reading.stable_passes,
        horizon=rollout.policy.canary.horizon,
    ):
        return _to(
            rollout,
            State.HELD,
            now,
            f"{summary}; but a canary of {rollout.policy.canary.count} could not fire against "
            f"stable's record of {reading.stable_passes} good and {reading.stable_fails} bad runs",
        ), ()
    return _to(rollout, State.CANARY, now, summary), (OpenCanary(),)


def _awaiting_approval(rollout: Rollout, facts: Facts, now: Millis) -> Step:
    gone = _left_behind(rollout, facts, now)
    if gone is not None:
        return gone
    hold = _promotion_hold(rollout, facts, now)
    if facts.resumed_by is None or hold is not None:
        return rollout, ()
    return _to(rollout, State.PROMOTED, now, f"approved by {facts.resumed_by}"), (Promote(True),)


def _held(rollout: Rollout, facts: Facts, now: Millis) -> Step:
    gone = _left_behind(rollout, facts, now)
    if gone is not None:
        return gone
    if facts.resumed_by is None or _promotion_hold(rollout, facts, now) is not None:
        return rollout, ()
    who = f"resumed by {facts.resumed_by}"
    if rollout.stable is None or rollout.policy.canary is None:
        return _to(rollout, State.PROMOTED, now, who), (Promote(True),)
    return _to(rollout, State.CANARY, now, who), (OpenCanary(),)


def _canary(rollout: Rollout, facts: Facts, now: Millis) -> Step:
    canary, reading = rollout.policy.canary, facts.canary
    if canary is None or reading is None:
        # A canary without a policy or facts is a state this program never writes: fail closed.
        return _to(rollout, State.HELD, now, "canary without policy or facts"), (CloseCanary(),)
    evidence = _canary_evidence(rollout, reading)
    if facts.quarantined:
        return _rolled_back(rollout, now, "digest is quarantined", True, evidence)
    if reading.hard_stops:
        stop = reading.hard_stops[0]
        reason = f"hard stop ({stop.kind}) in {stop.run}: {stop.detail}"
        return _rolled_back(rollout, now, reason, rollout.policy.on_harm.safety == "stop", evidence)
    harm = canary_decision(
        reading.fails,
        reading.graded,
        reading.stable_fails,
        reading.stable_passes,
        horizon=canary.horizon,
    )
    if harm == "roll_back":
        reason = (
            f"{reading.fails} of {reading.graded} canary runs failed against stable's record of "
            f"{reading.stable_fails} of {reading.stable_fails + reading.stable_passes}"
        )
        return _rolled_back(
            rollout, now, reason, rollout.policy.on_harm.quality == "stop", evidence
        )
    if reading.graded >= canary.count:
        hold = _promotion_hold(rollout, facts, now)
        if hold is not None:
            reason = f"canary is good; kept back by a hold of {hold.actor}: {hold.reason}"
            return replace(rollout, reason=reason), ()
        reason = f"{reading.graded} graded canary runs, {reading.fails} failed"
        return _to(rollout, State.PROMOTED, now, reason), (
            WriteReceipt("canary", evidence),
            Promote(False),
        )
    if reading.silent >= MAX_SILENT and reading.silent > reading.graded:
        reason = f"{reading.silent} canary runs ended without saying anything, {reading.graded} did"
        return _to(rollout, State.HELD, now, reason, Verdict.HOLD), (
            WriteReceipt("canary", evidence),
            CloseCanary(),
        )
    if now - rollout.since > canary.max_age_ms:
        reason = f"maximum age reached with {reading.graded} of {canary.count} graded runs"
        return _to(rollout, State.HELD, now, reason, Verdict.HOLD), (
            WriteReceipt("canary", evidence),
            CloseCanary(),
        )
    return replace(rollout, reason=f"{reading.graded} of {canary.count} canary runs graded"), ()


def _rolled_back(
    rollout: Rollout, now: Millis, reason: str, stop_runs: bool, evidence: Json
) -> Step:
    return _to(rollout, State.ROLLED_BACK, now, reason, Verdict.FAIL), (
        RollBack(reason, stop_runs),
        WriteReceipt("canary", evidence),
    )


def _left_behind(rollout: Rollout, facts: Facts, now: Millis) -> Step | None:
    """Before a canary a newer release supersedes; a quarantined one never goes on."""
    if facts.quarantined:
        return _to(rollout, State.REJECTED, now, "digest is quarantined", Verdict.FAIL), ()
    if facts.desired is None and rollout.pull is not None:
        return _to(rollout, State.CANCELLED, now, "the pull request no longer asks for it"), ()
    if facts.desired is None:
        # Broken or gone at the head: stable goes on, the candidate waits for a decision in git.
        return replace(rollout, reason="the agent cannot be compiled at the head"), ()
    if facts.desired != rollout.candidate:
        return _to(rollout, State.CANCELLED, now, f"superseded by {facts.desired}"), ()
    if facts.suite_changed and rollout.state is State.EVALUATING and rollout.verdict is None:
        return _to(rollout, State.CANCELLED, now, "its suite was changed; gated anew"), ()
    return None


def _promotion_hold(rollout: Rollout, facts: Facts, now: Millis) -> Hold | None:
    return next((hold for hold in facts.holds if hold.covers(rollout.agent, now)), None)


def _to(
    rollout: Rollout, state: State, now: Millis, reason: str, verdict: Verdict | None = None
) -> Rollout:
    return replace(
        rollout, state=state, since=now, reason=reason, verdict=verdict or rollout.verdict
    )


def _canary_evidence(rollout: Rollout, reading: CanaryReading) -> Json:
    return {
        "candidate": rollout.candidate,
        "stable": rollout.stable,
        "assigned": reading.assigned,
        "graded": reading.graded,
        "silent": reading.silent,
        "fails": reading.fails,
        "stable_fails": reading.stable_fails,
        "stable_passes": reading.stable_passes,
        "hard_stops": [
            {"run": stop.run, "kind": stop.kind, "detail": stop.detail}
            for stop in reading.hard_stops
        ],
    }
