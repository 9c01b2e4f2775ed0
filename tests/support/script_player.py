"""Plays a scripted model on a copy of a workspace: real files, real processes, no gateway.

The deciding function is the scripted provider's own; the tools answer in the words of the built-in
ones. Commands are remembered by (files, command), since the same command on the same files gives
the same output: playing another variant of the instructions costs only what it does differently.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.policy import Script
from gateway.providers.scripted import Observation, Scene, decide
from runner import context
from runner.spec import Recorded, Role, RoleKind
from runner.workspace import Entry, diff

MAX_TURNS = 40

Files = dict[str, bytes]


def read_files(root: Path) -> Files:
    """Every file below a directory, by relative path; compiled files are left out."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


class Commands:
    """Runs shell commands on files; `/workspace` stands for the directory, as in a sandbox."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[int, str, Files]] = {}
        self._environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LANG": "C.UTF-8",
        }

    def run(self, files: Files, command: str) -> tuple[int, str, Files]:
        """Exit code, output (as the shell tool words it) and the files afterwards."""
        key = (_digest(files), command)
        if key not in self._known:
            self._known[key] = self._execute(files, command)
        return self._known[key]

    def _execute(self, files: Files, command: str) -> tuple[int, str, Files]:
        root = Path(tempfile.mkdtemp(prefix="ilk-")).resolve()
        try:
            for name, content in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(content)
            ended = subprocess.run(
                ["/bin/sh", "-c", command],
                cwd=root,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            parts = [f"exit {ended.returncode}"]
            if ended.stdout:
                parts.append(ended.stdout.rstrip("\n"))
            if ended.stderr:
                parts.append("stderr:\n" + ended.stderr.rstrip("\n"))
            text = "\n".join(parts).replace(str(root), "/workspace")
            return ended.returncode, text, read_files(root)
        finally:
            shutil.rmtree(root)


@dataclass(frozen=True)
class Played:
    """What a role did: its calls in order, the files at the end, and what it said at `finish`."""

    calls: tuple[tuple[str, Mapping[str, Any]], ...]
    files: Files
    said: Mapping[str, Any] | None
    errors: int

    def called(self, tool: str) -> int:
        """How often a tool was called."""
        return sum(name == tool for name, _ in self.calls)


@dataclass(frozen=True)
class Stage:
    """The script and the room it plays in."""

    script: Script
    commands: Commands

    def play(
        self,
        role: Role,
        task: str,
        files: Files,
        *,
        recorded: Sequence[Recorded] = (),
        turns: int = MAX_TURNS,
        told: str = "",
    ) -> Played:
        """Plays until `finish`, a message without a call, or the last turn.

        `told` is a later message of the harness: the last user message from the start.
        """
        opening = context.opening(role, task)
        external = {name.replace(".", "__"): name for name in role.grants.tools}
        offered = {*role.tools, "finish", *external} | ({"load_skill"} if role.skills else set())
        calls: list[tuple[str, Mapping[str, Any]]] = []
        seen: list[Observation] = []
        errors = 0
        for _ in range(turns):
            scene = Scene(
                system=opening[0]["content"],
                user=told or opening[1]["content"],
                observations=tuple(seen),
                called=tuple(name for name, _ in calls),
            )
            _, call = decide(self.script, scene, offered)
            if call is None:
                break
            calls.append(call)
            name, arguments = call
            if name == "finish":
                return Played(tuple(calls), files, arguments, errors)
            if name in external:
                text = _recorded(recorded, external[name])
            else:
                text, files = self._use(role, name, arguments, files)
            errors += text.startswith("error") or (text.startswith("exit") and text[5] != "0")
            seen.append(Observation(name, text))
        return Played(tuple(calls), files, None, errors)

    def _use(
        self, role: Role, name: str, arguments: Mapping[str, Any], files: Files
    ) -> tuple[str, Files]:
        match name:
            case "shell":
                _, text, files = self.commands.run(files, arguments["command"])
                return text, files
            case "list_files":
                return "\n".join(sorted(files)), files
            case "load_skill":
                found = [s for s in role.skills if s.name == arguments["name"]]
                return (found[0].files["SKILL.md"] if found else "error: no such skill"), files
            case "read_file" if arguments["path"] in files:
                return files[arguments["path"]].decode(), files
            case "edit_file" if arguments["path"] in files:
                path = arguments["path"]
                before, old = files[path], arguments["old"].encode()
                if before.count(old) != 1:
                    return f"error: `old` is found {before.count(old)} times in {path}", files
                edited = before.replace(old, arguments["new"].encode())
                return f"edited {path}", {**files, path: edited}
            case "read_file" | "edit_file":
                return f"error: {arguments['path']}: no such file or directory", files
        raise AssertionError(f"the script calls {name}, which nothing here answers")

    def review(self, role: Role, task: str, played: Played, before: Files) -> Played:
        """The checker's turn, told what the runner tells it: the claim and the diff."""
        assert role.kind is RoleKind.CHECKER
        change = diff(_entries(before), _entries(played.files))
        claim = "\n".join(f"{k}: {v}" for k, v in (played.said or {}).items())
        told = context.review(task, claim=claim, changed=change.changed, diff=change.diff)
        return self.play(role, told, dict(played.files))


def _recorded(answers: Sequence[Recorded], tool: str) -> str:
    found = next((answer for answer in answers if answer.tool == tool), None)
    return found.result if found else f"error: no recorded answer for {tool}"


def _entries(files: Files) -> dict[str, Entry]:
    return {path: Entry(content) for path, content in files.items()}


def _digest(files: Files) -> str:
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(f"{path}\0{len(files[path])}\0".encode() + files[path])
    return total.hexdigest()
