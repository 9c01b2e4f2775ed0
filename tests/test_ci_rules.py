"""The rules CI adds to a test run, and what the pinned installation promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SKIPPING = """
import pytest

def test_passes(): ...

@pytest.mark.skip(reason="no engine")
def test_needs_an_engine(): ...

@pytest.mark.xfail(strict=True, reason="known")
def test_known(): assert False
"""


def _pytest(folder: Path, *, ci: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-q", "--rootdir", folder, folder],
        cwd=ROOT,
        env={**os.environ, "CI": ci, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_skip_is_a_failure_in_ci_and_named(tmp_path: Path) -> None:
    (tmp_path / "test_sample.py").write_text(SKIPPING)
    outcome = _pytest(tmp_path, ci="true")
    assert outcome.returncode == 1, outcome.stdout
    assert "test_sample.py::test_needs_an_engine: Skipped: no engine" in outcome.stdout
    assert "test_sample.py::test_known:" not in outcome.stdout, "an expected failure did run"


def test_a_skip_is_allowed_on_a_developer_s_machine(tmp_path: Path) -> None:
    (tmp_path / "test_sample.py").write_text(SKIPPING)
    assert _pytest(tmp_path, ci="").returncode == 0


def test_a_module_that_skips_itself_is_a_failure_in_ci(tmp_path: Path) -> None:
    (tmp_path / "test_sample.py").write_text("def test_passes(): ...\n")
    (tmp_path / "test_whole.py").write_text("import pytest\npytest.importorskip('nonesuch')\n")
    outcome = _pytest(tmp_path, ci="true")
    assert outcome.returncode == 1, outcome.stdout
    assert "test_whole.py: Skipped: could not import 'nonesuch'" in outcome.stdout


def _pins(path: Path) -> dict[str, int]:
    """Distribution → number of hashes."""
    pins: dict[str, int] = {}
    for line in path.read_text().splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==\S+ \\$", line):
            name = re.sub(r"[-_.]+", "-", match[1]).lower()
            pins[name] = 0
        elif "--hash=sha256:" in line:
            pins[name] += 1
    return pins


def test_every_declared_dependency_is_pinned_with_a_hash() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pins = _pins(ROOT / "constraints.txt")
    local = _pins(ROOT / ".ci" / "local-model.txt")
    declared = {_name(each) for each in project["dependencies"] + extras["dev"]}
    assert declared - pins.keys() == set()
    assert {_name(each) for each in extras["local-model"]} - local.keys() == set()
    assert min([*pins.values(), *local.values()]) >= 1


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", requirement)[0]).lower()


def test_pins_name_no_index_and_no_address() -> None:
    for path in (ROOT / "constraints.txt", ROOT / ".ci" / "local-model.txt"):
        text = path.read_text()
        options = re.findall(r"^\s*(-\S+|.*://.*)$", text, flags=re.MULTILINE)
        assert [each for each in options if not each.startswith("--hash=")] == []
