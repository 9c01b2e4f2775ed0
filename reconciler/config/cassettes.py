"""Cassettes: recorded calls of a provider, one JSON object a line, read into the policy.

A cassette provider plays them and reaches nothing, so a config repo can be tried with real answers
and no key. Recording is the gateway's business; here a file is read and checked, line by line.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from gateway.policy import TapeEntry
from reconciler.config import positions
from reconciler.config.reader import Notes, Reader
from reconciler.config.secrets import secret_finding
from reconciler.findings import Finding, Place, Severity

MAX_BYTES = 8 * 1024 * 1024
"""Bytes of one cassette: it is part of the policy, which is published as a whole."""

Made = tuple[tuple[TapeEntry, ...], tuple[Finding, ...]]


def read_cassette(
    reader: Reader, path: str, notes: Notes, *, asked: Place
) -> tuple[TapeEntry, ...] | None:
    """The calls of the cassette at `path`; None and findings when it cannot be used."""
    made = reader.made("cassette", path, MAX_BYTES, asked, _entries)
    if isinstance(made, Finding):
        notes.findings.append(made)
        return None
    entries, findings = made
    notes.findings += findings
    return None if findings else entries


def _entries(path: str, raw: bytes) -> Made:
    try:
        text = positions.decode(path, raw, limit=MAX_BYTES)
    except positions.Refused as refused:
        return (), (refused.finding,)
    secret = secret_finding(path, text)
    if secret is not None:
        return (), (secret,)
    entries: list[TapeEntry] = []
    findings: list[Finding] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entries.append(_entry(line))
        except json.JSONDecodeError as error:
            findings.append(_wrong(path, number, error.colno, f"not JSON: {error.msg}"))
        except (ValidationError, ValueError, RecursionError) as error:
            findings.append(_wrong(path, number, 1, _words(error)))
    if not entries and not findings:
        findings.append(_wrong(path, 1, 1, "no call is recorded here"))
    return tuple(entries), tuple(findings)


def _entry(line: str) -> TapeEntry:
    """One line. The policy holds no floats: a response with one in it is kept as its text."""
    fields = json.loads(line, parse_float=Decimal)
    if not isinstance(fields, dict):
        raise ValueError("expected an object with request and response, or events")
    if _has_fraction(fields.get("response")):
        fields["response"] = json.dumps(json.loads(line)["response"], ensure_ascii=False)
    return TapeEntry.model_validate(fields)


def _has_fraction(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_fraction(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_fraction(item) for item in value)
    return isinstance(value, Decimal)


def _words(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {str(first['msg']).lower()}"
    return str(error) or "nested too deeply"


def _wrong(path: str, line: int, column: int, message: str) -> Finding:
    fix = "record it again, or remove the line"
    return Finding("cassette", Severity.ERROR, path, line, column, message, fix)
