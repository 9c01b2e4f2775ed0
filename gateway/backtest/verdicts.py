"""What the door would say of one call by itself: who may have what, and where it goes."""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.backtest.outcome import Reason
from gateway.backtest.recorded import Agent, RecordedCall
from gateway.mcp import catalogue
from gateway.policy import Access, Grants, Policy
from gateway.refusals import Code, Refusal
from gateway.routing.targets import targets


class Verdict(NamedTuple):
    """Why a call is not let through, and what that is about; no reason: it is."""

    reason: Reason | None
    about: str = ""

    @property
    def rank(self) -> int:
        """How much of a no it is: yes, a person is asked, no."""
        return 0 if self.reason is None else 1 if self.reason is Reason.APPROVAL else 2


YES: Final = Verdict(None)


class Way(NamedTuple):
    """Where a model call goes on one side: its targets, or why it goes nowhere. `ordered`: the
    first one is the first choice; else they share the calls."""

    agent: Agent | None
    grants: Grants
    targets: tuple[str, ...]
    ordered: bool
    verdict: Verdict


def way_of(agent: Agent | None, role: str, asked: str, policy: Policy) -> Way:
    """Where a call for this model goes."""
    grants = agent.policy.roles.get(role) if agent else None
    if agent is None or grants is None:
        return Way(agent, Grants(), (), True, Verdict(Reason.UNDECLARED, role))
    virtual = policy.virtual_models.get(asked)
    ordered = virtual is None or virtual.routing == "priority"
    try:
        found = targets(asked, grants, policy)
    except Refusal:
        return Way(agent, grants, (), ordered, Verdict(Reason.MODEL, asked))
    return Way(agent, grants, tuple(t.name for t in found), ordered, YES)


def served_by(way: Way, recorded: str) -> str | None:
    """What serves a call on the side that is in force: what served it, if that may still be."""
    if recorded in way.targets:
        return recorded
    return way.targets[0] if way.targets else None


def now_served_by(before: Way, after: Way, served: str) -> str | None:
    """What serves it on the other side.

    Where the targets are the same, the same one: it stood at this place when it was recorded.
    A call that its first choice served is served by the new first choice; one that fell back, by
    the first target that it had not failed at. Among targets that share the calls it stays where
    it is, as long as that is one of them.
    """
    if not after.targets:
        return None
    same = (before.targets, before.ordered) == (after.targets, after.ordered)
    if served in after.targets and (same or not after.ordered):
        return served
    failed: tuple[str, ...] = ()
    if before.ordered and served in before.targets:
        failed = before.targets[: before.targets.index(served)]
    return next((t for t in after.targets if t not in failed), after.targets[-1])


def of_tool(call: RecordedCall, agent: Agent | None, policy: Policy) -> tuple[Verdict, bool]:
    """What the door says of a tool call, and whether it could not look at its arguments."""
    grants = agent.policy.roles.get(call.role) if agent else None
    if grants is None:
        return Verdict(Reason.UNDECLARED, call.role), False
    grant, kind = grants.tools.get(call.asked), policy.tool(call.asked)
    if grant is None or kind is None:
        return Verdict(Reason.TOOL, call.asked), False
    if call.arguments is None:
        asks = grant.approval or Access.DESTRUCTIVE in kind.access
        verdict = Verdict(Reason.APPROVAL, call.asked) if asks else YES
        return verdict, bool(grant.args)
    try:
        catalogue.check(call.asked, call.arguments, grants=grants, sides=(grants,), policy=policy)
    except Refusal as refusal:
        asks = refusal.code is Code.APPROVAL_REQUIRED
        return Verdict(Reason.APPROVAL if asks else Reason.ARGUMENT, call.asked), False
    return YES, False
