"""What a tick costs follows from what changed: whom each stage writes, opens, moves and starts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway import access
from gateway.values import AgentName, Json, Occurrence, Purpose, derived_id
from reconciler.record import audit
from reconciler.release import run_spec
from reconciler.release.model import release_of
from reconciler.rollout import store
from reconciler.rollout.model import Hold, State
from reconciler.tick import assign, rollouts, tick
from runner import queue
from runner.spec import RunOutcome, StopReason, Workspace
from tests.support.tick_world import World, later, name, world

MINUTE = 60_000
ONE, TWO, THREE = name(0), name(1), name(2)


@pytest.fixture
def small(tmp_path: Path) -> World:
    """Three agents, their releases live."""
    made = world(tmp_path, 3)
    made.adopt()
    made.promote_everything()
    made.context.fetched_at = made.clock.now()
    return made


def commits(made: World) -> dict[str, str]:
    """Agent → the commit that last changed what is asked for of it."""
    return {r["agent"]: r["commit_id"] for r in made.database.read("SELECT * FROM desired")}


def ceilings(made: World) -> dict[str, str]:
    return {r["agent"]: r["digest"] for r in made.database.read("SELECT * FROM ceilings")}


def told(made: World, agent: AgentName, action: str = "test") -> None:
    with made.database.transaction() as tx:
        audit.append(
            tx, now=made.clock.now(), actor="ann", action=action, agent=agent, subject=agent,
            reason="because",
        )  # fmt: skip


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


# --- what a commit writes


def test_the_first_declaration_writes_everyone(small: World) -> None:
    assert set(commits(small)) == set(ceilings(small)) == {ONE, TWO, THREE}
    assert len(small.database.read("SELECT * FROM releases")) == 3


def test_a_commit_that_changes_one_agent_writes_that_agent(small: World) -> None:
    before = ceilings(small)
    now = small.edited(TWO, text="Do better.", team="elsewhere")
    assert small.adopt(now) == {TWO}
    assert {a for a, commit in commits(small).items() if commit == now.commit} == {TWO}
    assert {a for a, digest in ceilings(small).items() if digest != before[a]} == {TWO}
    assert store.release(small.database, now.releases[TWO].digest) == now.releases[TWO]


def test_a_removed_agent_loses_its_row_and_may_do_nothing(small: World) -> None:
    small.adopt(small.without(TWO))
    assert set(commits(small)) == set(ceilings(small)) == {ONE, THREE}


def test_a_restarted_process_clears_away_who_left_meanwhile(small: World) -> None:
    gone = small.without(TWO)
    small.context.declared = None
    assert small.adopt(gone) is None
    assert set(commits(small)) == set(ceilings(small)) == {ONE, THREE}
    assert gone.commit not in commits(small).values(), "what is the same is not written again"


def test_another_platform_concerns_every_agent(small: World) -> None:
    fleet = small.declared.fleet
    fewer = {name: m for name, m in fleet.platform.models.items() if name != "large"}
    smaller = fleet.platform.model_copy(update={"models": fewer})
    before = ceilings(small)
    now = replace(small.declared, commit="f" * 40, fleet=replace(fleet, platform=smaller))
    assert small.adopt(now) == frozenset()
    assert all(ceilings(small)[agent] != digest for agent, digest in before.items())


# --- rollouts


def test_a_changed_agent_gets_a_rollout_and_goes_live(small: World) -> None:
    tick(small.context)
    now = small.edited(TWO, text="Do better.")
    small.adopt(now)
    ticked = tick(small.context)
    assert (ticked.opened, ticked.moved) == (1, 1)
    pointer = small.database.one("SELECT stable FROM pointers WHERE agent = :a", a=TWO)
    assert pointer == {"stable": now.releases[TWO].digest}
    again = tick(small.context)
    assert (again.opened, again.moved) == (0, 0)


def test_what_a_person_did_elsewhere_is_seen_by_its_audit_line(small: World) -> None:
    tick(small.context)
    with small.database.transaction() as tx:
        tx.execute("UPDATE pointers SET stable = NULL WHERE agent = :agent", agent=TWO)
    assert tick(small.context).opened == 0, "no deed without its line: nobody looks"
    told(small, TWO)
    assert tick(small.context).opened == 1


def test_a_rejected_release_is_not_gated_again_by_later_news(small: World) -> None:
    tick(small.context)
    small.adopt(small.edited(TWO, text="Do worse."))
    with small.database.snapshot() as tx:
        wanted = rollouts._wanted_rollout(tx, small.declared, TWO, small.clock.now())
    assert wanted is not None
    with small.database.transaction() as tx:
        store.save(tx, rollouts.closed(wanted, State.REJECTED, "fails", small.clock.now()))
    for _ in range(2):
        told(small, TWO)
        assert tick(small.context).opened == 0
    small.context.news.looked_until = None
    assert tick(small.context).opened == 0, "nor after a restart"


def test_a_held_rollout_ends_when_git_asks_for_something_else(small: World) -> None:
    tick(small.context)
    small.adopt(small.edited(TWO, text="Better."))
    with small.database.transaction() as tx:
        wanted = rollouts._wanted_rollout(tx, small.declared, TWO, small.clock.now())
        assert wanted is not None
        held = rollouts.closed(wanted, State.HELD, "undecided", small.clock.now())
        store.save(tx, held)
        assert store.active_rollouts(tx) == []
        assert store.open_of_agent(tx, TWO) == [held]
    assert (tick(small.context).opened, tick(small.context).moved) == (0, 0)
    small.adopt(small.edited(TWO, text="Better still."))
    tick(small.context)
    with small.database.snapshot() as tx:
        ended = next(r for r in store.of_agent(tx, TWO) if r.id == held.id)
    assert ended.state is State.CANCELLED


def test_the_ceiling_follows_a_rollback_of_another_process(small: World) -> None:
    tick(small.context)
    model: Json = {"name": "small", "targets": [{"name": "small", "provider": "openai", "id": "s"}]}
    older = release_of({**small.declared.releases[TWO].leaves, "main/model": model})
    with small.database.transaction() as tx:
        own = access.agent_policy(tx, TWO)
        assert own is not None
        store.remember_release(tx, older.digest, older.text(), commit="c", now=small.clock.now())
        narrowed = own.roles["main"].model_copy(update={"models": ("smart",)})
        access.put_ceilings(tx, {TWO: own.model_copy(update={"roles": {"main": narrowed}})})
        tx.execute(
            "UPDATE pointers SET stable = :d WHERE agent = :agent", d=older.digest, agent=TWO
        )
    told(small, TWO, "rollback")
    tick(small.context)
    now = access.agent_policy(small.database, TWO)
    assert now is not None
    assert "small" in now.roles["main"].models


# --- ends


def finished(made: World, agent: AgentName, occurrence: str) -> str:
    spec = run_spec(
        made.declared.releases[agent],
        agent=agent,
        team="payments",
        purpose=Purpose.LIVE,
        occurrence=Occurrence(occurrence),
        input="",
        workspace=Workspace(),
    )
    with made.database.transaction() as tx:
        queue.enqueue(tx, spec, now=made.clock.now())
    lease = queue.Queue(made.database, made.clock, "w").lease()
    assert lease is not None
    queue.Queue(made.database, made.clock, "w").finish(lease, RunOutcome(stop=StopReason.DONE))
    return str(lease.run)


def test_the_end_of_a_run_is_told_once_and_read_once(small: World) -> None:
    run = finished(small, ONE, "manual:1")
    assert queue.any_unread_end(small.database)
    assert tick(small.context).ended == 1
    assert not queue.any_unread_end(small.database)
    assert tick(small.context).ended == 0
    with small.database.transaction() as tx:  # as after an upgrade, or a store read back from git
        queue.announce_end(tx, queue.RunId(run))
    assert tick(small.context).ended == 0
    lines = small.database.read("SELECT seq FROM audit WHERE action = 'run.end'")
    assert len(lines) == 1


def test_a_claim_is_settled_with_its_run(small: World) -> None:
    run = finished(small, ONE, "manual:1")
    with small.database.transaction() as tx:
        for number, (claimed, state) in enumerate([(run, "pushed"), ("run-open", "open")]):
            tx.execute(
                "INSERT INTO claims (run, agent, occurrence, release, slice_nano, machine, state,"
                " claimed_at, lease_until) VALUES (:run, :a, :o, 'r', 1, 'm', :state, 1, 2)",
                run=claimed, a=ONE, o=f"manual:{number}", state=state,
            )  # fmt: skip
        assert assign.owed_claims(tx) == [run]
        assign.settle_claims(tx)
        assert assign.owed_claims(tx) == []
        assert assign.open_claims(tx) == ["run-open"]


# --- schedules


def looked(made: World) -> dict[str, int]:
    return {r["agent"]: r["looked_until"] for r in made.database.read("SELECT * FROM schedules")}


def started(made: World) -> list[str]:
    assert made.context.declared is not None
    found = tick(made.context).started
    runs = [made.database.one("SELECT agent FROM runs WHERE run = :r", r=s.run) for s in found]
    return [row["agent"] for row in runs if row is not None]


def end_all(made: World) -> None:
    workers = queue.Queue(made.database, made.clock, "w")
    while (lease := workers.lease()) is not None:
        workers.finish(lease, RunOutcome(stop=StopReason.DONE))


def test_nothing_before_the_first_sight_of_an_agent_is_made_up_for(small: World) -> None:
    small.clock.at = at("2027-01-04T10:01:00")
    assert started(small) == []
    assert set(looked(small).values()) == {small.clock.at}
    small.clock.at = at("2027-01-04T10:15:00")
    assert started(small) == [TWO]
    assert looked(small)[TWO] == small.clock.at
    assert started(small) == []


def test_a_restart_finds_what_came_due_meanwhile_and_only_the_latest(small: World) -> None:
    small.clock.at = at("2027-01-04T10:01:00")
    started(small)
    small.context.timetable = type(small.context.timetable)()
    small.context.news.scheduled = None
    small.clock.at = at("2027-01-04T11:07:00")
    assert started(small) == [TWO]
    (run,) = small.database.read("SELECT occurrence FROM runs")
    assert run["occurrence"] == "schedule:2027-01-04T11:00:00Z"


def test_the_next_run_starts_when_the_one_before_has_ended(small: World) -> None:
    small.clock.at = at("2027-01-04T10:01:00")
    started(small)
    small.clock.at = at("2027-01-04T10:15:00")
    assert started(small) == [TWO]
    later(small.clock, 31 * MINUTE)
    assert started(small) == []
    end_all(small)
    assert started(small) == [TWO]
    occurrences = small.database.read("SELECT occurrence FROM runs ORDER BY occurrence")
    assert [o["occurrence"][-9:] for o in occurrences] == ["10:15:00Z", "10:45:00Z"]


def test_a_changed_schedule_counts_from_the_next_tick(small: World) -> None:
    small.clock.at = at("2027-01-04T10:01:00")
    started(small)
    trigger = small.declared.fleet.agents[THREE].trigger
    hourly = type(trigger)(schedule="5 * * * *", timezone="UTC")
    small.adopt(small.edited(THREE, trigger=hourly))
    small.clock.at = at("2027-01-04T10:05:00")
    assert started(small) == [THREE]
    small.adopt(small.edited(THREE, trigger=type(trigger)(schedule=None, timezone="UTC")))
    end_all(small)
    small.clock.at = at("2027-01-04T11:05:00")
    assert started(small) == [TWO]


def test_an_agent_that_is_held_is_tried_again_on_news_or_after_a_while(small: World) -> None:
    small.clock.at = at("2027-01-04T10:01:00")
    started(small)
    with small.database.transaction() as tx:
        hold = Hold("hold-1", TWO, "assignment", "wait", "ann", small.clock.now())
        store.place_hold(tx, hold)
    small.clock.at = at("2027-01-04T10:15:00")
    for _ in range(2):
        assert started(small) == []
        assert any("agent-00001: due" in text for text in small.context.problems)
    with small.database.transaction() as tx:
        store.lift_holds(tx, TWO, actor="ann", now=small.clock.now())
    assert started(small) == [], "nobody told, and no time has passed"
    later(small.clock, assign.RETRY_MS)
    assert started(small) == [TWO]


def test_a_lifted_hold_on_the_fleet_starts_what_waited_at_once(small: World) -> None:
    small.clock.at = at("2027-01-04T10:01:00")
    started(small)
    with small.database.transaction() as tx:
        store.place_hold(tx, Hold("h", "*", "assignment", "wait", "ann", small.clock.now()))
    small.clock.at = at("2027-01-04T10:15:00")
    assert started(small) == []
    with small.database.transaction() as tx:
        store.lift_holds(tx, "*", actor="ann", now=small.clock.now())
    told(small, AgentName("*"), "resume")
    assert started(small) == [TWO]


def test_a_thousand_agents_that_are_due_at_once_each_get_one_run(tmp_path: Path) -> None:
    made = world(tmp_path, 1_000)
    made.adopt()
    made.promote_everything()
    made.context.fetched_at = made.clock.at = at("2027-01-04T05:59:00")
    started(made)
    made.clock.at = at("2027-01-05T06:00:00")
    assert len(started(made)) == 1_000
    assert started(made) == []
    rows = made.database.read("SELECT agent, count(*) AS n FROM runs GROUP BY agent")
    assert {row["n"] for row in rows} == {1}
    assert len(rows) == 1_000
    assert derived_id("run", ONE, "live", "schedule:2027-01-05T05:00:00Z") in {
        row["run"] for row in made.database.read("SELECT run FROM runs WHERE agent = :a", a=ONE)
    }
