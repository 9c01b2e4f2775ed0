"""A small policy, and recorded calls under it, for replays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.backtest import Agent, RecordedCall, Side
from gateway.policy import (
    Access,
    AgentPolicy,
    BudgetRule,
    Grants,
    Limits,
    Model,
    Policy,
    Price,
    Provider,
    Script,
    ToolClass,
    ToolGrant,
    ToolServer,
    VirtualModel,
    Window,
)
from gateway.policy.script import Rule
from gateway.values import Millis, NanoUSD

AT = Millis(1_795_410_000_000)
"""A Monday, shortly after five in the morning."""
CHEAP, DEAR = 1_000, 5_000
"""Nano-dollars of a token, in or out."""


def model(price: int | None = CHEAP, provider: str = "offline") -> Model:
    """A model of which every token costs the same."""
    each = Price(input=NanoUSD(price), output=NanoUSD(price)) if price is not None else None
    return Model(provider=provider, id="m", price=each)


POLICY = Policy(
    providers={"offline": Provider(kind="scripted", script=Script(rules=(Rule(name="end"),)))},
    models={"large": model(DEAR), "small": model(CHEAP), "free": model(None)},
    virtual_models={"smart": VirtualModel(targets=("large", "small"))},
    servers={
        "tracker": ToolServer(
            url="http://tracker.example/mcp",
            tools={
                "list": ToolClass(access=(Access.READ,)),
                "open": ToolClass(access=(Access.WRITE,)),
            },
        )
    },
    budgets=(
        BudgetRule(name="day", window=Window.DAY, limit=NanoUSD(100_000_000), each_agent=True),
    ),
)
GRANTS = Grants(
    models=("large", "smart", "small"),
    tools={
        "tracker.list": ToolGrant(),
        "tracker.open": ToolGrant(args={"project": ("northwind-*",)}),
    },
    limits=Limits(max_cost=NanoUSD(50_000_000)),
)
ASKS = {"main": "smart"}


def side(
    policy: Policy = POLICY,
    grants: Grants = GRANTS,
    asks: Mapping[str, str] | None = None,
    names: tuple[str, ...] = ("triage", "notes"),
) -> Side:
    """The same for each of its agents."""
    declared = AgentPolicy(team="payments", roles={"main": grants})
    found = {name: Agent(name, declared, ASKS if asks is None else asks) for name in names}
    return Side(policy, found.get)


def asked(number: int = 0, *, target: str = "large", **more: Any) -> RecordedCall:
    """A model call of 1,000 tokens, one a minute, every ten of one run."""
    fields: dict[str, Any] = {
        "run": f"run-{number // 10}",
        "step": str(number % 10),
        "call": 0,
        "kind": "model",
        "agent": "triage",
        "role": "main",
        "at": Millis(AT + number * 60_000),
        "asked": "smart",
        "target": target,
        "cost_nano": 1_000 * (DEAR if target == "large" else CHEAP),
        "input_tokens": 900,
        "output_tokens": 100,
    }
    return RecordedCall(**(fields | more))


def did(
    tool: str, arguments: Mapping[str, Any] | None, number: int = 0, **more: Any
) -> RecordedCall:
    """A tool call."""
    return RecordedCall(
        **(
            {
                "run": f"run-{number // 10}",
                "step": str(number % 10),
                "call": 0,
                "kind": "tool",
                "agent": "triage",
                "role": "main",
                "at": Millis(AT + number * 60_000),
                "asked": tool,
                "target": tool,
                "arguments": arguments,
            }
            | more
        )
    )
