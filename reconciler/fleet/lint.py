"""Unattended readiness: may these loops be left alone? Every finding has an id, a reason, a fix.

`lint` is a function of the fleet and today's date. An error means that a plan fails; a warning that
somebody should have decided this on purpose; an info that tidying up would help. docs/lint.md has
a section for each id.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from reconciler.config import Fleet
from reconciler.findings import Finding, Place, tidy
from reconciler.fleet.rules import (
    AGENT_RULES,
    FLEET_RULES,
    Facts,
    Rule,
    desk,
    ending,
    evidence,
    people,
    platform,
    reach,
    timing,
)

_REGISTERED = (ending, evidence, people, platform, reach, timing)
"""Importing a module registers its rules."""

PAGE = "docs/lint.md"


def lint(
    fleet: Fleet, today: date, *, skills: Mapping[str, Place] | None = None
) -> tuple[Finding, ...]:
    """Every finding, by file, line and column; the same fleet and day give the same findings.

    `skills` are the skills of the repository with where they are: a fleet only has those in use.
    """
    facts = Facts(fleet, today, skills=skills)
    found = [rule.finding(hit) for rule, check in FLEET_RULES.items() for hit in check(facts)]
    for agent in fleet.agents.values():
        here = desk(facts, agent)
        found += [rule.finding(hit) for rule, check in AGENT_RULES.items() for hit in check(here)]
    return tidy(found)


def rules() -> Mapping[str, Rule]:
    """The rules by id."""
    return {rule.id: rule for rule in sorted([*AGENT_RULES, *FLEET_RULES], key=lambda r: r.id)}
