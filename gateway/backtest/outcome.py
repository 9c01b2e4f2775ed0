"""What came of a replay: values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.values import CallKey, Json, Millis, NanoUSD

NOTHING: Final = NanoUSD(0)


class Reason(StrEnum):
    """Why a call is not let through."""

    UNDECLARED = "undeclared"
    MODEL = "model"
    TOOL = "tool"
    ARGUMENT = "argument"
    PRICE = "price"
    BUDGET = "budget"
    RATE = "rate_limit"
    GUARDRAIL = "guardrail"
    APPROVAL = "approval"
    """Not refused: a person is asked."""


@dataclass(frozen=True, slots=True)
class Told:
    """Calls that come off otherwise, for one reason: `about` is the model, the tool, the budget
    (`run`: the run's own limits) or the agent."""

    reason: Reason
    about: str
    calls: int
    examples: tuple[CallKey, ...]

    def as_json(self) -> Json:
        """By name; examples as `run/step/call`."""
        return {
            "reason": self.reason.value,
            "about": self.about,
            "calls": self.calls,
            "examples": [str(key) for key in self.examples],
        }


@dataclass(frozen=True, slots=True)
class AgentOutcome:
    """What came of one agent's recorded calls. Money is in nano-dollars.

    `before_nano` and `after_nano` are what the calls that each side lets through cost at its own
    prices; `recorded_nano` is what the ledger says of all of them.
    """

    agent: str
    runs: int = 0
    calls: int = 0
    denied: tuple[Told, ...] = ()
    """Let through before and not now; or a person is asked now."""
    allowed: tuple[Told, ...] = ()
    """Let through now and not before, with why not; or nobody is asked any more."""
    rerouted: tuple[tuple[str, str, int], ...] = ()
    """(from, to, calls) that are served by another model."""
    denied_before: int = 0
    """Calls that neither side lets through: recorded under an earlier policy, or refused."""
    unseen: int = 0
    """Tool calls under a constraint whose arguments nobody recorded: only the tool was judged."""
    unpriced: int = 0
    """Calls that now cost nothing because nobody knows the price."""
    recorded_nano: NanoUSD = NOTHING
    before_nano: NanoUSD = NOTHING
    after_nano: NanoUSD = NOTHING

    @property
    def differs(self) -> bool:
        """Whether anything comes off otherwise."""
        return bool(
            self.denied or self.allowed or self.rerouted or self.before_nano != self.after_nano
        )

    def as_json(self) -> Json:
        """By name."""
        return {
            "agent": self.agent,
            "runs": self.runs,
            "calls": self.calls,
            "newly_denied": [told.as_json() for told in self.denied],
            "newly_allowed": [told.as_json() for told in self.allowed],
            "rerouted": [{"from": a, "to": b, "calls": n} for a, b, n in self.rerouted],
            "denied_before": self.denied_before,
            "unseen_arguments": self.unseen,
            "unpriced": self.unpriced,
            "recorded_nano": self.recorded_nano,
            "before_nano": self.before_nano,
            "after_nano": self.after_nano,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of all recorded calls, by agent. `first` and `last` are when the first and the
    last of them were made; None without any. `strangers`: calls of agents neither side has."""

    agents: tuple[AgentOutcome, ...] = ()
    first: Millis | None = None
    last: Millis | None = None
    strangers: int = 0

    @property
    def calls(self) -> int:
        """How many calls were replayed."""
        return sum(one.calls for one in self.agents)

    @property
    def runs(self) -> int:
        """Of how many runs."""
        return sum(one.runs for one in self.agents)
