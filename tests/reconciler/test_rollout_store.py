"""Invariants 1, 2 and 6 of the design as a state machine over the real store, and its edges."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.database import Transaction
from gateway.values import Millis
from reconciler.rollout import store
from reconciler.rollout.assignment import Assigned
from reconciler.rollout.model import (
    CanaryPolicy,
    FirstRelease,
    GatePolicy,
    GateReading,
    Hold,
    OnHarm,
    Rollout,
    RolloutPolicy,
    State,
)
from runner.queue import Lease, Queue
from runner.spec import Grade, RunOutcome, StopReason
from tests.support.rollout_world import (
    AGENT,
    FakeClock,
    give,
    move_one,
    opened,
    reassign_waiting,
    rollout_wanted,
)

DAY = 86_400_000
DIGESTS = [f"rel-{n:012}" for n in range(4)]
POLICIES = [
    RolloutPolicy(name="standard", canary=CanaryPolicy(count=3)),
    RolloutPolicy(
        name="unapproved",
        gate=GatePolicy(first_release=FirstRelease(approval=False)),
        canary=CanaryPolicy(count=3),
        on_harm=OnHarm(quality="stop", safety="stop"),
    ),
    RolloutPolicy(name="no-canary", canary=None),
    RolloutPolicy(name="on-merge", gate=None, canary=None),
]
OUTCOMES = {
    "good": RunOutcome(stop=StopReason.DONE, accepted=True),
    "bad": RunOutcome(stop=StopReason.DONE, accepted=False),
    "safety": RunOutcome(
        stop=StopReason.DONE,
        accepted=True,
        grades=(Grade(check="no-push", status="failed", safety=True),),
    ),
    "error": RunOutcome(stop=StopReason.ERROR),
}


class Died(BaseException):
    """The process ends here."""


class Rollouts(RuleBasedStateMachine):
    """Anything may happen in any order; the checks are in `_moved`, `assigned` and invariants."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = FakeClock()
        self.database = opened(self.folder / "x.db")
        self.desired: str | None = DIGESTS[0]
        self.policy = POLICIES[0]
        self.occurrences = 0
        self.leases: list[Lease] = []
        self.passed: set[str] = set()
        """Rollouts whose gate was seen to pass."""
        self.resumed: set[str] = set()
        """Rollouts that a human let go on."""
        self.barred: set[str] = set()
        """Digests that were taken back: the oracle of invariant 2."""
        self.holds: list[Hold] = []
        self.numbers = itertools.count()
        """Holds in force, expired ones included: the oracle of invariant 6."""
        self.finals: dict[str, str] = {}
        self.anchor: str | None = None

    def teardown(self) -> None:
        self.database.close()
        shutil.rmtree(self.folder)

    @initialize(policy=st.sampled_from(POLICIES), so_far=st.sampled_from([0, 1, 2, 2]))
    def begin(self, policy: RolloutPolicy, so_far: int) -> None:
        """Most of what is interesting begins after the first release, or in a canary."""
        self.policy = policy
        if so_far >= 1:
            self.tick("pass")
            self.resume()
            self.desired = DIGESTS[1]
        if so_far == 2:
            self.tick("pass")

    # What the world does.

    @rule(digest=st.sampled_from([*DIGESTS, None]))
    def a_commit_asks_for(self, digest: str | None) -> None:
        self.desired = digest

    @rule(policy=st.sampled_from(POLICIES))
    def a_commit_changes_the_rollout_policy(self, policy: RolloutPolicy) -> None:
        self.policy = policy

    @rule(gate=st.sampled_from(["pass", "pass", "fail", "hold", "more", "waiting", None]))
    def tick(self, gate: str | None) -> None:
        now = self.clock.now()
        with self.database.transaction() as tx:
            wanted = self.desired and rollout_wanted(tx, self.desired, self.policy, now)
            if wanted:
                assert wanted.candidate not in self.barred
                store.save(tx, wanted)
            for rollout in store.open_rollouts(tx):
                self._move(tx, rollout, gate)

    @rule(gate=st.sampled_from(["pass", "fail", "hold"]))
    def a_tick_dies_before_its_commit(self, gate: str) -> None:
        before, oracle = self._dump(), (set(self.passed), set(self.barred), list(self.holds))
        try:
            with self.database.transaction() as tx:
                for rollout in store.open_rollouts(tx):
                    self._move(tx, rollout, gate)
                raise Died
        except Died:
            pass
        self.passed, self.barred, self.holds = oracle
        self.the_process_is_killed()
        assert self._dump() == before

    @rule()
    def an_occurrence_is_due(self) -> None:
        self.occurrences += 1
        with self.database.transaction() as tx:
            choice = give(tx, f"schedule:{self.occurrences}", self.clock.now())
            if isinstance(choice, Assigned):
                self._assigned(tx, choice)

    @rule()
    def a_runner_leases(self) -> None:
        lease = Queue(self.database, self.clock, "runner").lease()
        if lease is not None:
            self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(word=st.sampled_from(sorted(OUTCOMES)))
    def a_run_finishes(self, word: str) -> None:
        lease = self.leases.pop(0)
        queue = Queue(self.database, self.clock, "runner")
        if lease.until > self.clock.now():
            queue.finish(lease, OUTCOMES[word])

    @precondition(lambda self: self.leases)
    @rule()
    def a_run_is_given_back(self) -> None:
        lease = self.leases.pop(0)
        if lease.until > self.clock.now():
            Queue(self.database, self.clock, "runner").give_back(lease)

    @rule(word=st.sampled_from(["good", "bad", "safety"]))
    def the_canary_runs_dry(self, word: str) -> None:
        """Every run that may start now starts and ends alike: otherwise no walk gets so far."""
        queue = Queue(self.database, self.clock, "runner")
        for _ in range(4):  # one more than a canary may have
            self.an_occurrence_is_due()
        while (lease := queue.lease()) is not None:
            queue.finish(lease, OUTCOMES[word])

    @rule(step=st.sampled_from([1, 10_000, DAY, 15 * DAY]))
    def time_passes(self, step: int) -> None:
        self.clock.at += step
        self.leases = [lease for lease in self.leases if lease.until > self.clock.now()]

    @rule()
    def the_process_is_killed(self) -> None:
        self.database.close()
        self.database = opened(self.folder / "x.db")

    # What people do.

    @rule(
        kind=st.sampled_from(["promotion", "assignment"]),
        agent=st.sampled_from([AGENT, "*", "other"]),
        lasts=st.sampled_from([None, 5_000, 2 * DAY]),
    )
    def somebody_places_a_hold(self, kind, agent, lasts) -> None:
        now = self.clock.now()
        hold = Hold(
            f"hold-{next(self.numbers)}",
            agent,
            kind,
            "not now",
            "on-call",
            now,
            Millis(now + lasts) if lasts else None,
        )
        self.holds.append(hold)
        with self.database.transaction() as tx:
            store.place_hold(tx, hold)

    @rule(agent=st.sampled_from([AGENT, "*"]))
    def somebody_lifts_holds(self, agent: str) -> None:
        with self.database.transaction() as tx:
            store.lift_holds(tx, agent, actor="on-call", now=self.clock.now())
        self.holds = [hold for hold in self.holds if hold.agent != agent]

    @rule()
    def resume(self) -> None:
        self.somebody_lifts_holds(AGENT)
        with self.database.transaction() as tx:
            for rollout in store.open_rollouts(tx):
                if rollout.state in (State.HELD, State.AWAITING_APPROVAL):
                    self._move(tx, rollout, None, resumed_by="ada")

    @rule()
    def roll_back_the_canary(self) -> None:
        with self.database.transaction() as tx:
            pointer = store.pointer(tx, AGENT)
            if pointer is None or pointer["rollout"] is None:
                return
            rollout = next(r for r in store.open_rollouts(tx) if r.id == pointer["rollout"])
            now = self.clock.now()
            store.save(tx, replace(rollout, state=State.ROLLED_BACK, reason="on-call", since=now))
            store.roll_back(
                tx, rollout, reason="bad", stop_runs=True, actor="on-call", now=self.clock.now()
            )
            reassign_waiting(tx, rollout.candidate, rollout.stable)
        self._barred(rollout)

    @rule(which=st.sampled_from(["candidate", "stable", *DIGESTS]))
    def somebody_quarantines(self, which: str) -> None:
        with self.database.snapshot() as tx:
            pointer = store.pointer(tx, AGENT) or {}
        digest = pointer.get(which) if which in ("candidate", "stable") else which
        if digest is None or len(self.barred) > 1:
            return  # leave something to release
        with self.database.transaction() as tx:
            store.quarantine(
                tx, digest, agent=AGENT, rollout=None, reason="x", actor="x", now=self.clock.now()
            )
        self.barred.add(digest)

    @precondition(lambda self: self.finals)
    @rule(state=st.sampled_from(list(State)))
    def a_late_writer_saves_a_closed_rollout(self, state: State) -> None:
        with self.database.transaction() as tx:
            for rollout in store.of_agent(tx, AGENT):
                if rollout.final:
                    store.save(tx, replace(rollout, state=state, reason="late", look=99))

    # What must hold.

    def _move(
        self, tx: Transaction, before: Rollout, gate: str | None, *, resumed_by: str | None = None
    ) -> None:
        now = self.clock.now()
        reading = GateReading(gate, f"gate says {gate}") if gate else None  # type: ignore[arg-type]
        if gate == "pass" and before.state is State.EVALUATING:
            self.passed.add(before.id)
        after = move_one(
            tx, before, desired=self.desired, gate=reading, now=now, resumed_by=resumed_by
        )
        again = next(r for r in store.of_agent(tx, AGENT) if r.id == before.id)
        assert again == after, "what was saved is not what was decided"
        went = after.state is not before.state
        if after.state is State.PROMOTED:
            assert not any(hold.covers(AGENT, now) for hold in self.holds), "promoted under a hold"
            assert before.candidate not in self.barred, "promoted what was taken back"
        if went and after.state in (State.PROMOTED, State.CANARY, State.AWAITING_APPROVAL):
            proven = before.policy.gate is None or before.id in self.passed
            assert proven or resumed_by, "went on without a pass and without a human"
        if before.state in (State.HELD, State.AWAITING_APPROVAL) and went:
            assert resumed_by or after.state in (State.CANCELLED, State.REJECTED)
        pointer = store.pointer(tx, AGENT)
        anchor = pointer["anchor"] if pointer else None
        if anchor != self.anchor:
            assert after.state is State.PROMOTED
            assert before.stable is None or resumed_by, "the anchor moved by itself"
            self.anchor = anchor
        if went and after.state is State.ROLLED_BACK:
            self._barred(after)

    def _barred(self, rollout: Rollout) -> None:
        self.barred.add(rollout.candidate)
        now = self.clock.now()
        self.holds.append(Hold(rollout.id, AGENT, "promotion", "rolled back", "test", now))

    def _assigned(self, tx: Transaction, choice: Assigned) -> None:
        assert choice.release not in self.barred, "assigned what was taken back"
        now = self.clock.now()
        assert not any(h.kind == "assignment" and h.covers(AGENT, now) for h in self.holds)
        rollouts = store.of_agent(tx, AGENT)
        if choice.rollout is None:
            assert any(
                r.candidate == choice.release and r.state is State.PROMOTED for r in rollouts
            ), "assigned what nobody promoted"
        else:
            canary = next(r for r in rollouts if r.id == choice.rollout)
            assert (canary.state, canary.candidate) == (State.CANARY, choice.release)
            had = tx.one("SELECT count(*) AS n FROM runs WHERE rollout = :id", id=canary.id)
            assert canary.policy.canary is not None
            assert had is not None
            assert had["n"] <= canary.policy.canary.count

    @invariant()
    def a_pointer_offers_a_candidate_exactly_while_its_canary_is_open(self) -> None:
        with self.database.snapshot() as tx:
            pointer = store.pointer(tx, AGENT)
            canaries = [r for r in store.open_rollouts(tx) if r.state is State.CANARY]
            offered = pointer["rollout"] if pointer else None
            assert [r.id for r in canaries] == ([offered] if offered else [])
            assert len(store.open_rollouts(tx)) <= 1

    @invariant()
    def a_closed_rollout_never_changes(self) -> None:
        rows = self.database.read("SELECT * FROM rollouts WHERE closed_at IS NOT NULL")
        closed = {row["rollout"]: json.dumps(row) for row in rows}
        for rollout, row in self.finals.items():
            assert closed[rollout] == row
        self.finals = closed

    @invariant()
    def no_run_waits_with_a_release_that_was_rolled_back(self) -> None:
        rows = self.database.read(
            "SELECT run FROM runs WHERE status = 'queued' AND started_at IS NULL AND release IN"
            " (SELECT candidate FROM rollouts WHERE state = 'rolled_back')"
        )
        assert rows == []

    def _dump(self) -> str:
        tables = ("rollouts", "pointers", "quarantine", "holds", "runs")
        return json.dumps([self.database.read(f"SELECT * FROM {name}") for name in tables])


def test_no_walk_breaks_an_invariant() -> None:
    run_state_machine_as_test(
        Rollouts,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
