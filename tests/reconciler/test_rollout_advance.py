"""The rollout machine: total over anything it may be shown, a fixpoint after a few steps, and the
transitions one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.values import AgentName, Millis, ReleaseDigest
from reconciler.rollout.advance import advance
from reconciler.rollout.model import (
    CanaryPolicy,
    CanaryReading,
    CloseCanary,
    Facts,
    FirstRelease,
    GatePolicy,
    GateReading,
    HardStop,
    Hold,
    OnHarm,
    OpenCanary,
    Promote,
    RollBack,
    Rollout,
    RolloutPolicy,
    StartEvals,
    State,
    Verdict,
    WriteReceipt,
)

NOW = Millis(1_800_000_000_000)
OLD, NEW, NEWER = (ReleaseDigest(f"rel-{n}") for n in ("old", "new", "newer"))
AGENT = AgentName("triage")
STANDARD = RolloutPolicy(name="standard")
WORDS = ("pass", "fail", "hold", "more", "waiting")


def rollout(**changes: object) -> Rollout:
    base = Rollout(
        id="rollout-1",
        agent=AGENT,
        candidate=NEW,
        stable=OLD,
        anchor=OLD,
        policy=STANDARD,
        suite="suite",
        commit="c0ffee",
        state=State.EVALUATING,
        look=3,
        reason="opened",
        opened_at=NOW,
        since=NOW,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def reading(**changes: object) -> CanaryReading:
    return replace(CanaryReading(0, 0, 0, 0, 2, 48), **changes)  # type: ignore[arg-type]


def gate(word: str) -> GateReading:
    return GateReading(word, f"gate: {word}", {"why": word})  # type: ignore[arg-type]


def facts(**changes: object) -> Facts:
    return replace(Facts(desired=NEW, canary=reading()), **changes)  # type: ignore[arg-type]


HOLD = Hold("h", AGENT, "promotion", "freeze", "ada", NOW)

times = st.integers(min_value=0, max_value=2**45).map(Millis)
digests = st.sampled_from([OLD, NEW, NEWER])
policies = st.builds(
    RolloutPolicy,
    name=st.just("p"),
    gate=st.none()
    | st.builds(
        GatePolicy,
        looks=st.sampled_from([(3, 6, 12), (3,), (6, 12)]),
        first_release=st.builds(FirstRelease, approval=st.booleans()),
    ),
    canary=st.none()
    | st.builds(
        CanaryPolicy,
        count=st.integers(1, 30),
        horizon=st.sampled_from([30, 50, 100]),
        max_age_ms=st.integers(0, 10**10),
    ),
    on_harm=st.builds(
        OnHarm,
        quality=st.sampled_from(["finish_pinned", "stop"]),
        safety=st.sampled_from(["finish_pinned", "stop"]),
    ),
)
rollouts = st.builds(
    Rollout,
    id=st.just("r"),
    agent=st.just(AGENT),
    candidate=digests,
    stable=st.none() | digests,
    anchor=st.none() | digests,
    policy=policies,
    suite=st.just("s"),
    commit=st.just("c"),
    state=st.sampled_from(State),
    look=st.sampled_from([0, 3, 6, 12]),
    reason=st.just(""),
    opened_at=times,
    since=times,
    verdict=st.none() | st.sampled_from(Verdict),
)


@st.composite
def readings(draw: st.DrawFn) -> CanaryReading:
    graded = draw(st.integers(0, 40))
    stops = st.builds(
        HardStop,
        run=st.just("run-1"),
        kind=st.sampled_from(["safety", "policy_violation", "spend"]),
        detail=st.just("d"),
    )
    return CanaryReading(
        assigned=graded,
        graded=graded,
        fails=draw(st.integers(0, graded)),
        open_runs=draw(st.integers(0, 3)),
        stable_fails=draw(st.integers(0, 200)),
        stable_passes=draw(st.integers(0, 200)),
        hard_stops=tuple(draw(st.lists(stops, max_size=2))),
    )


holds = st.builds(
    Hold,
    id=st.just("h"),
    agent=st.sampled_from([AGENT, "*", "other"]),
    kind=st.sampled_from(["promotion", "assignment"]),
    reason=st.just("because"),
    actor=st.just("ada"),
    at=times,
    expires_at=st.none() | times,
)
all_facts = st.builds(
    Facts,
    desired=st.none() | digests,
    suite_changed=st.booleans(),
    quarantined=st.booleans(),
    holds=st.lists(holds, max_size=2).map(tuple),
    gate=st.none() | st.sampled_from(WORDS).map(gate),
    canary=st.none() | readings(),
    resumed_by=st.none() | st.just("ada"),
)


@given(rollouts, all_facts, times)
def test_anything_settles_and_settled_means_settled(
    first: Rollout, shown: Facts, now: Millis
) -> None:
    seen, current = [first], first
    # A human's go is spent by the first step; all else stays as it was.
    for number in range(8):
        told = shown if number == 0 else replace(shown, resumed_by=None)
        current, actions = advance(current, told, now)
        if current == seen[-1]:
            assert all(isinstance(action, StartEvals) for action in actions)
            break
        seen.append(current)
    else:
        pytest.fail(f"still moving: {[r.state for r in seen]}")


@given(rollouts, all_facts, times)
def test_every_step_keeps_the_promises(before: Rollout, shown: Facts, now: Millis) -> None:
    after, actions = advance(before, shown, now)
    assert replace(after, state=before.state, since=before.since, reason=before.reason,
                   verdict=before.verdict, look=before.look) == before  # fmt: skip
    kinds = [type(action) for action in actions]
    if before.final:
        assert (after, actions) == (before, ())
    assert (after.state is State.PROMOTED and not before.final) == (Promote in kinds)
    assert (after.state is State.CANARY and before.state is not State.CANARY) == (
        OpenCanary in kinds
    )
    assert (RollBack in kinds) == (
        after.state is State.ROLLED_BACK and before.state is not State.ROLLED_BACK
    )
    if before.state is State.CANARY and after.state is State.HELD:
        assert CloseCanary in kinds
    if Promote in kinds or OpenCanary in kinds:
        assert not shown.quarantined
        assert not any(hold.covers(AGENT, now) for hold in shown.holds)
    if Promote in kinds:
        anchored = next(a for a in actions if isinstance(a, Promote)).anchor
        asked = before.state in (State.HELD, State.AWAITING_APPROVAL)
        assert anchored == (before.stable is None or asked)
    if before.state is State.HELD and after.state in (State.CANARY, State.PROMOTED):
        assert shown.resumed_by
    if (
        before.state is State.EVALUATING
        and before.policy.gate is not None
        and after.state in (State.CANARY, State.PROMOTED, State.AWAITING_APPROVAL)
    ):
        word = shown.gate.decision if shown.gate else None
        assert before.verdict is Verdict.PASS or word == "pass"
    if after.state is not before.state:
        assert after.reason
        assert after.since == now


@pytest.mark.parametrize(
    "word, state, verdict",
    [
        ("pass", State.CANARY, Verdict.PASS),
        ("fail", State.REJECTED, Verdict.FAIL),
        ("hold", State.HELD, Verdict.HOLD),
    ],
)
def test_a_gates_word_decides_and_leaves_a_receipt(
    word: str, state: State, verdict: Verdict
) -> None:
    after, actions = advance(rollout(), facts(gate=gate(word)), NOW)
    assert (after.state, after.verdict) == (state, verdict)
    assert WriteReceipt("offline", {"why": word}) in actions


@pytest.mark.parametrize("shown", [None, gate("waiting")])
def test_a_waiting_gate_asks_for_its_attempts_again(shown: GateReading | None) -> None:
    assert advance(rollout(look=6), facts(gate=shown), NOW) == (rollout(look=6), (StartEvals(6),))


def test_an_undecided_gate_looks_further_and_is_held_at_its_last_look() -> None:
    second, actions = advance(rollout(), facts(gate=gate("more")), NOW)
    assert (second.look, actions) == (6, (StartEvals(6),))
    last, actions = advance(replace(second, look=12), facts(gate=gate("more")), NOW)
    assert (last.state, last.verdict) == (State.HELD, Verdict.HOLD)
    assert actions == (WriteReceipt("offline", {"why": "more"}),)


def test_a_pass_under_a_hold_is_kept_and_goes_on_when_the_hold_ends() -> None:
    kept, actions = advance(rollout(), facts(gate=gate("pass"), holds=(HOLD,)), NOW)
    assert (kept.state, kept.verdict) == (State.EVALUATING, Verdict.PASS)
    assert OpenCanary() not in actions
    assert "ada" in kept.reason
    after, actions = advance(kept, facts(), NOW)
    assert (after.state, actions) == (State.CANARY, (OpenCanary(),))


def test_an_expired_hold_holds_nothing() -> None:
    over = replace(HOLD, expires_at=NOW)
    after, _ = advance(rollout(), facts(gate=gate("pass"), holds=(over,)), NOW)
    assert after.state is State.CANARY


def test_a_first_release_waits_for_a_human_and_becomes_the_anchor() -> None:
    first, actions = advance(rollout(stable=None, anchor=None), facts(gate=gate("pass")), NOW)
    assert first.state is State.AWAITING_APPROVAL
    assert not any(isinstance(action, Promote) for action in actions)
    assert advance(first, facts(), NOW) == (first, ())
    approved, actions = advance(first, facts(resumed_by="ada"), NOW)
    assert (approved.state, actions) == (State.PROMOTED, (Promote(anchor=True),))


def test_a_newer_release_supersedes_before_a_canary_and_waits_during_one() -> None:
    for state in (State.EVALUATING, State.AWAITING_APPROVAL, State.HELD):
        after, actions = advance(rollout(state=state), facts(desired=NEWER), NOW)
        assert (after.state, actions) == (State.CANCELLED, ())
    after, _ = advance(rollout(state=State.CANARY), facts(desired=NEWER), NOW)
    assert after.state is State.CANARY


def test_a_canary_that_could_not_fire_is_held_with_the_figures() -> None:
    shown = facts(gate=gate("pass"), canary=reading(stable_fails=0, stable_passes=0))
    after, _ = advance(rollout(), shown, NOW)
    assert after.state is State.HELD
    assert "could not fire" in after.reason


def test_enough_good_runs_promote_without_moving_the_anchor() -> None:
    shown = facts(canary=reading(assigned=20, graded=20, fails=1))
    after, actions = advance(rollout(state=State.CANARY), shown, NOW)
    assert after.state is State.PROMOTED
    assert actions[-1] == Promote(anchor=False)


@pytest.mark.parametrize(
    "policy, kind, stops",
    [("stop", "safety", True), ("finish_pinned", "safety", False), ("stop", "spend", True)],
)
def test_a_hard_stop_rolls_back_at_once(policy, kind, stops: bool) -> None:
    canary = rollout(
        state=State.CANARY,
        policy=RolloutPolicy(name="p", on_harm=OnHarm(quality="finish_pinned", safety=policy)),
    )
    shown = facts(canary=reading(graded=1, hard_stops=(HardStop("run-7", kind, "pushed"),)))
    after, actions = advance(canary, shown, NOW)
    assert (after.state, after.verdict) == (State.ROLLED_BACK, Verdict.FAIL)
    assert RollBack(after.reason, stops) in actions
    assert "run-7" in after.reason


def test_surprising_failures_roll_back_and_say_how_many() -> None:
    shown = facts(canary=reading(graded=5, fails=5))
    after, actions = advance(rollout(state=State.CANARY), shown, NOW)
    assert after.state is State.ROLLED_BACK
    assert "5 of 5" in after.reason
    assert RollBack(after.reason, False) in actions


def test_harm_outranks_a_hold_and_age() -> None:
    shown = facts(canary=reading(graded=20, fails=20), holds=(HOLD,))
    old = rollout(state=State.CANARY, since=Millis(0))
    assert advance(old, shown, NOW)[0].state is State.ROLLED_BACK


def test_a_canary_with_too_few_graded_runs_at_its_maximum_age_is_held_and_closed() -> None:
    old = rollout(state=State.CANARY, since=Millis(NOW - 14 * 86_400_000 - 1))
    after, actions = advance(old, facts(canary=reading(graded=19)), NOW)
    assert (after.state, after.verdict) == (State.HELD, Verdict.HOLD)
    assert CloseCanary() in actions
    young = replace(old, since=Millis(old.since + 1))
    assert advance(young, facts(canary=reading(graded=19)), NOW)[0].state is State.CANARY


@pytest.mark.parametrize("state", [State.EVALUATING, State.AWAITING_APPROVAL, State.HELD])
def test_a_quarantined_digest_never_goes_on_even_when_a_human_says_so(state: State) -> None:
    shown = facts(gate=gate("pass"), quarantined=True, resumed_by="ada")
    after, actions = advance(rollout(state=state), shown, NOW)
    assert (after.state, actions) == (State.REJECTED, ())


def test_a_broken_head_stops_nothing_and_starts_nothing() -> None:
    shown = facts(desired=None, gate=gate("pass"))
    after, actions = advance(rollout(), shown, NOW)
    assert (after.state, actions) == (State.EVALUATING, ())


def test_a_changed_suite_cancels_an_open_comparison_but_not_a_decided_one() -> None:
    shown = facts(suite_changed=True, gate=gate("pass"))
    assert advance(rollout(), shown, NOW)[0].state is State.CANCELLED
    decided = rollout(verdict=Verdict.PASS)
    assert advance(decided, shown, NOW)[0].state is State.CANARY
