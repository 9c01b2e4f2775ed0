"""The tables of docs/config-language.md, made from the models, so that they cannot be wrong.

A test compares the page with `tables()`; `python -m reconciler.config.reference FILE` puts the
current tables into a page, between its two markers.
"""

from __future__ import annotations

import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from reconciler.config.models import agent, evals, fields, fleet, platform

BEGIN = "<!-- tables: made by python -m reconciler.config.reference -->"
END = "<!-- end of tables -->"

ROOTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("interlock.yaml", fleet.FleetFile),
    ("teams.yaml", fleet.TeamsFile),
    ("interlock.lock", fleet.LockFile),
    ("gateway/models.yaml", platform.ModelsFile),
    ("gateway/mcp-servers.yaml", platform.ServersFile),
    ("gateway/budgets.yaml", platform.BudgetsFile),
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
    (fields.ServerName, "name"),
    (fields.ToolName, "tool"),
    (fields.Line, "line"),
    (fields.Reference, "path"),
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


def tables() -> str:
    """One table for each document and for each mapping inside one, in reading order."""
    parts: list[str] = []
    seen: set[type[BaseModel]] = set()
    for title, root in ROOTS:
        parts.append(f"### {title}\n\n{_table(root)}")
        for model in _below(root):
            if model in seen or model.__module__ == "gateway.policy":
                continue
            seen.add(model)
            text = " ".join((model.__doc__ or "").split())
            parts.append(f"#### {anchor(model)}\n\n{text}\n\n{_table(model)}")
    return "\n\n".join(parts) + "\n"


def anchor(model: type[BaseModel]) -> str:
    """A model's name in the tables: `AgentHarness` is `agent harness`."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", model.__name__).lower()


def replaced(page: str) -> str:
    """The page with current tables between its markers. ValueError without markers."""
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


def _table(model: type[BaseModel]) -> str:
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    hints = typing.get_type_hints(model, include_extras=True)
    for name, field in model.model_fields.items():
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        value = describe(hints[name])
        rows.append(f"| `{field.alias or name}` | {value} | {_default(field)} | {meaning} |")
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
    return model.__module__ != "gateway.policy"


def _default(field: Any) -> str:
    if field.is_required():
        return "**required**"
    value = field.default
    if value is PydanticUndefined or value is None or isinstance(value, BaseModel):
        return ""
    if value in ([], {}):
        return "none"
    return f"`{_written(field, value)}`"


def _written(field: Any, value: Any) -> str:
    """A default as a person would write it: kept forms (thousandths, milliseconds) undone."""
    name = str(field.description)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and ("ratio" in name or "Margin" in name):
        return f"{value / 1000:g}"
    if isinstance(value, int) and value % 86_400_000 == 0 and value > 0:
        return f"{value // 86_400_000}d"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {v}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(str(item) for item in value) + "]"
    return str(value)


def _below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Models inside a model, depth first, each as often as it is met."""
    for hint in typing.get_type_hints(model, include_extras=True).values():
        for found in _models(hint):
            yield found
            yield from _below(found)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation] if _ours(annotation) else []
    return [m for arg in typing.get_args(annotation) for m in _models(arg)]


def main(arguments: list[str]) -> int:
    """Put the tables into the pages named."""
    for argument in arguments:
        page = Path(argument)
        page.write_text(replaced(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
