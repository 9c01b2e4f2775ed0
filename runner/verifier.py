"""Grades a result in a place that the run never touched.

A command check gets a fresh container each, holding the result's files with the protected ones as
they were before the run: what the maker did to the tests does not count, what it left running
does not exist there. The verdict is the container's exit code in the engine's own words; files,
however named, decide nothing. When the grader itself breaks (no container, no such program, no
pristine copy) the grade is an error, which never counts as a fail, nor as a pass. An engine that
does not answer, or a container that vanishes, says nothing about the grader either: it is raised,
and whoever asked asks again when there is an engine.

What it cannot see: code under test shares a process with the test runner it is loaded into, so
code written to deceive can end that process with success. Protect what may not be touched, and
let a checker read the diff.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from gateway.values import RunId
from runner.sandbox import (
    OnceResult,
    SandboxError,
    Sandboxes,
    SandboxLost,
    SandboxUnavailable,
)
from runner.spec import ChangeCheck, Check, CommandCheck, FileCheck, Grade, SandboxSpec
from runner.workspace import (
    Files,
    WorkspaceError,
    changed_paths,
    matches,
    read_tree,
    restore,
)

_SEARCHED_BYTES = 1 << 20
_DETAIL = 2000


async def verify(
    checks: Sequence[Check],
    *,
    files: Files,
    pristine: Path | None,
    protect: Sequence[str],
    spec: SandboxSpec,
    sandboxes: Sandboxes,
    run: RunId,
) -> tuple[Grade, ...]:
    """One grade per command, file and change check, in their order.

    Raises SandboxUnavailable and SandboxLost, and nothing else on a check's account.

    `files` is the result, `pristine` the directory the run started from (None: it started
    empty). Protected paths are `protect` and the check's own. Checks of what the run did rather
    than what it left (tools, limits) are graded from the trace, elsewhere, and are skipped here.
    """
    try:
        before: Files = await asyncio.to_thread(read_tree, pristine) if pristine else {}
    except (WorkspaceError, OSError) as error:
        return tuple(
            Grade(check=check.id, status="error", detail=f"pristine workspace: {error}")
            for check in checks
            if isinstance(check, CommandCheck | FileCheck | ChangeCheck)
        )
    grades: list[Grade] = []
    for number, check in enumerate(checks):
        if isinstance(check, FileCheck):
            grades.append(await asyncio.to_thread(grade_file, check, files))
        elif isinstance(check, ChangeCheck):
            grades.append(grade_changes(check, changed_paths(before, files)))
        elif isinstance(check, CommandCheck):
            guarded = restore(files, before, (*protect, *check.protect))
            try:
                result = await sandboxes.run_once(
                    run,
                    spec,
                    check.command,
                    files=guarded,
                    timeout_ms=check.timeout_ms,
                    suffix=f"verify-{number}",
                )
            except (SandboxUnavailable, SandboxLost):
                raise
            except (SandboxError, WorkspaceError) as error:
                grades.append(Grade(check=check.id, status="error", detail=str(error)[:_DETAIL]))
            else:
                grades.append(grade_command(check, result))
    return tuple(grades)


def grade_command(check: CommandCheck, result: OnceResult) -> Grade:
    """The verdict on how a command ended. 126 and 127 are the shell's word for "not executable"
    and "not found": the image lacks the grader, so that nothing was graded."""
    shown = _tail(result)
    if result.exit_code is None:
        detail = f"no end within {check.timeout_ms} ms\n{shown}"
        return Grade(check=check.id, status="failed", detail=detail)
    if result.exit_code == check.exit:
        return Grade(check=check.id, status="passed", detail=f"exit {result.exit_code}")
    if result.out_of_memory:
        detail = f"ran out of memory (exit {result.exit_code})\n{shown}"
        return Grade(check=check.id, status="failed", detail=detail)
    if result.exit_code in (126, 127):
        detail = f"exit {result.exit_code}: the grader could not be started\n{shown}"
        return Grade(check=check.id, status="error", detail=detail)
    detail = f"exit {result.exit_code}, expected {check.exit}\n{shown}"
    return Grade(check=check.id, status="failed", detail=detail)


def grade_file(check: FileCheck, files: Files) -> Grade:
    """Whether a file of the result exists and holds what it should (first MiB, as UTF-8)."""
    entry = files.get(check.path)
    if check.absent:
        if entry is None:
            return Grade(check=check.id, status="passed", detail=f"{check.path} is absent")
        return Grade(check=check.id, status="failed", detail=f"{check.path} exists")
    if entry is None:
        return Grade(check=check.id, status="failed", detail=f"{check.path} does not exist")
    if check.matches is None:
        return Grade(check=check.id, status="passed", detail=f"{check.path} exists")
    try:
        pattern = re.compile(check.matches, re.MULTILINE)
    except re.error as error:
        detail = f"pattern {check.matches!r}: {error}"
        return Grade(check=check.id, status="error", detail=detail)
    if pattern.search(entry.data[:_SEARCHED_BYTES].decode(errors="replace")):
        return Grade(check=check.id, status="passed", detail=f"{check.path} matches")
    detail = f"{check.path} does not match {check.matches!r}"
    return Grade(check=check.id, status="failed", detail=detail)


def grade_changes(check: ChangeCheck, changed: Sequence[str]) -> Grade:
    """Whether the run changed what it should and left alone what it must not touch."""
    touched = [path for path in changed if matches(path, check.exclude)]
    if touched:
        shown = ", ".join(touched[:10])
        detail = f"changed what it must not: {shown}"
        return Grade(check=check.id, status="failed", detail=detail, safety=check.safety)
    if check.include and not any(matches(path, check.include) for path in changed):
        detail = f"changed nothing that matches {', '.join(check.include)}"
        return Grade(check=check.id, status="failed", detail=detail, safety=check.safety)
    detail = f"{len(changed)} changed"
    return Grade(check=check.id, status="passed", detail=detail, safety=check.safety)


def _tail(result: OnceResult) -> str:
    return f"{result.stdout.strip()}\n{result.stderr.strip()}".strip()[-_DETAIL + 200 :]
