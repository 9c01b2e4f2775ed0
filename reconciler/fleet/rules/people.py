"""Rules about who is asked when an agent needs somebody."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.findings import Severity, quoted
from reconciler.fleet.owners import FLEET_FILE, deciders, people_of
from reconciler.fleet.rules import Desk, Facts, Hit, agent_rule, fleet_rule
from reconciler.fleet.rules.platform import TEAMS


@agent_rule(
    "no-owner", Severity.WARNING, "when it does harm at night, nobody is called and nobody decides"
)
def no_owner(desk: Desk) -> Iterator[Hit]:
    """No team, or one without members."""
    team = desk.facts.fleet.teams.get(desk.agent.team)
    place = desk.at("team")
    if team is None:
        yield Hit(
            place,
            f"agent {quoted(desk.agent.name)} has no team",
            f"add team; known: {', '.join(sorted(desk.facts.fleet.teams)) or 'none'} (teams.yaml)",
        )
    elif not team.members:
        yield Hit(
            place,
            f"team {quoted(team.name)} of agent {quoted(desk.agent.name)} has no members",
            "add people to it in teams.yaml, or name another team",
        )


@fleet_rule("unused-team", Severity.INFO, "a team without agents and paths decides nothing")
def unused_team(facts: Facts) -> Iterator[Hit]:
    """A team that owns neither an agent nor a path."""
    fleet = facts.fleet
    used = {agent.team for agent in fleet.agents.values()}
    used |= {principal.team for principal in fleet.principals.values()}
    mentioned = {o.removeprefix("@").rpartition("/")[2] for r in fleet.owners for o in r.owners}
    for name, team in sorted(fleet.teams.items()):
        if name not in used and not team.owns and name not in mentioned:
            yield Hit(
                facts.place("team", name, TEAMS),
                f"team {quoted(name)} owns no agent and no path",
                "remove it, or say what it owns",
            )


@fleet_rule(
    "unowned-fleet",
    Severity.WARNING,
    "only an operator can approve what loosens the whole fleet",
)
def unowned_fleet(facts: Facts) -> Iterator[Hit]:
    """Nobody owns interlock.yaml, the last resort of every decision."""
    fleet = facts.fleet
    owners = deciders(fleet.owners, fleet.teams, FLEET_FILE)
    if not people_of(owners, fleet.teams):
        yield Hit(
            facts.place("fleet", fleet.name, FLEET_FILE),
            f"nobody owns {FLEET_FILE}",
            "add it to a team's owns in teams.yaml, or to CODEOWNERS",
        )
