"""Opening the store: cheap, so that a quick look pays for nothing else."""

from __future__ import annotations

from pathlib import Path

import gateway.schema
import reconciler.schema
import runner.queue
from gateway.database import Database, Migration

DATABASE = "interlock.sqlite"


def migrations() -> tuple[Migration, ...]:
    """Every package's schema, forward from nothing."""
    return (
        *gateway.schema.MIGRATIONS,
        *runner.queue.MIGRATIONS,
        *reconciler.schema.MIGRATIONS,
    )


def remembered(database: Database, name: str) -> str | None:
    """What this state directory knows of its config repo: `repo`, `branch`, `reports`."""
    row = database.one("SELECT value FROM facts WHERE name = :name", name=name)
    return str(row["value"]) if row else None


def open_database(state: Path) -> Database:
    """The state directory's database, its schema brought forward."""
    database = Database(state / DATABASE)
    database.migrate(migrations())
    return database
