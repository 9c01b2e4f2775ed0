"""An agent.yaml as text: what a person would have written, comments included."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_NOT_TEXT = frozenset({"true", "false", "null"})


@dataclass(frozen=True, slots=True)
class Grant:
    """Tools of one server; `tools` None grants its classified tools but the destructive ones."""

    server: str
    tools: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """What an agent.yaml is to say. None leaves a key out: the value is inherited."""

    name: str
    team: str | None = None
    model: str | None = None
    skills: tuple[str, ...] = ()
    servers: tuple[Grant, ...] = ()
    tools: tuple[str, ...] | None = None
    max_cost: str | None = None
    """Dollars a run, as written."""
    rollout: str | None = None
    """Name of a policy; `""` writes one without a gate in place."""
    schedule: str | None = None
    """Cron expression; None: only when somebody asks."""
    timezone: str = "UTC"
    notes: tuple[str, ...] = field(default=())
    """Lines of comment at the head of the file."""


def agent_yaml(draft: Draft) -> str:
    """The file's text."""
    lines = [f"# {note}".rstrip() for note in draft.notes]
    lines += ["agent:", f"  name: {scalar(draft.name)}"]
    if draft.team is not None:
        lines.append(f"  team: {scalar(draft.team)}")
    if draft.model is not None:
        lines.append(f"  model: {scalar(draft.model)}")
    lines.append(f"  instructions: ./{draft.name}.md")
    lines.append(f"  skills: {_list(draft.skills)}")
    lines += _servers(draft.servers)
    if draft.tools is not None:
        lines.append(f"  tools: {_list(draft.tools)}")
    if draft.max_cost is not None:
        lines.append(f"  harness: {{max_cost_per_run: {draft.max_cost}}}      # dollars")
    if draft.rollout == "":
        lines.append("  rollout: {gate: none}              # goes live on merge: no suite yet")
    elif draft.rollout is not None:
        lines.append(f"  rollout: {scalar(draft.rollout)}")
    return "\n".join([*lines, _trigger(draft), _EVALS]) + "\n"


_EVALS = "# evals: ./evals/suite.yaml         # a gate needs at least 20 cases"


def _trigger(draft: Draft) -> str:
    if draft.schedule is None:
        return 'trigger: manual                     # or {schedule: "0 6 * * 1-5", timezone: UTC}'
    zone = scalar(draft.timezone)
    return f"trigger: {{schedule: {json.dumps(draft.schedule)}, timezone: {zone}}}"


def _servers(grants: tuple[Grant, ...]) -> list[str]:
    if not grants:
        return ["  mcp_servers: []                    # no external tools"]
    lines = ["  mcp_servers:"]
    for grant in grants:
        if grant.tools is None:
            lines.append(f"    - {scalar(grant.server)}")
        else:
            tools = _list(grant.tools)
            lines.append(f"    - {{name: {scalar(grant.server)}, tools: {tools}}}")
    return lines


def _list(items: tuple[str, ...]) -> str:
    return f"[{', '.join(scalar(item) for item in items)}]"


def scalar(text: str) -> str:
    """A string in YAML: bare where nothing else could be meant, else quoted (JSON is YAML)."""
    if _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    return json.dumps(text, ensure_ascii=False)
