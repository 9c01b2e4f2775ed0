"""What a built-in tool is, and what it may use.

A tool is a file in this folder that registers itself. Tools run on the trusted side; whatever they
do to files or processes happens in the run's sandbox, through the room they are given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from gateway.values import Label
from runner.journal import Attempt, Kind, Outcome, Status
from runner.sandbox.contract import Sandbox
from runner.spec import Role

T = TypeVar("T")

OBSERVED = Label()
"""Whatever comes out of a sandbox is untrusted and internal."""

MAX_RESULT_CHARS = 16_000
"""Longer results keep their beginning and end; the model can ask for a part of a file."""


class Room(Protocol):
    """Gives the run's sandbox to an action, and again on a rebuilt one if it was lost."""

    async def use(self, act: Callable[[Sandbox], Awaitable[T]]) -> T: ...


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may use while it runs."""

    role: Role
    room: Room
    exec_timeout_ms: int


Run = Callable[[ToolContext, Mapping[str, Any], Attempt], Awaitable[Outcome]]
Prepare = Callable[[ToolContext, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Tool:
    """One built-in tool. `run` is None for those the harness itself carries out."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON schema of the arguments."""
    kind: Kind
    reads_only: bool = False
    """True: a checker may have it."""
    run: Run | None = None
    prepare: Prepare | None = None
    """Looks at the world before the intent is written; what it returns is journaled with it."""

    def schema(self) -> dict[str, Any]:
        """As offered to the model, in the Chat Completions dialect."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": dict(self.parameters),
            },
        }


REGISTRY: dict[str, Tool] = {}


def register(tool: Tool) -> Tool:
    """Add a tool under its name; twice the same name is a mistake of ours."""
    if tool.name in REGISTRY:
        raise ValueError(f"tool {tool.name} is registered twice")
    REGISTRY[tool.name] = tool
    return tool


def shape(required: Mapping[str, str], optional: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A JSON schema of string arguments: name → description. No other names are allowed."""
    properties = {**required, **(optional or {})}
    return {
        "type": "object",
        "properties": {n: {"type": "string", "description": d} for n, d in properties.items()},
        "required": list(required),
        "additionalProperties": False,
    }


_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "boolean": bool,
    "array": list,
    "object": dict,
}


def misfit(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Why the arguments do not fit the schema, for the model to read; "" when they do."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in arguments:
            return f"argument {name!r} is missing; expected {', '.join(properties)}"
    for name, value in arguments.items():
        if name not in properties:
            return f"there is no argument {name!r}; expected {', '.join(properties) or 'none'}"
        wanted = properties[name].get("type", "string")
        if not isinstance(value, _TYPES[wanted]) or (wanted == "integer" and value is True):
            return f"argument {name!r} must be of type {wanted}"
        allowed = properties[name].get("enum")
        if allowed and value not in allowed:
            return f"argument {name!r} must be one of {', '.join(allowed)}"
    return ""


def result(text: str, *, error: bool = False, label: Label = OBSERVED, **extra: Any) -> Outcome:
    """The outcome of a tool: the text the model reads, shortened in the middle if need be."""
    if error and not text.startswith(("error", "exit")):
        text = f"error: {text}"
    return Outcome(
        body={"result": shorten(text), **extra},
        status=Status.ERROR if error else Status.OK,
        label=label,
    )


def shorten(text: str, limit: int = MAX_RESULT_CHARS) -> str:
    """At most about `limit` characters: the beginning and the end, and how much is left out."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"
