"""What the gateway is told of an agent: what it may do *today*, by role.

A release says what an agent was tested with; this says what the watched branch allows now. The
gateway grants the intersection, so a power taken away here is gone at once, without a rollout.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.policy import AgentPolicy, Grants, Limits, Policy, ToolGrant
from reconciler.config.fleet import AgentConfig, GrantedTool, ParticipantConfig, PrincipalConfig


def ceiling(agent: AgentConfig, platform: Policy) -> AgentPolicy:
    """What an agent's own file allows each of its roles."""
    return AgentPolicy(
        team=agent.team,
        roles={p.name: _grants(p, platform) for p in agent.participants},
    )


def external(principal: PrincipalConfig, platform: Policy) -> AgentPolicy:
    """What a person or a service may reach from outside a run; its one role is `main`."""
    models = {name for asked in principal.models for name in admissible(asked, platform)}
    grants = Grants(
        models=tuple(sorted(models)),
        tools=_tools(principal.tools),
        limits=Limits(max_output_tokens=principal.max_output_tokens),
    )
    return AgentPolicy(team=principal.team, roles={"main": grants})


def _grants(participant: ParticipantConfig, platform: Policy) -> Grants:
    return Grants(
        models=admissible(participant.model, platform),
        tools=_tools(participant.tools),
        limits=participant.limits,
    )


def _tools(granted: Mapping[str, GrantedTool]) -> dict[str, ToolGrant]:
    return {
        name: ToolGrant(args=tool.args, approval=tool.approval)
        for name, tool in sorted(granted.items())
    }


def admissible(model: str, platform: Policy) -> tuple[str, ...]:
    """The name an agent asks for and the models it may stand for, sorted.

    Both are granted, so that the gateway can refuse a target that a virtual model got after the
    release was tested.
    """
    return tuple(sorted({model, *platform.targets(model)}))
