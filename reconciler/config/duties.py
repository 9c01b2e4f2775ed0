"""What an agent is there for: when it runs, and what it owns."""

from __future__ import annotations

from typing import cast

from gateway.values import AgentName
from reconciler.config import fleet as values
from reconciler.config.models.agent import Agent
from reconciler.config.models.triggers import SERVED, Trigger
from reconciler.config.participants import Desk, Path
from reconciler.config.shared import home, undefined
from reconciler.findings import quoted


def trigger_of(desk: Desk, trigger: Trigger) -> values.TriggerConfig:
    """The trigger; a kind that nothing serves yet is a warning at it."""
    place = desk.at(["trigger"])
    kind = cast(values.TriggerKind, trigger.kind)
    if kind not in SERVED:
        desk.notes.warn(
            "trigger-not-served",
            place,
            f"nothing starts it yet but `interlock run`: this version does not serve {kind}",
            "use schedule or manual until a later version does",
        )
    return values.TriggerConfig(
        schedule=trigger.schedule,
        timezone=trigger.timezone,
        kind=kind,
        what=trigger.event or trigger.webhook or "",
        after=tuple(AgentName(name) for name in trigger.after or ()),
        place=place,
    )


def claims_of(desk: Desk, agent: Agent) -> tuple[values.Claim, ...]:
    """A path is claimed within one repository; mcp: claims are the same everywhere."""
    workspace = agent.sandbox.workspace
    here = workspace.git if workspace else ""
    found: list[values.Claim] = []
    for index, owned in enumerate(agent.owns):
        at: Path = ["agent", "owns", index, "claim"]
        mcp = owned.claim.startswith("mcp:")
        if mcp:
            server = owned.claim.removeprefix("mcp:").partition("/")[0]
            if server not in desk.shared.servers:
                undefined(
                    desk.notes,
                    desk.at(at),
                    kind="server",
                    name=server,
                    known=list(desk.shared.servers),
                    home=home(desk.shared, "server", "gateway/mcp-servers.yaml"),
                )
        other = owned.to or owned.taken_from
        if other == agent.name:
            desk.notes.error(
                "claim-to-itself",
                desk.at(at[:-1]),
                f"{quoted(agent.name)} cannot hand a claim to itself",
                "name the other agent",
            )
        found.append(
            values.Claim(
                realm="mcp" if mcp else here,
                pattern=owned.claim,
                place=desk.at(at),
                given_to=AgentName(owned.to) if owned.to else None,
                taken_from=AgentName(owned.taken_from) if owned.taken_from else None,
            )
        )
    return tuple(found)
