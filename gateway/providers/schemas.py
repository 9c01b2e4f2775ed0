"""JSON Schemas in the form that each API accepts.

OpenAI's strict mode wants every object closed and every property required, Anthropic's structured
outputs want objects closed and refuse constraints on numbers, texts and lists
(https://platform.claude.com/docs/en/build-with-claude/structured-outputs). What a provider would
refuse is told to the model in words instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.providers.conversation import Output

_KEPT = frozenset(
    {"type", "enum", "const", "$ref", "title", "description", "default", "required", "format"}
)
_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)
_MANY = ("properties", "$defs", "definitions")


def of_tool(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A tool's parameters: an object in any case, because both APIs refuse anything else."""
    return {**schema} if schema.get("type") == "object" else {**schema, "type": "object"}


def strictly(schema: Any) -> bool:
    """Would OpenAI's strict mode accept it: every object closed, all its properties required?"""
    if isinstance(schema, list):
        return all(strictly(item) for item in schema)
    if not isinstance(schema, Mapping):
        return True
    properties = schema.get("properties")
    if schema.get("type") == "object" or isinstance(properties, Mapping):
        required = schema.get("required")
        if schema.get("additionalProperties") is not False or not isinstance(properties, Mapping):
            return False
        if not isinstance(required, list) or any(name not in required for name in properties):
            return False
    return all(strictly(value) for key, value in schema.items() if key not in ("enum", "const"))


def for_anthropic(schema: Any) -> Any:
    """The part of a schema that Anthropic's structured outputs accept; the rest is appended to
    its description."""
    if not isinstance(schema, Mapping):
        return schema
    out: dict[str, Any] = {}
    lost: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _MANY and isinstance(value, Mapping):
            out[key] = {name: for_anthropic(item) for name, item in value.items()}
        elif key == "items" and isinstance(value, Mapping):
            out[key] = for_anthropic(value)
        elif key in ("anyOf", "oneOf", "allOf") and isinstance(value, list):
            name = "anyOf" if key == "oneOf" else key
            out[name] = [for_anthropic(item) for item in value]
        elif (key == "format" and value not in _FORMATS) or key not in _KEPT:
            lost[key] = value
        else:
            out[key] = value
    if out.get("type") == "object" or "properties" in out:
        out["additionalProperties"] = False
        lost.pop("additionalProperties", None)
        out.setdefault("properties", {})
    lost = {key: value for key, value in lost.items() if not key.startswith("$")}
    if lost:
        said = json.dumps(lost, ensure_ascii=False)
        out["description"] = f"{out.get('description', '')} ({said})".strip()
    return out


def in_words(output: Output) -> str:
    """The same demand as an instruction, for a model that cannot be held to a schema."""
    if output.schema is None:
        return "Answer with one JSON object and nothing else: no explanation, no code fence."
    schema = json.dumps(output.schema, ensure_ascii=False)
    about = f" It is: {output.description}" if output.description else ""
    return (
        "Answer with one JSON value that is valid under this JSON Schema, and nothing else: no "
        f"explanation, no code fence.{about}\n{schema}"
    )
