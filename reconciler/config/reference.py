"""How the models read in words: what documents there are, and a table of the keys of each mapping.

The pages of docs/language are put together from these (`reconciler.config.pages`), so that they
cannot say anything but what the models say.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from reconciler.config.models import (
    agent,
    evals,
    fields,
    fleet,
    platform,
    principals,
    rules,
    servers,
)

ROOTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("interlock.yaml", fleet.FleetFile),
    ("teams.yaml", fleet.TeamsFile),
    ("interlock.lock", fleet.LockFile),
    ("gateway/models.yaml", platform.ModelsFile),
    ("gateway/mcp-servers.yaml", servers.ServersFile),
    ("gateway/budgets.yaml", platform.BudgetsFile),
    ("gateway/rate-limits.yaml", rules.RateLimitsFile),
    ("gateway/guardrails.yaml", rules.GuardrailsFile),
    ("gateway/caches.yaml", rules.CachesFile),
    ("gateway/principals.yaml", principals.PrincipalsFile),
    ("a script, such as gateway/scripts/name.yaml", platform.ScriptFile),
    ("agents/name/agent.yaml", agent.AgentFile),
    ("front matter of instructions and sub-agents", agent.TextHeader),
    ("front matter of skills/name/SKILL.md", agent.SkillHeader),
    ("evals/suite.yaml", evals.SuiteFile),
    ("evals/cases/id.yaml", evals.CaseFile),
    ("a file of recorded results", evals.RecordedFile),
    ("evals/sentinels/id.yaml", evals.SentinelFile),
)

_WORDS: tuple[tuple[Any, str], ...] = (
    (fields.Name, "name"),
    (fields.Label, "name"),
    (fields.Login, "name"),
    (fields.ServerName, "name"),
    (fields.ToolName, "tool"),
    (fields.Line, "line"),
    (fields.Reference, "path"),
    (fields.Instructions, "path or text"),
    (fields.Regex, "regular expression"),
    (fields.Duration, "duration"),
    (fields.Size, "size"),
    (fields.Usd, "dollars"),
    (fields.UsdPerMillion, "dollars per million tokens"),
    (fields.Cpus, "CPUs"),
    (fields.Share, "share"),
    (fields.Ratio, "ratio"),
    (fields.Count, "count"),
    (fields.Parameter, "text or number"),
    (fleet.Branch, "branch"),
    (platform.Url, "address"),
    (str, "text"),
    (int, "whole number"),
    (bool, "true or false"),
    (Any, "anything"),
)


def anchor(model: type[BaseModel]) -> str:
    """A model's name in the tables: `AgentHarness` is `agent harness`."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", model.__name__).lower()


def table(model: type[BaseModel]) -> str:
    """The keys of a mapping, one a row: how each is written, what holds without it, its meaning."""
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    hints = typing.get_type_hints(model, include_extras=True)
    for name, field in model.model_fields.items():
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        value = describe(hints[name])
        rows.append(f"| `{field.alias or name}` | {value} | {_default(field, value)} | {meaning} |")
    return "\n".join(rows)


def describe(annotation: Any) -> str:
    """A type in the words of the page."""
    for known, word in _WORDS:
        if annotation is known or annotation == known:
            return word
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return describe(args[0])
    if origin in (typing.Union, types.UnionType):
        words = dict.fromkeys(describe(arg) for arg in args if arg is not type(None))
        return " or ".join(words)
    if origin in (list, tuple):
        return f"list of {describe(args[0])}"
    if origin is dict:
        return f"map of {describe(args[0])} to {describe(args[1])}"
    if origin is typing.Literal:
        return ", ".join(f"`{arg}`" for arg in args)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        name = anchor(annotation)
        return f"[{name}](#{name.replace(' ', '-')})" if _ours(annotation) else name
    return str(getattr(annotation, "__name__", annotation))


def _ours(model: type[BaseModel]) -> bool:
    return not model.__module__.startswith("gateway.")


def _default(field: Any, word: str) -> str:
    if field.is_required():
        return "**required**"
    value = field.default
    if value is PydanticUndefined or value is None or isinstance(value, BaseModel):
        return ""
    if value in ([], {}):
        return "none"
    if word == "duration":
        return f"`{fields.written_duration(value)}`"
    return f"`{fields.written_size(value) if word == 'size' else _written(field, value)}`"


def _written(field: Any, value: Any) -> str:
    """A default as a person would write it: thousandths undone."""
    name = str(field.description)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and ("ratio" in name or "Margin" in name):
        return f"{value / 1000:g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {v}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(str(item) for item in value) + "]"
    return str(value)


def models_below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Models inside a model, depth first, each as often as it is met."""
    for hint in typing.get_type_hints(model, include_extras=True).values():
        for found in _models(hint):
            yield found
            yield from models_below(found)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation] if _ours(annotation) else []
    return [m for arg in typing.get_args(annotation) for m in _models(arg)]
