"""Config repos of any size, with the sharing that real ones have, as bare git repositories.

Deterministic from a seed: the same size and seed give the same commit. Skills are shared as words
are, a few by very many and most by a few; one is shared by exactly one agent in a hundred, so that
a change of it has a known reach. Written through `git fast-import`, a file a few microseconds.
"""

# ruff: noqa: E501 - documents and tables read better with one row a line

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import pygit2

from reconciler.source.mirror import GitTree
from reconciler.source.objects import ObjectId, TreeId

TEAMS = 30
SERVERS = 12
TOOLS = 10
PER_SKILL = 20
"""Agents for each skill there is."""
GATED = 200
"""One agent in so many has a suite, of `CASES` cases."""
CASES = 20
SHARED_SKILL = "house-rules"
"""The skill that one agent in a hundred has."""

_WORDS = [
    "build",
    "review",
    "release",
    "triage",
    "incident",
    "deploy",
    "ledger",
    "invoice",
    "pipeline",
    "schema",
    "queue",
    "cache",
    "index",
    "report",
    "audit",
    "access",
    "token",
    "budget",
    "storage",
    "network",
    "region",
    "cluster",
    "metric",
    "alert",
    "trace",
    "sample",
    "customer",
    "payment",
    "refund",
    "dispute",
    "contract",
    "vendor",
    "forecast",
    "backlog",
    "roadmap",
    "sprint",
    "ticket",
    "owner",
]
_VERBS = [
    "check",
    "compare",
    "collect",
    "read",
    "sort",
    "group",
    "explain",
    "verify",
    "repeat",
    "reject",
    "keep",
    "write",
]


@dataclass
class FleetRepo:
    """A bare repository on disk; each `commit` goes on from the one before."""

    path: Path
    size: int
    files: int = 0
    """Files of the first commit."""
    _repository: pygit2.Repository | None = field(default=None, repr=False)

    @property
    def repository(self) -> pygit2.Repository:
        """The repository, opened once."""
        if self._repository is None:
            self._repository = pygit2.Repository(str(self.path))
        return self._repository

    def head(self) -> str:
        """The id of the newest commit."""
        return str(self.repository.references["refs/heads/main"].target)

    def tree(self, commit: str | None = None) -> GitTree:
        """The files of a commit, the newest one by default; nothing of it has been read."""
        found = self.repository[commit or self.head()].peel(pygit2.Tree)
        return GitTree(lambda: self.repository, TreeId(ObjectId(str(found.id))))

    def read(self, path: str) -> str:
        """A file of the newest commit."""
        return self.tree().read(path).decode()

    def edit(self, path: str, old: str, new: str) -> str:
        """Commit one replacement in one file; the commit's id."""
        text = self.read(path)
        if old not in text:
            raise ValueError(f"{old!r} is not in {path}")
        return self.commit({path: text.replace(old, new, 1)})

    def commit(self, changes: Mapping[str, str | None]) -> str:
        """Write (or with None remove) files on top of the newest commit; the commit's id."""
        _import(self.path, changes.items(), first=False)
        self.repository.free()
        return self.head()


def generate(path: Path, size: int, *, seed: int = 7, gates: bool = True) -> FleetRepo:
    """A fleet of `size` agents in a new bare repository at `path`, packed as a clone would be.

    Without `gates` no agent has a suite: everything goes live at once.
    """
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True)
    files = _import(path, fleet(size, seed=seed, gates=gates), first=True)
    return FleetRepo(path, size, files)


def fleet(size: int, *, seed: int = 7, gates: bool = True) -> Iterator[tuple[str, str]]:
    """The files of a fleet: (path, content)."""
    chance = random.Random(seed)
    skills = max(1, size // PER_SKILL)
    yield from _shared_files(chance)
    names = [SHARED_SKILL, *(f"{_WORDS[n % len(_WORDS)]}-guide-{n}" for n in range(1, skills + 1))]
    for name in names:
        yield from _skill(name, chance)
    weights = list(accumulate(1 / rank for rank in range(1, skills + 1)))
    for number in range(size):
        chosen = {names[1 + i] for i in _draws(chance, weights, chance.randint(0, 3))}
        if number % 100 == 50:
            chosen.add(SHARED_SKILL)
        yield from _agent(number, sorted(chosen), chance, gates=gates)


def agent_folder(number: int) -> str:
    """The folder of the agent with this number."""
    return f"agents/{_agent_name(number)}"


def _agent_name(number: int) -> str:
    return f"{_WORDS[number * 7 % len(_WORDS)]}-{_VERBS[number % len(_VERBS)]}-{number:05}"


def _draws(chance: random.Random, cumulative: list[float], count: int) -> list[int]:
    return chance.choices(range(len(cumulative)), cum_weights=cumulative, k=count)


def _prose(chance: random.Random, size: int) -> str:
    """Markdown of about `size` bytes."""
    parts: list[str] = []
    length = 0
    while length < size:
        words = [chance.choice(_VERBS).capitalize()]
        words += [f"the {chance.choice(_WORDS)} {chance.choice(_WORDS)}" for _ in range(3)]
        line = f"- {' and '.join(words)}.\n" if length % 3 else f"{', '.join(words)}.\n\n"
        parts.append(line)
        length += len(line)
    return "".join(parts)


def _skill(name: str, chance: random.Random) -> Iterator[tuple[str, str]]:
    header = f"---\nname: {name}\ndescription: How we {name.replace('-', ' ')}.\nversion: 1\n---\n"
    yield f"skills/{name}/SKILL.md", header + _prose(chance, 1500)
    if chance.random() < 0.5:
        yield f"skills/{name}/scripts/check.sh", "#!/bin/sh\nset -e\ngit status --porcelain\n"
    if chance.random() < 0.3:
        yield f"skills/{name}/reference.md", _prose(chance, 3000)


def _agent(
    number: int, skills: list[str], chance: random.Random, *, gates: bool
) -> Iterator[tuple[str, str]]:
    name, folder = _agent_name(number), agent_folder(number)
    team = number % TEAMS
    gated = gates and number % GATED == 13
    model = chance.choice(["smart", "smart", "smart", "fast", "model-2", "model-4"])
    granted = sorted(set(_draws(chance, [1.0, 1.6, 2.0, 2.3, 2.5, 2.6], chance.randint(0, 2))))
    lines = [
        "agent:",
        f"  name: {name}",
        f"  team: team-{team:02}",
        f"  model: {model}",
        "  instructions: ./instructions.md",
        f"  skills: [{', '.join(skills)}]",
    ]
    if granted:
        lines.append("  mcp_servers:")
        for server in granted:
            tools = ", ".join(f"tool_{t}" for t in sorted(chance.sample(range(TOOLS - 1), 3)))
            lines.append(f"    - name: server-{server}")
            lines.append(f"      tools: [{tools}]")
            lines.append(f"      args: {{project: northwind-{team}}}")
    else:
        lines.append("  mcp_servers: []")
    if chance.random() < 0.25:
        lines += [
            "  subagents:",
            "    - {name: reviewer, role: checker, model: fast, mcp_servers: []}",
        ]
        until = ", until: {checker: reviewer}"
    else:
        until = ', until: {command: "make check"}' if chance.random() < 0.5 else ""
    lines += [
        f"  harness: {{max_steps: {chance.choice([20, 30, 40])}{until}}}",
        "  sandbox:",
        f'    workspace: {{git: "https://git.northwind.example/service-{number % 400}.git", ref: main}}',
        f'  owns: ["reports/{name}/**"]',
        f"  rollout: {'standard' if gated else 'ungated'}",
        f'trigger: {{schedule: "{chance.randrange(60)} {chance.randrange(24)} * * 1-5", timezone: Europe/Berlin}}',
    ]
    if gated:
        lines.append("evals: ./evals/suite.yaml")
        yield from _suite(folder, name)
    yield f"{folder}/agent.yaml", "\n".join(lines) + "\n"
    yield f"{folder}/instructions.md", f"You are {name}.\n\n" + _prose(chance, 1000)


def _suite(folder: str, name: str) -> Iterator[tuple[str, str]]:
    yield f"{folder}/evals/suite.yaml", f"suite: {{name: {name}, cases: ./cases/*.yaml}}\n"
    yield f"{folder}/evals/fixtures/one/main.py", "print(1)\n"
    for case in range(CASES):
        yield (
            f"{folder}/evals/cases/case-{case:02}.yaml",
            f"case:\n  id: case-{case:02}\n  workspace: ../fixtures/one\n  input: Do it.\n"
            "  grade:\n    - {command: python3 main.py, exit: 0}\n    - {max_steps: 20}\n",
        )


def _shared_files(chance: random.Random) -> Iterator[tuple[str, str]]:
    yield (
        "interlock.yaml",
        """\
fleet:
  name: northwind
  defaults:
    model: smart
    rollout: standard
    harness: {max_steps: 40, max_tokens_per_run: 400_000, max_cost_per_run: 0.50, max_wall_time: 20m}
    sandbox: {image: default, cpus: 1, memory: 512m, pids: 128, disk: 128m}
  rollouts:
    standard:
      gate: {first_release: {min_pass_rate: 0.80, approval: false}}
      canary: {count: 5}
    ungated: {gate: none}
""",
    )
    teams = [f"  team-{n:02}: {{members: [lead-{n}, dev-{n}]}}\n" for n in range(TEAMS)]
    yield "teams.yaml", "teams:\n" + "".join(teams)
    yield "interlock.lock", f"lock:\n  images: {{default: 'sha256:{'a' * 64}'}}\n"
    yield (
        "gateway/models.yaml",
        "providers:\n  openai: {kind: openai, base_url: https://api.openai.com/v1, key: {env: KEY},"
        " hosts: [api.openai.com]}\nmodels:\n"
        + "".join(
            f"  model-{n}: {{provider: openai, id: model-{n}-2026, price: {{input: {n}.00,"
            f" output: {n * 4}.00}}}}\n"
            for n in range(1, 7)
        )
        + "virtual_models:\n  smart: {targets: [model-1, model-3]}\n"
        "  fast: {targets: [model-2, model-5]}\n",
    )
    servers = ["servers:\n"]
    for server in range(SERVERS):
        servers.append(
            f"  server-{server}:\n    url: https://mcp-{server}.northwind.example/mcp\n    tools:\n"
        )
        for tool in range(TOOLS):
            access = ["[read]", "[write]", "[read]", "[write, egress]"][tool % 4]
            access = "[write, destructive]" if tool == TOOLS - 1 else access
            servers.append(
                f"      tool_{tool}: {{access: {access}, description: {chance.choice(_VERBS)} a"
                f" {chance.choice(_WORDS)}, input_schema: {{type: object, properties:"
                " {project: {type: string}}}}\n"
            )
    yield "gateway/mcp-servers.yaml", "".join(servers)
    budgets = [f"  - {{name: team-{n:02}, window: month, team: team-{n:02}, limit: {200 + n}}}\n"
               for n in range(TEAMS)]  # fmt: skip
    yield "gateway/budgets.yaml", "budgets:\n" + "".join(budgets)


def _import(path: Path, changes: Iterable[tuple[str, str | None]], *, first: bool) -> int:
    process = subprocess.Popen(
        ["git", "-C", str(path), "fast-import", "--quiet", "--force", "--done"],
        stdin=subprocess.PIPE,
    )
    assert process.stdin is not None
    out = process.stdin
    out.write(
        b"commit refs/heads/main\ncommitter bench <bench@northwind.example> 1763700000 +0000\n"
        b"data 5\nfleet\n" + (b"" if first else b"from refs/heads/main^0\n")
    )
    count = 0
    for name, content in changes:
        if content is None:
            out.write(b"D %s\n" % name.encode())
            continue
        body = content.encode()
        out.write(b"M 100644 inline %s\ndata %d\n" % (name.encode(), len(body)))
        out.write(body + b"\n")
        count += 1
    out.write(b"done\n")
    out.close()
    if process.wait() != 0:
        raise RuntimeError("git fast-import failed")
    return count
