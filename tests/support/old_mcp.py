"""The official Python SDK of the previous protocol, in an environment of its own.

Its major line 1 cannot be installed beside line 2. The environment is made once, under `.cache`,
and kept as long as the pins below are the same.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINS = ("mcp==1.30.0", "mcp-server-git==2026.10.10")
NODE_PINS = ("@modelcontextprotocol/server-everything@2026.8.31",)


def interpreter() -> Path:
    """The Python that has `mcp` 1.x and `mcp-server-git`."""
    place = ROOT / ".cache" / "mcp-1"
    python = place / "bin" / "python"

    def make() -> None:
        _run(sys.executable, "-m", "venv", "--clear", str(place))
        _run(str(python), "-m", "pip", "install", "--quiet", *PINS)

    _once(place, PINS, make)
    return python


def everything() -> Path:
    """The program of `@modelcontextprotocol/server-everything`; needs `npm`."""
    place = ROOT / ".cache" / "mcp-node"

    def make() -> None:
        place.mkdir(parents=True, exist_ok=True)
        flags = ("--silent", "--no-audit", "--no-fund", "--ignore-scripts")
        _run("npm", "install", *flags, "--prefix", str(place), *NODE_PINS)

    _once(place, NODE_PINS, make)
    return place / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"


def _once(place: Path, pins: tuple[str, ...], make: object) -> None:
    assert callable(make)
    place.parent.mkdir(parents=True, exist_ok=True)
    made = place.with_name(place.name + ".made")
    with place.with_name(place.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_file() or made.read_text() != "\n".join(pins):
            made.unlink(missing_ok=True)
            make()
            made.write_text("\n".join(pins))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=300)
