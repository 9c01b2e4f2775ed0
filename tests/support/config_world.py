"""A config repo in a bare git repository, a reconciler's context on it, and people who push.

Git, the store and the local forge are real; runs are ended by hand, with the outcome a test wants.
"""

from __future__ import annotations

import atexit
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pygit2

from gateway.database import Database, Row
from gateway.values import Millis, NanoUSD
from reconciler.forge.local import LocalForge
from reconciler.forge.model import AddComment, Close, Login, Merge, OpenPull, PullNumber
from reconciler.source.mirror import CommitId, Mirror
from reconciler.source.objects import ObjectId
from reconciler.source.writing import Identity
from reconciler.tick import Ticked, tick
from reconciler.tick.context import Context
from runner.queue import Queue
from runner.spec import Grade, RunOutcome, StopReason
from tests.support import small_fleet
from tests.support.rollout_world import FakeClock, opened

Files = Mapping[str, str | None]

TEAMS = """\
teams:
  payments: {members: [ines, tom], owns: ["agents/**", "skills/**"]}
  platform:
    members: [mara]
    owns: ["gateway/**", "interlock.yaml", "teams.yaml", "interlock.lock"]
"""
START: Files = {
    **small_fleet.FILES,
    "interlock.yaml": small_fleet.FILES["interlock.yaml"].replace("    rollout: standard\n", ""),
    "agents/triage/agent.yaml": small_fleet.FILES["agents/triage/agent.yaml"].replace(
        "  approvals:", "  rollout: standard\n  approvals:"
    ),
    "teams.yaml": TEAMS,
    "agents/notes/agent.yaml": """\
agent:
  name: notes
  team: payments
  instructions: ./notes.md
  mcp_servers: [{name: tracker, tools: [list]}]
  rollout: ungated
trigger: manual
""",
    "agents/notes/notes.md": "Write down what changed.\n",
}
"""The small fleet, and an agent without a gate: what it asks for is live after one tick."""


def _as_it_should(row: Row) -> bool:
    """Every case passes, but for the suite's sentinels."""
    return not str(row["arm"]).startswith("sentinel")


def _never(_seconds: float) -> None:
    raise AssertionError("nothing here has to wait")


@dataclass
class ConfigWorld:
    """See the module. `at` is a folder of its own."""

    at: Path
    bare: Path = field(init=False)
    clock: FakeClock = field(default_factory=FakeClock)
    context: Context = field(init=False)
    database: Database = field(init=False)
    writer: Mirror = field(init=False)

    def __post_init__(self) -> None:
        self.bare = self.at / "config.git"
        fresh = not self.bare.exists()
        if fresh:
            pygit2.init_repository(self.bare, bare=True, initial_head="main")
        self.writer = Mirror.open_or_clone(str(self.bare), self.at / "writer.git")
        if fresh:
            self.push(START)
        self.database = opened(self.at / "interlock.sqlite")
        self.restart()

    @classmethod
    def settled(cls, at: Path) -> ConfigWorld:
        """A world in which the first commit has been gated and is live.

        That takes a while, so it is done once, and copied.
        """
        template = _template()
        shutil.copytree(template / "config.git", at / "config.git")
        shutil.copyfile(template / "interlock.sqlite", at / "interlock.sqlite")
        world = cls(at)
        world.clock.at += 100_000
        return world

    def restart(self) -> None:
        """A process that remembers nothing but what is in the store."""
        config = Mirror.open_or_clone(str(self.bare), self.at / "mirror.git")
        self.context = Context(
            database=self.database,
            clock=self.clock,
            state=self.at / "state",
            config=config,
            branch="main",
            machine="test",
            job=False,
            signer=None,
            mirror=Mirror.open_or_clone,
            seeded=random.Random,
            fetch_every_ms=10**12,  # `_news` says when there is something to fetch
            forge=self._forge(config, "interlock", bot=True),
        )

    def _forge(self, mirror: Mirror, login: str, *, bot: bool = False) -> LocalForge:
        return LocalForge(
            mirror,
            clock=self.clock,
            login=Login(login),
            bot=bot,
            sleep=_never,
            draw=random.Random(1).random,
        )

    def push(
        self, files: Files, *, branch: str = "main", by: str = "jun", base: str = "main"
    ) -> str:
        """Commit files (None removes one) onto a branch, made from `base` if new; the commit."""
        self.writer.fetch()
        parent = self.writer.resolve(branch)
        tip = parent or self.writer.resolve(base)
        commit = self.writer.write_commit(
            tip,
            {path: None if text is None else text.encode() for path, text in files.items()},
            message=f"{by} changes {', '.join(sorted(files)[:3])}",
            author=Identity(by, f"{by}@northwind.example"),
            committer=Identity(by, f"{by}@northwind.example"),
            when_ms=Millis(self.clock.now()),
            signer=None,
        )
        done = self.writer.push({branch: (parent, commit)})
        assert done.pushed, done
        self._news()
        return str(commit)

    def _news(self) -> None:
        """Somebody has written to the repository: the next tick fetches."""
        if hasattr(self, "context"):
            self.context.fetched_at = None

    def edit(self, path: str, old: str, new: str, *, branch: str = "main", by: str = "jun") -> str:
        """Replace one text of one file on a branch."""
        self.writer.fetch()
        head = self.writer.resolve(branch) or self.writer.resolve("main")
        assert head is not None
        text = self.writer.tree(head).read(path).decode()
        assert old in text, f"{old!r} is not in {path}"
        return self.push({path: text.replace(old, new)}, branch=branch, by=by)

    def tick(self, times: int = 1) -> Ticked:
        """So many ticks; the last one's outcome."""
        assert times > 0
        for _ in range(times):
            ticked = tick(self.context)
            self.clock.at += 1000
        return ticked

    # --- people on the forge

    def pull(self, branch: str, *, by: str = "jun", title: str = "A change") -> PullNumber:
        """Open a pull request."""
        forge = self._forge(self.writer, by)
        self.writer.fetch()
        self._news()
        return forge.perform(OpenPull(branch, "main", title)).pull

    def say(self, pull: PullNumber, body: str, *, by: str) -> None:
        """Comment on it."""
        self.writer.fetch()
        self._forge(self.writer, by).perform(AddComment(pull, body))
        self._news()

    def merge(self, pull: PullNumber, *, by: str = "jun", squash: bool = False) -> str:
        """Merge what is its head now; the commit that did it."""
        forge = self._forge(self.writer, by)
        self.writer.fetch()
        head = forge.pull(pull).head
        assert head is not None
        commit = forge.perform(Merge(pull, head, squash=squash)).commit
        self._news()
        assert commit is not None
        return str(commit)

    def close(self, pull: PullNumber, *, by: str = "jun") -> None:
        """Close it without merging."""
        self.writer.fetch()
        self._forge(self.writer, by).perform(Close(pull))
        self._news()

    def comment_of_us(self, pull: PullNumber, marker: str = "plan") -> str:
        """Our comment of a marker; "" when there is none."""
        self.writer.fetch()
        said = self._forge(self.writer, "jun").comments(pull)
        start = f"<!-- interlock:{marker} -->"
        return next((c.body for c in said if c.body.startswith(start)), "")

    def statuses(self, pull: PullNumber) -> dict[str, str]:
        """State by context, of its head."""
        self.writer.fetch()
        forge = self._forge(self.writer, "jun")
        head = forge.pull(pull).head
        assert head is not None
        return {s.context: s.state.value for s in forge.statuses(pull, head)}

    # --- what came of it

    def stable(self, agent: str) -> str | None:
        """The release that is assigned."""
        row = self.database.one("SELECT stable FROM pointers WHERE agent = :a", a=agent)
        return str(row["stable"]) if row is not None else None

    def wanted(self, agent: str) -> str | None:
        """The release that may become stable."""
        row = self.database.one("SELECT digest FROM desired WHERE agent = :a", a=agent)
        return row["digest"] if row is not None else None

    def rollouts(self, agent: str) -> list[Row]:
        """The agent's rollouts, oldest first."""
        return self.database.read(
            "SELECT * FROM rollouts WHERE agent = :a ORDER BY opened_at, rollout", a=agent
        )

    def waiting(self) -> list[str]:
        """Scopes that wait for an approval."""
        return [r["scope"] for r in self.database.read("SELECT scope FROM waiting ORDER BY scope")]

    def audit(self, action: str) -> list[Row]:
        """Lines of one action."""
        return self.database.read("SELECT * FROM audit WHERE action = :a ORDER BY seq", a=action)

    def end_evals(self, passes: Callable[[Row], bool] = _as_it_should) -> int:
        """End every queued eval run, passed or failed as the test says; how many there were."""
        queue = Queue(self.database, clock=self.clock, owner="test")
        ended = 0
        while (lease := queue.lease()) is not None:
            row = self.database.one("SELECT * FROM runs WHERE run = :r", r=lease.run)
            assert row is not None
            good = passes(row)
            queue.finish(
                lease,
                RunOutcome(
                    stop=StopReason.DONE,
                    grades=(Grade(check="it", status="passed" if good else "failed"),),
                    cost_nano=NanoUSD(1_000),
                    working_ms=100,
                ),
            )
            ended += 1
        return ended

    def settle(self, passes: Callable[[Row], bool] = _as_it_should) -> None:
        """Tick, and end the evals it asks for, until nothing is asked for any more."""
        for _ in range(20):
            self.tick()
            if not self.end_evals(passes) and not self.tick().changed:
                return
        raise AssertionError("it never became quiet")


@cache
def _template() -> Path:
    place = Path(tempfile.mkdtemp(prefix="config-world-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    world = ConfigWorld(place)
    world.settle()
    world.database.close()
    return place


def commit_of(text: str) -> CommitId:
    """A commit id from its text."""
    return CommitId(ObjectId(text))


__all__ = ["START", "ConfigWorld", "commit_of"]
