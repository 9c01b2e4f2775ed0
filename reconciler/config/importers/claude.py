"""A Claude Code agent (`.claude/agents/<name>.md`) as a loop: pure, text in and text out.

The front matter it may have is told at https://code.claude.com/docs/en/sub-agents. Its
description says when another agent should call it; here a trigger says when it runs, so the
description is kept for people.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.config.importers.front_matter import Page, read_page, words
from reconciler.config.importers.tools import ALL, BUILT_IN, NO_COUNTERPART, mcp_name, split_rule
from reconciler.config.models.agent import BUILTIN_TOOLS
from reconciler.config.scaffold import Draft, Grant
from reconciler.findings import did_you_mean, printable, quoted

KEYS = (
    "name", "description", "tools", "disallowedTools", "disallowed-tools", "allowed-tools",
    "model", "color", "permissionMode", "maxTurns", "skills", "mcpServers", "hooks", "memory",
    "background", "isolation", "effort", "initialPrompt", "version", "tags", "category", "license",
    "metadata", "author",
)  # fmt: skip
"""Keys of front matter that end an unquoted text before them."""

_HARMLESS = frozenset({"color", "tags", "category", "author", "license", "metadata", "version"})
_ELSEWHERE: Mapping[str, str] = {
    "hooks": "a loop runs no commands of its own on the host: see guardrails and `safety:`",
    "memory": "what the next run must know goes into `note`",
    "background": "every run is in the background",
    "isolation": "every run has a workspace of its own",
    "effort": "a model parameter: `parameters:`, if the model has one",
    "initialPrompt": "a loop is started by its trigger; say it in the instructions",
    "maxTurns": "`harness: {max_steps: …}` counts model and tool calls; the fleet's limit holds",
    "permissionMode": "what a loop may do is what is granted; `approvals:` makes a call wait",
}
_DEFAULT_TOOLS = tuple(name for name in BUILTIN_TOOLS if name != "delegate")
_PLAN_MODE = ("read_file", "list_files", "load_skill", "note", "finish")


@dataclass(frozen=True, slots=True)
class Known:
    """What the config repo declares, as far as an agent may name it."""

    models: tuple[str, ...] = ()
    servers: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    """Server → its tools → whether the tool is destructive."""
    skills: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Brought:
    """A loop that was made of an agent file, and what the person must know about it."""

    draft: Draft
    instructions: str
    called: str
    """What the agent is called where it comes from; the file's name where it does not say."""
    brought: tuple[str, ...]
    """What was granted, in words."""
    left: tuple[str, ...]
    """What could not be brought over, each with the reason."""


class _Ledger:
    """What is granted and what is left behind, while the tools are gone through."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.tools: list[str] = []
        self.grants: dict[str, list[str]] = {}
        self.left: list[str] = []

    def take(self, word: str) -> None:
        name, inside = split_rule(word)
        mcp = mcp_name(name)
        if mcp is not None:
            self._take_mcp(name, *mcp)
        elif name.lower() in NO_COUNTERPART:
            self.left.append(f"{_shown(word)}: {NO_COUNTERPART[name.lower()]}")
        elif name in BUILTIN_TOOLS or name.lower() in BUILT_IN:
            tools = BUILT_IN.get(name.lower(), (name,))
            if inside is not None:
                wide = " and ".join(tools)
                reason = f"{wide} cannot be limited to that; grant all of it with `tools:`"
                self.left.append(f"{_shown(word)}: {reason}, or leave it")
            else:
                self.tools += tools
        else:
            self.left.append(f"{_shown(word)}: no tool of that name is known here")

    def refuse(self, word: str) -> None:
        """Take back what `disallowedTools` names of a server."""
        server, tool = mcp_name(word) or ("", None)
        kept = [name for name in self.grants.pop(server, []) if tool not in (None, name)]
        if kept:
            self.grants[server] = kept

    def _take_mcp(self, word: str, server: str, tool: str | None) -> None:
        tools = self.known.servers.get(server)
        if tools is None:
            near = did_you_mean(server, list(self.known.servers)) or "declare and classify it there"
            where = f"server {quoted(server)} is not in gateway/mcp-servers.yaml"
            self.left.append(f"{_shown(word)}: {where}; {near}")
        elif tool is None:
            # One by one: a tool that the server gets later is not granted by this import.
            for each, destructive in tools.items():
                if not destructive:
                    self._take_mcp(f"mcp__{server}__{each}", server, each)
        elif tool not in tools:
            near = did_you_mean(tool, list(tools)) or "classify it in gateway/mcp-servers.yaml"
            self.left.append(
                f"{_shown(word)}: server {quoted(server)} declares no tool {quoted(tool)}; {near}"
            )
        elif tools[tool]:
            self.left.append(f"{_shown(word)}: it is destructive; name it yourself if it is meant")
        else:
            self.grants.setdefault(server, []).append(tool)


def brought_agent(text: str, *, stem: str, name: str, known: Known, source: str) -> Brought:
    """The loop that an agent file becomes, called `name`; the caller adds team and limits.

    `text` has `\\n` line ends, `stem` is the file's name without its ending. Never raises.
    """
    page = read_page(text, KEYS)
    header = page.header or {}
    ledger = _Ledger(known)
    tools = _tools(header, ledger)
    skills = _skills(header, ledger)
    model = _model(header, ledger)
    _others(header, page, ledger)
    called = str(header.get("name") or stem)
    body = page.body if page.body.strip() else str(header.get("description") or "")
    if page.header is not None and not page.body.strip():
        ledger.left.append("it has no instructions; its description stands in for them")
    grants = tuple(
        Grant(server, tuple(dict.fromkeys(names))) for server, names in ledger.grants.items()
    )
    left = tuple(dict.fromkeys(printable(" ".join(line.split())) for line in ledger.left))
    draft = Draft(
        name,
        model=model,
        skills=skills,
        servers=grants,
        tools=tools,
        notes=_comments(source, left),
    )
    return Brought(draft, _instructions(header, body), called, _granted(draft), left)


def _tools(header: Mapping[str, Any], ledger: _Ledger) -> tuple[str, ...] | None:
    """Built-in tools, or None for the usual ones: there a list left out means everything."""
    key = next((k for k in ("tools", "allowed-tools") if k in header), None)
    asked = words(header[key]) if key else []
    everything = key is None or header[key] is None or any(w.lower() in ALL for w in asked)
    if not everything:
        for word in asked:
            ledger.take(word)
    refused = [w for k in ("disallowedTools", "disallowed-tools") for w in words(header.get(k))]
    denied = {
        tool
        for word in refused
        for tool in BUILT_IN.get(word.lower(), (word,))
        if word.lower() != "grep"  # without it files can be read all the same
    }
    if everything and ledger.known.servers:
        ledger.left.append(
            "it may use every tool where it comes from; external ones are granted one by one here"
        )
    for server in words(header.get("mcpServers")) if everything else ():
        ledger.take(f"mcp__{server}")
    for word in refused:
        ledger.refuse(word)
    chosen = _DEFAULT_TOOLS if everything else (*ledger.tools, "finish")
    if str(header.get("permissionMode")) == "plan":
        ledger.left.append("permissionMode: plan: built-in tools that only read were granted")
        chosen = tuple(tool for tool in chosen if tool in _PLAN_MODE)
    if everything and not denied and chosen == _DEFAULT_TOOLS:
        return None
    if words(header.get("skills")):
        chosen = (*chosen, "load_skill")
    return tuple(tool for tool in BUILTIN_TOOLS if tool in chosen and tool not in denied)


def _skills(header: Mapping[str, Any], ledger: _Ledger) -> tuple[str, ...]:
    names = [word.rpartition(":")[2] for word in words(header.get("skills"))]
    found = [name for name in dict.fromkeys(names) if name in ledger.known.skills]
    for name in dict.fromkeys(names):
        if name not in ledger.known.skills:
            near = did_you_mean(name, sorted(ledger.known.skills)) or "import it, then list it"
            ledger.left.append(f"skill {_shown(name)}: there is no skills/{_shown(name)}; {near}")
    return tuple(found)


def _model(header: Mapping[str, Any], ledger: _Ledger) -> str | None:
    asked = str(header.get("model") or "").strip()
    if not asked or asked == "inherit":
        return None
    if asked in ledger.known.models:
        return asked
    ledger.left.append(
        f"model {_shown(asked)}: gateway/models.yaml has no such name, so it gets the fleet's"
        " default; define it there, or say `model:`"
    )
    return None


def _others(header: Mapping[str, Any], page: Page, ledger: _Ledger) -> None:
    if page.header is None:
        ledger.left.append("it has no front matter: named after its file, and given no more")
    if page.guessed:
        ledger.left.append("its front matter is no valid YAML; it was read line by line: compare")
    for key, reason in _ELSEWHERE.items():
        if header.get(key) not in (None, "", False, [], {}, "plan"):
            value = header[key]
            shown = f"{key}: {value}" if isinstance(value, str | int) else key
            ledger.left.append(f"{_shown(shown)}: {reason}")
    silent = {*_HARMLESS, *_ELSEWHERE, *KEYS}
    for key in header:
        if key not in silent:
            ledger.left.append(f"{_shown(str(key))}: not a key that means anything here")


def _instructions(header: Mapping[str, Any], body: str) -> str:
    """The text with the description above it, as a quoted line (JSON is YAML)."""
    text = body if body.endswith("\n") else f"{body}\n"
    description = header.get("description")
    if not description:
        return text
    return f"---\ndescription: {json.dumps(str(description), ensure_ascii=False)}\n---\n{text}"


def _granted(draft: Draft) -> tuple[str, ...]:
    usual = f"{_and(_DEFAULT_TOOLS)} (it named none: all)"
    said = ["built-in tools: " + (usual if draft.tools is None else _and(draft.tools))]
    said += [f"{grant.server}: {_and(grant.tools or ())}" for grant in draft.servers]
    if draft.skills:
        said.append("skills: " + _and(draft.skills))
    return tuple(said)


def _and(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _comments(source: str, left: Sequence[str]) -> tuple[str, ...]:
    head = f"Imported from {printable(source)}."
    if not left:
        return (head,)
    return (head, "Not brought over:", *[f"- {line}" for line in left])


def _shown(text: str) -> str:
    shown = printable(" ".join(text.split()))
    return shown if len(shown) <= 80 else shown[:79] + "…"
