"""The one combination that fails a plan: untrusted input, sensitive data and a free way out.

One planted sentence is enough then to send the data away. So an agent that newly has all three
fails the plan, and merged all the same it waits: besides everybody else who is asked, the owners of
interlock.yaml have to say that they accept the risk.
"""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.findings import Finding, Place, Severity, quoted
from reconciler.fleet.flows import Flow, leaks_fix, leaks_told
from reconciler.fleet.owners import FLEET_FILE
from reconciler.plan.desk import Desk
from reconciler.plan.model import Loosening
from reconciler.plan.phrases import tick
from reconciler.plan.reach import Reach, leaks_of

KIND = "trifecta"


def compare_leaks(
    desk: Desk, then: Mapping[str, Reach], now: Mapping[str, Reach]
) -> tuple[Finding, ...]:
    """What could leak out of the agent: an error for what is new, which is asked for too.

    What could leak already, before this change, was accepted or was there first: a warning.
    """
    found = leaks_of(desk.after, now)
    if not found:
        return ()
    live = {_key(flow) for flow in leaks_of(desk.before, then)}
    new = [flow for flow in found if _key(flow) not in live]
    for flow in new:
        _loosen(desk, flow)
    told = new or found
    place = desk.place
    return (
        Finding(
            "lethal-trifecta",
            Severity.ERROR if new else Severity.WARNING,
            *(place.file, place.line, place.column),
            f"{quoted(desk.name)} {leaks_told(told)}" + ("" if new else ", as it is live already"),
            leaks_fix(told),
        ),
    )


def _key(flow: Flow) -> tuple[str, str, str]:
    """The same hole as before, whichever of its sources is named first."""
    return flow.sink.role, flow.sink.tool, flow.data.sensitivity


def _loosen(desk: Desk, flow: Flow) -> None:
    place = Place(FLEET_FILE)
    who = "" if flow.sink.role == "main" else f"{tick(flow.sink.role)}: "
    text = (
        f"{who}untrusted text ({tick(flow.steer)}) could make {tick(flow.sink.tool)} send away "
        f"{flow.data.sensitivity} data ({tick(flow.data)})"
    )
    owners = desk.context.asked.about(place)
    desk.found.append(Loosening(f"agent/{desk.name}", KIND, text, desk.place, place, owners))
