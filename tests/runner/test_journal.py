"""The journal: steps once, under the fence, without secrets, in the documented format."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.values import StepPath
from runner.journal import (
    COUNTED,
    FORMAT,
    Attempt,
    Diverged,
    Journal,
    Kind,
    Outcome,
    Status,
    read,
)
from runner.queue import Fenced, run_id
from runner.redact import REDACTED, Redactor
from runner.trace import trace
from tests.support.runner_world import World, run_spec, script

DOC = Path(__file__).resolve().parents[2] / "docs" / "formats" / "journal.md"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, script(main=[]))
    made.enqueue(run_spec())
    yield made
    made.close()


def journal(world: World, **kwargs: Any) -> Journal:
    lease = world.queue().lease()
    assert lease is not None
    return reopened(world, lease.fence, **kwargs)


def reopened(world: World, fence: int, **kwargs: Any) -> Journal:
    return Journal(
        world.database, world.commits, world.clock, run=run_id(run_spec()), fence=fence, **kwargs
    )


class Action:
    def __init__(self, *, fails: int = 0, body: Any = None) -> None:
        self.attempts: list[Attempt] = []
        self.fails = fails
        self.body = body or {"result": "done"}

    async def __call__(self, attempt: Attempt) -> Outcome:
        self.attempts.append(attempt)
        if len(self.attempts) <= self.fails:
            raise ConnectionError("lost")
        return Outcome(body=self.body, tokens=3)


def step(book: Journal, action: Action, path: str = "1", **changes: Any) -> Any:
    values: dict[str, Any] = {
        "kind": Kind.EXEC, "name": "shell", "role": "main", "intent": {"a": 1}, "perform": action,
    }  # fmt: skip
    return asyncio.run(book.step(StepPath(path), **{**values, **changes}))


def test_a_finished_step_is_answered_from_the_journal(world: World) -> None:
    action = Action()
    book = journal(world)
    first = step(book, action)
    again = step(reopened(world, 1), action)
    assert first == again
    assert len(action.attempts) == 1


def test_an_open_step_is_recovered_with_its_journaled_intent(world: World) -> None:
    action = Action(fails=1)
    book = journal(world)
    with pytest.raises(ConnectionError):
        step(book, action)

    async def never() -> Any:
        pytest.fail("the intent is in the journal already")

    step(reopened(world, 1), action, intent=never)
    assert [a.recovering for a in action.attempts] == [False, True]
    assert action.attempts[1].intent == {"a": 1}


def test_a_step_of_another_kind_is_a_divergence_not_an_answer(world: World) -> None:
    step(journal(world), Action())
    with pytest.raises(Diverged, match="before an upgrade"):
        step(reopened(world, 1), Action(), kind=Kind.MODEL, name="smart")


def test_an_old_fence_writes_nothing(world: World) -> None:
    old = journal(world)
    world.clock.time += 60_000
    new = journal(world)
    action = Action()
    with pytest.raises(Fenced):
        step(old, action)
    assert action.attempts == []
    assert read(world.database, new.run) == []


def test_the_outcome_of_a_step_that_was_overtaken_is_not_written(world: World) -> None:
    book = journal(world)

    async def overtaken(attempt: Attempt) -> Outcome:
        world.clock.time += 60_000
        journal(world)
        return Outcome()

    with pytest.raises(Fenced):
        step(book, Action(), perform=overtaken)
    assert [entry.event for entry in read(world.database, book.run)] == ["intent"]


def test_secrets_are_gone_before_a_text_is_written_and_in_what_is_returned(world: World) -> None:
    book = journal(world, redactor=Redactor(["hunter2-hunter2"]))
    key = "sk-ant-" + "a1B2" * 10
    done = step(book, Action(body={"result": f"{key} and hunter2-hunter2", key: 1}))
    assert done.body == {"result": f"{REDACTED} and {REDACTED}", REDACTED: 1}
    stored = str(world.database.read("SELECT * FROM journal"))
    assert key not in stored
    assert "hunter2" not in stored


@given(st.text(), st.text(min_size=8, max_size=20), st.text())
def test_a_known_secret_never_survives(before: str, secret: str, after: str) -> None:
    clean = Redactor([secret]).text(before + secret + after)
    assert secret not in clean or secret in REDACTED or REDACTED in secret


@given(st.from_regex(r"[a-z ]{0,40}", fullmatch=True))
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert Redactor().text(text) == text


def test_the_trace_is_a_tree_with_open_steps(world: World) -> None:
    book = journal(world)

    async def nested(attempt: Attempt) -> Outcome:
        await book.step(
            StepPath("1.1"), kind=Kind.MODEL, name="m", role="helper", intent={}, perform=Action()
        )
        return Outcome(body={"result": "answer"})

    step(book, Action(), kind=Kind.DELEGATE, name="helper", perform=nested)
    with pytest.raises(ConnectionError):
        step(book, Action(fails=1), "2")
    seen = trace(world.database, book.run)
    assert [(s.path, s.parent, s.status) for s in seen.walk()] == [
        ("1", None, "ok"),
        ("1.1", "1", "ok"),
        ("2", None, "started"),
    ]
    assert seen.steps[0].tokens == 0
    assert seen.steps[0].total_tokens == 3
    assert seen.steps[0].output == "answer"
    assert seen.steps[1].duration_ms is None


def test_a_trace_of_nothing_says_so(world: World) -> None:
    with pytest.raises(KeyError, match="no run run-0"):
        trace(world.database, "run-0")  # type: ignore[arg-type]


# ------------------------------------------------------------- docs/formats/journal.md


def documented(heading: str) -> list[list[str]]:
    """Rows of the table under a heading: cells, without the header."""
    section = DOC.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_the_documented_columns_are_the_table(world: World) -> None:
    columns = [
        row["name"] for row in world.database.read("SELECT name FROM pragma_table_info('journal')")
    ]
    assert [row[0] for row in documented("Columns")] == columns


def test_the_documented_kinds_and_statuses_are_the_code() -> None:
    kinds = documented("Kinds")
    assert [row[0] for row in kinds] == [str(kind) for kind in Kind]
    assert {row[0] for row in kinds if row[1] == "yes"} == {str(kind) for kind in COUNTED}
    assert [row[0] for row in documented("Statuses")] == [str(status) for status in Status]


def test_the_documented_format_is_the_current_one() -> None:
    assert re.search(rf"`{re.escape(FORMAT)}`", DOC.read_text())
