"""Runs and leases: two runners, a clock, and whatever order things happen in."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from gateway import access
from gateway.access.directory import Directory
from gateway.database import Database
from gateway.policy import Grants
from gateway.refusals import Refusal
from gateway.values import Millis, Principal, Purpose, ReleaseDigest, RunId
from runner import queue
from runner.queue import Assignment, Fenced, Lease, Queue, RunStatus
from runner.spec import RunOutcome, StopReason
from tests.support.rollout_world import AGENT, FakeClock, opened, spec

LEASE = 30_000
DONE = RunOutcome(stop=StopReason.DONE, accepted=True)
OLD, NEW = ReleaseDigest("rel-old"), ReleaseDigest("rel-new")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = opened(tmp_path / "x.db")
    yield database
    database.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def one(database: Database, clock: FakeClock) -> Queue:
    return Queue(database, clock, "one", lease_ms=LEASE)


@pytest.fixture
def two(database: Database, clock: FakeClock) -> Queue:
    return Queue(database, clock, "two", lease_ms=LEASE)


def put(database: Database, occurrence: str = "manual:1", release: str = OLD, **how) -> RunId:
    purpose = how.pop("purpose", Purpose.LIVE)
    agent = how.pop("agent", AGENT)
    now = how.pop("now", Millis(1))
    with database.transaction() as tx:
        run, _ = queue.enqueue(
            tx, spec(release, occurrence, purpose=purpose, agent=agent), now=now, **how
        )
    return run


def taken(runner: Queue) -> Lease:
    lease = runner.lease()
    assert lease is not None
    return lease


def row(database: Database, run: RunId) -> dict[str, object]:
    found = database.one("SELECT * FROM runs WHERE run = :run", run=run)
    assert found is not None
    return found


def test_a_run_is_leased_once_and_carries_what_was_put_in(
    database: Database, one: Queue, two: Queue, clock: FakeClock
) -> None:
    run = put(database)
    lease = taken(one)
    assert (lease.run, lease.fence, lease.first) == (run, 1, True)
    assert lease.until == clock.now() + LEASE
    assert lease.spec == spec(OLD, "manual:1")
    assert two.lease() is None


def test_an_expired_lease_goes_to_another_and_fences_the_first(
    database: Database, one: Queue, two: Queue, clock: FakeClock
) -> None:
    put(database)
    slow = taken(one)
    clock.at += LEASE
    assert two.lease() is None  # still valid in its last millisecond
    clock.at += 1
    fresh = taken(two)
    assert (fresh.run, fresh.fence, fresh.first) == (slow.run, 2, False)
    for write in (one.renew, one.give_back, lambda lease: one.finish(lease, DONE)):
        with pytest.raises(Fenced):
            write(slow)
    two.finish(fresh, DONE)
    assert row(database, fresh.run)["status"] == "finished"


def test_renewing_keeps_the_lease(
    database: Database, one: Queue, two: Queue, clock: FakeClock
) -> None:
    put(database)
    lease = taken(one)
    for _ in range(3):
        clock.at += LEASE - 1
        assert one.renew(lease) is None
        assert two.lease() is None


def test_a_run_finishes_once(database: Database, one: Queue, clock: FakeClock) -> None:
    run = put(database)
    lease = taken(one)
    clock.at += 5
    one.finish(lease, DONE)
    with pytest.raises(Fenced):
        one.finish(lease, RunOutcome(stop=StopReason.ERROR))
    ended = row(database, run)
    assert (ended["stop"], ended["finished_at"]) == ("done", clock.now())
    assert RunOutcome.model_validate_json(str(ended["outcome"])) == DONE
    assert one.lease() is None
    assert queue.open_runs(database) == []


def test_live_runs_go_before_evals_then_priority_then_age(database: Database, one: Queue) -> None:
    order = [
        put(database, "manual:old", now=Millis(1)),
        put(database, "manual:new", now=Millis(2)),
        put(database, "eval:urgent", purpose=Purpose.EVAL, priority=5, now=Millis(9)),
        put(database, "eval:old", purpose=Purpose.EVAL, now=Millis(3)),
        put(database, "eval:new", purpose=Purpose.EVAL, now=Millis(4)),
    ]
    assert [taken(one).run for _ in order] == order


def test_an_agent_has_one_run_per_occurrence_whatever_the_release(database: Database) -> None:
    with database.transaction() as tx:
        first = queue.enqueue(tx, spec(OLD, "manual:1"), now=Millis(1))
        again = queue.enqueue(
            tx, spec(NEW, "manual:1"), now=Millis(2), assignment=Assignment("rollout-1")
        )
        other = queue.enqueue(tx, spec(OLD, "manual:1", agent="other"), now=Millis(2))
        trial = queue.enqueue(tx, spec(OLD, "manual:1", purpose=Purpose.EVAL), now=Millis(2))
    assert again == (first[0], False)
    assert len({first[0], other[0], trial[0]}) == 3
    assert (first[1], other[1], trial[1]) == (True, True, True)
    assert row(database, first[0])["release"] == OLD


def test_a_claimed_run_waits_for_its_claim(database: Database, one: Queue) -> None:
    run = put(database, status=RunStatus.CLAIMED)
    assert one.lease() is None
    with database.transaction() as tx:
        queue.release_claims(tx, [run])
    assert taken(one).run == run
    with database.transaction() as tx:
        queue.release_claims(tx, [run])  # late, and without effect
    assert row(database, run)["status"] == "leased"


def test_a_run_given_back_is_taken_at_once_and_continues(
    database: Database, one: Queue, two: Queue
) -> None:
    put(database)
    lease = taken(one)
    one.give_back(lease)
    with pytest.raises(Fenced):
        one.finish(lease, DONE)
    again = taken(two)
    assert (again.run, again.first, again.fence) == (lease.run, False, 2)


def journaled(database: Database, lease: Lease, kind: str) -> None:
    with database.transaction() as tx:
        tx.execute(
            "INSERT INTO journal (run, step, call, event, role, kind, name, status, body, label,"
            " tokens, cost_nano, fence, at) VALUES (:run, :step, 0, 'outcome', 'main', :kind, 'x',"
            " 'ok', '{}', 'untrusted/internal', 0, 0, :fence, 0)",
            run=lease.run,
            step=f"{kind}.{lease.fence}",
            kind=kind,
            fence=lease.fence,
        )


def test_leases_that_end_in_death_and_in_vain_are_counted(
    database: Database, clock: FakeClock, one: Queue
) -> None:
    put(database)
    assert taken(one).fruitless == 0
    one.release_own()
    lease = taken(one)
    assert lease.fruitless == 1
    journaled(database, lease, "sandbox")
    clock.at += LEASE + 1
    lease = taken(one)
    assert lease.fruitless == 2, "a new container is no progress"
    one.give_back(lease)
    lease = taken(one)
    assert lease.fruitless == 2, "an orderly end says nothing"
    one.give_back(lease, suspect=True)
    lease = taken(one)
    assert lease.fruitless == 3
    journaled(database, lease, "model")
    clock.at += LEASE + 1
    assert taken(one).fruitless == 0


def test_a_finished_run_has_no_rights_left(database: Database, one: Queue) -> None:
    put(database)
    lease = taken(one)
    who = Principal(
        lease.run, AGENT, lease.spec.team, "main", OLD, Purpose.LIVE, lease.spec.occurrence
    )
    with database.transaction() as tx:
        access.issue(
            tx, who, Grants(), None, token="t", now=Millis(1), expires_at=Millis(4 * 10**12)
        )
    one.finish(lease, DONE)
    with pytest.raises(Refusal, match="the run is finished"):
        Directory().standing(database, access.hash_token("t"), Millis(2))


def test_leases_of_a_process_that_died_are_freed_and_no_others(
    database: Database, one: Queue, two: Queue
) -> None:
    put(database, "manual:1")
    put(database, "manual:2")
    dead, alive = taken(one), taken(two)
    one.release_own()
    with pytest.raises(Fenced):
        one.renew(dead)
    assert two.renew(alive) is None
    assert taken(two).run == dead.run


def test_a_kill_reaches_live_runs_that_wait_and_that_run(database: Database, one: Queue) -> None:
    put(database, "manual:1")
    put(database, "manual:2")
    put(database, "manual:3", agent="other")
    put(database, "eval:1", purpose=Purpose.EVAL)
    leased = taken(one)
    with database.transaction() as tx:
        assert queue.kill(tx, agent=AGENT, reason="stopped") == 2
    assert one.renew(leased) == "stopped"
    assert one.renew(taken(one)) == "stopped"
    assert one.renew(taken(one)) is None
    with database.transaction() as tx:
        assert queue.kill(tx, agent=None, reason="all") == 3


def test_killing_a_release_reaches_what_was_begun_also_when_it_was_given_back(
    database: Database, one: Queue
) -> None:
    leased_run = put(database, "manual:1", NEW, now=Millis(1))
    given_back = put(database, "manual:2", NEW, now=Millis(2))
    waiting = put(database, "manual:3", NEW, now=Millis(3))
    put(database, "manual:4", OLD, now=Millis(4))
    taken(one)
    one.give_back(taken(one))
    with database.transaction() as tx:
        killed = queue.kill_release(tx, agent=AGENT, release=NEW, reason="harm")
        assert set(killed) == {leased_run, given_back}
        assert [r["run"] for r in queue.waiting(tx, agent=AGENT, release=NEW)] == [waiting]
    assert one.renew(taken(one)) == "harm"


def test_only_a_run_that_nobody_has_begun_is_reassigned(database: Database, one: Queue) -> None:
    begun = put(database, "manual:1", NEW, assignment=Assignment("rollout-1", "candidate"))
    claimed = put(
        database,
        "manual:2",
        NEW,
        assignment=Assignment("rollout-1", "candidate"),
        status=RunStatus.CLAIMED,
    )
    one.give_back(taken(one))
    with database.transaction() as tx:
        for run, occurrence in ((begun, "manual:1"), (claimed, "manual:2")):
            queue.reassign(tx, run, spec(OLD, occurrence))
    assert row(database, begun)["release"] == NEW
    moved = row(database, claimed)
    assert (moved["release"], moved["rollout"], moved["status"]) == (OLD, None, "claimed")
    with database.transaction() as tx:
        queue.release_claims(tx, [claimed])
    leases = [taken(one), taken(one)]
    assert {lease.spec.release for lease in leases} == {OLD, NEW}


def test_many_runners_at_once_never_share_a_run(database: Database, clock: FakeClock) -> None:
    for number in range(40):
        put(database, f"manual:{number}")
    got: list[RunId] = []

    def work(owner: str) -> None:
        mine = Queue(database, clock, owner)
        while (lease := mine.lease()) is not None:
            got.append(lease.run)
            mine.finish(lease, DONE)
        database.close()

    threads = [threading.Thread(target=work, args=(f"runner-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == len(set(got)) == 40


class Leases(RuleBasedStateMachine):
    """At most one lease of a run is valid, fences only grow, and what has ended stays so."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.database = opened(self.folder / "x.db")
        self.clock = FakeClock()
        self.runners = {n: Queue(self.database, self.clock, n, lease_ms=LEASE) for n in "ab"}
        self.current: dict[str, tuple[int, str]] = {}
        """Run → the fence and owner whose writes count."""
        self.handed_out: set[tuple[str, int]] = set()
        self.outcomes: dict[str, str] = {}

    def teardown(self) -> None:
        self.database.close()
        shutil.rmtree(self.folder)

    @rule(number=st.integers(0, 4), release=st.sampled_from([OLD, NEW]))
    def enqueue(self, number: int, release: str) -> None:
        put(self.database, f"manual:{number}", release)

    @rule(target=leases, name=st.sampled_from("ab"))
    def lease(self, name: str) -> tuple[str, Lease] | None:
        lease = self.runners[name].lease()
        if lease is None:
            return None
        assert (lease.run, lease.fence) not in self.handed_out
        assert lease.run not in self.outcomes
        assert lease.fence > self.current.get(lease.run, (0, ""))[0]
        assert lease.first == (lease.fence == 1)
        self.handed_out.add((lease.run, lease.fence))
        self.current[lease.run] = (lease.fence, name)
        return name, lease

    def _counts(self, held: tuple[str, Lease]) -> bool:
        name, lease = held
        return self.current.get(lease.run) == (lease.fence, name)

    @rule(held=leases)
    def renew(self, held: tuple[str, Lease] | None) -> None:
        if held is not None:
            self._write(held, lambda: self.runners[held[0]].renew(held[1]))

    @rule(held=consumes(leases), stop=st.sampled_from(["done", "error"]))
    def finish(self, held: tuple[str, Lease] | None, stop: str) -> None:
        if held is None:
            return
        outcome = RunOutcome(stop=StopReason(stop))
        if self._write(held, lambda: self.runners[held[0]].finish(held[1], outcome)):
            self.outcomes[held[1].run] = stop
            self.current[held[1].run] = (held[1].fence, "")

    @rule(held=leases)
    def give_back(self, held: tuple[str, Lease] | None) -> None:
        if held and self._write(held, lambda: self.runners[held[0]].give_back(held[1])):
            self.current[held[1].run] = (held[1].fence, "")

    def _write(self, held: tuple[str, Lease], write) -> bool:
        counts = self._counts(held)
        try:
            write()
        except Fenced:
            assert not counts, "a runner was fenced off its own valid lease"
            return False
        assert counts, "a write with an old fence went through"
        return True

    @rule(name=st.sampled_from("ab"))
    def a_runner_starts_again(self, name: str) -> None:
        self.runners[name].release_own()
        for run, (fence, owner) in self.current.items():
            if owner == name:
                self.current[run] = (fence, "")

    @rule(step=st.sampled_from([1, LEASE // 2, LEASE + 1]))
    def time_passes(self, step: int) -> None:
        self.clock.at += step

    @rule()
    def somebody_kills(self) -> None:
        with self.database.transaction() as tx:
            queue.kill(tx, agent=None, reason="stop")

    @invariant()
    def what_has_ended_stays_as_it_ended(self) -> None:
        rows = self.database.read("SELECT run, stop FROM runs WHERE status = 'finished'")
        assert {r["run"]: r["stop"] for r in rows} == self.outcomes

    @invariant()
    def a_leased_run_has_its_owner_and_its_fence(self) -> None:
        for found in self.database.read("SELECT * FROM runs WHERE status <> 'finished'"):
            fence, owner = self.current.get(found["run"], (0, ""))
            assert found["fence"] == fence
            assert (found["owner"] or "") == owner
            assert (found["status"] == "leased") == bool(owner)


def test_no_walk_lets_two_runners_write_to_one_run() -> None:
    run_state_machine_as_test(
        Leases, settings=settings(max_examples=30, stateful_step_count=30, deadline=None)
    )
