"""Which recorded calls a changed policy would now refuse, let through, or serve elsewhere.

Every recorded call is held against two sides, what is in force and what a change asks for, by the
very rules of the door: `routing.targets`, `catalogue.check`, `limits`, `pricing` and `budgets`.
What a recording cannot know is left out or counted as not known; docs/policies/backtest.md lists
it.

Verdicts are about each call alone: *had everything before it happened as recorded, would the door
have let this one through?* A refused run would have gone another way, which nobody knows, so every
recorded call counts against the budgets of both sides, whether it would have been let through or
not. So grants and budgets that only tighten never let anything new through. (Rate limits may: a
call that is refused leaves room for the next one.)

Rows are read once, in the order of time. What is kept grows with agents, runs and budget windows,
not with calls.
"""

from gateway.backtest.outcome import AgentOutcome, Outcome, Reason, Told
from gateway.backtest.recorded import Agent, RecordedCall, Side
from gateway.backtest.replay import EXAMPLES, backtest

__all__ = [
    "EXAMPLES",
    "Agent",
    "AgentOutcome",
    "Outcome",
    "Reason",
    "RecordedCall",
    "Side",
    "Told",
    "backtest",
]
