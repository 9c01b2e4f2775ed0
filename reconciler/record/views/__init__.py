"""One read model for the command line's JSON, the reports in git and the dashboard.

Frozen values made from the tables by functions that take an open transaction, so that everything
on one page is of one moment. Money always comes from the `calls` ledger: settled and unknown calls
at their cost, open ones at what is reserved for them. Windows are whole days in UTC, so that the
same figures come out of the ledger in git.
"""

from __future__ import annotations

from reconciler.record.views.fleet import (
    AgentView,
    AlertView,
    FleetView,
    HoldView,
    StopView,
    agent,
    alerts,
    fleet,
)
from reconciler.record.views.money import Cost, costs
from reconciler.record.views.rollouts import (
    AuditLine,
    CaseView,
    Effect,
    ReceiptView,
    RolloutDetail,
    RolloutView,
    rollout,
    rollouts,
)
from reconciler.record.views.runs import CallView, RunDetail, RunView, run, runs, views_of
from reconciler.record.views.waiting import WaitingView, waiting

__all__ = [
    "AgentView",
    "AlertView",
    "AuditLine",
    "CallView",
    "CaseView",
    "Cost",
    "Effect",
    "FleetView",
    "HoldView",
    "ReceiptView",
    "RolloutDetail",
    "RolloutView",
    "RunDetail",
    "RunView",
    "StopView",
    "WaitingView",
    "agent",
    "alerts",
    "costs",
    "fleet",
    "rollout",
    "rollouts",
    "run",
    "runs",
    "views_of",
    "waiting",
]
