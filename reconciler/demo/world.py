"""The temporary world of the story: two bare repositories, a tracker, a clock that can be moved.

Everything the story does to Interlock it does as a user would: by `git push` and by running
`interlock` commands as processes. What it looks at afterwards is the store and the reports.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from gateway.database import Row
from reconciler.config.lockfile import edit
from reconciler.process.store import open_database
from reconciler.process.supervisor import die_with_parent
from reconciler.source.signing import generate_key, public_key

HERE = Path(__file__).parent
EXAMPLE = HERE.parent.parent / "example-config-repo"
ZONE = ZoneInfo("Europe/Berlin")
TRACKER_TOKEN = "tracker-secret-for-the-demo"


class StoryFailed(Exception):
    """The story did not go as told; the text says where."""


@dataclass
class World:
    """Folders, environment and clock. `at` is the story's time; `moved` the offset in seconds."""

    folder: Path
    environment: dict[str, str]
    at: datetime
    offset: int = 0
    tracker: subprocess.Popen[bytes] | None = None
    quiet: bool = False

    @property
    def state(self) -> Path:
        """Interlock's state directory."""
        return self.folder / "state"

    @property
    def config(self) -> Path:
        """The bare config repo."""
        return self.folder / "config.git"

    @property
    def project(self) -> Path:
        """The bare repo of the project the loops work on."""
        return self.folder / "northwind-billing.git"

    def clock(self, text: str) -> None:
        """Move the story's clock forward to a weekday and time, e.g. `tue 06:01`."""
        day, time_of_day = text.split()
        hour, minute = map(int, time_of_day.split(":"))
        wanted = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].index(day)
        target = self.at.replace(hour=hour, minute=minute, second=0, microsecond=0)
        target += timedelta(days=(wanted - self.at.weekday()) % 7)
        if target < self.at:
            target += timedelta(days=7)
        self.at = target
        self.offset = int(target.timestamp() - time.time())

    def interlock(self, *arguments: str, check: bool = True) -> int:
        """Run one command to its end; its exit code. StoryFailed when `check` and it is not 0."""
        code = self._start(*arguments).wait()
        if check and code != 0:
            raise StoryFailed(f"`interlock {' '.join(arguments)}` ended with {code}")
        return code

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command and keep what it says."""
        return subprocess.run(
            self._command(arguments),
            env=self.environment_of_commands(),
            capture_output=True,
            text=True,
            check=False,
        )

    def reconcile(self) -> None:
        """One scheduled job."""
        self.interlock(*self.job())

    def reconcile_until(self, reached: Callable[[], bool], *, patience: float = 120.0) -> None:
        """Start a job and kill it, its gateway and its runner at the moment `reached` holds."""
        process = self._start(*self.job())
        deadline = time.monotonic() + patience
        try:
            while not reached():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise StoryFailed("the moment to kill the process never came")
                time.sleep(0.01)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def pr(self, *arguments: str, by: str) -> dict[str, Any]:
        """One `interlock pr` command as somebody; what it answers. StoryFailed when it refuses."""
        done = self.ask("pr", *arguments, "--as", by, "--repo", str(self.config), "--json")
        if done.returncode != 0:
            raise StoryFailed(f"`interlock pr {' '.join(arguments)}`: {done.stderr.strip()}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def commit(self, repo: Path, overlay: Path, message: str) -> str:
        """Lay a folder over a repository's head and push; the new commit."""
        work = self.folder / f"{repo.stem}-work"
        lay_over(work, overlay)
        return self.push(work, message)

    def push(self, work: Path, message: str, *, branch: str = "main", by: str = "mara") -> str:
        """Commit everything in a work tree and push it; the new commit."""
        self.git(work, "add", "-A")
        self.git(work, "commit", "-q", "-m", message, by=by)
        self.git(work, "push", "-q", "origin", f"HEAD:{branch}")
        return self.git(work, "rev-parse", "HEAD")

    def branch(self, name: str, change: Callable[[Path], None], message: str, *, by: str) -> str:
        """Make a change on a new branch of the config repo, from its newest main; the commit."""
        work = self.config_as_pushed()
        self.git(work, "checkout", "-q", "-b", name)
        change(work)
        return self.push(work, message, branch=name, by=by)

    def take_back(self, *, by: str) -> str:
        """Revert the merge that is main's newest commit in the config repo; the new commit."""
        work = self.config_as_pushed()
        self.git(work, "revert", "--no-edit", "-m", "1", "HEAD", by=by)
        self.git(work, "push", "-q", "origin", "HEAD:main")
        return self.git(work, "rev-parse", "HEAD")

    def config_as_pushed(self) -> Path:
        """The config repo's work tree, at its newest main: others have merged there."""
        work = self.folder / "config-work"
        self.git(work, "fetch", "-q", "origin", "main")
        self.git(work, "checkout", "-q", "-B", "main", "FETCH_HEAD")
        return work

    def git(self, where: Path, *arguments: str, by: str = "mara") -> str:
        """Output of a git command; what it commits is by this person."""
        done = subprocess.run(
            ["git", "-C", str(where), *arguments],
            check=False,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "GIT_AUTHOR_NAME": by,
                "GIT_AUTHOR_EMAIL": f"{by}@northwind.example",
                "GIT_COMMITTER_NAME": by,
                "GIT_COMMITTER_EMAIL": f"{by}@northwind.example",
                "GIT_AUTHOR_DATE": f"{self.at:%Y-%m-%dT%H:%M:%S%z}",
                "GIT_COMMITTER_DATE": f"{self.at:%Y-%m-%dT%H:%M:%S%z}",
            },
        )
        if done.returncode != 0:
            raise StoryFailed(f"git {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def rows(self, sql: str, **parameters: object) -> list[Row]:
        """A query on the store."""
        database = open_database(self.state)
        try:
            return database.read(sql, **parameters)
        finally:
            database.close()

    def job(self) -> list[str]:
        """Arguments of the scheduled job."""
        return ["reconcile", "--once", "--repo", str(self.config)]

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command(arguments),
            env=self.environment_of_commands(),
            stdout=subprocess.DEVNULL if self.quiet else None,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - a demo that is stopped leaves nothing
        )

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "reconciler.cli", *arguments]

    def environment_of_commands(self) -> dict[str, str]:
        """What every command of the story is given: where the state is, and what time it is."""
        return {
            **self.environment,
            "INTERLOCK_STATE": str(self.state),
            "INTERLOCK_SIGNING_KEY": str(self.folder / "signing-key"),
            "INTERLOCK_CLOCK_OFFSET": str(self.offset),
            "TRACKER_TOKEN": TRACKER_TOKEN,
        }


def lay_over(work: Path, overlay: Path) -> None:
    """Put a folder's files over those of a work tree; names in its `.delete` are removed."""
    for path in sorted(overlay.rglob("*")):
        if path.is_dir() or path.name in (".delete", "README.md"):
            continue
        target = work / path.relative_to(overlay)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    gone = overlay / ".delete"
    for name in gone.read_text().split() if gone.exists() else ():
        (work / name).unlink()


@contextmanager
def build(folder: Path, environment: dict[str, str], *, model: str | None) -> Iterator[World]:
    """Make the world: repositories with their first commits, keys, the tracker running."""
    world = World(folder, environment, at=_next_monday())
    world.clock("mon 05:50")
    folder.mkdir(parents=True, exist_ok=True)
    generate_key(folder / "signing-key")
    port = _start_tracker(world)
    try:
        for bare in (world.config, world.project):
            world.git(folder, "init", "-q", "--bare", "-b", "main", str(bare))
            world.git(folder, "clone", "-q", str(bare), f"{bare.stem}-work")
        shutil.copytree(HERE / "project", folder / "northwind-billing-work", dirs_exist_ok=True)
        world.push(folder / "northwind-billing-work", "Billing as it is today")
        work = folder / "config-work"
        shutil.copytree(EXAMPLE, work, dirs_exist_ok=True)
        _point_at_this_world(world, work, port)
        if model is not None:
            _use_model(work, model)
        world.interlock("lock", str(work))
        world.push(work, "Three loops of Northwind")
        yield world
    finally:
        if world.tracker is not None:
            world.tracker.terminate()
            world.tracker.wait()


def _next_monday() -> datetime:
    today = datetime.now(ZONE)
    return (today + timedelta(days=7 - today.weekday())).replace(hour=5, minute=0)


def _start_tracker(world: World) -> int:
    place = world.folder / "tracker"
    world.tracker = subprocess.Popen(
        [sys.executable, "-m", "reconciler.demo.tracker", "--folder", str(place)]
    )
    for _ in range(500):
        if (place / "port").exists() and (place / "port").read_text():
            return int((place / "port").read_text())
        time.sleep(0.02)
    raise StoryFailed("the tracker did not start")


def _point_at_this_world(world: World, work: Path, port: int) -> None:
    signer = public_key(world.folder / "signing-key")
    edit(work / "interlock.yaml", ("fleet", "reports", "signers"), [signer])
    edit(
        work / "gateway" / "mcp-servers.yaml",
        ("servers", "tracker", "url"),
        f"http://127.0.0.1:{port}/mcp",
    )
    for agent in ("ci-triage", "dependency-audit"):
        edit(
            work / "agents" / agent / "agent.yaml",
            ("agent", "sandbox", "workspace", "git"),
            world.project.as_uri(),
        )


def _provider_of(model: str) -> str:
    return "anthropic" if model.startswith("claude") else "openai"


def key_of(model: str) -> str:
    """The environment variable that holds the key of a model's provider."""
    return f"{_provider_of(model).upper()}_API_KEY"


def _use_model(work: Path, model: str) -> None:
    """Let the fleet's model names stand for a real model; which provider follows from its name."""
    provider = _provider_of(model)
    path = work / "gateway" / "models.yaml"
    edit(path, ("models", model), {"provider": provider, "id": model, "max_output_tokens": 4096})
    for name in ("smart", "other-smart"):
        edit(path, ("virtual_models", name, "targets"), [model])
