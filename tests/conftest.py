"""What holds for every test: in CI nothing may be skipped.

A skip on a developer's machine says that something is missing there. In CI everything is installed
by `.ci/run`, so that a skipped test would be a check that silently stopped being made.
"""

from __future__ import annotations

import os

import pytest

_skipped: dict[str, str] = {}


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true"}


def _note(report: pytest.TestReport | pytest.CollectReport) -> None:
    # An expected failure is reported as skipped too, but it did run.
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        _skipped[report.nodeid] = str(reason)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note(report)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _in_ci() and _skipped and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not (_in_ci() and _skipped):
        return
    terminalreporter.section("skipped in CI, which counts as failed", red=True)
    for test, reason in sorted(_skipped.items()):
        terminalreporter.line(f"{test}: {reason}")
