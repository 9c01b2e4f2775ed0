"""Checks that judge a text as a whole: its schema, globs over it, a pattern that must be there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import jsonschema_rs
import regex

from gateway.guardrails.scan import SECONDS
from gateway.guardrails.verdict import CheckError
from gateway.policy.rules import GlobsCheck, RegexCheck, SchemaCheck

Judge = Callable[[str, Any], "str | None"]
"""(text, the JSON value it stands for or None) → what is wrong with it, None when nothing is.
Raises CheckError."""


def by_schema(check: SchemaCheck) -> Judge:
    """A judge by JSON Schema, of the draft that `$schema` names (2020-12 by default).

    Raises ValueError for a schema that is none, or that refers to another document: nothing is
    ever fetched.
    """
    validator = jsonschema_rs.validator_for(_plain(dict(check.json_schema)), retriever=_refuse)

    def judge(text: str, value: Any) -> str | None:
        if value is None:
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                return "is not JSON"
        error = next(iter(validator.iter_errors(_plain(value))), None)
        if error is None:
            return None
        # Where in the schema, not where in the text, whose keys may be anything.
        return f"breaks the schema at {'/'.join(map(str, error.schema_path)) or 'its root'}"

    return judge


def _refuse(uri: str) -> Any:
    raise ValueError(f"the schema refers to {uri}; write what it needs under $defs")


def _plain(value: Any) -> Any:
    """JSON of plain dicts and lists, whatever the policy keeps it in."""
    return value if type(value) in (dict, list) else json.loads(json.dumps(value, default=dict))


def by_globs(check: GlobsCheck) -> Judge:
    """A judge by globs, case-sensitive, over the text or one argument (strings as they are,
    anything else as JSON). An argument that is missing matches nothing."""
    where = f"argument {check.argument!r}" if check.argument else "the text"

    def judge(text: str, value: Any) -> str | None:
        if check.argument is not None:
            if not isinstance(value, Mapping) or check.argument not in value:
                return f"lacks {where}, which must match one of allow" if check.allow else None
            given = value[check.argument]
            text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        denied = next((glob for glob in check.deny if fnmatchcase(text, glob)), None)
        if denied is not None:
            return f"is denied: {where} matches {denied!r}"
        if check.allow and not any(fnmatchcase(text, glob) for glob in check.allow):
            return f"is not allowed: {where} matches none of {', '.join(map(repr, check.allow))}"
        return None

    return judge


def by_presence(check: RegexCheck) -> Judge:
    """A judge that wants `pattern` to be found. Raises regex.error for a pattern that is none."""
    pattern = regex.compile(check.pattern)

    def judge(text: str, value: Any) -> str | None:
        try:
            found = pattern.search(text, timeout=SECONDS)
        except TimeoutError:
            raise CheckError(f"its pattern took longer than {SECONDS} s") from None
        return None if found else "lacks what must be there"

    return judge
