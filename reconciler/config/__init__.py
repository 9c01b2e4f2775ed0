"""The config repo's language: YAML and Markdown in, located and checked values out.

`load` reads a tree into a `Fleet` and findings; `policy` makes the gateway's snapshot of it. The
only room that knows YAML. Everything it reads may be written by someone we do not trust: any
input ends in values or in findings with a position, never in a traceback and never in a hang.

The values below are the room's face. `reconciler.config.load` and `reconciler.config.policy` are
imported by name where they are needed, so that the pure rooms above load no YAML.
"""

from reconciler.config.fleet import (
    AgentConfig,
    CanaryPolicy,
    Case,
    Claim,
    FirstReleasePolicy,
    Fleet,
    GatePolicy,
    GrantedTool,
    HarmPolicy,
    Level,
    Loaded,
    Loosened,
    Origin,
    OwnerRule,
    ParticipantConfig,
    PrincipalConfig,
    RolloutPolicy,
    SandboxConfig,
    Sentinel,
    SkillConfig,
    Suite,
    TeamConfig,
    Text,
    TriggerConfig,
    WorkspaceConfig,
)

__all__ = [
    "AgentConfig",
    "CanaryPolicy",
    "Case",
    "Claim",
    "FirstReleasePolicy",
    "Fleet",
    "GatePolicy",
    "GrantedTool",
    "HarmPolicy",
    "Level",
    "Loaded",
    "Loosened",
    "Origin",
    "OwnerRule",
    "ParticipantConfig",
    "PrincipalConfig",
    "RolloutPolicy",
    "SandboxConfig",
    "Sentinel",
    "SkillConfig",
    "Suite",
    "TeamConfig",
    "Text",
    "TriggerConfig",
    "WorkspaceConfig",
]
