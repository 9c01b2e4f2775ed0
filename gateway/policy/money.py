"""Budgets: limits on money, tokens and requests over a window."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from gateway.policy.frozen import Frozen
from gateway.values import NanoUSD


class Window(StrEnum):
    """Over what a budget is counted. Calendar windows are UTC."""

    RUN = "run"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"


class BudgetRule(Frozen):
    """A limit on money, tokens, requests, or several of them. Matches on every field that is
    given (glob patterns); `user` is who a run or a call is for, `tag` one of its tags."""

    name: str
    limit: NanoUSD | None = None
    tokens: int | None = None
    requests: int | None = None
    window: Window
    agent: str = "*"
    team: str = "*"
    user: str = "*"
    model: str = "*"
    tag: str = "*"
    purpose: str = "*"
    mode: Literal["enforce", "audit"] = "enforce"
    alert_at: tuple[int, ...] = (80,)
    """Percentages of the limit at which an alert is recorded."""
    each_agent: bool = False
    """True: every matching agent has the limit for itself; False: they share it."""
