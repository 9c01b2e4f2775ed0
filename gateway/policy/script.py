"""Scripts of the scripted provider: rules over a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from gateway.policy.frozen import Frozen


class Recall(Frozen):
    """Finds something said earlier: the last match of `pattern` in the observations."""

    pattern: str
    tool: str = "*"


class When(Frozen):
    """Condition of a scripted rule. Every given part must hold; patterns are Python regexes
    searched with DOTALL off and MULTILINE on."""

    system: str | None = None
    not_system: str | None = None
    first: bool | None = None
    """True: nothing has been observed yet in this conversation."""
    last_tool: str | None = None
    """Glob over the name of the tool that gave the last observation."""
    last: str | None = None
    """Pattern the last observation must contain; named groups become values."""
    not_last: str | None = None
    user: str | None = None
    """Pattern the last user message must contain; named groups become values."""
    seen: str | None = None
    """Pattern some earlier observation must contain."""
    not_seen: str | None = None
    calls: str | None = None
    """Glob of a tool that has been called already."""
    not_calls: str | None = None


class ScriptedCall(Frozen):
    """A tool call; string arguments are templates over the values, `{name}`."""

    tool: str
    args: Mapping[str, Any] = Field(default_factory=dict)


class Rule(Frozen):
    """The first rule whose `when` holds decides the turn."""

    name: str
    when: When = When()
    recall: Mapping[str, Recall] = Field(default_factory=dict)
    """Values taken from earlier observations; the rule does not apply when one is not found."""
    say: str = ""
    call: ScriptedCall | None = None


class Script(Frozen):
    """A deterministic model: rules over the conversation. It knows nothing but what it reads."""

    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]
