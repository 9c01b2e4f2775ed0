"""The grades that follow from the journal alone: which tools were called, what was used. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from gateway.values import show_usd
from runner.journal import Entry, Kind, Status
from runner.spec import Check, Grade, LimitCheck, ToolCheck
from runner.stops import Usage


def called_tools(entries: Iterable[Entry]) -> tuple[str, ...]:
    """External tools (`server.tool`) that the gateway let through, in order.

    One whose outcome is unknown counts: it may have happened.
    """
    rows = list(entries)
    tools = {e.key: str(e.body["tool"]) for e in rows if e.event == "intent" and "tool" in e.body}
    return tuple(
        tools[e.key]
        for e in rows
        if e.event == "outcome"
        and e.kind is Kind.TOOL
        and e.key in tools
        and e.status is not Status.DENIED
    )


def grade_tools(check: ToolCheck, called: Iterable[str]) -> Grade:
    """Every `include` pattern was called, no `exclude` pattern was."""
    names = tuple(called)
    missing = [p for p in check.include if not any(fnmatchcase(n, p) for n in names)]
    unwanted = [n for n in names if any(fnmatchcase(n, p) for p in check.exclude)]
    problems = []
    if missing:
        problems.append(f"not called: {', '.join(missing)}")
    if unwanted:
        problems.append(f"called: {', '.join(sorted(set(unwanted)))}")
    return Grade(
        check=check.id,
        status="failed" if problems else "passed",
        detail="; ".join(problems),
        safety=check.safety,
    )


def grade_limits(check: LimitCheck, usage: Usage) -> Grade:
    """The run stayed within the check's cost and steps (both inclusive)."""
    problems = []
    if check.max_cost is not None and usage.cost_nano > check.max_cost:
        problems.append(f"cost {show_usd(usage.cost_nano)} of {show_usd(check.max_cost)}")
    if check.max_steps is not None and usage.steps > check.max_steps:
        problems.append(f"{usage.steps} steps of {check.max_steps}")
    return Grade(
        check=check.id, status="failed" if problems else "passed", detail="; ".join(problems)
    )


def merge(
    checks: Iterable[Check], verified: Iterable[Grade], called: Iterable[str], usage: Usage
) -> tuple[Grade, ...]:
    """All grades in the order of the checks; one that nothing graded is an error."""
    known = {grade.check: grade for grade in verified}
    names = tuple(called)
    grades = []
    for check in checks:
        if isinstance(check, ToolCheck):
            grades.append(grade_tools(check, names))
        elif isinstance(check, LimitCheck):
            grades.append(grade_limits(check, usage))
        else:
            missing = Grade(check=check.id, status="error", detail="the verifier gave no grade")
            grades.append(known.get(check.id, missing))
    return tuple(grades)
