"""Rules about what a change of an agent is judged by, and whether its texts stand still."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.config import AgentConfig
from reconciler.findings import Severity, quoted
from reconciler.fleet.rules import Desk, Facts, Hit, agent_rule, fleet_rule, named

MINIMUM_CASES = 20
"""Fewer cases do not tell a good change from a bad one (docs/statistics.md)."""


@agent_rule(
    "few-cases", Severity.INFO, "so few cases cannot tell a better release from a worse one"
)
def few_cases(desk: Desk) -> Iterator[Hit]:
    """A suite under twenty cases. With a gate, loading refuses it."""
    suite = desk.agent.suite
    if suite is not None and desk.agent.rollout.gate is None and len(suite.cases) < MINIMUM_CASES:
        yield Hit(
            desk.at("evals"),
            f"the suite of {quoted(desk.agent.name)} has {len(suite.cases)} cases, and a gate "
            f"needs {MINIMUM_CASES}",
            "add cases; `interlock case from RUN` makes one of a recorded run",
        )


@fleet_rule(
    "unpinned-text", Severity.INFO, "elsewhere a text changes by a new version, here by any commit"
)
def unpinned_text(facts: Facts) -> Iterator[Hit]:
    """In a fleet that pins most of its texts (`@vN`, `@commit`), one that is not."""
    texts = {name: _texts(agent) for name, agent in facts.fleet.agents.items()}
    pinned = sum(pin for each in texts.values() for _, pin in each)
    whole = sum(len(each) for each in texts.values())
    if pinned * 2 <= whole:
        return
    for name, each in texts.items():
        loose = [text for text, pin in each if not pin]
        if loose:
            agent = facts.fleet.agents[name]
            origin = agent.origins.get("instructions")
            place = origin.place if origin is not None and origin.place else agent.place
            yield Hit(
                place,
                f"{quoted(name)} does not pin {named(loose)}; {pinned} of {whole} texts of this "
                "fleet are pinned",
                "give it a version in its front matter and refer to it with @v1",
            )


def _texts(agent: AgentConfig) -> list[tuple[str, bool]]:
    """Texts in files, with whether the reference says which content it means."""
    found: dict[str, bool] = {}
    for role in agent.participants:
        if role.instructions.path and not _by_convention(agent, role.instructions.path):
            found[role.instructions.path] = role.instructions.pin is not None
        for skill in role.skills:
            found[f"skill {skill.name}"] = skill.pin is not None
    return list(found.items())


def _by_convention(agent: AgentConfig, path: str) -> bool:
    """Found beside the agent without being referred to: there is nowhere to write a pin."""
    return path.startswith(f"{agent.place.file.rpartition('/')[0]}/subagents/")
