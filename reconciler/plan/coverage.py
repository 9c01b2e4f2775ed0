"""Rules that no longer cover an agent because it got another name or another team.

Budgets, rate limits and guardrails name agents and teams by glob: moving from under one is the
same as removing it.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from reconciler.plan.model import Side, Standing
from reconciler.plan.phrases import record, tick

RULES = ("budget", "rate-limit", "guardrail")


def uncovered(live: Side, name: str, before: Standing, after: Standing) -> tuple[str, ...]:
    """Sentences, one for each enforced rule in force that covered the agent before only.

    A new agent was covered by nothing. The agent's former name is `formerly` of its facts.
    """
    if not before.facts:
        return ()
    former = _name_before(live, name, before, after)
    then, now = str(before.facts.get("team")), str(after.facts.get("team"))
    if former == name and then == now:
        return ()
    found = []
    for unit_name, unit in live.units.items():
        kind, _, rule = unit_name.partition("/")
        if kind not in RULES:
            continue
        value = record(unit.value)
        match = value if kind == "budget" else record(value.get("match"))
        agent, team = str(match.get("agent", "*")), str(match.get("team", "*"))
        covered = fnmatchcase(former, agent) and fnmatchcase(then, team)
        if covered and not (fnmatchcase(name, agent) and fnmatchcase(now, team)):
            found.append(f"{kind} {tick(rule)} covers it no longer")
    return tuple(found)


def _name_before(live: Side, name: str, before: Standing, after: Standing) -> str:
    former = after.facts.get("formerly")
    if isinstance(former, str) and name not in live.agents:
        return former
    return name
