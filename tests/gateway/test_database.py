"""Transactions, migrations and group commit, over real files, threads and a killed process."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.database import Database, DatabaseError, GroupCommit, Migration, Transaction

ROOT = Path(__file__).parents[2]
TABLES = Migration(
    "things",
    1,
    (
        "CREATE TABLE things (name TEXT PRIMARY KEY, amount BIGINT NOT NULL)",
        "CREATE TABLE children (parent TEXT REFERENCES things DEFERRABLE INITIALLY DEFERRED)",
    ),
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "deep" / "interlock.db")
    opened.migrate([TABLES])
    yield opened
    opened.close()


@pytest.fixture
def commits(database: Database) -> Iterator[GroupCommit]:
    group = GroupCommit(database)
    yield group
    group.close()


def add(tx: Transaction, name: str) -> int:
    return tx.execute("INSERT INTO things VALUES (:name, 1)", name=name)


def names(database: Database) -> list[str]:
    return [row["name"] for row in database.read("SELECT name FROM things ORDER BY name")]


def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    def half() -> None:
        with database.transaction() as tx:
            add(tx, "a")
            raise LookupError

    with pytest.raises(LookupError):
        half()
    assert names(database) == []
    with database.transaction() as tx:
        assert add(tx, "a") == 1
    assert names(database) == ["a"]


def test_a_commit_that_fails_does_not_spoil_the_next_transaction(database: Database) -> None:
    def orphan() -> None:
        with database.transaction() as tx:
            add(tx, "a")
            tx.execute("INSERT INTO children VALUES ('nobody')")  # refused at COMMIT

    with pytest.raises(sqlite3.IntegrityError):
        orphan()
    with database.transaction() as tx:
        add(tx, "b")
    assert names(database) == ["b"]


def test_an_error_that_ended_the_transaction_by_itself_is_told_as_it_was(
    database: Database,
) -> None:
    def twice() -> None:
        with database.transaction() as tx:
            add(tx, "a")
            tx.execute("INSERT OR ROLLBACK INTO things VALUES ('a', 1)")

    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        twice()
    assert names(database) == []


def test_a_snapshot_sees_one_state_and_keeps_nothing(database: Database) -> None:
    def other_writer() -> None:
        with database.transaction() as tx:
            add(tx, "later")
        database.close()

    with database.snapshot() as tx:
        assert tx.read("SELECT * FROM things") == []
        writer = threading.Thread(target=other_writer)
        writer.start()
        writer.join()
        assert tx.read("SELECT * FROM things") == []
    with database.snapshot() as tx:
        assert tx.one("SELECT name FROM things") == {"name": "later"}
        tx.execute("DELETE FROM things")
    assert names(database) == ["later"]


def test_migrating_twice_is_once_and_later_versions_are_added(database: Database) -> None:
    with database.transaction() as tx:
        add(tx, "kept")
    second = Migration("things", 2, ("ALTER TABLE things ADD COLUMN note TEXT",))
    database.migrate([second, TABLES])
    database.migrate([TABLES, second])
    assert database.one("SELECT * FROM things") == {"name": "kept", "amount": 1, "note": None}


def test_a_migration_that_breaks_leaves_nothing_behind(database: Database) -> None:
    broken = Migration("things", 2, ("CREATE TABLE half (a TEXT)", "CREATE NONSENSE"))
    with pytest.raises(sqlite3.OperationalError):
        database.migrate([TABLES, broken])
    assert database.one("SELECT version FROM schema_versions") == {"version": 1}
    assert database.read("SELECT name FROM sqlite_master WHERE name = 'half'") == []


def test_a_database_newer_than_the_program_is_refused(database: Database) -> None:
    database.migrate([TABLES, Migration("things", 2, ())])
    with pytest.raises(DatabaseError, match="Upgrade Interlock"):
        database.migrate([TABLES])


def test_a_file_that_is_no_database_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(DatabaseError, match="interlock rebuild"):
        Database(path).read("SELECT 1")


def test_what_was_written_together_reads_back(commits: GroupCommit, database: Database) -> None:
    async def scenario() -> list[int]:
        return await asyncio.gather(
            *(commits.write(lambda tx, i=i: add(tx, f"{i:03}")) for i in range(200))
        )

    assert asyncio.run(scenario()) == [1] * 200
    assert names(database) == [f"{i:03}" for i in range(200)]


def test_a_job_that_raises_is_undone_alone(commits: GroupCommit, database: Database) -> None:
    def half(tx: Transaction) -> None:
        add(tx, "half")
        raise LookupError("half way")

    async def scenario() -> list[object]:
        return await asyncio.gather(
            commits.write(lambda tx: add(tx, "before")),
            commits.write(half),
            commits.write(lambda tx: add(tx, "before")),
            commits.write(lambda tx: add(tx, "after")),
            return_exceptions=True,
        )

    before, failed, twice, after = asyncio.run(scenario())
    assert (before, after) == (1, 1)
    assert isinstance(failed, LookupError)
    assert isinstance(twice, sqlite3.IntegrityError)
    assert names(database) == ["after", "before"]


@pytest.mark.parametrize(
    "sql", ["INSERT INTO children VALUES ('x')", "INSERT OR ROLLBACK INTO things VALUES ('a', 1)"]
)
def test_nobody_goes_on_when_the_commit_itself_failed(
    commits: GroupCommit, database: Database, sql: str
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(_: Transaction) -> None:
        entered.set()
        leave.wait(5)

    async def scenario() -> list[object]:
        # The first job keeps the writer busy, so that the others share one commit.
        first = asyncio.create_task(commits.write(slow))
        await asyncio.sleep(0)
        assert entered.wait(5)
        rest = [
            asyncio.create_task(commits.write(lambda tx: add(tx, "a"))),
            asyncio.create_task(commits.write(lambda tx: tx.execute(sql))),
        ]
        await asyncio.sleep(0)
        leave.set()
        await first
        return await asyncio.gather(*rest, return_exceptions=True)

    assert all(isinstance(result, sqlite3.Error) for result in asyncio.run(scenario()))
    assert asyncio.run(_write(commits, "next")) == 1
    assert names(database) == ["next"]


async def _write(commits: GroupCommit, name: str) -> int:
    return await commits.write(lambda tx: add(tx, name))


def test_a_decision_that_cannot_be_written_fails_alone(
    commits: GroupCommit, database: Database
) -> None:
    entered, begun = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> None:
        entered.set()
        begun.wait(30)

    def good(name: str) -> Any:
        def work(tx: Transaction) -> str:
            tx.execute("INSERT INTO things (name, amount) VALUES (:name, 1)", name=name)
            return name

        return work

    def bad(tx: Transaction) -> None:
        # Found only by the commit: then the whole group fails.
        tx.execute("INSERT INTO children (parent) VALUES ('nobody')")

    async def all_at_once() -> list[object]:
        first = asyncio.ensure_future(commits.write(slow))
        assert await asyncio.to_thread(entered.wait, 30)
        rest = [commits.decide(good("a")), commits.decide(bad), commits.decide(good("b"))]
        begun.set()
        await first
        return await asyncio.gather(*rest, return_exceptions=True)

    one, broken, other = asyncio.run(all_at_once())
    assert (one, other) == ("a", "b")
    assert isinstance(broken, sqlite3.IntegrityError)
    names = database.read("SELECT name FROM things ORDER BY name")
    assert [row["name"] for row in names] == ["a", "b"]
    assert database.read("SELECT * FROM children") == []


def test_many_loops_in_many_threads_share_the_writer(
    commits: GroupCommit, database: Database
) -> None:
    async def many(thread: int) -> None:
        await asyncio.gather(*(_write(commits, f"{thread}-{i:02}") for i in range(50)))

    threads = [threading.Thread(target=lambda t=t: asyncio.run(many(t))) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(database)) == 200


def test_a_loop_that_closed_does_not_stop_the_writer(
    commits: GroupCommit, database: Database
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> int:
        entered.set()
        leave.wait(5)
        return add(tx, "orphan")

    loop = asyncio.new_event_loop()
    task = loop.create_task(commits.write(slow))
    loop.run_until_complete(asyncio.sleep(0))
    assert entered.wait(5)
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    leave.set()
    assert asyncio.run(_write(commits, "next")) == 1
    assert names(database) == ["next", "orphan"]


def test_closing_finishes_what_is_queued_and_then_refuses(database: Database) -> None:
    commits = GroupCommit(database)
    entered, leave = threading.Event(), threading.Event()

    async def scenario() -> None:
        def slow(tx: Transaction) -> int:
            entered.set()
            leave.wait(5)
            return add(tx, "slow")

        tasks = [asyncio.create_task(commits.write(slow))]
        tasks += [asyncio.create_task(_write(commits, f"{i}")) for i in range(5)]
        await asyncio.sleep(0)
        assert entered.wait(5)
        closing = asyncio.create_task(asyncio.to_thread(commits.close))
        leave.set()
        assert await asyncio.gather(*tasks) == [1] * 6
        await closing
        with pytest.raises(DatabaseError, match="closed"):
            await _write(commits, "late")

    asyncio.run(scenario())
    commits.close()
    assert len(names(database)) == 6


WRITER = """
import asyncio, sys
from pathlib import Path
from gateway.database import Database, GroupCommit

commits = GroupCommit(Database(Path(sys.argv[1])))

async def writer(worker):
    for i in range(1_000_000):
        name = f"{worker}-{i}"
        await commits.write(lambda tx: tx.execute("INSERT INTO things VALUES (:n, 1)", n=name))
        sys.stdout.write(name + "\\n")
        sys.stdout.flush()

async def main():
    await asyncio.gather(*(writer(w) for w in range(16)))

asyncio.run(main())
"""


def test_every_acknowledged_write_survives_a_kill(database: Database) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(database.path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    acknowledged = [child.stdout.readline().strip() for _ in range(300)]
    child.send_signal(signal.SIGKILL)
    # What was printed before the kill was acknowledged too; a torn last line was not printed.
    rest = child.stdout.read()
    child.wait()
    child.stdout.close()
    acknowledged += rest.split("\n")[:-1]
    assert set(acknowledged) <= set(names(database))
    assert database.one("PRAGMA integrity_check") == {"integrity_check": "ok"}
