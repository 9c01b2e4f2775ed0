"""Tool results: what is one, and what becomes of those that are too large."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import schema
from gateway.database import Database
from gateway.mcp import artifacts, results
from gateway.mcp.recorded import result
from gateway.refusals import Code, Refusal
from gateway.routing import Failure
from gateway.values import Label, Millis, RunId

RUN, OTHER = RunId("run-1"), RunId("run-2")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "db.sqlite")
    database.migrate(schema.MIGRATIONS)
    yield database
    database.close()


def keep(database: Database, text: str, run: RunId = RUN) -> results.Artifact:
    fitted = results.fit(result(text, error=False), run=run, most=1000)
    assert fitted.artifact is not None
    with database.transaction() as tx:
        artifacts.store(tx, fitted.artifact, run=run, tool="hub.read", label=Label(), now=Millis(5))
    return fitted.artifact


# --- what a result is


@pytest.mark.parametrize(
    "found",
    [
        None,
        7,
        [],
        {},
        {"content": "text"},
        {"content": [7]},
        {"content": [{"type": 7}]},
        {"content": [], "isError": "no"},
        {"content": [], "resultType": "something"},
    ],
)
def test_what_is_not_a_result_is_a_failure_of_which_nobody_knows_what_it_did(found: Any) -> None:
    with pytest.raises(Failure, match="hub answered") as caught:
        results.checked(found, "hub")
    assert caught.value.done


def test_a_result_is_handed_on_without_what_was_meant_for_the_gateway() -> None:
    found = {
        "content": [{"type": "text", "text": "x"}],
        "structuredContent": {"a": 1},
        "resultType": "complete",
        "_meta": {"io.modelcontextprotocol/serverInfo": {}},
    }
    assert results.checked(found, "hub") == {
        "content": [{"type": "text", "text": "x"}],
        "structuredContent": {"a": 1},
        "isError": False,
    }


def test_a_tool_that_asks_for_a_person_is_told_as_its_error() -> None:
    found = results.checked({"resultType": "input_required", "inputRequests": {}}, "hub")
    assert found["isError"] is True
    assert "input" in found["content"][0]["text"]


# --- large ones


def test_a_result_that_fits_is_left_alone() -> None:
    small = result("x" * 100, error=True)
    assert results.fit(small, run=RUN, most=1000) == results.Fitted(small, None)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=600), st.integers(0, 3000))
def test_a_preview_is_never_larger_than_was_allowed(text: str, most: int) -> None:
    fitted = results.fit(result(text, error=False), run=RUN, most=most)
    size = len(json.dumps(fitted.result["content"], ensure_ascii=False).encode())
    if fitted.artifact is not None:
        assert fitted.artifact.content == text.encode()
        assert size <= max(most, results.SMALLEST_PREVIEW)


def test_a_preview_has_both_ends_and_says_where_the_rest_is() -> None:
    text = "begin " + "ä" * 5000 + " end"
    fitted = results.fit(result(text, error=True), run=RUN, most=1500)
    assert fitted.artifact is not None
    told = fitted.result["content"][0]["text"]
    assert told.startswith("begin ")
    assert told.endswith(" end")
    assert f"{len(text.encode())} bytes" in told
    assert f"interlock://artifacts/{fitted.artifact.id}" in told
    assert f"GET /v1/artifacts/{fitted.artifact.id}" in told
    assert fitted.result["isError"] is True
    assert "�" not in told


def test_the_same_text_twice_is_still_one_text() -> None:
    structured = {**result("x" * 2000, error=False), "structuredContent": {"result": "x" * 2000}}
    fitted = results.fit(structured, run=RUN, most=1000)
    assert fitted.artifact is not None
    assert (fitted.artifact.media, fitted.artifact.content) == (results.TEXT, b"x" * 2000)


def test_a_result_of_several_parts_is_kept_whole() -> None:
    image = {"type": "image", "data": "A" * 2000, "mimeType": "image/png"}
    mixed = {"content": [{"type": "text", "text": "see"}, image], "isError": False}
    fitted = results.fit(mixed, run=RUN, most=1000)
    assert fitted.artifact is not None
    assert fitted.artifact.media == results.JSON
    assert json.loads(fitted.artifact.content) == mixed


# --- artifacts


def test_an_artifact_is_read_in_pieces_cut_between_characters(database: Database) -> None:
    text = "".join(f"{number} äöü€𝄞 " for number in range(500))
    kept = keep(database, text)
    got, offset = "", 0
    while offset is not None:
        piece = artifacts.read(database, kept.id, RUN, offset, 101)
        assert piece.total == len(text.encode())
        assert len(piece.content) <= 101
        got += piece.text
        offset = piece.next_offset  # type: ignore[assignment]
    assert got == text


def test_only_the_run_that_got_it_may_read_it(database: Database) -> None:
    kept = keep(database, "x" * 2000)
    for run, identity in ((OTHER, kept.id), (RUN, "art-" + 32 * "0")):
        with pytest.raises(Refusal) as caught:
            artifacts.read(database, identity, run, 0, 10)
        assert caught.value.code is Code.NOT_FOUND
    assert artifacts.listed(database, OTHER, skip=0, limit=10) == []


def test_the_same_content_of_two_runs_is_two_artifacts(database: Database) -> None:
    assert keep(database, "x" * 2000).id != keep(database, "x" * 2000, OTHER).id


def test_settling_the_same_call_again_keeps_one(database: Database) -> None:
    first, again = keep(database, "x" * 2000), keep(database, "x" * 2000)
    assert first == again
    (row,) = artifacts.listed(database, RUN, skip=0, limit=10)
    assert row == {
        "id": first.id, "tool": "hub.read", "media": results.TEXT, "bytes": 2000,
    }  # fmt: skip


def test_an_offset_beyond_the_end_is_an_empty_piece(database: Database) -> None:
    piece = artifacts.read(database, keep(database, "x" * 2000).id, RUN, 5000, 10)
    assert (piece.content, piece.next_offset) == (b"", None)


def test_old_ones_are_dropped(database: Database) -> None:
    keep(database, "x" * 2000)
    with database.transaction() as tx:
        assert artifacts.drop(tx, before=Millis(5)) == 0
        assert artifacts.drop(tx, before=Millis(6)) == 1
