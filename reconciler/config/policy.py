"""What the gateway is told of an agent: what it may do *today*, by role.

A release says what an agent was tested with; this says what the watched branch allows now. The
gateway grants the intersection, so a power taken away here is gone at once, without a rollout.
"""

from __future__ import annotations

from gateway.policy import AgentPolicy, Grants, Policy, ToolGrant
from reconciler.config.fleet import AgentConfig, ParticipantConfig


def ceiling(agent: AgentConfig, platform: Policy) -> AgentPolicy:
    """What an agent's own file allows each of its roles."""
    return AgentPolicy(
        team=agent.team,
        roles={p.name: _grants(p, platform) for p in agent.participants},
    )


def _grants(participant: ParticipantConfig, platform: Policy) -> Grants:
    return Grants(
        models=admissible(participant.model, platform),
        tools={
            name: ToolGrant(args=tool.args, approval=tool.approval)
            for name, tool in sorted(participant.tools.items())
        },
        limits=participant.limits,
    )


def admissible(model: str, platform: Policy) -> tuple[str, ...]:
    """The name an agent asks for and the models it may stand for, sorted.

    Both are granted, so that the gateway can refuse a target that a virtual model got after the
    release was tested.
    """
    return tuple(sorted({model, *platform.targets(model)}))
