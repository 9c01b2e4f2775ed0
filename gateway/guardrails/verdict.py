"""What a guardrail says: what it let pass, what it found, or that it refuses.

What was found is told by its kind and never by its text: findings go to audit records, logs and
error messages.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from gateway.policy.rules import Guardrail, Hook
from gateway.refusals import Code, Refusal

Mode = Literal["enforce", "enforce_but_ignore_on_error", "audit"]
T = TypeVar("T")

WHERE = {
    Hook.MODEL_INPUT: "what was to go to the model",
    Hook.MODEL_OUTPUT: "the model's answer",
    Hook.TOOL_INPUT: "the tool's arguments",
    Hook.TOOL_OUTPUT: "the tool's result",
}


@dataclass(frozen=True, slots=True)
class Found:
    """One kind of thing that one rule found, and how often; or (`error`) that it could not look."""

    rule: str
    mode: Mode
    what: str
    count: int = 1
    error: bool = False


@dataclass(frozen=True, slots=True)
class Verdict(Generic[T]):
    """What may go on: the very object that was given when nothing in it was changed."""

    value: T
    findings: tuple[Found, ...] = ()


class Refused(Refusal):
    """A guardrail's no, with everything that was found until then."""

    def __init__(self, message: str, *, rule: str, findings: tuple[Found, ...]) -> None:
        super().__init__(Code.GUARDRAIL, message, rule=rule)
        self.findings = findings


class CheckError(Exception):
    """A check could not be carried out. The message says why, without the text it was about."""


class Book:
    """What the rules of one look find, in order, and what becomes of it by each rule's mode."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook
        self._counts: dict[tuple[str, Mode, str, bool], int] = {}
        self.entries = 0

    @property
    def findings(self) -> tuple[Found, ...]:
        """Everything found so far."""
        return tuple(
            Found(rule, mode, what, count, error)
            for (rule, mode, what, error), count in self._counts.items()
        )

    def changes(self, rule: Guardrail, whats: Iterable[str]) -> bool:
        """Record what `rule` found; True when it is to be replaced. Raises Refused."""
        what = ""
        for what in whats:
            self._add(rule, what)
        if not what or rule.mode == "audit":
            return False
        if rule.action == "mutate":
            return True
        raise self._refused(rule, f"{WHERE[self._hook]} holds {what}; take it out")

    def breaks(self, rule: Guardrail, why: str, reason: str = "") -> None:
        """Record that the whole breaks `rule`. `reason` is told, not recorded. Raises Refused."""
        self._add(rule, why)
        if rule.mode != "audit":
            told = f": {reason}" if reason else ""
            raise self._refused(rule, f"{WHERE[self._hook]} {why}{told}")

    def fails(self, rule: Guardrail, error: CheckError) -> None:
        """Record that `rule` could not be carried out. Raises Refused: closed unless told so."""
        self._add(rule, str(error), error=True)
        if rule.mode == "enforce":
            raise self._refused(
                rule,
                f"{WHERE[self._hook]} could not be checked: {error}. Who owns the guardrail can "
                "repair it, or let calls pass by mode enforce_but_ignore_on_error",
            )

    def _add(self, rule: Guardrail, what: str, *, error: bool = False) -> None:
        self.entries += 1
        key = (rule.name, rule.mode, what, error)
        self._counts[key] = self._counts.get(key, 0) + 1

    def _refused(self, rule: Guardrail, why: str) -> Refused:
        message = f"guardrail {rule.name!r} ({self._hook}): {why}"
        return Refused(message, rule=rule.name, findings=self.findings)
