"""Connections, transactions and group commit: the only room that opens the database.

Every package owns its own tables and SQL; they are handed to `Database.migrate` as `Migration`s
and run through the transactions opened here. One SQL text with `:name` parameters serves SQLite
today and Postgres later, so: BIGINT for money and time, TEXT for JSON, no SQLite-only functions
outside this file.

Durability: SQLite runs in WAL mode with synchronous=FULL, because a reservation must survive a
power cut before the call it pays for leaves the machine. `GroupCommit` makes that cheap: whatever
has queued while the last commit ran shares the next one (measured: 20x one commit per call).
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")
Row = dict[str, Any]


class DatabaseError(Exception):
    """The database cannot be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One forward step of one package's schema. `version` counts from 1 without gaps."""

    package: str
    version: int
    statements: tuple[str, ...]


class Transaction:
    """An open transaction. All writes of one decision go through one of these."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, **parameters: object) -> int:
        """Run one statement with `:name` parameters; returns how many rows it changed."""
        return self._connection.execute(sql, parameters).rowcount

    def many(self, sql: str, rows: Sequence[Row]) -> None:
        """Run one statement once for each row of parameters."""
        self._connection.executemany(sql, rows)

    def read(self, sql: str, **parameters: object) -> list[Row]:
        """All rows of a query, as dicts by column name."""
        return [dict(row) for row in self._connection.execute(sql, parameters)]

    def one(self, sql: str, **parameters: object) -> Row | None:
        """The first row of a query, or None."""
        row = self._connection.execute(sql, parameters).fetchone()
        return None if row is None else dict(row)

    def columns(self, table: str) -> frozenset[str]:
        """Names of a table's columns; empty when there is no such table."""
        rows = self._connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
        return frozenset(row["name"] for row in rows)


class Database:
    """One database file, used from any thread (a connection per thread) and many processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        path.parent.mkdir(parents=True, exist_ok=True)

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            try:
                # isolation_level=None: transactions are opened by hand, never implicitly.
                connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
                connection.row_factory = sqlite3.Row
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
                connection.execute("PRAGMA foreign_keys=ON")
            except sqlite3.Error as error:
                raise DatabaseError(
                    f"cannot open {self.path}: {error}. Check the path and its permissions; "
                    "if the file is damaged, move it away and run `interlock rebuild`."
                ) from error
            self._local.connection = connection
        return connection

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A write transaction (BEGIN IMMEDIATE): commits on leaving, rolls back on an exception."""
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield Transaction(connection)
            connection.execute("COMMIT")
        except BaseException:
            # A commit that fails (disk full, a deferred constraint) leaves the transaction open,
            # while some errors end it by themselves: neither may spoil the next transaction.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    @contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        """A read transaction: several queries that see one state. Writes in it are lost."""
        connection = self._connection()
        connection.execute("BEGIN")
        try:
            yield Transaction(connection)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def read(self, sql: str, **parameters: object) -> list[Row]:
        """All rows of one query."""
        return Transaction(self._connection()).read(sql, **parameters)

    def one(self, sql: str, **parameters: object) -> Row | None:
        """The first row of one query, or None."""
        return Transaction(self._connection()).one(sql, **parameters)

    def close(self) -> None:
        """Close this thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def migrate(self, migrations: Sequence[Migration]) -> None:
        """Bring the schema forward. Refuses a database newer than this program.

        Raises DatabaseError when a package's recorded version is above the highest known one:
        an older program must not write into tables it does not understand.
        """
        with self.transaction() as tx:
            tx.execute(
                "CREATE TABLE IF NOT EXISTS schema_versions "
                "(package TEXT PRIMARY KEY, version BIGINT NOT NULL)"
            )
            known = {m.package: 0 for m in migrations}
            for migration in migrations:
                known[migration.package] = max(known[migration.package], migration.version)
            current = {
                row["package"]: row["version"] for row in tx.read("SELECT * FROM schema_versions")
            }
            for package, version in current.items():
                if version > known.get(package, version):
                    raise DatabaseError(
                        f"{self.path}: tables of {package} have version {version}, this program "
                        f"knows {known[package]}. Upgrade Interlock, or use another --state."
                    )
            for migration in sorted(migrations, key=lambda m: (m.package, m.version)):
                if migration.version <= current.get(migration.package, 0):
                    continue
                for statement in migration.statements:
                    tx.execute(statement)
                tx.execute(
                    "INSERT INTO schema_versions(package, version) VALUES (:package, :version) "
                    "ON CONFLICT(package) DO UPDATE SET version = :version",
                    package=migration.package,
                    version=migration.version,
                )


class Hooks:
    """What belongs to every group of writes, whatever they are: for whoever keeps in memory what
    is on disk. All are called on the writer's thread."""

    def begin(self, tx: Transaction) -> None:
        """Before the first piece of work: see whether other processes have written."""

    def finish(self, tx: Transaction) -> None:
        """After the last one: hand over what has queued. Raising fails the whole group."""

    def failed(self) -> None:
        """The commit failed: nothing of the group is durable."""

    def committed(self, size: int, seconds: float) -> None:
        """The group is durable; how many pieces of work it held, and how long it took."""


@dataclass(slots=True)
class _Job:
    work: Callable[[Transaction], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    alone: bool


class GroupCommit:
    """Durable writes for async callers: queued writes share one commit, with no timer.

    `write(work)` returns after the commit that holds it. Each piece of work runs in a savepoint
    of its own, so one that raises is undone alone and its caller gets the exception. `decide` is
    for work that raises before it has written anything, or not at all: it needs no savepoint. When
    the group cannot be committed such work is done again, by itself; so it may run twice, and what
    it did the first time is not there.
    """

    def __init__(
        self,
        database: Database,
        hooks: Hooks | None = None,
        *,
        monotonic: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._database = database
        self._hooks = hooks or Hooks()
        self._monotonic = monotonic
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
        self._thread.start()

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a transaction and wait until it is durable. Re-raises what it raised.

        Work whose caller was cancelled in the meantime is done all the same. DatabaseError after
        `close`: nobody would ever answer.
        """
        return await self._queue(work, alone=True)

    def decide(self, work: Callable[[Transaction], T]) -> asyncio.Future[T]:
        """Like `write`, for work that writes nothing before it can fail."""
        return self._queue(work, alone=False)

    def _queue(self, work: Callable[[Transaction], T], *, alone: bool) -> asyncio.Future[T]:
        import asyncio  # here: every quick command opens a database, few of them wait

        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._closing:
            if self._closed:
                raise DatabaseError("the group commit is closed; nothing more can be written")
            self._jobs.put(_Job(work, future, loop, alone))
        return future

    def close(self) -> None:
        """Finish what is queued and stop the writer thread. Closing twice is once."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        stop = False
        while not stop:
            first = self._jobs.get()
            if first is None:
                break
            batch = [first]
            while not self._jobs.empty() and len(batch) < 256:
                job = self._jobs.get()
                if job is None:
                    stop = True
                    break
                batch.append(job)
            self._commit(batch)
        self._database.close()

    def _commit(self, batch: list[_Job], *, again: bool = True) -> None:
        results: list[tuple[_Job, Any, BaseException | None]] = []
        begun = self._monotonic()
        try:
            with self._database.transaction() as tx:
                self._hooks.begin(tx)
                results.extend(_alone(tx, job) if job.alone else _done(tx, job) for job in batch)
                self._hooks.finish(tx)
        except Exception as error:
            # The commit itself failed: nothing of the batch is durable, so nobody may go on.
            self._hooks.failed()
            # Decisions are made anew, each by itself: one that cannot be written fails alone.
            anew = [job for job in batch if again and not job.alone]
            results = [(job, None, error) for job in batch if job not in anew]
            for job in anew:
                self._commit([job], again=False)
        else:
            self._hooks.committed(len(batch), self._monotonic() - begun)
        # One wake-up for each event loop, not one for each caller.
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Job, Any, BaseException | None]]] = {}
        for result in results:
            by_loop.setdefault(result[0].loop, []).append(result)
        for loop, its in by_loop.items():
            # A loop that was closed has nobody left who waits; the others must still be told.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_tell, its)


def _done(tx: Transaction, job: _Job) -> tuple[_Job, Any, BaseException | None]:
    try:
        return job, job.work(tx), None
    except Exception as error:
        return job, None, error


def _alone(tx: Transaction, job: _Job) -> tuple[_Job, Any, BaseException | None]:
    tx.execute("SAVEPOINT job")
    done = _done(tx, job)
    if done[2] is not None:
        # Fails when the error ended the whole transaction: then all of it did.
        tx.execute("ROLLBACK TO job")
    tx.execute("RELEASE job")
    return done


def _tell(results: list[tuple[_Job, Any, BaseException | None]]) -> None:
    for job, value, failure in results:
        if job.future.cancelled():
            continue
        if failure is None:
            job.future.set_result(value)
        else:
            job.future.set_exception(failure)
