"""What the revisions of MCP say that is more than JSON-RPC: versions, envelope, headers. Pure.

Two eras (specification, basic/versioning): *modern* (2026-07-28) is stateless, every request
carries its version and the client's capabilities in `params._meta`, and HTTP headers mirror parts
of the body; *legacy* opens with `initialize` and may keep a session. Both are spoken on both sides
of the gateway, each side negotiating for itself.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.mcp.messages import load

MODERN: Final = ("2026-07-28",)
LEGACY: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
VERSIONS: Final = (*MODERN, *LEGACY)
"""Every revision spoken, newest first."""

VERSION_HEADER, METHOD_HEADER, NAME_HEADER = "mcp-protocol-version", "mcp-method", "mcp-name"
SESSION_HEADER = "mcp-session-id"
META_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
META_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
META_CLIENT: Final = "io.modelcontextprotocol/clientInfo"
META_SERVER: Final = "io.modelcontextprotocol/serverInfo"
META_EFFECT: Final = "interlock/effect-key"

NAMED: Final[Mapping[str, str]] = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
}
"""Method to the parameter that `Mcp-Name` repeats."""

INFO: Final = {"name": "interlock-gateway", "version": "1"}

_SENTINEL = re.compile(r"=\?base64\?(.*)\?=")
_PLAIN = re.compile(r"[\x20-\x7e]*")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_MIRRORED: Final = "x-mcp-header"
_ONE = ("items", "contains", "unevaluatedItems", "additionalProperties", "propertyNames",
        "unevaluatedProperties", "not", "if", "then", "else", "contentSchema")  # fmt: skip
_LIST = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAP = ("patternProperties", "dependentSchemas", "$defs", "definitions")


def envelope(params: Mapping[str, Any], version: str) -> dict[str, Any]:
    """`params` with what a modern request must carry in `_meta`."""
    meta = {
        **params.get("_meta", {}),
        META_VERSION: version,
        META_CLIENT: INFO,
        META_CAPABILITIES: {},
    }
    return {**params, "_meta": meta}


def encode(value: str) -> str:
    """A header value; what is not plain ASCII goes as `=?base64?…?=` (value encoding)."""
    if _PLAIN.fullmatch(value) and value == value.strip() and not _SENTINEL.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def decode(value: str) -> str | None:
    """Inverse of `encode`; None for a damaged or non-canonical one."""
    found = _SENTINEL.fullmatch(value)
    if found is None:
        return value
    try:
        raw = base64.b64decode(found[1], validate=True)
        text = raw.decode()
    except (binascii.Error, ValueError):
        return None
    return text if base64.b64encode(raw).decode() == found[1] else None


def mirrored(schema: Any) -> dict[tuple[str, ...], str]:
    """Property path → header name of every argument that a modern server wants in a header.

    Raises ValueError for an annotation that the specification forbids: a client must then leave
    the tool out (streamable-http, schema extension).
    """
    found: dict[tuple[str, ...], str] = {}
    for path, node in _positions(schema):
        if _MIRRORED not in node:
            continue
        name = node[_MIRRORED]
        if not path:
            raise ValueError(f"{_MIRRORED} where no plain chain of properties leads")
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ValueError(f"{_MIRRORED} of {'.'.join(path)} is not a header name")
        if node.get("type") not in ("string", "integer", "boolean"):
            raise ValueError(f"{_MIRRORED} of {'.'.join(path)} is for strings, integers, booleans")
        if name.lower() in {other.lower() for other in found.values()}:
            raise ValueError(f"{_MIRRORED} {name} is given twice")
        found[path] = name
    return found


def parameter_headers(schema: Any, arguments: Mapping[str, Any]) -> dict[str, str]:
    """The `Mcp-Param-*` headers of a call. Raises ValueError as `mirrored` does."""
    headers = {}
    for path, name in mirrored(schema).items():
        value: Any = arguments
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, bool):
            headers[f"mcp-param-{name.lower()}"] = "true" if value else "false"
        elif isinstance(value, str | int):
            headers[f"mcp-param-{name.lower()}"] = encode(str(value))
    return headers


def without_headers(schema: Any) -> Any:
    """A schema as our own clients see it: nothing to mirror on their side of the gateway."""
    if isinstance(schema, Mapping):
        return {
            # A property may bear any name, even this one: only its schema is looked into.
            key: {name: without_headers(item) for name, item in value.items()}
            if key == "properties" and isinstance(value, Mapping)
            else without_headers(value)
            for key, value in schema.items()
            if key != _MIRRORED
        }
    if isinstance(schema, list | tuple):
        return [without_headers(item) for item in schema]
    return schema


def supported(error: Mapping[str, Any]) -> tuple[str, ...]:
    """The versions that an UnsupportedProtocolVersion error names."""
    data = error.get("data")
    listed = data.get("supported") if isinstance(data, Mapping) else None
    return tuple(v for v in listed if isinstance(v, str)) if isinstance(listed, list) else ()


def error_of(text: str) -> dict[str, Any] | None:
    """The JSON-RPC error response that an HTTP error's body holds, if it holds one."""
    try:
        value = load(text)
    except ValueError:
        return None
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("code"), int):
        return None
    return dict(value)


def _positions(schema: Any) -> Iterator[tuple[tuple[str, ...] | None, Mapping[str, Any]]]:
    """Every place of a schema that holds a schema, with the chain of `properties` that leads
    there; None once anything else was crossed."""
    todo: list[tuple[tuple[str, ...] | None, Any]] = [((), schema)]
    while todo:
        path, node = todo.pop()
        if not isinstance(node, Mapping):
            continue
        yield path, node
        for key, value in node.items():
            if key == "properties" and isinstance(value, Mapping):
                todo.extend(
                    (None if path is None else (*path, name), item) for name, item in value.items()
                )
            elif key in _ONE:
                todo.append((None, value))
            elif key in _LIST and isinstance(value, list | tuple):
                todo.extend((None, item) for item in value)
            elif key in _MAP and isinstance(value, Mapping):
                todo.extend((None, item) for item in value.values())
