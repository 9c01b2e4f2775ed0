"""Going on from an earlier load gives what a load from nothing would, whatever the commits did.

Random walks over a small fleet in which everything depends on something: shared instructions,
links, skills with links, twins, claims, limits that are inherited.
"""

# ruff: noqa: E501 - documents and tables read better with one row a line

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.values import AgentName
from reconciler.config import Claim, collisions
from reconciler.config.collisions import Holder
from reconciler.config.load import load
from reconciler.findings import Place
from reconciler.release import Compiled, compile_loaded
from reconciler.source.tree import MemoryTree

Files = dict[str, str]
"""Path → content; a link's content is `-> target`."""

INTERLOCK = """\
fleet:
  name: northwind
  defaults:
    model: smart
    rollout: ungated
    harness: {max_cost_per_run: 0.50}
  rollouts:
    ungated: {gate: none}
"""
BASE: Files = {
    "interlock.yaml": INTERLOCK,
    "teams.yaml": "teams:\n  payments: {members: [ines]}\n  docs: {members: [tom]}\n",
    "interlock.lock": f"lock:\n  images: {{default: 'sha256:{'a' * 64}'}}\n",
    "gateway/models.yaml": """\
providers:
  openai: {kind: openai, base_url: https://api.openai.com/v1, key: {env: KEY}, hosts: [api.openai.com]}
models:
  large: {provider: openai, id: large-1}
  small: {provider: openai, id: small-1}
virtual_models:
  smart: {targets: [large, small]}
""",
    "gateway/mcp-servers.yaml": """\
servers:
  tracker:
    url: http://127.0.0.1:8931/mcp
    tools:
      list: {access: [read], description: List changes.}
      open: {access: [write], description: Open a change}
""",
    "gateway/budgets.yaml": "budgets:\n  - {name: month, window: month, limit: 200}\n",
    "shared/brief.md": "Be brief.\n",
    "shared/other.md": "Be long.\n",
    "skills/python/SKILL.md": "---\nname: python\ndescription: Tracebacks.\n---\nFrom the bottom.\n",
    "skills/python/run.sh": "true\n",
    "skills/git/SKILL.md": "---\nname: git\ndescription: History.\nversion: 1\n---\nUse log.\n",
    "skills/git/notes.md": "-> ../../shared/brief.md",
    "skills/linked": "-> ../elsewhere/linked",
    "elsewhere/linked/SKILL.md": "---\nname: linked\ndescription: Away.\n---\nLinked.\n",
    "elsewhere/agent/agent.yaml": "agent: {name: far, instructions: ./far.md}\ntrigger: manual\n",
    "elsewhere/agent/far.md": "Far away.\n",
}  # fmt: skip
AGENT = """\
agent:
  name: {name}
  team: {team}
  model: {model}
  instructions: {instructions}
  skills: {skills}
  mcp_servers: {servers}
  subagents: [{{name: helper, role: maker}}]
  owns: {owns}
trigger: manual
"""


def agent(name: str = "a", **changes: str) -> str:
    """An agent's file."""
    values = {
        "name": name,
        "team": "payments",
        "model": "smart",
        "instructions": "./text.md",
        "skills": "[]",
        "servers": "[]",
        "owns": "[]",
    }
    return AGENT.format(**{**values, **changes})


def start() -> Files:
    """Four agents that share what they can."""
    files = dict(BASE)
    for name, changes in (
        ("a", {"skills": "[python]", "owns": '["docs/a/**"]'}),
        ("b", {"skills": "[python, git]", "instructions": "../../shared/brief.md"}),
        ("c", {"model": "small", "servers": "[tracker]", "owns": '["docs/c/**", "mcp:tracker/x"]'}),
        ("d", {"skills": "[linked]", "instructions": "../../shared/link.md", "team": "docs"}),
    ):
        files[f"agents/{name}/agent.yaml"] = agent(name, **changes)
        files[f"agents/{name}/text.md"] = f"You are {name}.\n"
    files["shared/link.md"] = "-> brief.md"
    return files


def tree_of(files: Files) -> MemoryTree:
    """The tree; a file in the way of a directory wins."""
    plain = {p: c for p, c in files.items() if not _hidden(p, files)}
    return MemoryTree(
        {p: c.encode() for p, c in plain.items() if not c.startswith("-> ")},
        links={p: c.removeprefix("-> ") for p, c in plain.items() if c.startswith("-> ")},
    )


def _hidden(path: str, files: Files) -> bool:
    parts = path.split("/")
    return any("/".join(parts[:n]) in files for n in range(1, len(parts)))


NAMES = st.sampled_from(["a", "b", "c", "d", "far", "new"])
FOLDERS = st.sampled_from(["a", "b", "c", "d", "new"])
PATTERNS = ["docs/**", "docs/a/**", "docs/a/x.md", "docs/c/*", "**/x.md", "mcp:tracker/x", "mcp:*"]
OWNS = st.lists(st.sampled_from(PATTERNS), max_size=2, unique=True).map(
    lambda some: "[" + ", ".join(f'"{pattern}"' for pattern in some) + "]"
)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "team": st.sampled_from(["payments", "docs", "nobody"]),
        "model": st.sampled_from(["smart", "small", "large", "smrt", "tiny"]),
        "instructions": st.sampled_from(
            ["./text.md", "../../shared/brief.md", "../../shared/link.md", "../../shared/gone.md"]
        ),
        "skills": st.sampled_from(["[]", "[python]", "[git, linked]", "[pyton]", "[later]"]),
        "servers": st.sampled_from(["[]", "[tracker]", "[{name: tracker, tools: [open]}]", "[x]"]),
        "owns": OWNS,
    },
)
AGENT_FILES = st.builds(lambda name, changes: agent(name, **changes), NAMES, CHANGES)


def _put(path: str, content: str) -> Callable[[Files], None]:
    def edit(files: Files) -> None:
        files[path] = content

    return edit


def _drop(prefix: str) -> Callable[[Files], None]:
    def edit(files: Files) -> None:
        for path in [p for p in files if p == prefix or p.startswith(f"{prefix}/")]:
            del files[path]

    return edit


def _rename(old: str, new: str) -> Callable[[Files], None]:
    def edit(files: Files) -> None:
        for path in [p for p in files if p.startswith(f"{old}/")]:
            files[new + path.removeprefix(old)] = files.pop(path)

    return edit


def _agent_edit(folder: str, content: str) -> Callable[[Files], None]:
    return _put(f"agents/{folder}/agent.yaml", content)


PUTS: Mapping[str, tuple[str, ...]] = {
    "interlock.yaml": (
        INTERLOCK,
        "# moved down\n" + INTERLOCK,
        INTERLOCK.replace("smart", "small"),
        INTERLOCK.replace("0.50", "0.20"),
        INTERLOCK.replace("fleet:", "fleat:"),
        "fleet: [",
    ),
    "teams.yaml": (
        BASE["teams.yaml"],
        "teams:\n  docs: {members: [tom]}\n",
        "teams:\n  payments: {members: [eve]}\n  docs: {members: [tom]}\n  nobody: {members: [x]}\n",
    ),
    "gateway/models.yaml": (
        BASE["gateway/models.yaml"],
        BASE["gateway/models.yaml"].replace("[large, small]", "[small]"),
        BASE["gateway/models.yaml"].replace("small-1", "small-2"),
        BASE["gateway/models.yaml"].replace("  smart:", "  smrt:"),
    ),
    "gateway/mcp-servers.yaml": (
        BASE["gateway/mcp-servers.yaml"],
        BASE["gateway/mcp-servers.yaml"].replace("[read]", "[read, destructive]"),
        BASE["gateway/mcp-servers.yaml"].replace("tracker", "x"),
        BASE["gateway/mcp-servers.yaml"] + 'destructive: ["tracker.list"]\n',
    ),
    "gateway/budgets.yaml": (
        BASE["gateway/budgets.yaml"],
        "budgets:\n  - {name: run, window: run, limit: 2}\n",
        "budgets:\n  - {name: run, window: run, limit: 2, mode: audit, oops: 1}\n",
    ),
    "interlock.lock": (
        BASE["interlock.lock"],
        BASE["interlock.lock"].replace("aaaa", "bbbb"),
        BASE["interlock.lock"].replace("default", "other"),
        BASE["interlock.lock"] + f"  tools: {{tracker.open: {'2' * 64}}}\n",
    ),
    "shared/brief.md": ("Be brief.\n", "Be briefer.\n", "", "-> other.md", "-> ../../away"),
    "shared/gone.md": ("Here after all.\n",),
    "shared/link.md": ("-> brief.md", "-> other.md", "-> ../agents/a/text.md", "-> link.md"),
    "shared": ("now a file",),
    "skills/python/SKILL.md": (
        BASE["skills/python/SKILL.md"],
        BASE["skills/python/SKILL.md"].replace("bottom", "top"),
        BASE["skills/python/SKILL.md"].replace("---\nname", "---\nlicense: MIT\nname"),
        BASE["skills/python/SKILL.md"].replace("name: python", "name: pithon"),
        "no front matter\n",
    ),
    "skills/python/run.sh": ("true\n", "false\n", "-> ../git/SKILL.md"),
    "skills/later/SKILL.md": ("---\nname: later\ndescription: Late.\n---\nLate.\n",),
    "skills/linked": ("-> ../elsewhere/linked", "-> git", "-> nowhere"),
    "skills/pyto/SKILL.md": ("---\nname: pyto\ndescription: Near.\n---\nNear.\n",),
    "elsewhere/linked/SKILL.md": (
        BASE["elsewhere/linked/SKILL.md"],
        BASE["elsewhere/linked/SKILL.md"].replace("Linked", "Changed"),
    ),
    "elsewhere/agent/far.md": ("Far away.\n", "Farther.\n"),
    "agents/far": ("-> ../elsewhere/agent", "-> a", "-> nowhere"),
    "agents/a/subagents": ("-> ../../shared", "-> ../b"),
    "agents/a/subagents/helper.md": ("Help.\n", "Help more.\n"),
    "shared/helper.md": ("Help from afar.\n",),
    "agents/b/second.yaml": (agent("second"), agent("a"), "agent: [", "gateway: {}"),
    "agents/c/text.md": ("You are c.\n", "You are not.\n", "\x1b[2J", "-> ../d/text.md"),
    "agents": ("a file in the way", "-> elsewhere", "-> /etc"),
    "mkdocs.yml": ("site_name: x\n", "fleat: 1\n"),
}
PUT = st.sampled_from([(path, text) for path, texts in PUTS.items() for text in texts])
DROPS = st.sampled_from(
    ["agents/a", "agents/b", "agents/c/text.md", "agents/far", "agents", "shared", "skills",
     "shared/brief.md", "shared/link.md", "skills/python", "skills/git/notes.md", "skills/later",
     "skills/pyto", "skills/linked", "elsewhere", "teams.yaml", "interlock.lock", "mkdocs.yml",
     "agents/a/subagents", "agents/b/second.yaml", "gateway/budgets.yaml", "interlock.yaml"]
)  # fmt: skip
EDITS = st.one_of(
    st.builds(_agent_edit, FOLDERS, AGENT_FILES),
    st.builds(_agent_edit, FOLDERS, AGENT_FILES),
    PUT.map(lambda pair: _put(*pair)),
    PUT.map(lambda pair: _put(*pair)),
    DROPS.map(_drop),
    st.builds(_rename, FOLDERS.map("agents/{}".format), FOLDERS.map("agents/{}".format)),
    st.just(lambda files: (files.clear(), files.update(start()))[0]),
    st.builds(
        lambda folder, text: _agent_edit(folder, text),
        FOLDERS,
        st.sampled_from(["agent: {", "agent: {name: a, nam: b}", "a: 1\na: 2\n", "fleet: {}"]),
    ),
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(st.lists(EDITS, min_size=1, max_size=3), min_size=1, max_size=6))
def test_going_on_gives_what_loading_from_nothing_gives(
    walk: list[list[Callable[[Files], None]]],
) -> None:
    files = start()
    loaded = load(tree_of(files))
    compiled = compile_loaded(loaded)
    for edits in walk:
        for edit in edits:
            edit(files)
        before, last = compiled, loaded
        fresh = load(tree_of(files))
        loaded = load(tree_of(files), previous=last)
        assert loaded.findings == fresh.findings
        assert loaded.broken == fresh.broken
        assert loaded.fleet == fresh.fleet
        assert list(loaded.broken) == list(fresh.broken)
        if fresh.fleet is not None and loaded.fleet is not None:
            assert list(loaded.fleet.agents) == list(fresh.fleet.agents)
        compiled = compile_loaded(loaded, previous=before)
        check(compiled, compile_loaded(fresh), before)


def check(compiled: Compiled, fresh: Compiled, before: Compiled) -> None:
    """Compiling incrementally gives the same, and says truly what changed."""
    assert compiled.releases == fresh.releases
    assert list(compiled.releases) == list(fresh.releases)
    assert compiled.sentinels == fresh.sentinels
    assert compiled.broken == fresh.broken
    assert compiled.findings == fresh.findings
    if compiled.fleet is None:
        assert compiled.changed == frozenset()
        return
    old: Compiled | None = before if before.fleet is not None else before.before
    if old is None:
        return
    for name in {*compiled.fleet.agents, *_agents(old), *compiled.broken, *old.broken}:
        same = _view(compiled, name) == _view(old, name)
        assert (name in compiled.changed) != same, name
    for name, config in compiled.fleet.agents.items():
        if name not in compiled.changed:
            assert config == _agents(old)[name]
            assert compiled.releases.get(name) is old.releases.get(name)


def _agents(compiled: Compiled) -> Mapping[AgentName, object]:
    return compiled.fleet.agents if compiled.fleet is not None else {}


def _view(compiled: Compiled, name: AgentName) -> object:
    return _agents(compiled).get(name), compiled.releases.get(name), compiled.broken.get(name)


def test_agents_that_a_change_does_not_reach_keep_their_very_config_and_release() -> None:
    files = start()
    before = compile_loaded(load(tree_of(files)))
    files["shared/brief.md"] = "Be briefer.\n"
    after = compile_loaded(load(tree_of(files), previous=before.loaded), previous=before)
    assert before.fleet is not None
    assert after.fleet is not None
    assert after.changed == {"b", "d"}  # d reaches it through a link
    for name in (AgentName("a"), AgentName("c")):
        assert after.fleet.agents[name] is before.fleet.agents[name]
        assert after.releases[name] is before.releases[name]


def test_nothing_changed_is_the_same_outcome() -> None:
    first = load(tree_of(start()))
    assert load(tree_of(start()), previous=first) is first


def test_taking_the_twin_away_heals_the_one_that_stays() -> None:
    files = start()
    files["agents/new/agent.yaml"] = agent("a", instructions="../a/text.md")
    twins = load(tree_of(files), previous=load(tree_of(start())))
    assert list(twins.broken) == ["a"]
    healed = load(tree_of(start()), previous=twins)
    assert not healed.broken
    assert healed == load(tree_of(start()))


def test_many_claims_are_not_compared_with_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(collisions, "can_meet", lambda one, *_, **__: asked.append(one) or False)
    place = Place("f")
    holders = {
        Holder(
            f"agents/{n}/agent.yaml",
            AgentName(f"a{n}"),
            place,
            (Claim("here", f"services/{n:05}/**", place), Claim("mcp", f"mcp:x/{n:05}", place)),
        )
        for n in range(50_000)
    }
    collisions.updated(collisions.Collisions(), set(), holders)
    assert not asked


def test_claims_that_cannot_all_be_compared_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collisions, "MOST_STEPS", 10)
    place = Place("f")
    holders = {
        Holder(f"agents/{n}/agent.yaml", AgentName(f"a{n}"), place,
               (Claim("here", f"**/{n}", place),))
        for n in range(20)
    }  # fmt: skip
    found = collisions.updated(collisions.Collisions(), set(), holders).findings()
    assert {f.id for some in found.values() for f in some} == {"claims-too-wide"}
