"""What people write who learned about agent loops elsewhere, and how it is written here.

Articles, other tools and language models spell the same few ideas in many ways. Where a spelling
can only mean one thing it is accepted (see the models); for the others this table turns "unknown
key" into the line that is meant. Only the fix of a finding comes from here, never whether there is
one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

Hint = str | Callable[[Any], str]
"""A fix, or what makes one of the value that was written."""

LONGEST = 60


def line(value: Any) -> str:
    """A value on one line as YAML would have it, shortened; for use inside a fix."""
    text = _flow(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _flow(value: Any, depth: int = 0) -> str:
    if depth > 3:
        return "…"
    if isinstance(value, dict):
        items = (f"{key}: {_flow(item, depth + 1)}" for key, item in list(value.items())[:6])
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item, depth + 1) for item in value[:6]) + "]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z0-9_./@*-]{1,60}", value)
        return value if plain else json.dumps(value[:LONGEST], ensure_ascii=False)
    if isinstance(value, bool) or value is None:
        return str(value).lower() if value is not None else "…"
    return str(value)


def _as(template: str) -> Callable[[Any], str]:
    """A fix with the value in place of `<>`."""
    return lambda value: template.replace("<>", line(value))


def _limit(key: str, template: str = "write harness: {{{}}}") -> Callable[[Any], str]:
    def fix(value: Any) -> str:
        written = _duration(value) if key == "max_wall_time" else line(value)
        return template.format(f"{key}: {written}")

    return fix


def _duration(value: Any) -> str:
    """A bare number of seconds is what other tools mean by a time."""
    return f"{value}s" if isinstance(value, int) and not isinstance(value, bool) else line(value)


def _budget(value: Any) -> str:
    """Most often there is one number in it: the dollars of one run."""
    numbers = [value] if _number(value) else []
    if isinstance(value, dict):
        numbers = [item for item in value.values() if _number(item)]
    amount = numbers[0] if len(numbers) == 1 else "…"
    return (
        f"write harness: {{max_cost_per_run: {amount}}} (dollars); "
        "budgets over days and teams stand in gateway/budgets.yaml"
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


_IN_HARNESS = {
    "max_iterations": "max_steps",
    "max_turns": "max_steps",
    "max_loops": "max_steps",
    "iterations": "max_steps",
    "max_rounds": "max_steps",
    "steps": "max_steps",
    "max_cost": "max_cost_per_run",
    "max_cost_usd": "max_cost_per_run",
    "max_usd": "max_cost_per_run",
    "cost_limit": "max_cost_per_run",
    "max_spend": "max_cost_per_run",
    "max_tokens": "max_tokens_per_run",
    "token_budget": "max_tokens_per_run",
    "token_limit": "max_tokens_per_run",
    "timeout": "max_wall_time",
    "timeout_seconds": "max_wall_time",
    "max_time": "max_wall_time",
    "max_duration": "max_wall_time",
    "time_limit": "max_wall_time",
}
"""Other words for limits of a run."""

_BESIDE = "it stands beside agent, not inside it: move it out by one level"
_TEXT_IS = "write instructions: ./file.md, or the text itself under instructions: |"
_PLATFORM = (
    "providers and their keys stand in gateway/models.yaml (key: {env: NAME}); "
    "an agent names a model only"
)
_SERVERS = "addresses stand in gateway/mcp-servers.yaml; an agent names the server only"
_UNTIL = "write harness: {until: {command: …}} or {until: {checker: …}}"
_ROLLOUT = "how changes go live is a rollout policy: rollout: {…}, or the name of one"
_PARAMETER = "model parameters stand under parameters: {"
_APPROVALS = "write approvals: [server.tool]"


def _agent_keys() -> dict[str, Hint]:
    return {
        **{key: _limit(to) for key, to in _IN_HARNESS.items()},
        **dict.fromkeys(("prompt", "system_prompt", "system", "instruction", "task"), _TEXT_IS),
        **dict.fromkeys(("goal", "backstory", "persona", "objective", "goals"), _TEXT_IS),
        **dict.fromkeys(("budget", "budgets", "cost", "spend"), _budget),
        **dict.fromkeys(("provider", "api_key", "base_url", "endpoint", "llm"), _PLATFORM),
        **dict.fromkeys(("until", "stop", "stop_when", "done_when", "exit_when"), _UNTIL),
        **dict.fromkeys(("stop_condition", "stop_conditions", "exit_condition"), _UNTIL),
        **dict.fromkeys(("canary", "gate", "gates", "deploy", "deployment"), _ROLLOUT),
        **dict.fromkeys(
            ("human_in_the_loop", "approval", "require_approval", "requires_approval", "confirm"),
            _APPROVALS,
        ),
        **dict.fromkeys(("mcp", "mcpServers", "servers", "tool_servers"), "write mcp_servers: […]"),
        **dict.fromkeys(("sub_agents", "subAgents", "agents", "workers"), "write subagents: […]"),
        **dict.fromkeys(
            ("guardrails", "guardrail"),
            "guardrails stand in gateway/guardrails.yaml and name their agents by a glob",
        ),
        **dict.fromkeys(
            ("env", "environment", "secrets", "credentials"),
            "nothing secret enters a run; a server or provider names its key in gateway/",
        ),
        **dict.fromkeys(
            ("limits", "limit", "loop", "constraints"),
            "write harness: {max_steps: …, max_cost_per_run: …, max_wall_time: …}",
        ),
        **dict.fromkeys(("owner", "owners"), _as("write team: <>, a team of teams.yaml")),
        **dict.fromkeys(
            ("trigger", "evals", "triggers", "eval"),
            _BESIDE,
        ),
        **dict.fromkeys(
            ("schedule", "cron"), _as("write trigger: {schedule: <>} beside agent, not inside it")
        ),
        "temperature": _as(_PARAMETER + "temperature: <>}"),
        "top_p": _as(_PARAMETER + "top_p: <>}"),
        "reasoning_effort": _as(_PARAMETER + "reasoning_effort: <>}"),
        "permissions": "write mcp_servers with the tools that are granted",
        "allowed_tools": "write mcp_servers: [{name: …, tools: […]}]; built-in ones under tools",
        "memory": "what a run should know next time it notes itself: tools: [note, …]",
        "image": _as("write sandbox: {image: <>}"),
        "workspace": _as("write sandbox: {workspace: <>}"),
        "repo": _as("write sandbox: {workspace: {git: <>}}"),
        "repository": _as("write sandbox: {workspace: {git: <>}}"),
        "version": "remove it: a text's version stands in its own front matter, as version: 1",
        "id": _as("write name: <>"),
    }


_TOP_KEYS: dict[str, Hint] = {
    **dict.fromkeys(
        ("schedule", "cron"), lambda value: f"write trigger: {{schedule: {line(value)}}}"
    ),
    "triggers": "write trigger: and one of them; each agent has one",
    "on": "write trigger: {event: …}",
    "suite": "write evals: and the path of the file that says suite:",
    "eval": "write evals: and the path of the suite",
    **dict.fromkeys(
        ("apiVersion", "kind", "metadata", "spec", "version"),
        "remove it: the key agent says what the file is",
    ),
    **dict.fromkeys(
        ("name", "model", "instructions", "team", "harness", "tools", "skills", "subagents",
         "mcp_servers", "approvals", "sandbox", "owns", "rollout", "safety"),
        "move it under agent:",
    ),
}  # fmt: skip

_KEYS: Mapping[str, Mapping[str, Hint]] = {
    "Agent": _agent_keys(),
    "AgentFile": _TOP_KEYS,
    "Subagent": {
        **_agent_keys(),
        "approvals": "approvals are the agent's: move them up by one level",
        "subagents": "sub-agents are one level deep: list it beside this one",
        "trigger": "a sub-agent is started by the agent: remove it",
        **dict.fromkeys(("type", "kind"), "write role: maker or role: checker"),
    },
    "AgentHarness": {
        **{key: _limit(to, "write {}") for key, to in _IN_HARNESS.items()},
    },
    "Trigger": {
        "type": "remove it: the key schedule, event, webhook, after, api or manual says the kind",
        "kind": "remove it: the key schedule, event, webhook, after, api or manual says the kind",
        "every": 'write schedule: and a cron expression, such as "*/30 * * * *"',
        "interval": 'write schedule: and a cron expression, such as "*/30 * * * *"',
        "on": _as("write event: <>"),
        "tz": _as("write timezone: <>"),
    },
    "ServerGrant": {
        **dict.fromkeys(("url", "command", "transport", "key", "headers", "env"), _SERVERS),
        "allow": _as("write tools: <>"),
        "allowed_tools": _as("write tools: <>"),
        "server": _as("write name: <>"),
    },
    "Until": {
        "judge": "a judge's word ends no run: write checker: and the name of a sub-agent",
        "test": _as("write command: <>"),
        "tests": _as("write command: <>"),
        "max_steps": "it is a limit: move it up by one level",
    },
    "Server": {
        **dict.fromkeys(("token", "api_key", "auth"), "write key: {env: NAME}"),
        "args": "write them into command: [program, argument, …]",
        "transport": "remove it: url says Streamable HTTP, command standard input and output",
        "headers": "write key: {env: NAME}, and header: where it is not Authorization",
        "max_result_bytes": "write max_result: and a size, such as 64k",
    },
    "OAuth": {
        "grant_type": "remove it: refresh_token or per_user says which; else client credentials",
        **dict.fromkeys(("scope",), _as("write scopes: [<>]")),
        **dict.fromkeys(
            ("authorization_url", "redirect_uri"),
            "remove it: `interlock token delegate` takes a refresh token that the person got",
        ),
    },
    "Provider": {
        **dict.fromkeys(("token", "api_key", "auth"), "write key: {env: NAME}"),
        "tape": "write cassette: and the path of the file",
        **dict.fromkeys(("deployment", "azure_deployment"), "it is the id of a model"),
    },
    "VirtualModel": {
        "weights": "write routing: weight and targets: [{model: …, weight: …}]",
        "parameters": "write targets: [{model: …, parameters: {…}}]",
        "fallbacks": "write targets: and the models in order; the next one is the fallback",
        **dict.fromkeys(("strategy", "mode"), _as("write routing: <>")),
        "first_token_ms": "write first_token: and a duration, such as 3s",
    },
    "Retry": {
        "backoff_ms": "write backoff: and a duration, such as 250ms",
        "max_backoff_ms": "write max_backoff: and a duration, such as 8s",
        **dict.fromkeys(("max_attempts", "count", "retries"), _as("write attempts: <>")),
    },
    "Cache": {
        "tool": "remove it: a tool's answer is never kept; only calls of models are",
        "ttl_ms": "write ttl: and a duration, such as 10m",
    },
    "Principal": {
        **dict.fromkeys(("token", "key", "password"), "remove it: `interlock token new` makes one"),
        "tools": "write servers: [{name: …, tools: […]}]",
        "mcp_servers": _as("write servers: <>"),
        **dict.fromkeys(
            ("budget", "budgets"), "write a budget with agent: user:NAME in gateway/budgets.yaml"
        ),
    },
    "PrincipalLimits": dict.fromkeys(
        ("max_cost_per_day", "max_cost", "requests", "tokens", "max_cost_per_run"),
        "write a budget with agent: user:NAME or service:NAME in gateway/budgets.yaml",
    ),
    "Budget": {
        **dict.fromkeys(("amount", "max_usd", "usd"), _as("write limit: <> (dollars)")),
        "period": _as("write window: <>"),
    },
}


def unknown_key(models: Iterable[str], key: str, value: Any) -> str:
    """How an unknown key of one of the models is written here; "" when nothing is known."""
    for model in models:
        hint = _KEYS.get(model, {}).get(key)
        if hint is not None:
            return hint if isinstance(hint, str) else hint(value)
    return ""


def _model(value: Any) -> str:
    name = value.get("name") or value.get("id") if isinstance(value, dict) else None
    return f"write model: {line(name or '…')}; temperature and the like go under parameters"


def _skill(value: Any) -> str:
    if not isinstance(value, dict) or "name" not in value:
        return "write the skill's name"
    version = str(value.get("version", "")).removeprefix("v")
    return f"write {line(value['name'])}" + (f"@v{version}" if version.isdigit() else "")


def _subagents(value: Any) -> str:
    names = list(value) if isinstance(value, dict) else []
    first = f"{{name: {line(names[0])}, …}}" if names else "{name: …}"
    return f"write a list: subagents: [{first}]"


def _servers(value: Any) -> str:
    names = list(value)[:4] if isinstance(value, dict) else []
    return f"write mcp_servers: [{', '.join(map(line, names)) or '…'}]; {_SERVERS}"


def _file(value: Any) -> str:
    path = next(iter(value.values()), None) if isinstance(value, dict) and value else None
    return f"write instructions: {line(path if isinstance(path, str) else './file.md')}"


_TYPES: Mapping[tuple[str, str], Hint] = {
    ("AgentFile", "agent"): _as("write agent: {name: <>, …}, and the other keys under it"),
    ("AgentFile", "trigger"): "write one trigger, such as {schedule: …} or manual",
    ("AgentFile", "evals"): "write evals: and the path of the suite's file",
    ("Agent", "model"): _model,
    ("Subagent", "model"): _model,
    ("Agent", "instructions"): _file,
    ("Subagent", "instructions"): _file,
    ("Agent", "harness"): "write harness: {max_steps: …, max_cost_per_run: …, until: …}",
    ("Agent", "skills"): _skill,
    ("Subagent", "skills"): _skill,
    ("Agent", "subagents"): _subagents,
    ("Agent", "mcp_servers"): _servers,
    ("Subagent", "mcp_servers"): _servers,
    ("Agent", "approvals"): _APPROVALS,
    ("Agent", "sandbox"): "write sandbox: {image: …}",
    ("Harness", "until"): _UNTIL,
    ("AgentHarness", "until"): _UNTIL,
    ("Agent", "team"): "write the name of one team of teams.yaml",
    ("Server", "env"): "write NAME: {env: OTHER_NAME} or {file: PATH}, never the value itself",
    ("Server", "command"): "write command: [program, argument, …]",
    ("Server", "key"): "write key: {env: NAME} or {file: PATH}, never the key itself",
    ("Provider", "key"): "write key: {env: NAME} or {file: PATH}, never the key itself",
    ("OAuth", "client_secret"): "write {env: NAME} or {file: PATH}, never the secret itself",
    ("OAuth", "refresh_token"): "write {env: NAME} or {file: PATH}, never the token itself",
}


def wrong_type(models: Iterable[str], key: str, value: Any) -> str:
    """How a value of the wrong shape is written here; "" when nothing is known."""
    for model in models:
        hint = _TYPES.get((model, key))
        if hint is not None:
            return hint if isinstance(hint, str) else hint(value)
    return ""


_BUILTIN = {
    "bash": "shell", "terminal": "shell", "exec": "shell", "run_command": "shell",
    "read": "read_file", "write": "write_file", "edit": "edit_file", "multiedit": "edit_file",
    "glob": "list_files", "ls": "list_files", "grep": "shell", "task": "delegate",
    "skill": "load_skill", "memory": "note",
}  # fmt: skip
"""Other tools' names of what the runner brings."""
_CHECKERS = frozenset({"reviewer", "critic", "judge", "verifier", "evaluator", "validator"})


def wrong_word(models: Iterable[str], key: str, value: Any) -> str:
    """What was meant by a word that is not among those allowed; "" when nothing is known."""
    if not isinstance(value, str) or not {"Agent", "Subagent", "Defaults"} & set(models):
        return ""
    if key == "tools" and "." in value:
        server, _, tool = value.partition(".")
        return f"tools of servers are granted by mcp_servers: [{{name: {server}, tools: [{tool}]}}]"
    if key == "tools" and value.lower() in _BUILTIN:
        return f"write {_BUILTIN[value.lower()]}"
    if key == "role":
        return f"write role: {'checker' if value.lower() in _CHECKERS else 'maker'}"
    if key == "approvals":
        return (
            "write pause_for_human, or leave it out; "
            "an approval that the fleet or the team requires stays"
        )
    return ""


def for_document(data: Any) -> str:
    """What a file means that is none of ours: Kubernetes' form, several agents, no `agent:`."""
    if not isinstance(data, dict):
        return ""
    if "spec" in data or "apiVersion" in data:
        return (
            "write agent: and move what stands under spec there, with metadata.name as its name; "
            "trigger and evals stand beside agent"
        )
    if "agents" in data:
        return "one file for each agent: agents/<name>/agent.yaml, with agent: at its top"
    if "name" in data and {"model", "instructions", "prompt", "tools"} & set(data):
        return "put these keys under agent: (trigger and evals beside it)"
    first = next(iter(data.values()), None)
    if isinstance(first, dict) and {"role", "goal", "backstory"} & set(first):
        return "write agent: {name: …, instructions: …}; role, goal and backstory are instructions"
    return ""
