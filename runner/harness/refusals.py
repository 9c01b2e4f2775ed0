"""What a refusal of the gateway means for the loop. Pure: codes in, an end or a result out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.client import CallRefused
from runner.journal import Outcome, Status
from runner.loop import Stop
from runner.spec import StopReason

_KILLED = frozenset({"revoked", "stopped"})
_NOT_OURS = frozenset(
    {"not_granted", "unknown_model", "unknown_price", "approval_required", "guardrail"}
)
_ELSEWHERE = frozenset(
    {"provider_error", "provider_busy", "rate_limited", "queue_full", "too_slow", "overloaded"}
)
"""It went wrong there, or there was no room for it: nobody said that it may not be."""


def outcome(refused: CallRefused) -> Outcome:
    """A refused call, as it is journaled; the result is what the model reads of a tool."""
    if refused.code == "outcome_unknown":
        status = Status.UNKNOWN
    elif refused.code in _ELSEWHERE:
        status = Status.ERROR
    else:
        status = Status.DENIED
    return Outcome(
        body={
            "error": {"code": refused.code, "message": refused.message, **refused.details},
            "result": f"error: {refused.message} ({refused.code})",
        },
        status=status,
    )


def stop(error: Mapping[str, Any], *, model: bool) -> Stop | None:
    """How a refused call ends the run; None when the model may go on without it (a tool)."""
    code, detail = str(error.get("code")), str(error.get("message", ""))
    if error.get("rule"):
        detail = f"budget rule {error['rule']}: {detail}"
    if code == "budget_exceeded":
        tokens = "left_tokens" in error and "left_nano" not in error
        return Stop(
            StopReason.TOKEN_BUDGET if tokens else StopReason.COST_BUDGET,
            detail,
            shared_budget=error.get("rule") not in (None, "run"),
        )
    if code in _KILLED:
        return Stop(StopReason.KILLED, detail)
    if code == "outcome_unknown":
        return Stop(
            StopReason.OUTCOME_UNKNOWN,
            f"{detail}. Look at the system it was sent to, then start the run anew.",
        )
    if not model:
        return None
    if code in _NOT_OURS:
        return Stop(StopReason.REFUSED, f"{code}: {detail}")
    return Stop(StopReason.ERROR, f"the model call failed: {code}: {detail}")


FATAL = frozenset(
    {
        StopReason.KILLED,
        StopReason.OUTCOME_UNKNOWN,
        StopReason.COST_BUDGET,
        StopReason.TOKEN_BUDGET,
    }
)
"""Ends of a sub-agent's call at the gateway that end the whole run."""
