"""Grading in fresh containers on the real engine, against results that want to pass."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runner.spec import CommandCheck, Grade, SandboxSpec
from runner.verifier import verify
from runner.workspace import Files, read_tree
from tests.support.sandbox import engine, sandbox_image, tree

pytestmark = pytest.mark.system

TEST = "python3 -c 'import sys; sys.path[:0] = [\".\"]; import tests.t'"


@pytest.fixture(scope="module")
def image() -> str:
    return sandbox_image()


@pytest.fixture
def pristine(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "t.py").write_text("from app import f\nassert f() == 2, f()\n")
    (tmp_path / "app.py").write_text("def f(): return 1\n")
    return tmp_path


def graded(image: str, pristine: Path, files: Files, *checks: CommandCheck) -> tuple[Grade, ...]:
    async def story() -> tuple[Grade, ...]:
        async with engine(image) as on:
            found = await verify(
                checks,
                files=files,
                pristine=pristine,
                protect=("tests/**",),
                spec=on.spec,
                sandboxes=on.boxes,
                run=on.run,
            )
            await on.boxes.settle()
            assert await on.boxes.count(boot=on.label) == 0
            return found

    return asyncio.run(story())


def test_a_right_change_passes_and_a_wrong_one_fails(image: str, pristine: Path) -> None:
    check = CommandCheck(id="c", command=TEST)
    before = read_tree(pristine)
    (right,) = graded(image, pristine, {**before, **tree(app="")}, check)
    assert right.status == "failed"
    fixed = {**before, "app.py": tree(x="def f(): return 2\n")["x"]}
    (grade,) = graded(image, pristine, fixed, check)
    assert grade.status == "passed"


def test_forged_tests_and_forged_result_files_decide_nothing(image: str, pristine: Path) -> None:
    forged = {
        **read_tree(pristine),
        **tree(exit="0", result="passed", run__steps__exit="0"),
        "tests/t.py": tree(x="")["x"],
        "tests/app.py": tree(x="def f(): return 2\n")["x"],
        "tests/__init__.py": tree(x="import os; os._exit(0)\n")["x"],
    }
    (grade,) = graded(image, pristine, forged, CommandCheck(id="c", command=TEST))
    assert grade.status == "failed"
    assert "AssertionError: 1" in grade.detail


def test_what_the_command_writes_does_not_change_its_exit_code(image: str, pristine: Path) -> None:
    frame = "printf '\\0\\0\\0\\2\\0\\0\\0\\0{}'"
    lie = f"echo 0 > /run/steps/filled; echo 0 > exit; {frame}; exit 3"
    (failed, passed) = graded(
        image,
        pristine,
        {},
        CommandCheck(id="lie", command=lie),
        CommandCheck(id="three", command="exit 3", exit=3),
    )
    assert failed.status == "failed"
    assert failed.detail.startswith("exit 3, expected 0")
    assert passed.status == "passed"


def test_checks_share_nothing(image: str, pristine: Path) -> None:
    found = graded(
        image,
        pristine,
        {},
        CommandCheck(id="litter", command="touch /tmp/mark mark"),
        CommandCheck(id="clean", command="test ! -e /tmp/mark && test ! -e mark"),
        CommandCheck(id="closed", command='test -z "$(ls /run/interlock 2>/dev/null)"'),
    )
    assert [grade.status for grade in found] == ["passed", "passed", "passed"]


def test_a_command_that_hangs_or_floods_fails_in_time(image: str, pristine: Path) -> None:
    found = graded(
        image,
        pristine,
        {},
        CommandCheck(id="hang", command="echo begun; sleep 500 & wait", timeout_ms=700),
        CommandCheck(id="flood", command="yes | head -c 50000000; exit 1"),
        CommandCheck(id="kill", command="kill -9 $$"),
    )
    assert [grade.status for grade in found] == ["failed", "failed", "failed"]
    assert found[0].detail == "no end within 700 ms\nbegun"
    assert len(found[1].detail) < 2100
    assert found[2].detail.startswith("exit 137")


def test_a_missing_program_or_image_is_an_error_not_a_fail(image: str, pristine: Path) -> None:
    (grade,) = graded(image, pristine, {}, CommandCheck(id="c", command="no-such-grader"))
    assert grade.status == "error"

    async def story() -> None:
        async with engine(image) as on:
            (grade,) = await verify(
                [CommandCheck(id="c", command="true")],
                files={},
                pristine=None,
                protect=(),
                spec=SandboxSpec(image="sha256:" + "1" * 64),
                sandboxes=on.boxes,
                run=on.run,
            )
            assert grade.status == "error"
            assert "not on this machine" in grade.detail

    asyncio.run(story())
