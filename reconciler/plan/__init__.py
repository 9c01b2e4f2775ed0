"""The plan: what a change can newly do, touch and cost, and whose approval that needs. Pure.

`side_of` makes a side from what a commit declares, `diff` compares two, `waiting` says what keeps
its previous value until somebody has approved. `plan.render` shows a plan.
"""

from reconciler.plan.changes import AgentChange, Capability, Plan, UnitChange
from reconciler.plan.collisions import collisions_of
from reconciler.plan.diff import FLEET_AGENTS, diff
from reconciler.plan.model import Loosening, Side, Standing, Subject, Unit
from reconciler.plan.sides import Memo, facts_of, people_of_units, side_of, standing_of, units_of
from reconciler.plan.waiting import waiting

__all__ = [
    "FLEET_AGENTS",
    "AgentChange",
    "Capability",
    "Loosening",
    "Memo",
    "Plan",
    "Side",
    "Standing",
    "Subject",
    "Unit",
    "UnitChange",
    "collisions_of",
    "diff",
    "facts_of",
    "people_of_units",
    "side_of",
    "standing_of",
    "units_of",
    "waiting",
]
