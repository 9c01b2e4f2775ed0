"""A deterministic model: rules over the conversation, for demos, evals and tests without a model.

It knows nothing but what it reads: system text, the last user message, the results of tools. The
first rule whose `when` holds decides. A rule whose observation is not there does not fire, so a
wrong observation gives a wrong act, as it would with a real model.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from gateway.policy import Recall, Rule, Script, When
from gateway.pricing import Usage
from gateway.providers.conversation import (
    Done,
    Event,
    ModelRequest,
    Reply,
    Stop,
    Text,
    TextDelta,
    ToolDelta,
    ToolResult,
    ToolStart,
    ToolUse,
)
from gateway.routing import Failure, Target

LOST = "I do not know what to do next."
CHUNK = 24
"""Characters per streamed piece."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one tool answered."""

    tool: str
    text: str


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything a rule can look at."""

    system: str
    user: str
    observations: tuple[Observation, ...]
    called: tuple[str, ...]


async def stream(target: Target, request: ModelRequest) -> AsyncIterator[Event]:
    """The script's answer in several pieces. Raises Failure when the provider has no script."""
    script = target.provider.script
    if script is None:
        raise Failure(f"provider {target.provider_name} is scripted but has no script", done=False)
    reply = answer(script, request)
    for start in range(0, len(reply.text), CHUNK):
        yield TextDelta(reply.text[start : start + CHUNK])
    for index, tool in enumerate(reply.tools):
        yield ToolStart(index, tool.id, tool.name)
        for start in range(0, len(tool.arguments), CHUNK):
            yield ToolDelta(index, tool.arguments[start : start + CHUNK])
    yield Done(reply.stop, reply.usage)


def answer(script: Script, request: ModelRequest) -> Reply:
    """The turn that the script takes in this conversation. Pure; same conversation, same turn.

    Output is cut at `max_output_tokens` (four characters a token), like a real model's; a tool
    call that does not fit is not made.
    """
    scene = scene_of(request)
    say, call = decide(script, scene, {tool.name for tool in request.tools})
    number = sum(
        isinstance(part, ToolUse) for message in request.messages for part in message.parts
    )
    tools: tuple[ToolUse, ...] = ()
    if call is not None:
        name, arguments = call
        text = json.dumps(arguments, ensure_ascii=False)
        tools = (ToolUse(f"call_{number}", name, text),)
    stop = Stop.TOOL if tools else Stop.END
    limit = None if request.max_output_tokens is None else 4 * request.max_output_tokens
    if limit is not None and len(say) + sum(len(t.arguments) for t in tools) > limit:
        say, tools, stop = say[:limit], (), Stop.LENGTH
    return Reply(say, tools, stop, Usage(_tokens(_read(request)), _tokens(_written(say, tools))))


def decide(
    script: Script, scene: Scene, offered: set[str]
) -> tuple[str, tuple[str, dict[str, Any]] | None]:
    """What to say and which tool to call. A tool that is not offered cannot be called."""
    for rule in script.rules:
        values = values_of(rule, scene)
        if values is None:
            continue
        if rule.call is None:
            return fill(rule.say, values), None
        if rule.call.tool not in offered:
            break
        return fill(rule.say, values), (rule.call.tool, _fill_all(dict(rule.call.args), values))
    return LOST, None


def scene_of(request: ModelRequest) -> Scene:
    """Read the conversation: tool results in order, each with the name of its tool."""
    names: dict[str, str] = {}
    called: list[str] = []
    observations: list[Observation] = []
    user = ""
    for message in request.messages:
        said: list[str] = []
        for part in message.parts:
            match part:
                case ToolUse():
                    names[part.id] = part.name
                    called.append(part.name)
                case ToolResult():
                    observations.append(Observation(names.get(part.id, ""), part.text))
                case Text():
                    said.append(part.text)
        if message.role == "user" and said:
            user = "".join(said)
    return Scene(request.system, user, tuple(observations), tuple(called))


def values_of(rule: Rule, scene: Scene) -> dict[str, str] | None:
    """The values a rule binds, or None when it does not apply."""
    values = _when(rule.when, scene)
    if values is None:
        return None
    for name, recall in rule.recall.items():
        found = _recall(recall, scene.observations)
        if found is None:
            return None
        groups = {k: v for k, v in found.groupdict().items() if v is not None}
        values.update(groups)
        if name not in groups:
            values[name] = (found[1] or "") if found.re.groups else found[0]
    return values


def _when(when: When, scene: Scene) -> dict[str, str] | None:
    last = scene.observations[-1] if scene.observations else None
    everything = [seen.text for seen in scene.observations]
    holds = (
        (when.system is None or _find(when.system, scene.system) is not None)
        and (when.not_system is None or _find(when.not_system, scene.system) is None)
        and (when.first is None or when.first == (last is None))
        and (when.last_tool is None or (last is not None and _glob(when.last_tool, last.tool)))
        and (when.not_last is None or last is None or _find(when.not_last, last.text) is None)
        and (when.seen is None or any(_find(when.seen, text) for text in everything))
        and (when.not_seen is None or not any(_find(when.not_seen, text) for text in everything))
        and (when.calls is None or any(_glob(when.calls, name) for name in scene.called))
        and (when.not_calls is None or not any(_glob(when.not_calls, n) for n in scene.called))
    )
    if not holds:
        return None
    values: dict[str, str] = {}
    for pattern, text in ((when.user, scene.user), (when.last, last.text if last else None)):
        if pattern is None:
            continue
        found = None if text is None else _find(pattern, text)
        if found is None:
            return None
        values.update({k: v for k, v in found.groupdict().items() if v is not None})
    return values


def _recall(recall: Recall, observations: Sequence[Observation]) -> re.Match[str] | None:
    for observation in reversed(observations):
        if not _glob(recall.tool, observation.tool):
            continue
        found = list(re.finditer(recall.pattern, observation.text, re.MULTILINE))
        if found:
            return found[-1]
    return None


def _find(pattern: str, text: str) -> re.Match[str] | None:
    return re.search(pattern, text, re.MULTILINE)


def _glob(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern)


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace `{name}` of known names; all other braces stay, because code has braces."""
    return re.sub(r"\{([A-Za-z_][A-Za-z0-9_]*)\}", lambda m: values.get(m[1], m[0]), template)


def _fill_all(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return fill(value, values)
    if isinstance(value, Mapping):
        return {key: _fill_all(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_fill_all(item, values) for item in value]
    return value


def _tokens(characters: int) -> int:
    return -(-characters // 4)


def _read(request: ModelRequest) -> int:
    size = len(request.system)
    for message in request.messages:
        for part in message.parts:
            match part:
                case Text() | ToolResult():
                    size += len(part.text)
                case ToolUse():
                    size += len(part.name) + len(part.arguments)
    return size + sum(len(tool.name) + len(tool.description) for tool in request.tools)


def _written(say: str, tools: Sequence[ToolUse]) -> int:
    return len(say) + sum(len(tool.name) + len(tool.arguments) for tool in tools)
