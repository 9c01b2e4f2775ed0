"""One request and one answer, in no provider's dialect: what dialects and providers meet in.

A dialect reads a client's JSON into a `ModelRequest` and writes `Event`s or a `Reply` back; a
provider turns a `ModelRequest` into `Event`s. Three dialects and as many kinds of provider need
six translations this way, not nine pairs.

A call whose dialect the target speaks itself is forwarded as it is and needs no translation; what
is read here then serves budgets, labels and guardrails. So a reader refuses what is malformed, and
only notes what cannot be translated (`native_only`, `Foreign`): a provider of the same dialect may
well know it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from gateway.policy import Api
from gateway.pricing import Usage


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text of either side. `cache` is an Anthropic `cache_control`, if the client set one:
    the provider may keep everything up to here."""

    text: str
    cache: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """A picture: an https address, or a `data:<type>;base64,<data>` address."""

    url: str


@dataclass(frozen=True, slots=True)
class Document:
    """A PDF: an https address, or a `data:application/pdf;base64,<data>` address."""

    url: str
    name: str = "document.pdf"


@dataclass(frozen=True, slots=True)
class Thinking:
    """Reasoning of an earlier turn. `signature` is what its maker proves it by, prefixed with the
    maker (`SIGNED`): no other provider is ever shown it. `redacted`: there is nothing to read."""

    text: str
    signature: str = ""
    redacted: bool = False


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
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class Foreign:
    """A part that only a provider of the client's own dialect understands. `size` in bytes."""

    kind: str
    size: int


Part = Text | Image | Document | Thinking | ToolUse | ToolResult | Foreign


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. Tool results are parts of a `user` message."""

    role: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool offered to the model; `schema` is a JSON Schema object.

    `freeform`: its argument is one text, not JSON (OpenAI's custom tools). Other providers are
    offered it with one property, `input`.
    """

    name: str
    description: str
    schema: Mapping[str, Any]
    strict: bool | None = None
    freeform: bool = False
    namespace: str = ""
    """OpenAI Responses groups tools; elsewhere the group is the beginning of the name."""
    cache: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """The form the answer must have: a JSON Schema, or any JSON object when `schema` is None."""

    schema: Mapping[str, Any] | None
    name: str = "answer"
    description: str = ""
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What is asked of a model. `model` is the client's name for it, until routing replaces it.

    `tool_choice`: auto, none, required, or `name:<tool>`. `dialect` is the API the client spoke.
    `extra` are parameters that only providers of the same dialect understand; `native_only` names
    what would change the meaning when it were left out. `hosted_tools` are tools that the provider
    itself would run, such as a web search.
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
    dialect: Api | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    parallel_tools: bool | None = None
    output: Output | None = None
    top_k: int | None = None
    seed: int | None = None
    user: str | None = None
    effort: str | None = None
    """How hard a reasoning model shall think: low, medium, high, …"""
    system_cache: Mapping[str, Any] | None = None
    native_only: tuple[str, ...] = ()
    hosted_tools: tuple[str, ...] = ()

    def parts(self) -> Iterator[Part]:
        """Every part of every message, in order."""
        for message in self.messages:
            yield from message.parts

    def untranslatable(self) -> tuple[str, ...]:
        """What no provider of another dialect can be asked: names of fields and parts."""
        foreign = (f"content of type {p.kind!r}" for p in self.parts() if isinstance(p, Foreign))
        # Hosted tools that stand beside others are left out: clients offer them unasked. When one
        # is all there is, it is what the call is about.
        hosted = self.hosted_tools if not self.tools else ()
        return (*self.native_only, *dict.fromkeys(foreign), *(f"tool {name!r}" for name in hosted))


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
class ThinkingDelta:
    """More reasoning, or the signature (`Thinking.signature`) that ends a piece of it."""

    text: str
    signature: str = ""
    redacted: bool = False


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


Event = TextDelta | ThinkingDelta | ToolStart | ToolDelta | Done


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    text: str
    tools: tuple[ToolUse, ...]
    stop: Stop
    usage: Usage | None
    thinking: tuple[Thinking, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Form in which the ledger keeps it (`response` of a model row)."""
        document: dict[str, Any] = {
            "text": self.text,
            "tools": [{"id": t.id, "name": t.name, "arguments": t.arguments} for t in self.tools],
            "stop": str(self.stop),
            "usage": None if self.usage is None else asdict(self.usage),
        }
        if self.thinking:
            document["thinking"] = [asdict(thought) for thought in self.thinking]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Reply:
        """Inverse of `to_json`; reads what earlier versions wrote."""
        usage = document["usage"]
        return cls(
            document["text"],
            tuple(ToolUse(**tool) for tool in document["tools"]),
            Stop(document["stop"]),
            None if usage is None else Usage(**usage),
            tuple(Thinking(**thought) for thought in document.get("thinking", ())),
        )

    def events(self) -> tuple[Event, ...]:
        """The same answer as a stream: for replays."""
        found: list[Event] = []
        for thought in self.thinking:
            if thought.redacted:
                found.append(ThinkingDelta("", thought.signature, redacted=True))
                continue
            if thought.text:
                found.append(ThinkingDelta(thought.text))
            if thought.signature:
                found.append(ThinkingDelta("", thought.signature))
        if self.text:
            found.append(TextDelta(self.text))
        for index, tool in enumerate(self.tools):
            found.append(ToolStart(index, tool.id, tool.name))
            found.append(ToolDelta(index, tool.arguments))
        return (*found, Done(self.stop, self.usage))


def assemble(events: Iterable[Event]) -> Reply:
    """Put a whole stream together. Raises ValueError when it has no `Done`."""
    text: list[str] = []
    thinking: list[Thinking] = []
    thought: list[str] = []
    calls: dict[int, ToolStart] = {}
    arguments: dict[int, list[str]] = {}
    for event in events:
        match event:
            case TextDelta():
                text.append(event.text)
            case ThinkingDelta(redacted=True):
                thinking.append(Thinking("", event.signature, redacted=True))
            case ThinkingDelta():
                thought.append(event.text)
                if event.signature:
                    thinking.append(Thinking("".join(thought), event.signature))
                    thought = []
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
                if thought:
                    thinking.append(Thinking("".join(thought)))
                return Reply("".join(text), tools, event.stop, event.usage, tuple(thinking))
    raise ValueError("the stream ended without saying why")


IMAGE_TOKENS = 4096
"""Counted for each image: above what the current providers bill for one."""
PAGE_TOKENS = 4096 + 1500
"""A page of a PDF is read twice, as text and as a picture."""
PAGE_BYTES = 4096
"""Of a PDF's base64: pages are hardly ever smaller, so this many bytes are one page at most."""
LINKED_PAGES = 100
"""What a PDF that the provider fetches itself may have: the most that Anthropic accepts."""
AUDIO_BYTES_PER_TOKEN = 64
"""Ten tokens are a second; even speech packed tightly has more than 640 bytes of base64 in one."""


def estimate_input(request: ModelRequest) -> int:
    """Upper estimate of a request's input tokens, in tokens.

    One token per two UTF-8 bytes of everything the model reads, 4096 per image, 5596 per page of
    a PDF (a page per 4 KiB), 8 per message, tool, call or result and 64 for the frame. Common
    tokenizers need 3 to 5 bytes a token for English and code, at least 2 for CJK (3 bytes a
    character) and for base64. It is an estimate, not a bound: the settlement books what the
    provider reports, should that ever be more.
    """
    fixed = 64 + 8 * _items(request)
    for part in request.parts():
        match part:
            case Image():
                fixed += IMAGE_TOKENS
            case ToolResult():
                fixed += IMAGE_TOKENS * len(part.images)
            case Document():
                fixed += PAGE_TOKENS * pages(part, PAGE_BYTES)
            case Foreign(kind="input_audio"):
                fixed += -(-part.size // AUDIO_BYTES_PER_TOKEN)
            case Foreign():
                # An unknown part may be a small description of something large.
                fixed += IMAGE_TOKENS + -(-part.size // 2)
    return fixed + -(-_bytes(request) // 2)


def _items(request: ModelRequest) -> int:
    calls = sum(isinstance(part, ToolUse | ToolResult) for part in request.parts())
    return len(request.messages) + len(request.tools) + calls


def pages(document: Document, page_bytes: int) -> int:
    """How many pages a document has, when a page takes so many bytes of base64."""
    if not document.url.startswith("data:"):
        return LINKED_PAGES
    return -(-len(document.url) // page_bytes)


def _bytes(request: ModelRequest) -> int:
    return sum(len(text.encode()) for text in texts(request))


def texts(request: ModelRequest) -> Iterator[str]:
    """Everything of a request that a model reads as text."""
    yield request.system
    for part in request.parts():
        match part:
            case Text() | ToolResult():
                yield part.text
            case Thinking():
                yield part.text
                # Redacted reasoning is read by the model, and billed, as what it stands for.
                yield part.signature
            case ToolUse():
                yield part.name
                yield part.arguments
    for tool in request.tools:
        yield f"{tool.name}{tool.description}{tool.schema}"
    if request.output is not None and request.output.schema is not None:
        yield str(request.output.schema)
