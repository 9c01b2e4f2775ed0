"""Every way the gateway says no: one list of codes, one exception, one HTTP status for each.

A refusal is decided deep inside (a budget, a revocation, a provider's answer) and rendered at the
edge in the caller's dialect. It carries facts, so that a client never parses the message.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """Machine-readable reasons; documented in docs/gateway-http.md."""

    UNAUTHENTICATED = "unauthenticated"
    REVOKED = "revoked"
    STOPPED = "stopped"
    NOT_GRANTED = "not_granted"
    APPROVAL_REQUIRED = "approval_required"
    UNKNOWN_MODEL = "unknown_model"
    UNKNOWN_TOOL = "unknown_tool"
    UNKNOWN_PRICE = "unknown_price"
    BUDGET_EXCEEDED = "budget_exceeded"
    OUTCOME_UNKNOWN = "outcome_unknown"
    IN_FLIGHT = "in_flight"
    REQUEST_MISMATCH = "request_mismatch"
    INVALID_CALL_KEY = "invalid_call_key"
    INVALID_REQUEST = "invalid_request"
    NOT_FOUND = "not_found"
    PROVIDER_ERROR = "provider_error"
    PROVIDER_BUSY = "provider_busy"
    NO_POLICY = "no_policy"
    RATE_LIMITED = "rate_limited"
    QUEUE_FULL = "queue_full"
    GUARDRAIL = "guardrail"
    TOOL_CHANGED = "tool_changed"
    NO_DELEGATION = "no_delegation"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    OVERLOADED = "overloaded"
    INTERNAL_ERROR = "internal_error"


STATUS: dict[Code, int] = {
    Code.UNAUTHENTICATED: 401,
    Code.REVOKED: 403,
    Code.STOPPED: 403,
    Code.NOT_GRANTED: 403,
    Code.APPROVAL_REQUIRED: 403,
    Code.UNKNOWN_MODEL: 404,
    Code.UNKNOWN_TOOL: 404,
    Code.UNKNOWN_PRICE: 403,
    Code.BUDGET_EXCEEDED: 429,
    Code.OUTCOME_UNKNOWN: 409,
    Code.IN_FLIGHT: 409,
    Code.REQUEST_MISMATCH: 409,
    Code.INVALID_CALL_KEY: 403,
    Code.INVALID_REQUEST: 400,
    Code.NOT_FOUND: 404,
    Code.PROVIDER_ERROR: 502,
    Code.PROVIDER_BUSY: 429,
    Code.NO_POLICY: 503,
    Code.RATE_LIMITED: 429,
    Code.QUEUE_FULL: 429,
    Code.GUARDRAIL: 403,
    Code.TOOL_CHANGED: 403,
    Code.NO_DELEGATION: 403,
    Code.TOO_LARGE: 413,
    Code.TOO_SLOW: 408,
    Code.OVERLOADED: 503,
    Code.INTERNAL_ERROR: 500,
}

RETRYABLE = frozenset(
    {
        Code.IN_FLIGHT,
        Code.PROVIDER_ERROR,
        Code.PROVIDER_BUSY,
        Code.NO_POLICY,
        Code.RATE_LIMITED,
        Code.QUEUE_FULL,
        Code.TOO_SLOW,
        Code.OVERLOADED,
        Code.INTERNAL_ERROR,
    }
)
"""Codes that the same request, sent again, may overcome without anybody doing anything."""


class Refusal(Exception):
    """A call that is not carried out, or whose answer cannot be given.

    `facts` may hold rule, left_nano, left_tokens, left_requests, resets_at (milliseconds),
    call_key and retry_after (seconds): they stand beside `code` in every dialect's error.
    """

    def __init__(self, code: Code, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.facts: dict[str, Any] = {k: v for k, v in facts.items() if v is not None}

    @property
    def status(self) -> int:
        """The HTTP status of this refusal."""
        return STATUS[self.code]

    @property
    def retryable(self) -> bool:
        """May a client send the same again without anything having changed?"""
        return self.code in RETRYABLE

    def body(self) -> dict[str, Any]:
        """What every dialect's error object carries beside its own type."""
        return {
            "message": self.message,
            "code": str(self.code),
            "retryable": self.retryable,
            **self.facts,
        }
