"""One request and one answer, in no provider's dialect: what dialects and providers meet in.

A dialect reads a client's JSON into a `ModelRequest` and writes `Event`s or a `Reply` back; a
provider turns a `ModelRequest` into `Event`s. Two dialects and three kinds of provider need five
translations this way, not six pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gateway.pricing import Usage


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text of either side."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """A picture: an https address, or a `data:<type>;base64,<data>` address."""

    url: str


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The model asks for a tool. `arguments` is the JSON text exactly as it came."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """An observation: what the tool with this id answered."""

    id: str
    text: str
    error: bool = False


Part = Text | Image | ToolUse | ToolResult


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. Tool results are parts of a `user` message."""

    role: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool offered to the model; `schema` is a JSON Schema object."""

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What is asked of a model. `model` is the client's name for it, until routing replaces it.

    `tool_choice`: auto, none, required, or `name:<tool>`. `extra` are parameters that only
    providers of the same dialect understand.
    """

    model: str
    messages: tuple[Message, ...]
    system: str = ""
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    dialect: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


class Stop(StrEnum):
    """Why the model ended its turn."""

    END = "end"
    TOOL = "tool"
    LENGTH = "length"
    REFUSAL = "refusal"


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolStart:
    """A tool call begins; its arguments follow as deltas with the same index (from 0)."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolDelta:
    """More of the JSON text of a call's arguments."""

    index: int
    fragment: str


@dataclass(frozen=True, slots=True)
class Done:
    """The turn is over. `usage` is None when the provider did not say."""

    stop: Stop
    usage: Usage | None


Event = TextDelta | ToolStart | ToolDelta | Done


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    text: str
    tools: tuple[ToolUse, ...]
    stop: Stop
    usage: Usage | None

    def to_json(self) -> dict[str, Any]:
        """Form in which the ledger keeps it (`response` of a model row)."""
        usage = self.usage
        return {
            "text": self.text,
            "tools": [{"id": t.id, "name": t.name, "arguments": t.arguments} for t in self.tools],
            "stop": str(self.stop),
            "usage": None
            if usage is None
            else {
                "input": usage.input,
                "output": usage.output,
                "cached": usage.cached,
                "reasoning": usage.reasoning,
            },
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Reply:
        """Inverse of `to_json`."""
        usage = document["usage"]
        return cls(
            document["text"],
            tuple(ToolUse(**tool) for tool in document["tools"]),
            Stop(document["stop"]),
            None if usage is None else Usage(**usage),
        )

    def events(self) -> tuple[Event, ...]:
        """The same answer as a stream: for replays."""
        found: list[Event] = [TextDelta(self.text)] if self.text else []
        for index, tool in enumerate(self.tools):
            found.append(ToolStart(index, tool.id, tool.name))
            found.append(ToolDelta(index, tool.arguments))
        return (*found, Done(self.stop, self.usage))


def assemble(events: Iterable[Event]) -> Reply:
    """Put a whole stream together. Raises ValueError when it has no `Done`."""
    text: list[str] = []
    calls: dict[int, ToolStart] = {}
    arguments: dict[int, list[str]] = {}
    for event in events:
        match event:
            case TextDelta():
                text.append(event.text)
            case ToolStart():
                calls[event.index] = event
                arguments.setdefault(event.index, [])
            case ToolDelta():
                arguments.setdefault(event.index, []).append(event.fragment)
            case Done():
                tools = tuple(
                    ToolUse(start.id, start.name, "".join(arguments[index]) or "{}")
                    for index, start in sorted(calls.items())
                )
                return Reply("".join(text), tools, event.stop, event.usage)
    raise ValueError("the stream ended without saying why")


IMAGE_TOKENS = 4096
"""Counted for each image: above what the current providers bill for one."""


def estimate_input(request: ModelRequest) -> int:
    """Upper estimate of a request's input tokens, in tokens.

    One token per two UTF-8 bytes of everything the model reads, 4096 per image, 8 per message or
    tool and 64 for the frame. Common tokenizers need 3 to 5 bytes a token for English and code,
    at least 2 for CJK (3 bytes a character) and for base64. It is an estimate, not a bound: the
    settlement books what the provider reports, should that ever be more.
    """
    size = len(request.system.encode())
    images = 0
    for message in request.messages:
        for part in message.parts:
            match part:
                case Text():
                    size += len(part.text.encode())
                case ToolResult():
                    size += len(part.text.encode())
                case ToolUse():
                    size += len(part.name.encode()) + len(part.arguments.encode())
                case Image():
                    images += 1
    for tool in request.tools:
        size += len(f"{tool.name}{tool.description}{tool.schema}".encode())
    items = len(request.messages) + len(request.tools)
    return -(-size // 2) + 8 * items + 64 + images * IMAGE_TOKENS
