"""The contracts that import-linter cannot state: purity of single modules and faces of packages.

import-linter refuses a contract that names a module which does not exist, and its forbidden
contracts start from whole packages. Purity is about a few modules and everything of ours that they
pull in, so it is read from the source with the standard library's `ast`. Layers and confinement are
in `.importlinter`; one test here runs it on a broken copy to show that it bites.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("gateway", "runner", "reconciler")

PURE = (
    "gateway.backtest.outcome",
    "gateway.backtest.recorded",
    "gateway.budgets",
    "gateway.limits.limiter",
    "gateway.policy",
    "gateway.routing",
    "gateway.values",
    "reconciler.approvals.decide",
    "reconciler.approvals.restore",
    "reconciler.fleet",
    "reconciler.forge.commands",
    "reconciler.gates.statistics",
    "reconciler.plan",
    "reconciler.release",
    "reconciler.rollout.advance",
    "runner.loop",
    "runner.stops",
)
"""Modules that only decide. A package stands for all modules in it."""

IMPURE = frozenset(
    {
        # clocks and chance
        "random", "secrets", "time", "uuid",
        # concurrency
        "asyncio", "concurrent", "multiprocessing", "queue", "selectors", "signal", "threading",
        # the outside
        "docker", "http", "httpx", "psycopg", "pygit2", "pyreqwest", "shutil", "socket",
        "sqlite3", "sqlite_utils", "ssl", "subprocess", "tempfile", "urllib", "uvicorn", "uvloop",
    }
)  # fmt: skip
"""Imports that give a module a clock, chance, concurrency or a way out. `datetime` and `pathlib`
are values as long as nobody asks them for the present or for a file's content: see `IMPURE_CALLS`.
"""

IMPURE_CALLS = frozenset(
    {
        "open", "input", "print",
        ".now", ".utcnow", ".today", ".read_text", ".read_bytes", ".write_text", ".write_bytes",
    }
)  # fmt: skip
"""Calls that read the present or a file. `clock.now()` is among them on purpose: a deciding
function is given the time as a value."""

FACES = {
    "gateway": frozenset({"door", "guardrails", "limits", "mcp", "providers", "routing"}),
    "runner": frozenset({"client", "context", "harness", "loop", "stops", "tools"}),
}
"""Rooms that no other package may import: the inside, behind the package's face."""

COMPOSITION_ROOT = "reconciler.process"
"""Puts the parts together, so it alone may reach inside."""

NOT_FOR_FACES = frozenset(
    {"config", "fleet", "forge", "gates", "release", "rollout", "source", "tick", "triggers"}
)
"""Rooms of the reconciler that `cli` and `web` reach only through `operations` and `record`."""


class Sources:
    """The modules under a root and what each of them imports."""

    def __init__(self, root: Path) -> None:
        self.paths = {
            ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
            for package in PACKAGES
            for path in sorted((root / package).rglob("*.py"))
        }
        self.trees = {
            name: ast.parse(path.read_text(encoding="utf-8")) for name, path in self.paths.items()
        }

    def inside(self, room: str) -> list[str]:
        """The module called `room` and all modules below it; empty when there is none (yet)."""
        return [name for name in self.paths if name == room or name.startswith(room + ".")]

    def imports(self, module: str) -> Iterator[tuple[str, int]]:
        """(imported module, line); `from a import b` yields `a.b` where that is our module."""
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, node.lineno
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(module, node)
                for alias in node.names:
                    name = f"{base}.{alias.name}"
                    yield (name if name in self.paths else base), node.lineno

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = module.split(".")
        is_package = self.paths[module].name == "__init__.py"
        kept = parts[: len(parts) - node.level + is_package]
        return ".".join([*kept, *([node.module] if node.module else [])])

    def at(self, module: str, line: int) -> str:
        return f"{module.replace('.', '/')}.py:{line}"


def impurities(sources: Sources) -> list[str]:
    """Everything that gives a pure module, directly or through ours, a clock, chance or I/O."""
    found = []
    for start in [name for room in PURE for name in sources.inside(room)]:
        for call, line in _calls(sources.trees[start]):
            if call in IMPURE_CALLS:
                found.append(f"{sources.at(start, line)} {start} calls {call.lstrip('.')}()")
        seen, queue = {start}, [(start, start)]
        while queue:
            module, chain = queue.pop()
            for target, line in sources.imports(module):
                if target.split(".")[0] in IMPURE:
                    found.append(f"{sources.at(module, line)} {chain} -> {target}")
                if target in sources.paths and target not in seen:
                    seen.add(target)
                    queue.append((target, f"{chain} -> {target}"))
    return found


def _calls(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id, node.lineno
            elif isinstance(node.func, ast.Attribute):
                yield "." + node.func.attr, node.lineno


def trespasses(sources: Sources) -> list[str]:
    """Imports that go behind a package's face, and faces of the reconciler that skip operations."""
    found = []
    for module in sources.paths:
        mine = module.split(".")[0]
        is_face = module.startswith(("reconciler.cli", "reconciler.web"))
        for target, line in sources.imports(module):
            package, *rooms = target.split(".")
            if not rooms:
                continue
            behind = package != mine and rooms[0] in FACES.get(package, ())
            skips = is_face and package == "reconciler" and rooms[0] in NOT_FOR_FACES
            if skips or (behind and not module.startswith(COMPOSITION_ROOT)):
                found.append(f"{sources.at(module, line)} {module} -> {target}")
    return found


@pytest.fixture(scope="module")
def project() -> Sources:
    return Sources(ROOT)


@pytest.fixture
def sketch(tmp_path: Path) -> Path:
    """A tiny project with the three packages, for breaking contracts in."""
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "gateway" / "values.py").write_text("import json\n")
    return tmp_path


def test_pure_modules_reach_no_clock_no_chance_and_no_io(project: Sources) -> None:
    assert project.inside("gateway.values"), "the lowest room is missing: is this the project?"
    assert impurities(project) == []


def test_other_packages_import_only_a_package_s_face(project: Sources) -> None:
    assert trespasses(project) == []


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "from asyncio import Queue",
        "import sqlite3",
        "import http.client",
        "from gateway.clock import system",
        "from . import clock",
        "from .clock import system",
        "import datetime\nseen = datetime.datetime.now()",
        "seen = open('x')",
    ],
)
def test_an_impure_import_or_call_in_a_pure_module_is_found(sketch: Path, line: str) -> None:
    (sketch / "gateway" / "clock.py").write_text("import time\n\n\ndef system(): ...\n")
    (sketch / "gateway" / "values.py").write_text(line + "\n")
    assert impurities(Sources(sketch)) != []


def test_an_impure_module_in_a_pure_package_is_found(sketch: Path) -> None:
    (sketch / "reconciler" / "release").mkdir()
    (sketch / "reconciler" / "release" / "canonical.py").write_text("import random\n")
    assert impurities(Sources(sketch)) == [
        "reconciler/release/canonical.py:1 reconciler.release.canonical -> random"
    ]


@pytest.mark.parametrize(
    "module, line",
    [
        ("runner/engine.py", "from gateway.door import Door"),
        ("reconciler/tick.py", "from runner import loop"),
        ("reconciler/cli.py", "from reconciler.rollout import advance"),
        ("reconciler/web.py", "import reconciler.source.clone"),
    ],
)
def test_an_import_behind_a_face_is_found(sketch: Path, module: str, line: str) -> None:
    (sketch / "runner" / "loop.py").touch()
    (sketch / module).write_text(line + "\n")
    assert len(trespasses(Sources(sketch))) == 1


def test_the_composition_root_may_reach_inside(sketch: Path) -> None:
    (sketch / "reconciler" / "process.py").write_text("from gateway.providers import dialects\n")
    assert trespasses(Sources(sketch)) == []


def _lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            Path(sys.executable).with_name("lint-imports"),
            "--no-cache",
            "--config",
            ROOT / ".importlinter",
        ],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_layers_and_confinement_hold_on_an_innocent_sketch(sketch: Path) -> None:
    outcome = _lint_imports(sketch)
    assert outcome.returncode == 0, outcome.stdout


@pytest.mark.parametrize(
    "module, line, contract",
    [
        ("gateway/values.py", "import runner", "reconciler > runner > gateway"),
        ("gateway/values.py", "import gateway.policy", "rooms of the gateway"),
        ("gateway/spare.py", "", "rooms of the gateway"),
        ("runner/spec.py", "import runner.queue", "rooms of the runner"),
        ("reconciler/web.py", "import reconciler.cli", "rooms of the reconciler"),
        ("reconciler/cli.py", "import reconciler.web", "rooms of the reconciler"),
        ("reconciler/tick.py", "import pygit2", "pygit2 only in reconciler.source"),
        ("runner/engine.py", "import docker", "docker only in runner.sandbox"),
        ("gateway/calls.py", "import sqlite3", "sqlite3 and psycopg only in gateway.database"),
        ("runner/client.py", "import httpx", "httpx only in reconciler.forge and checks"),
        (
            "gateway/calls.py",
            "import prometheus_client",
            "prometheus_client and opentelemetry only in gateway.telemetry",
        ),
        ("gateway/keys.py", "import yaml", "YAML only in reconciler.config"),
        ("runner/spec.py", "from ruamel.yaml import YAML", "YAML only in reconciler.config"),
    ],
)
def test_a_broken_contract_turns_the_linter_red(
    sketch: Path, module: str, line: str, contract: str
) -> None:
    for room in (
        "gateway/keys",
        "gateway/policy",
        "runner/queue",
        "reconciler/cli",
        "reconciler/web",
    ):
        (sketch / f"{room}.py").touch()
    (sketch / module).write_text(line + "\n")
    outcome = _lint_imports(sketch)
    assert outcome.returncode == 1, outcome.stdout
    assert f"{contract} BROKEN" in outcome.stdout
