"""Publishing and rebuilding against real bare repositories: who may write, what is believed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway import budgets
from gateway.database import Database
from gateway.policy import BudgetRule, Window
from gateway.values import Millis, NanoUSD
from reconciler.record import audit, state, views
from reconciler.record.draft import draft
from reconciler.record.publish import Published, publish
from reconciler.record.rebuild import RebuildRefused, Rebuilt, rebuild
from reconciler.rollout import store
from reconciler.source import CommitId, Mirror, Signer, generate_key, public_key
from reconciler.source.writing import Identity
from tests.support.git_http import install_hook
from tests.support.record import (
    DAY,
    GOOD,
    KEY,
    NOW,
    OLD,
    FakeClock,
    add_call,
    add_run,
    finish,
    good,
    live_run,
    new_database,
    sample,
)

BRANCH = "interlock/reports"
REF = f"refs/heads/{BRANCH}"
RULES = (
    BudgetRule(name="month", window=Window.MONTH, limit=NanoUSD(10**12)),
    BudgetRule(name="day", window=Window.DAY, limit=NanoUSD(10**12), each_agent=True),
    BudgetRule(name="evals", window=Window.WEEK, limit=NanoUSD(10**12), purpose="eval"),
    BudgetRule(name="model", window=Window.QUARTER, limit=NanoUSD(10**12), model="anthropic/*"),
)


@dataclass
class Machine:
    """One reconciler: its database, its clone, its key."""

    database: Database
    mirror: Mirror
    signer: Signer
    allowed: list[str]
    clock: FakeClock = field(default_factory=FakeClock)
    slept: list[float] = field(default_factory=list)
    tick: int = 0

    def publish(self, *, clean: bool = True, force: bool = False) -> Published:
        self.tick += 1
        return publish(
            self.database,
            self.mirror,
            branch=BRANCH,
            signer=self.signer,
            clock=self.clock,
            machine="m",
            tick=self.tick,
            clean=clean,
            allowed=self.allowed,
            sleep=self.slept.append,
            draw=lambda: 0.5,
            force=force,
        )

    def rebuild(self) -> Rebuilt:
        return rebuild(
            self.database, self.mirror, branch=BRANCH, allowed=self.allowed, clock=self.clock
        )

    def tree(self) -> dict[str, bytes]:
        head = self.mirror.fetch()[REF]
        tree = self.mirror.tree(head)
        return {path: tree.read(path) for path, _ in tree.walk()}


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    path = tmp_path / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True)
    return path


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        generate_key(folder / name)
    return folder


@pytest.fixture
def machine(tmp_path: Path, remote: Path, keys: Path) -> Callable[[str], Machine]:
    def make(name: str) -> Machine:
        return Machine(
            new_database(tmp_path / name / "db"),
            Mirror.open_or_clone(str(remote), tmp_path / name / "mirror"),
            Signer(keys / "ours"),
            [public_key(keys / "ours")],
        )

    return make


def git(remote: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(remote), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def everything(database: Database) -> dict[str, bytes]:
    """The whole record as this database would write it now, manifest's time aside."""
    with database.snapshot() as tx:
        made = draft(tx, None, None, now=NOW, tick=1, clean=True, machine="m").changes
    return {path: body for path, body in made.items() if body is not None}


def money(database: Database) -> dict[str, Any]:
    """Every figure of money that any view shows."""
    with database.snapshot() as tx:
        rows = tx.read("SELECT * FROM calls")
        return {
            "costs": [
                views.costs(tx, by)
                for by in (("agent",), ("team", "model"), ("role", "day"), ("purpose", "day"))
            ],
            "fleet": views.fleet(tx, NOW).cost_week,
            "per outcome": [a.cost_per_accepted_nano for a in views.fleet(tx, NOW).agents],
            "runs": {r.run: r.cost_nano for r in views.runs(tx)},
            "rollouts": {
                r.rollout: views.rollout(tx, r.rollout).eval_cost_nano for r in views.rollouts(tx)
            },
            "windows": {
                meter: (total.spent_nano + total.held_nano, total.spent_tokens + total.held_tokens)
                for meter, total in budgets.recount(RULES, rows).items()
                if meter.rule != budgets.RUN_RULE
            },
        }


# --- publishing


def test_the_first_commit_starts_a_history_of_its_own_and_is_signed(
    machine: Callable[[str], Machine], remote: Path
) -> None:
    one = machine("a")
    sample(one.database)
    done = one.publish()
    assert done.outcome == "pushed"
    assert done.commit is not None
    info = one.mirror.commit_info(done.commit)
    assert info.parents == ()
    assert info.own
    assert one.mirror.verify_commit(done.commit, one.allowed).good
    assert "rel-aaaaaaaaaaaa promoted" in info.message
    assert git(remote, "rev-parse", BRANCH) == done.commit


def test_nothing_is_committed_when_only_time_has_passed(machine: Callable[[str], Machine]) -> None:
    one = machine("a")
    sample(one.database)
    first = one.publish()
    one.clock.at += 60_000
    again = one.publish()
    assert (again.outcome, again.commit) == ("nothing_new", first.commit)
    one.clock.at += 3_600_000
    beat = one.publish()
    assert beat.outcome == "pushed"
    assert beat.commit is not None
    assert one.mirror.commit_info(beat.commit).message == "heartbeat\n"
    assert one.publish(clean=False).outcome == "pushed", "a lost clean mark is news"


def test_a_state_file_that_is_no_more_is_deleted(machine: Callable[[str], Machine]) -> None:
    one = machine("a")
    names = sample(one.database)
    with one.database.transaction() as tx:
        tx.execute(
            "UPDATE rollouts SET closed_at = NULL, state = 'canary' WHERE rollout = :r",
            r=names["harm"],
        )
    one.publish()
    assert f"state/attempts/{names['harm']}.json" in one.tree()
    with one.database.transaction() as tx:
        tx.execute(
            "UPDATE rollouts SET closed_at = since, state = 'rolled_back' WHERE rollout = :r",
            r=names["harm"],
        )
    assert one.publish().outcome == "pushed"
    files = one.tree()
    assert f"state/attempts/{names['harm']}.json" not in files
    state.check(files)


def test_a_commit_tells_what_happened(machine: Callable[[str], Machine]) -> None:
    one = machine("a")
    sample(one.database)
    one.publish()
    with one.database.transaction() as tx:
        live_run(tx, 0, OLD, good())
    done = one.publish()
    assert done.commit is not None
    assert one.mirror.commit_info(done.commit).message == "ci-triage: 1 run, $0.014\n"


def test_claims_of_a_commit_are_named_when_they_are_durable(
    machine: Callable[[str], Machine],
) -> None:
    one = machine("a")
    sample(one.database)
    run = claim(one)
    done = one.publish(clean=False)
    assert (done.outcome, done.claims) == ("pushed", (run,))
    assert f"state/claims/{run}.json" in one.tree()
    assert one.publish(clean=False).claims == (run,), "they are still there without a new commit"


def claim(one: Machine, state_: str = "open") -> str:
    """A run that is claimed and not begun."""
    with one.database.transaction() as tx:
        run = add_run(tx, "ci-triage", "schedule:claimed", OLD, at=NOW, outcome=None)
        tx.execute(
            "INSERT INTO claims (run, agent, occurrence, release, slice_nano, machine, state,"
            " claimed_at, lease_until) VALUES (:run, 'ci-triage', 'schedule:claimed', :release,"
            " 3000000000, 'm', :state, :at, :until)",
            run=run,
            release=OLD,
            state=state_,
            at=NOW,
            until=NOW + DAY,
        )
    return run


def test_a_refused_push_says_so_and_the_next_one_goes_through(
    machine: Callable[[str], Machine], remote: Path
) -> None:
    one = machine("a")
    sample(one.database)
    install_hook(remote, "pre-receive", "echo 'not on a Friday' >&2; exit 1")
    refused = one.publish()
    assert refused.outcome == "rejected"
    assert refused.reason
    assert refused.claims == ()
    (remote / "hooks" / "pre-receive").unlink()
    assert one.publish().outcome == "pushed"


def test_a_remote_that_is_down_is_unreachable_and_then_caught_up_with(
    machine: Callable[[str], Machine], remote: Path
) -> None:
    one = machine("a")
    sample(one.database)
    away = remote.with_name("away.git")
    remote.rename(away)
    gone = one.publish()
    assert gone.outcome == "unreachable"
    assert gone.claims == ()
    away.rename(remote)
    assert one.publish().outcome == "pushed"


def test_a_push_that_arrived_unseen_is_recognised(machine: Callable[[str], Machine]) -> None:
    one = machine("a")
    sample(one.database)
    assert one.publish().outcome == "pushed"
    with one.database.transaction() as tx:
        live_run(tx, 0, OLD, good())
        before = tx.read("SELECT * FROM facts WHERE name LIKE 'reports_%'")
    pushed = one.publish()
    with one.database.transaction() as tx:  # as if killed between the push and remembering it
        after = tx.one("SELECT value FROM facts WHERE name = 'reports_mark'")
        tx.execute("DELETE FROM facts WHERE name LIKE 'reports_%'")
        assert after is not None
        for row in [*before, {"name": "reports_pending", "value": after["value"]}]:
            tx.execute("INSERT INTO facts (name, value) VALUES (:name, :value)", **row)
    again = one.publish()
    assert (again.outcome, again.commit) == ("nothing_new", pushed.commit)


def test_a_key_that_is_not_allowed_writes_nothing(
    machine: Callable[[str], Machine], keys: Path, remote: Path
) -> None:
    one = machine("a")
    sample(one.database)
    one.signer = Signer(keys / "theirs")
    done = one.publish()
    assert done.outcome == "rejected"
    assert "signers" in done.reason
    assert git(remote, "for-each-ref") == ""


def test_of_two_reconcilers_the_second_is_superseded(machine: Callable[[str], Machine]) -> None:
    one, two = machine("a"), machine("b")
    sample(one.database)
    one.publish()
    assert two.rebuild().held is False
    two.tick = one.tick
    with two.database.transaction() as tx:
        live_run(tx, 0, OLD, good())
    theirs = two.publish()
    assert theirs.outcome == "pushed"
    with one.database.transaction() as tx:
        audit.append(tx, now=NOW, actor="x", action="y", subject="z", reason="")
    done = one.publish()
    assert (done.outcome, done.commit) == ("superseded", theirs.commit)
    assert "rebuild" in done.reason
    one.rebuild()
    assert money(one.database)["runs"] == money(two.database)["runs"]
    assert len(money(one.database)["runs"]) == 8


def test_a_database_that_never_read_the_branch_does_not_write_over_it(
    machine: Callable[[str], Machine],
) -> None:
    one, two = machine("a"), machine("b")
    sample(one.database)
    one.publish()
    sample(two.database)
    assert two.publish().outcome == "superseded"


def test_a_branch_that_was_removed_is_put_back_with_its_history(
    machine: Callable[[str], Machine], remote: Path
) -> None:
    one = machine("a")
    sample(one.database)
    first = one.publish()
    git(remote, "update-ref", "-d", REF)
    done = one.publish(force=True)
    assert done.outcome == "pushed"
    assert done.commit is not None
    assert one.mirror.commit_info(done.commit).parents == (first.commit,)


# --- foreign commits


def forge(one: Machine, signer: Signer | None, changes: dict[str, bytes | None]) -> CommitId:
    head = one.mirror.fetch()[REF]
    commit = one.mirror.write_commit(
        head,
        changes,
        message="tidy up",
        author=Identity("Mallory", "m@example.org"),
        when_ms=Millis(NOW),
        signer=signer,
    )
    assert one.mirror.push({REF: (head, commit)}).pushed
    return commit


@pytest.mark.parametrize("key", [None, "theirs"])
def test_nothing_is_built_on_a_foreign_commit_and_nothing_restored_from_it(
    machine: Callable[[str], Machine], keys: Path, key: str | None
) -> None:
    one, fresh = machine("a"), machine("b")
    sample(one.database)
    one.publish()
    forged = forge(one, Signer(keys / key) if key else None, {"state/pointers.json": b"{}"})
    done = one.publish(force=True)
    assert (done.outcome, done.commit) == ("foreign", forged)
    assert forged in done.reason
    assert "Mallory" in done.reason
    with pytest.raises(RebuildRefused) as refused:
        fresh.rebuild()
    assert refused.value.kind == ("unknown_signer" if key else "unsigned")
    assert fresh.database.read("SELECT * FROM pointers") == []


def test_a_file_changed_under_a_good_signature_is_found_by_the_manifest(
    machine: Callable[[str], Machine],
) -> None:
    one, fresh = machine("a"), machine("b")
    sample(one.database)
    one.publish()
    forge(one, one.signer, {"state/quarantine.json": b'{"format":"interlock.state/1"}'})
    with pytest.raises(state.StateError, match=r"quarantine\.json is not what"):
        fresh.rebuild()


def test_a_changed_audit_line_breaks_the_chain(machine: Callable[[str], Machine]) -> None:
    one, fresh = machine("a"), machine("b")
    sample(one.database)
    one.publish()
    path = "audit/2026-11.jsonl"
    body = one.tree()[path].replace(b"points against stable", b"points ahead of stable")
    forge(one, one.signer, {path: body})
    with pytest.raises(state.StateError, match="chain breaks at line 4"):
        fresh.rebuild()


def test_a_later_format_is_refused_with_the_way_out(machine: Callable[[str], Machine]) -> None:
    one, fresh = machine("a"), machine("b")
    sample(one.database)
    one.publish()
    manifest = json.loads(one.tree()[state.MANIFEST]) | {"format": "interlock.state/9"}
    forge(one, one.signer, {state.MANIFEST: json.dumps(manifest).encode()})
    with pytest.raises(state.StateError, match="Upgrade Interlock"):
        fresh.rebuild()


def test_a_branch_that_went_back_is_refused(
    machine: Callable[[str], Machine], remote: Path
) -> None:
    one = machine("a")
    sample(one.database)
    first = one.publish()
    with one.database.transaction() as tx:
        live_run(tx, 0, OLD, good())
    one.publish()
    git(remote, "update-ref", REF, str(first.commit))
    with pytest.raises(RebuildRefused, match="took commits away") as refused:
        one.rebuild()
    assert refused.value.kind == "went_back"
    git(remote, "update-ref", "-d", REF)
    with pytest.raises(RebuildRefused, match="put it back"):
        one.rebuild()


def test_an_old_state_committed_over_a_newer_one_is_refused(
    machine: Callable[[str], Machine],
) -> None:
    one, fresh = machine("a"), machine("b")
    sample(one.database)
    one.publish()
    old = one.tree()
    one.publish(force=True)
    forge(one, one.signer, {path: old[path] for path in (state.MANIFEST, "README.md")})
    with pytest.raises(RebuildRefused, match="tick 1 follows tick 2"):
        fresh.rebuild()


# --- rebuilding


def test_no_branch_is_a_fresh_start(machine: Callable[[str], Machine]) -> None:
    found = machine("a").rebuild()
    assert (found.manifest, found.runs, found.held) == (None, 0, False)


def test_a_rebuilt_machine_writes_the_same_bytes_and_shows_the_same_money(
    machine: Callable[[str], Machine],
) -> None:
    one, fresh = machine("a"), machine("b")
    sample(one.database)
    done = one.publish()
    found = fresh.rebuild()
    assert (found.runs, found.held, found.lost_claims, found.notes) == (7, False, (), ())
    with one.database.transaction() as tx:  # declared by the config repo, not by the record
        tx.execute("DELETE FROM desired")
        tx.execute("DELETE FROM facts")
    with fresh.database.transaction() as tx:
        tx.execute("DELETE FROM facts WHERE name NOT LIKE 'reports_%'")
    assert everything(fresh.database) == everything(one.database)
    assert money(fresh.database) == money(one.database)
    with fresh.database.snapshot() as tx:
        steps = views.run(tx, views.runs(tx)[0].run).trace.steps
        assert len(steps) == 4, "the steps of a run survive"
        assert audit.first_break(tx.read("SELECT * FROM audit ORDER BY seq")) is None
    fresh.tick = 1
    again = fresh.publish()
    assert again.outcome in ("nothing_new", "pushed")
    assert again.commit == done.commit or fresh.mirror.is_ancestor(done.commit, again.commit)


def test_a_run_is_not_done_again_after_a_rebuild(machine: Callable[[str], Machine]) -> None:
    one, fresh = machine("a"), machine("b")
    sample(one.database)
    one.publish()
    fresh.rebuild()
    with fresh.database.transaction() as tx:
        from runner import queue
        from tests.support.record import spec

        assert queue.enqueue(tx, spec("ci-triage", "schedule:3", OLD), now=NOW)[1] is False


def test_an_open_reservation_comes_back_at_its_worst_case(
    machine: Callable[[str], Machine],
) -> None:
    one, fresh = machine("a"), machine("b")
    names = sample(one.database)
    with one.database.transaction() as tx:
        eval_run = tx.one("SELECT run FROM runs WHERE purpose = 'eval' LIMIT 1")
        assert eval_run is not None
        add_call(tx, eval_run["run"], "9", at=NOW, state="reserved", cost=50_000_000)
        add_call(tx, names["run"], "9", at=NOW, state="unknown", cost=30_000_000)
        add_call(tx, names["run"], "8", at=NOW, state="released")
    one.publish()
    fresh.rebuild()
    assert money(fresh.database)["windows"] == money(one.database)["windows"]
    assert (
        money(fresh.database)["costs"][0][0].cost_nano
        == money(one.database)["costs"][0][0].cost_nano
    )


def test_a_claim_without_an_outcome_is_spent_unknown_and_never_run_again(
    machine: Callable[[str], Machine],
) -> None:
    one, fresh = machine("a"), machine("b")
    sample(one.database)
    run = claim(one, "pushed")
    one.publish(clean=False)
    found = fresh.rebuild()
    assert found.lost_claims == (run,)
    assert found.held
    with fresh.database.snapshot() as tx:
        lost = views.run(tx, run)
        assert (lost.run.stop, lost.run.cost_nano) == ("outcome_unknown", 3_000_000_000)
        assert lost.outcome is not None
        assert lost.outcome.notes == "remember the flaky test", "its notes are the last run's"
        assert any(run in alert.text for alert in views.alerts(tx))
        assert tx.one("SELECT state FROM claims WHERE run = :r", r=run) == {"state": "lost"}
    with fresh.database.transaction() as tx:
        from runner import queue
        from tests.support.record import spec

        assert queue.enqueue(tx, spec("ci-triage", "schedule:claimed", OLD), now=NOW)[1] is False
    fresh.tick = 1
    assert fresh.publish().outcome == "pushed"
    third = machine("c")
    again = third.rebuild()
    assert again.lost_claims == (), "it is lost once"
    assert money(third.database) == money(fresh.database)


def test_a_settled_claim_is_not_lost(machine: Callable[[str], Machine]) -> None:
    one, fresh = machine("a"), machine("b")
    sample(one.database)
    run = claim(one, "pushed")
    one.publish(clean=False)
    with one.database.transaction() as tx:
        finish(tx, run, at=NOW, outcome=good())
        tx.execute("UPDATE claims SET state = 'settled'")
    one.publish()
    found = fresh.rebuild()
    assert (found.lost_claims, found.held) == ((), False)


def test_without_the_clean_mark_the_fleet_is_held_until_a_person_resumes(
    machine: Callable[[str], Machine],
) -> None:
    one, fresh = machine("a"), machine("b")
    sample(one.database)
    one.publish(clean=False)
    found = fresh.rebuild()
    assert found.held
    assert any("not a clean shutdown" in note for note in found.notes)
    with fresh.database.transaction() as tx:
        (hold,) = [h for h in store.holds(tx, NOW) if h.kind == "assignment"]
        assert hold.agent == "*"
        assert "interlock resume" in hold.reason
        assert store.lift_holds(tx, "*", actor="anna", now=NOW) == 1


def test_a_service_s_open_run_counts_as_claimed(machine: Callable[[str], Machine]) -> None:
    one, fresh = machine("a"), machine("b")
    sample(one.database)
    with one.database.transaction() as tx:
        run = add_run(tx, "ci-triage", "schedule:open", GOOD, at=NOW, outcome=None)
        add_call(tx, run, "1", at=NOW, cost=1_000_000_000)
    one.publish(clean=False)
    assert fresh.rebuild().lost_claims == (run,)
    with fresh.database.snapshot() as tx:
        assert views.run(tx, run).run.cost_nano == 3_000_000_000, "the slice, not more"


def test_the_ledger_wins_over_a_run_report_that_was_written_too_early(
    machine: Callable[[str], Machine],
) -> None:
    one, fresh = machine("a"), machine("b")
    names = sample(one.database)
    one.publish()
    path = f"agents/ci-triage/runs/2026/11/{names['run']}.json"
    told = json.loads(one.tree()[path])
    told["calls"] = told["calls"][:1]
    forge(one, one.signer, {path: json.dumps(told).encode()})
    found = fresh.rebuild()
    assert names["run"] in found.notes[0]
    assert money(fresh.database)["costs"] == money(one.database)["costs"]


def test_a_rebuild_that_fails_changes_nothing(machine: Callable[[str], Machine]) -> None:
    one, fresh = machine("a"), machine("b")
    sample(one.database)
    one.publish()
    forge(one, one.signer, {"audit/2026-11.jsonl": None})
    before = fresh.database.read("SELECT * FROM facts")
    with pytest.raises(state.StateError, match="audit/ ends at None"):
        fresh.rebuild()
    assert fresh.database.read("SELECT * FROM facts") == before
    assert fresh.database.read("SELECT * FROM runs") == []


def test_no_secret_is_in_any_object_of_the_branch(
    machine: Callable[[str], Machine], remote: Path, tmp_path: Path
) -> None:
    one = machine("a")
    sample(one.database)
    one.publish()
    work = tmp_path / "work"
    subprocess.run(["git", "clone", "-q", "-b", BRANCH, str(remote), str(work)], check=True)
    shutil.rmtree(work / ".git")
    for path in work.rglob("*"):
        if path.is_file():
            assert KEY not in path.read_text(), path
