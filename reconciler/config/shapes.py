"""Data against a model: pydantic's errors become findings at the key or value they are about."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from reconciler.config import hints
from reconciler.config.models import KINDS
from reconciler.config.positions import Document, Node
from reconciler.findings import Finding, Severity, did_you_mean, quoted

M = TypeVar("M", bound=BaseModel)

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "mapping_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
}


def kind_of(document: Document) -> type[BaseModel] | None:
    """The model its first known top-level key names; None when there is none."""
    if not isinstance(document.data, dict):
        return None
    return next((KINDS[key] for key in document.data if key in KINDS), None)


def expect(document: Document, model: type[M]) -> tuple[M | None, tuple[Finding, ...]]:
    """The document as `model`, or why it is not one. Its own findings are included.

    A document with a finding of the reader (say a duplicate key) gives no model: nobody can tell
    which of the two values was meant.
    """
    if model not in document.shaped:
        document.shaped[model] = _expect(document, model)
    known: tuple[M | None, tuple[Finding, ...]] = document.shaped[model]
    return known


def _expect(document: Document, model: type[M]) -> tuple[M | None, tuple[Finding, ...]]:
    if not document.understood:
        if document.findings:
            return None, document.findings
        empty = f"the file is empty; expected {' or '.join(model.model_fields)}"
        return None, (Finding("empty", Severity.ERROR, document.file, 1, 1, empty),)
    try:
        value = model.model_validate(document.data)
    except ValidationError as error:
        found = [_finding(document, model, e) for e in error.errors(include_url=False)]
        return None, (*document.findings, *found)
    except RecursionError:
        deep = "nested too deeply"
        return None, (Finding("too-deep", Severity.ERROR, document.file, 1, 1, deep),)
    return (None if document.findings else value), document.findings


def _finding(document: Document, model: type[BaseModel], error: Any) -> Finding:
    loc: tuple[str | int, ...] = tuple(error["loc"])
    kind = error["type"]
    if kind == "extra_forbidden":
        key = str(loc[-1])
        known = _fields_at(model, loc[:-1])
        place = document.at(loc, key=True)
        fix = hints.unknown_key(_names_at(model, loc[:-1]), key, error["input"])
        fix = fix or did_you_mean(key, known)
        fix = fix or (f"known keys: {', '.join(known)}" if known else "")
        message = f"unknown key {quoted(key)}{_inside(document, loc[:-1])}"
        return _error("unknown-key", place, message, fix)
    if kind == "missing":
        place = document.at(loc[:-1])
        message = f"key {quoted(str(loc[-1]))} is missing{_inside(document, loc[:-1])}"
        fix = "add trigger: manual, or {schedule: …}" if loc == ("trigger",) else "add it"
        return _error("missing-key", place, message, fix)
    if loc and loc[-1] == "[key]":
        place = document.at(loc[:-1], key=True)
        return _error("name", place, f"{quoted(str(loc[-2]))}: {_words(error)}")
    place = document.at(loc)
    if kind in _EXPECTED:
        message = f"expected {_EXPECTED[kind]}, not {_describe(error['input'])}"
        fix = "put it in quotes" if kind == "string_type" and _scalar(error["input"]) else ""
        fix = hints.wrong_type(*_about(model, loc), error["input"]) or fix
        return _error("type", place, f"{_subject(document, loc)}{message}", fix)
    if kind == "literal_error":
        options = str(error["ctx"]["expected"]).replace("'", "")
        message = f"{_subject(document, loc)}{_describe(error['input'])} is not one of {options}"
        fix = hints.wrong_word(*_about(model, loc), error["input"])
        fix = fix or did_you_mean(str(error["input"]), _split(options))
        return _error("value", place, message, fix)
    return _error("value", place, f"{_subject(document, loc)}{_words(error)}")


def _error(kind: str, place: Any, message: str, fix: str = "") -> Finding:
    return Finding(kind, Severity.ERROR, place.file, place.line, place.column, message, fix)


def _split(options: str) -> list[str]:
    return options.replace(" or ", ", ").split(", ")


def _words(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:] if message[:2].istitle() else message


def _written(document: Document, loc: Sequence[str | int]) -> list[str | int]:
    """The part of a location that is in the text: unions and validators add steps of their own."""
    path: list[str | int] = []
    node: Node | None = document.root
    for step in loc:
        child = node.children.get(step) if node else None
        if child is not None:
            path.append(step)
            node = child
    return path


def _subject(document: Document, loc: Sequence[str | int]) -> str:
    names = [step for step in _written(document, loc) if isinstance(step, str)]
    return f"{names[-1]}: " if names else ""


def _inside(document: Document, loc: Sequence[str | int]) -> str:
    names = [step for step in _written(document, loc) if isinstance(step, str)]
    return f" in {names[-1]}" if names else ""


def _scalar(value: Any) -> bool:
    return not isinstance(value, dict | list | None)


def _describe(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return quoted(str(value)) if isinstance(value, str) else f"the number {value}"


def _fields_at(model: type[BaseModel], loc: Iterable[str | int]) -> list[str]:
    """Keys that the models found at a location know."""
    names: list[str] = []
    for found in _models_at(model, loc):
        names += [field.alias or name for name, field in found.model_fields.items()]
    return sorted(set(names))


def _names_at(model: type[BaseModel], loc: Iterable[str | int]) -> list[str]:
    return [found.__name__ for found in _models_at(model, loc)]


def _about(model: type[BaseModel], loc: Sequence[str | int]) -> tuple[list[str], str]:
    """The models around a value and the key it stands under, also of an item of a list."""
    steps = list(loc)
    while steps and not (isinstance(steps[-1], str) and steps[-1] in _fields_at(model, steps[:-1])):
        steps.pop()
    return (_names_at(model, steps[:-1]), str(steps[-1])) if steps else ([], "")


def _models_at(model: type[BaseModel], loc: Iterable[str | int]) -> list[type[BaseModel]]:
    here: list[Any] = [model]
    for step in loc:
        below = [kind for annotation in here for kind in _below(annotation, step)]
        here = below or here  # a step that no annotation has is a union's tag
    return [found for kind in here for found in _models(kind)]


def _below(annotation: Any, step: str | int) -> list[Any]:
    found: list[Any] = []
    for model in _models(annotation):
        for name, field in model.model_fields.items():
            if step == (field.alias or name):
                found.append(field.annotation)
    for part in _parts(annotation):
        origin, args = typing.get_origin(part), typing.get_args(part)
        if origin in (list, tuple) and isinstance(step, int):
            found += args
        elif origin is dict and isinstance(step, str) and len(args) == 2:
            found.append(args[1])
    return found


def _parts(annotation: Any) -> list[Any]:
    """An annotation without Annotated and unions."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _parts(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [part for arg in typing.get_args(annotation) for part in _parts(arg)]
    return [annotation]


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [p for p in _parts(annotation) if isinstance(p, type) and issubclass(p, BaseModel)]
