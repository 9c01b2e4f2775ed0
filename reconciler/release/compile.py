"""From a fleet to releases: `tree → {agent: Release}`, once `config.load` has read the tree.

Pure. What goes into a leaf is normalised first (sets are sorted, defaults are written out, names
of files are left out), so that the same behaviour has the same digest however it was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from gateway.policy import Limits, Policy, ToolClass
from gateway.values import AgentName, Json, canonical_json, content_hash
from reconciler.config import AgentConfig, Fleet, ParticipantConfig, SandboxConfig, Sentinel
from reconciler.findings import Finding, Severity, quoted
from reconciler.release.model import Release, release_of

Leaves = dict[str, Json]
Images = Mapping[str, str]


def compile_fleet(
    fleet: Fleet, *, images: Images | None = None
) -> dict[AgentName, Release | tuple[Finding, ...]]:
    """Each agent's release, or why it has none.

    `images` are digests this machine knows by image name; those of interlock.lock win.
    """
    return {
        name: compile_agent(agent, fleet, images=images) for name, agent in fleet.agents.items()
    }


def compile_agent(
    agent: AgentConfig, fleet: Fleet, *, images: Images | None = None
) -> Release | tuple[Finding, ...]:
    """The release of one agent, or findings when its sandbox image has no digest."""
    image = {**(images or {}), **fleet.images}.get(agent.sandbox.image)
    if image is None:
        origin = agent.origins.get("sandbox.image")
        place = origin.place if origin is not None and origin.place is not None else agent.place
        return (
            Finding(
                "image-not-locked",
                Severity.ERROR,
                place.file,
                place.line,
                place.column,
                f"image {quoted(agent.sandbox.image)} has no digest in interlock.lock",
                "run `interlock lock`",
            ),
        )
    leaves: Leaves = {
        "limits": _limits(agent.limits),
        "until": {k: v for k, v in agent.until.model_dump(mode="json").items() if v is not None},
        "sandbox": _sandbox(agent.sandbox, image),
        "safety": _safety(agent),
        "workspace": _workspace(agent),
    }
    leaves |= participant_leaves(agent.main, "main", fleet.platform)
    for subagent in agent.subagents:
        prefix = f"subagents/{subagent.name}"
        leaves |= participant_leaves(subagent, prefix, fleet.platform)
        leaves[f"{prefix}/role"] = subagent.kind.value
        leaves[f"{prefix}/limits"] = _limits(subagent.limits)
    return release_of(leaves)


def variant(
    agent: AgentConfig, sentinel: Sentinel, fleet: Fleet, *, images: Images | None = None
) -> Release | tuple[Finding, ...]:
    """The release of a sentinel: the agent with the sentinel's instructions or model."""
    main = replace(
        agent.main,
        instructions=sentinel.instructions or agent.main.instructions,
        model=sentinel.model or agent.main.model,
    )
    return compile_agent(replace(agent, main=main), fleet, images=images)


def participant_leaves(participant: ParticipantConfig, prefix: str, platform: Policy) -> Leaves:
    """The leaves of the agent itself or of a sub-agent, under `prefix`."""
    leaves: Leaves = {
        f"{prefix}/model": _model(participant.model, platform),
        f"{prefix}/parameters": dict(participant.parameters),
        f"{prefix}/instructions": participant.instructions.body,
        f"{prefix}/builtin": _set(participant.builtin),
    }
    for skill in participant.skills:
        leaves[f"{prefix}/skills/{skill.name}"] = {
            "description": skill.description,
            "files": dict(skill.files),
        }
    for name, tool in participant.tools.items():
        leaves[f"{prefix}/tools/{name}"] = {
            **_tool(platform.tool(name)),
            "args": {argument: _set(globs) for argument, globs in tool.args.items()},
            "approval": tool.approval,
        }
    return leaves


def _model(name: str, platform: Policy) -> Json:
    """The name and the set of models it may stand for; their order is the router's business."""
    targets: list[Json] = []
    for target in sorted(platform.targets(name)):
        model = platform.models[target]
        provider = platform.providers[model.provider]
        targets.append({"name": target, "provider": provider.kind, "id": model.id})
    return {"name": name, "targets": targets}


def _tool(tool: ToolClass | None) -> dict[str, Json]:
    tool = tool or ToolClass()
    return {
        "access": _set(access.value for access in tool.access),
        "description": tool.description,
        "schema": content_hash(tool.input_schema),
        "fingerprint": tool.fingerprint,
    }


def _set(texts: Iterable[str]) -> Json:
    return [*sorted(set(texts))]


def _workspace(agent: AgentConfig) -> Json:
    source = agent.workspace
    if source is None:
        return None
    return {"git": source.git, "ref": source.ref, "protect": _set(source.protect)}


def _limits(limits: Limits) -> Json:
    return dict(limits.model_dump(mode="json"))


def _sandbox(sandbox: SandboxConfig, image: str) -> Json:
    return {
        "image": image,
        "cpus_milli": sandbox.cpus_milli,
        "memory_bytes": sandbox.memory_bytes,
        "pids": sandbox.pids,
        "disk_bytes": sandbox.disk_bytes,
        "exec_timeout_ms": sandbox.exec_timeout_ms,
    }


def _safety(agent: AgentConfig) -> Json:
    """The checks without ids, as a sorted set: their order and names change nothing."""
    checks: dict[bytes, Json] = {}
    for check in agent.safety:
        value: Json = {
            "kind": check.kind,
            "include": _set(check.include),
            "exclude": _set(check.exclude),
        }
        checks[canonical_json(value)] = value
    return [checks[key] for key in sorted(checks)]
