"""Are a call's arguments what the tool's input schema says? Pure.

Asked before anything is sent, so that a wrong call costs nothing and its answer names the place.
JSON Schema as `$schema` says, 2020-12 by default (specification, basic, JSON Schema usage). The
schema may be a stranger's, and this runs in the gateway's event loop: nothing is ever fetched for
a `$ref`, patterns are left to the server (a regular expression can run for hours), and a check
that needs too many steps is given up as a fault of the schema.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator, extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from gateway.refusals import Code, Refusal

LARGEST_SCHEMA = 262_144
MOST_STEPS = 50_000
"""`$ref`s followed, alternatives tried and items looked at in one check: a second at the most."""
MOST_UNIQUE = 1_000
"""Items that are compared with each other; more are left to the server."""
MOST_ERRORS = 50
"""Looked at for the one that is told."""

_COUNTED: Final = (
    *("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "dependentSchemas"),
    *("items", "prefixItems", "additionalItems", "contains", "properties", "propertyNames"),
    "additionalProperties",
)
_LEFT_TO_THE_SERVER: Final = ("pattern", "patternProperties", "unevaluatedProperties")


class _Work(threading.local):
    """Steps of the check that runs in this thread."""

    steps = 0


_work = _Work()


class _TooMuch(Exception):
    """The schema asks for more work than any honest one."""


def validate(tool: str, arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Raises Refusal (invalid_request): names the argument by its path, and what was expected; or
    says that the schema itself cannot be used."""
    text = json.dumps(schema, ensure_ascii=False)
    try:
        _work.steps = 0
        errors = list(islice(_validator(text).iter_errors(dict(arguments)), MOST_ERRORS))
    except _TooMuch:
        raise Refusal(
            Code.INVALID_REQUEST,
            f"tool {tool}: its input schema cannot be used for arguments like these: checking "
            f"them takes more than {MOST_STEPS} steps",
        ) from None
    except (SchemaError, Unresolvable, RecursionError, TypeError, ValueError) as error:
        raise Refusal(
            Code.INVALID_REQUEST,
            f"tool {tool}: its input schema cannot be used ({type(error).__name__}); give it one "
            "in gateway/mcp-servers.yaml, or have its server corrected",
        ) from None
    found = best_match(errors)
    if found is not None:
        raise Refusal(Code.INVALID_REQUEST, f"tool {tool}: {_words(found)}")


def _words(error: ValidationError) -> str:
    path = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path
    ).lstrip(".")
    where = f"argument {path!r}" if path else "the arguments"
    # The message quotes the value, which may be as long as a request.
    told = error.message if len(error.message) < 300 else f"{error.message[:300]}…"
    return f"{where}: {told}"


@lru_cache(maxsize=1024)
def _validator(text: str) -> Validator:
    if len(text) > LARGEST_SCHEMA:
        raise ValueError("too large")
    schema = json.loads(text)
    base = validator_for(schema, default=Draft202012Validator)
    named, known = schema.get("$schema"), base.META_SCHEMA
    if named is not None and str(named).rstrip("#") != str(
        known.get("$id", known.get("id"))
    ).rstrip("#"):
        raise ValueError("its dialect is not known")
    base.check_schema(schema)
    rules: dict[str, Any] = dict.fromkeys(_LEFT_TO_THE_SERVER, _nothing)
    for name in _COUNTED:
        if name in base.VALIDATORS:
            rules[name] = _counted(base.VALIDATORS[name])
    rules["uniqueItems"] = _if_few(base.VALIDATORS["uniqueItems"])
    rules["additionalProperties"] = _unless_patterns(rules["additionalProperties"])
    bounded: type[Validator] = extend(base, rules)  # type: ignore[no-untyped-call]
    # An empty registry: nothing is ever fetched.
    return bounded(schema, registry=Registry())


Rule = Callable[..., Iterator[ValidationError] | None]


def _nothing(*_: Any) -> None:
    return None


def _counted(rule: Rule) -> Rule:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        _work.steps += len(value) if isinstance(value, list) else 1
        _work.steps += len(instance) if isinstance(instance, list | dict) else 0
        if _work.steps > MOST_STEPS:
            raise _TooMuch
        return rule(validator, value, instance, schema)

    return counted


def _if_few(rule: Rule) -> Rule:
    def few(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        if isinstance(instance, list) and len(instance) > MOST_UNIQUE:
            return None
        return rule(validator, value, instance, schema)

    return few


def _unless_patterns(rule: Rule) -> Rule:
    def plain(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        if "patternProperties" in schema:
            return None
        return rule(validator, value, instance, schema)

    return plain
