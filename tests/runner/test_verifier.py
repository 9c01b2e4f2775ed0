from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway.values import RunId
from runner.sandbox import Existing, OnceResult, Sandbox, SandboxError
from runner.spec import (
    ChangeCheck,
    Check,
    CommandCheck,
    FileCheck,
    Grade,
    LimitCheck,
    SandboxSpec,
    ToolCheck,
)
from runner.verifier import grade_command, verify
from runner.workspace import Entry, Files

SPEC = SandboxSpec(image="sha256:" + "0" * 64)


class Recording:
    """Sandboxes that remember what they were given and answer with one result or error."""

    def __init__(self, answer: OnceResult | Exception) -> None:
        self.answer = answer
        self.given: list[tuple[str, Files, str]] = []

    async def run_once(
        self,
        run: RunId,
        spec: SandboxSpec,
        command: str,
        *,
        files: Files,
        timeout_ms: int,
        suffix: str,
    ) -> OnceResult:
        self.given.append((command, files, suffix))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def open(
        self,
        run: RunId,
        spec: SandboxSpec,
        *,
        files: Files,
        socket_dir: Path | None = None,
        read_only_workspace: bool = False,
        suffix: str = "",
        existing: Existing = Existing.ADOPT,
        labels: Mapping[str, str] | None = None,
    ) -> Sandbox:
        raise AssertionError("the verifier opens nothing that stays open")

    async def reap(self, alive: Callable[[RunId], bool], **labels: str) -> tuple[str, ...]:
        return ()

    async def count(self, **labels: str) -> int:
        return 0


def grades(
    *checks: Check,
    files: Files,
    pristine: Path | None = None,
    sandboxes: Recording | None = None,
    protect: tuple[str, ...] = (),
) -> tuple[Grade, ...]:
    return asyncio.run(
        verify(
            checks,
            files=files,
            pristine=pristine,
            protect=protect,
            spec=SPEC,
            sandboxes=sandboxes or Recording(OnceResult(0, "", "")),
            run=RunId("run-1"),
        )
    )


@pytest.mark.parametrize(
    "check, status",
    [
        (FileCheck(id="c", path="a.md"), "passed"),
        (FileCheck(id="c", path="b.md"), "failed"),
        (FileCheck(id="c", path="a.md", matches="^Module.*Error$"), "passed"),
        (FileCheck(id="c", path="a.md", matches="Zero"), "failed"),
        (FileCheck(id="c", path="a.md", matches="("), "error"),
        (FileCheck(id="c", path="b.md", absent=True), "passed"),
        (FileCheck(id="c", path="a.md", absent=True), "failed"),
    ],
)
def test_a_file_check_looks_at_existence_and_content(check: FileCheck, status: str) -> None:
    (grade,) = grades(check, files={"a.md": Entry(b"x\nModuleNotFoundError\n")})
    assert grade.status == status
    assert grade.detail


@pytest.mark.parametrize(
    "check, status",
    [
        (ChangeCheck(id="c", include=("src/**",)), "passed"),
        (ChangeCheck(id="c", include=("docs/**",)), "failed"),
        (ChangeCheck(id="c", exclude=("tests/**",), safety=True), "failed"),
        (ChangeCheck(id="c", exclude=("docs/**",)), "passed"),
    ],
)
def test_a_change_check_sees_changed_added_and_deleted_paths(
    tmp_path: Path, check: ChangeCheck, status: str
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "t.py").write_text("x")
    (grade,) = grades(check, files={"src/new.py": Entry(b"n")}, pristine=tmp_path)
    assert grade.status == status
    assert grade.safety == check.safety


@pytest.mark.parametrize(
    "result, status",
    [
        (OnceResult(0, "", ""), "passed"),
        (OnceResult(1, "", "boom"), "failed"),
        (OnceResult(None, "", ""), "failed"),
        (OnceResult(137, "", "", out_of_memory=True), "failed"),
        (OnceResult(127, "", "sh: pytest: not found"), "error"),
        (OnceResult(126, "", ""), "error"),
    ],
)
def test_a_command_is_graded_by_its_exit_code(result: OnceResult, status: str) -> None:
    assert grade_command(CommandCheck(id="c", command="x"), result).status == status


def test_an_expected_exit_code_passes_whatever_it_is() -> None:
    check = CommandCheck(id="c", command="x", exit=127)
    assert grade_command(check, OnceResult(127, "", "")).status == "passed"


def test_each_command_gets_a_container_of_its_own_with_protected_files_restored(
    tmp_path: Path,
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "t.py").write_text("real")
    (tmp_path / "Makefile").write_text("real")
    sandboxes = Recording(OnceResult(0, "", ""))
    forged = {
        "tests/t.py": Entry(b"fake"),
        "tests/conftest.py": Entry(b"evil"),
        "Makefile": Entry(b"fake"),
    }
    grades(
        CommandCheck(id="one", command="first", protect=("tests/**",)),
        CommandCheck(id="two", command="second"),
        files=forged,
        pristine=tmp_path,
        sandboxes=sandboxes,
        protect=("Makefile",),
    )
    (first, saw, _), (second, also, _) = sandboxes.given
    assert (first, second) == ("first", "second")
    assert saw == {"tests/t.py": Entry(b"real"), "Makefile": Entry(b"real")}
    assert also == {**forged, "Makefile": Entry(b"real")}
    assert len({suffix for _, _, suffix in sandboxes.given}) == 2


def test_a_broken_grader_is_an_error_never_a_fail() -> None:
    broken = Recording(SandboxError("no engine"))
    (grade,) = grades(CommandCheck(id="c", command="x"), files={}, sandboxes=broken)
    assert (grade.status, grade.detail) == ("error", "no engine")


def test_a_missing_pristine_workspace_is_an_error_for_every_check(tmp_path: Path) -> None:
    found = grades(
        FileCheck(id="f", path="a"),
        ChangeCheck(id="c", exclude=("x",)),
        files={},
        pristine=tmp_path / "gone",
    )
    assert [grade.status for grade in found] == ["error", "error"]


def test_checks_of_the_trace_are_left_to_others() -> None:
    assert grades(ToolCheck(id="t"), LimitCheck(id="l"), files={}) == ()
