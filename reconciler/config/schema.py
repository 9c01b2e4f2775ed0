"""JSON Schema of every document, made from the models, for editors and other programs.

pydantic could print a schema of its own, but of the values it makes (milliseconds, nano-dollars).
An editor needs the schema of what people *write*: `20m`, `0.50`, a short form beside a long one.
So the annotations are walked here, and each way of writing has one entry in a table. What a
schema cannot say (a name that must be defined elsewhere, a cron expression that is never due)
stays with `interlock validate`: a schema may accept more than the loader, never less.

Draft 2020-12. Definitions are self-contained, so that one file serves an editor without network.
"""

from __future__ import annotations

import enum
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from reconciler.config.models import KINDS, fields, fleet, platform, rules
from reconciler.config.reference import ROOTS, anchor

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_VISIBLE = r"(?=.*\S)[^\u0000-\u001f\u007f]+$"
_DURATION = r"^(?=.*[1-9])([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$"
_SIZE = r"^(?=.*[1-9])[0-9]{1,9}[kKmMgG][iI]?[bB]?$"
_LARGEST = 10**12

_COUNT: Schema = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": _LARGEST},
        # Editors read YAML 1.2, where 400_000 is text; the loader reads it as a number.
        {"type": "string", "pattern": r"^[1-9][0-9]*(_[0-9]+)+$"},
    ],
    "examples": [40, 400000],
}

_WRITTEN: tuple[tuple[Any, Schema], ...] = (
    (fields.Name, {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$"}),
    (fields.Label, {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}$"}),
    (fields.Login, {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}),
    (fields.ServerName, {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"}),
    (fields.ToolName, {"type": "string", "pattern": r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,127}$"}),
    (fields.Reference, {"type": "string", "maxLength": 1000, "pattern": f"^(?!/){_VISIBLE}"}),
    (platform.Url, {"type": "string", "maxLength": 1000, "pattern": r"^[Hh][Tt][Tt][Pp][Ss]?://"}),
    (fields.Line, {"type": "string", "maxLength": 1000, "pattern": f"^{_VISIBLE}"}),
    (fields.Instructions, {"type": "string", "minLength": 1}),
    (fields.Regex, {"type": "string"}),
    (fleet.Branch, {"type": "string", "pattern": r"^[A-Za-z0-9_@+][A-Za-z0-9._/@+-]{0,199}$"}),
    (fields.Duration, {"type": "string", "pattern": _DURATION, "examples": ["20m", "2h", "14d"]}),
    (fields.Size, {"type": "string", "pattern": _SIZE, "examples": ["512m", "1g"]}),
    (fields.Usd, {"type": "number", "minimum": 0, "maximum": _LARGEST, "examples": [0.5, 3]}),
    (fields.UsdPerMillion, {"type": "number", "minimum": 0, "maximum": _LARGEST}),
    (fields.Cpus, {"type": "number", "exclusiveMinimum": 0, "examples": [1, 0.5]}),
    (fields.Share, {"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
    (fields.Ratio, {"type": "number", "minimum": 1, "maximum": 100}),
    (fields.Count, _COUNT),
    (fields.Parameter, {"type": ["string", "number"]}),
)
"""How the kinds of values of `models.fields` are written."""

_PLAIN: Mapping[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    float: {"type": "number"},
    type(None): {"type": "null"},
    Any: {},
}

_NULL: Schema = {"type": "null"}


def _or_none_spelled_out(long: Schema) -> Schema:
    kept = [part for part in long.get("anyOf", [long]) if part != _NULL]
    return _any_of([{"const": "none"}, *kept])


def _or_text(long: Schema) -> Schema:
    return _any_of([{"type": "string"}, long])


def _or_trigger_in_a_word(long: Schema) -> Schema:
    cron = {"type": "string", "pattern": r"^\s*(\S+\s+){4}\S+\s*$", "examples": ["0 6 * * 1-5"]}
    return _any_of([{"enum": ["manual", "api"]}, cron, long])


def _or_list_of_keys(long: Schema) -> Schema:
    words = {"enum": ["pause_for_human", *fleet._PAUSES]}
    listed = {"type": "array", "items": {"type": "string"}}
    return _any_of([{**long, "additionalProperties": words}, listed])


_SHORT_FORMS: Mapping[str, Any] = {
    "_short": _or_text,
    "_plain_claim": _or_text,
    "_plain_target": _or_text,
    "_words": _or_text,
    "_listed": _or_text,
    "_none": _or_none_spelled_out,
    "_no_judge": lambda long: long,  # only another message
    "_approvals": _or_list_of_keys,
    "short_trigger": _or_trigger_in_a_word,
}
"""What a validator that runs before its field's type also lets people write, by its name."""


def _exactly_one(*keys: str) -> Schema:
    """One of these keys and no other of them; an empty one (`key:`) counts as not given."""
    return {
        "oneOf": [{"required": [key], "properties": {key: {"not": _NULL}}} for key in keys],
    }


def _at_least_one(*keys: str) -> Schema:
    return {"anyOf": [{"required": [key]} for key in keys]}


def _one_trigger() -> Schema:
    words = [{"required": [key], "properties": {key: {"const": True}}} for key in ("manual", "api")]
    named = _exactly_one("schedule", "cron", "event", "webhook", "after")["oneOf"]
    return {"oneOf": [*named, *words]}


_TOGETHER: Mapping[str, Schema] = {
    "Until": _exactly_one("command", "checker"),
    "Secret": _exactly_one("env", "file"),
    "Patterns": _at_least_one("include", "exclude"),
    "Sentinel": _at_least_one("instructions", "model"),
    "Trigger": _one_trigger(),
    "Owned": {"not": {"required": ["to", "from"]}},
    "RateLimit": _at_least_one("requests", "tokens"),
    "Budget": _at_least_one("limit", "tokens", "requests"),
    "Server": _exactly_one("url", "command"),
    "Principal": _at_least_one("models", "servers"),
    "GlobsRule": _at_least_one("allow", "deny"),
    "Guardrail": _exactly_one(*rules.CHECKS),
}
"""Rules over several keys of one mapping, by the model's name."""

_ALSO_CALLED: Mapping[str, Mapping[str, str]] = {"Trigger": {"cron": "schedule"}}
"""Other names of keys, by the model's name: other → the model's own."""


def kinds() -> dict[str, tuple[str, type[BaseModel]]]:
    """Every kind of document by name: (the file it is in, its model), in reading order."""
    return {kind_name(model): (title, model) for title, model in ROOTS}


def kind_name(model: type[BaseModel]) -> str:
    """`AgentFile` is the kind `agent`; front matter is called after what it stands above."""
    if model.__name__ == "TextHeader":
        return "instructions"
    return anchor(model).removesuffix(" file").removesuffix(" header").replace(" ", "-")


def schema(kind: str | None = None) -> Schema:
    """The schema of one kind, or of every YAML document told apart by its top-level key.

    KeyError for an unknown kind.
    """
    definitions: dict[str, Schema] = {}
    if kind is not None:
        title, model = kinds()[kind]
        body = _object(model, definitions)
        head: Schema = {"$schema": DIALECT, "title": f"Interlock: {title}"}
        return {**head, **body, "$defs": dict(sorted(definitions.items()))}
    branches = []
    for model in dict.fromkeys(KINDS.values()):
        keys = [key for key, found in KINDS.items() if found is model]
        asked = {"anyOf": [{"required": [key]} for key in keys]}
        definitions[f"{kind_name(model)}-document"] = _object(model, definitions)
        target = {"$ref": f"#/$defs/{kind_name(model)}-document"}
        branches.append({"if": asked, "then": target})
    return {
        "$schema": DIALECT,
        "title": "Interlock: a document of the config repo",
        "description": "The top-level key says what the file is.",
        "type": "object",
        "anyOf": [{"required": [key]} for key in KINDS],
        "allOf": branches,
        "$defs": dict(sorted(definitions.items())),
    }


def unknown_short_forms() -> list[str]:
    """Validators of the models whose written form no table here tells: for the tests."""
    found: set[str] = set()

    def look(annotation: Any) -> None:
        if typing.get_origin(annotation) is typing.Annotated:
            rest = _after_alias(annotation)[1]
            found.update(
                name
                for each in rest
                if isinstance(each, BeforeValidator)
                and (name := getattr(each.func, "__name__", "")) not in _SHORT_FORMS
            )
        for part in typing.get_args(annotation):
            look(part)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            for hint in typing.get_type_hints(annotation, include_extras=True).values():
                look(hint)

    for _, model in kinds().values():
        look(model)
    return sorted(found)


def _object(model: type[BaseModel], definitions: dict[str, Schema]) -> Schema:
    hints = typing.get_type_hints(model, include_extras=True)
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for name, field in model.model_fields.items():
        key = field.alias or name
        properties[key] = {**_of(hints[name], definitions), **_explained(field)}
        if field.is_required():
            required.append(key)
    for other, key in _ALSO_CALLED.get(model.__name__, {}).items():
        properties[other] = {**properties[key], "description": f"The same as `{key}`."}
    body: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    text = " ".join((model.__doc__ or "").split())
    if text:
        body = {"description": text, **body}
    if required:
        body["required"] = required
    return {**body, **_TOGETHER.get(model.__name__, {})}


def _explained(field: FieldInfo) -> Schema:
    text = " ".join((field.description or "").split())
    return {"description": text} if text else {}


def _of(annotation: Any, definitions: dict[str, Schema]) -> Schema:
    """The schema of a type as it is written."""
    if annotation in _PLAIN:
        return dict(_PLAIN[annotation])
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _annotated(annotation, definitions)
    if origin in (typing.Union, types.UnionType):
        return _any_of([_of(arg, definitions) for arg in args])
    if origin is typing.Literal:
        return {"enum": list(args)}
    if origin in (list, tuple):
        return {"type": "array", "items": _of(args[0], definitions)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _map(args[0], args[1], definitions)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return {"enum": [member.value for member in annotation]}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _reference(annotation, definitions)
    if hasattr(annotation, "__supertype__"):  # a NewType
        return _of(annotation.__supertype__, definitions)
    raise TypeError(f"nothing tells how {annotation!r} is written")


def _map(key: Any, value: Any, definitions: dict[str, Schema]) -> Schema:
    names = {k: v for k, v in _of(key, definitions).items() if k != "type"}
    body: Schema = {"type": "object", "additionalProperties": _of(value, definitions)}
    return {**body, "propertyNames": names} if names else body


def _reference(model: type[BaseModel], definitions: dict[str, Schema]) -> Schema:
    name = anchor(model).replace(" ", "-")
    if not model.__module__.startswith("reconciler."):
        name = f"policy-{name}"  # the gateway has a Provider and a Model of its own
    if name not in definitions:
        definitions[name] = {}  # first the name: a model may hold itself
        definitions[name] = _object(model, definitions)
    return {"$ref": f"#/$defs/{name}"}


def _after_alias(annotation: Any) -> tuple[Schema | None, list[Any]]:
    """(the schema of the known kind of value an annotation starts with, what is added to it)."""
    base, *added = typing.get_args(annotation)
    best: tuple[Schema | None, list[Any]] = (None, added)
    for known, written in _WRITTEN:
        known_base, *known_added = typing.get_args(known)
        size = len(known_added)
        if known_base == base and added[:size] == known_added and len(added) - size < len(best[1]):
            best = (dict(written), added[size:])
    return best


def _annotated(annotation: Any, definitions: dict[str, Schema]) -> Schema:
    found, added = _after_alias(annotation)
    body = found if found is not None else _of(typing.get_args(annotation)[0], definitions)
    for each in added:
        if isinstance(each, FieldInfo):
            body = _bounded(body, each)
    for each in added:
        if isinstance(each, BeforeValidator):
            form = _SHORT_FORMS.get(getattr(each.func, "__name__", ""))
            body = form(body) if form else body
    return body


_BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}


def _bounded(body: Schema, field: FieldInfo) -> Schema:
    body = dict(body)
    target = body
    if "anyOf" in body and body["anyOf"][0].get("type") == "integer":
        target = dict(body["anyOf"][0])
        body["anyOf"] = [target, *body["anyOf"][1:]]
    for bound in field.metadata:
        for attribute, keyword in _BOUNDS.items():
            limit = getattr(bound, attribute, None)
            if limit is not None:
                target[keyword] = limit
        sizes = ("minItems", "maxItems") if body.get("type") == "array" else None
        for attribute, keyword in zip(
            ("min_length", "max_length"), sizes or ("minLength", "maxLength"), strict=True
        ):
            limit = getattr(bound, attribute, None)
            if limit is not None:
                body[keyword] = limit
        pattern = getattr(bound, "pattern", None)
        if pattern is not None:
            body["pattern"] = pattern.pattern if isinstance(pattern, re.Pattern) else pattern
    return body


def _any_of(parts: list[Schema]) -> Schema:
    flat: list[Schema] = []
    for part in parts:
        for each in part["anyOf"] if set(part) == {"anyOf"} else [part]:
            if each not in flat:
                flat.append(each)
    return flat[0] if len(flat) == 1 else {"anyOf": flat}
