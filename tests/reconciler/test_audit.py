"""The chain of deeds: whatever is changed, moved or cut out in the middle breaks it there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.database import Database, Row
from gateway.values import Millis
from reconciler.record import audit
from tests.support.rollout_world import opened


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = opened(tmp_path / "x.db")
    yield database
    database.close()


def write(database: Database, count: int = 5) -> list[Row]:
    for number in range(count):
        with database.transaction() as tx:
            audit.append(
                tx,
                now=Millis(1000 + number),
                actor="ada",
                action="hold",
                agent="triage" if number % 2 else None,
                subject=f"s{number}",
                reason="“why” ✓",
            )
    return database.read("SELECT * FROM audit ORDER BY seq")


def chain(count: int) -> list[Row]:
    rows: list[Row] = []
    previous = audit.GENESIS
    for seq in range(1, count + 1):
        row: Row = {
            "seq": seq, "at": seq, "actor": "ada", "action": "hold", "agent": None,
            "subject": "s", "reason": "r", "previous": previous,
        }  # fmt: skip
        previous = audit.row_hash(row)
        rows.append({**row, "hash": previous})
    return rows


def test_what_was_appended_is_a_whole_chain(database: Database) -> None:
    rows = write(database)
    assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0]["previous"] == audit.GENESIS
    assert audit.first_break(rows) is None
    assert audit.first_break([]) is None


def test_a_deed_that_is_undone_leaves_no_line(database: Database) -> None:
    def undone() -> None:
        with database.transaction() as tx:
            audit.append(tx, now=Millis(1), actor="a", action="b", subject="c", reason="d")
            raise LookupError

    with pytest.raises(LookupError):
        undone()
    assert audit.first_break(write(database, 2)) is None


@pytest.mark.parametrize(
    "column, value",
    [
        ("at", 7), ("actor", "eve"), ("action", "resume"), ("agent", "x"), ("subject", "x"),
        ("reason", "x"), ("previous", "0" * 64), ("hash", "0" * 64), ("seq", 9),
    ],
)  # fmt: skip
def test_a_changed_column_is_found_in_its_line(
    database: Database, column: str, value: object
) -> None:
    rows = write(database)
    rows[2] = {**rows[2], column: value}
    assert audit.first_break(rows) == 3


@given(st.integers(2, 8), st.data())
def test_a_line_left_out_or_moved_breaks_the_chain_there(count: int, data: st.DataObject) -> None:
    rows = chain(count)
    assert audit.first_break(rows) is None
    out = data.draw(st.integers(0, count - 2))
    assert audit.first_break(rows[:out] + rows[out + 1 :]) == out + 1
    swapped = [*rows]
    swapped[out], swapped[out + 1] = swapped[out + 1], swapped[out]
    assert audit.first_break(swapped) == out + 1


def test_a_line_that_was_rewritten_with_its_own_hash_breaks_the_next() -> None:
    rows = chain(4)
    forged = {**rows[1], "reason": "another"}
    rows[1] = {**forged, "hash": audit.row_hash(forged)}
    assert audit.first_break(rows) == 3
