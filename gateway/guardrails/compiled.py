"""The rules of a policy made ready: patterns, schemas and proofs compiled once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import regex

from gateway.guardrails import judging
from gateway.guardrails.injection import markers
from gateway.guardrails.judging import Judge
from gateway.guardrails.personal import personal
from gateway.guardrails.scan import Pattern, Search, Span
from gateway.guardrails.secrets import secrets
from gateway.guardrails.verdict import CheckError
from gateway.policy.rules import (
    Check,
    GlobsCheck,
    Guardrail,
    HttpCheck,
    InjectionCheck,
    PiiCheck,
    RegexCheck,
    SchemaCheck,
    SecretsCheck,
)

SEEN = 8192
"""Texts that are remembered as clean, by each set of rules; some 150 bytes each."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A rule that looks for things in every text (`searches`), judges the whole (`judge`), or asks
    a service (`http`). One that cannot be compiled fails at every call (`broken`)."""

    rule: Guardrail
    searches: tuple[Search, ...] = ()
    judge: Judge | None = None
    http: HttpCheck | None = None
    broken: CheckError | None = None


def ready(rule: Guardrail) -> Compiled:
    """The rule, ready. Never raises: a bad rule must not keep a policy from taking effect."""
    try:
        return _compiled(rule, rule.check)
    except (ValueError, LookupError, regex.error) as error:
        why = " ".join(str(error).split())[:200]
        return Compiled(rule, broken=CheckError(f"the rule cannot be read ({why})"))


def _compiled(rule: Guardrail, check: Check) -> Compiled:
    match check:
        case SecretsCheck():
            return Compiled(rule, (secrets(check.allow),))
        case PiiCheck():
            return Compiled(rule, personal(check.kinds))
        case InjectionCheck():
            return Compiled(rule, markers(check.markers))
        case RegexCheck() if check.required:
            return Compiled(rule, judge=judging.by_presence(check))
        case RegexCheck():
            return Compiled(rule, (_pattern(check),))
        case SchemaCheck():
            return Compiled(rule, judge=judging.by_schema(check))
        case GlobsCheck():
            return Compiled(rule, judge=judging.by_globs(check))
        case HttpCheck():
            return Compiled(rule, http=check)


def _pattern(check: RegexCheck) -> Pattern:
    template = check.replacement or ""

    def take(match: regex.Match[str]) -> Span:
        return Span(match.start(), match.end(), "what its pattern matches", match.expand(template))

    return Pattern(check.pattern, take, timed=True)


class Seen:
    """Texts that are known to be clean. A conversation is sent again with every turn; only what is
    new in it costs a look."""

    def __init__(self, size: int = SEEN) -> None:
        self._size = size
        self._digests: OrderedDict[bytes, None] = OrderedDict()

    def digest(self, text: str, salt: bytes = b"") -> bytes:
        """What a text is remembered by."""
        return sha256(salt + text.encode("utf-8", "surrogatepass")).digest()

    def __contains__(self, digest: bytes) -> bool:
        if digest not in self._digests:
            return False
        self._digests.move_to_end(digest)
        return True

    def add(self, digest: bytes) -> None:
        """Remember a text; the one that was not met for longest is forgotten."""
        self._digests[digest] = None
        if len(self._digests) > self._size:
            self._digests.popitem(last=False)


class Rules:
    """The rules that apply to a call, in the order of their work: over each text, over the whole,
    by a service. Shared by all calls to which the same rules apply."""

    def __init__(self, rules: Sequence[Compiled]) -> None:
        self.each = tuple(r for r in rules if r.searches)
        self.judges = tuple(r for r in rules if r.judge)
        self.asked = tuple(r for r in rules if r.http)
        self.broken = tuple(r for r in rules if r.broken)
        self.enforces = any(r.rule.mode != "audit" for r in rules)
        self.clean = Seen()
        self.allowed = Seen()
