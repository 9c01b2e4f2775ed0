"""From a fleet to releases: `tree → {agent: Release}`, once `config.load` has read the tree.

Pure. What goes into a leaf is normalised first (sets are sorted, defaults are written out, names
of files are left out), so that the same behaviour has the same digest however it was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gateway.values import AgentName, content_hash
from reconciler.config import AgentConfig, Fleet, ParticipantConfig, Sentinel
from reconciler.findings import Finding, Severity, quoted
from reconciler.release.leaves import Leaf, Leaves, path_of
from reconciler.release.model import Release, release_of_hashed

Images = Mapping[str, str]


def compile_fleet(
    fleet: Fleet, *, images: Images | None = None
) -> dict[AgentName, Release | tuple[Finding, ...]]:
    """Each agent's release, or why it has none.

    `images` are digests this machine knows by image name; those of interlock.lock win.
    """
    leaves = Leaves(fleet.platform)
    return {
        name: compile_agent(agent, fleet, images=images, leaves=leaves)
        for name, agent in fleet.agents.items()
    }


def known_images(fleet: Fleet, images: Images | None) -> Images:
    """Digests by image name: the machine's, and over them those of interlock.lock."""
    return {**images, **fleet.images} if images else fleet.images


def compile_agent(
    agent: AgentConfig,
    fleet: Fleet,
    *,
    images: Images | None = None,
    leaves: Leaves | None = None,
) -> Release | tuple[Finding, ...]:
    """The release of one agent, or findings when its sandbox image has no digest.

    `leaves` must be of the fleet's platform; given, what agents share is made once.
    """
    image = known_images(fleet, images).get(agent.sandbox.image)
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
    made = leaves or Leaves(fleet.platform)
    found: dict[str, Leaf] = {
        "limits": made.limits(agent.limits),
        "until": made.until(agent.until),
        "sandbox": made.sandbox(agent.sandbox, image),
        "safety": made.safety(agent),
        "workspace": made.workspace(agent),
    }
    _add(found, agent.main, "main", made)
    for subagent in agent.subagents:
        prefix = f"subagents/{subagent.name}"
        _add(found, subagent, prefix, made)
        found[path_of(prefix, "role")] = made.text(subagent.kind.value)
        found[path_of(prefix, "limits")] = made.limits(subagent.limits)
    return release_of_hashed(found)


def variant(
    agent: AgentConfig,
    sentinel: Sentinel,
    fleet: Fleet,
    *,
    images: Images | None = None,
    leaves: Leaves | None = None,
) -> Release | tuple[Finding, ...]:
    """The release of a sentinel: the agent with the sentinel's instructions or model."""
    main = replace(
        agent.main,
        instructions=sentinel.instructions or agent.main.instructions,
        model=sentinel.model or agent.main.model,
    )
    return compile_agent(replace(agent, main=main), fleet, images=images, leaves=leaves)


def _add(
    found: dict[str, Leaf], participant: ParticipantConfig, prefix: str, leaves: Leaves
) -> None:
    """The leaves of the agent itself or of a sub-agent, under `prefix`."""
    body = participant.instructions.body
    found[path_of(prefix, "model")] = leaves.model(participant.model)
    found[path_of(prefix, "parameters")] = leaves.parameters(participant.parameters)
    found[path_of(prefix, "instructions")] = (body, content_hash(body))
    found[path_of(prefix, "builtin")] = leaves.builtin(participant.builtin)
    for skill in participant.skills:
        found[path_of(prefix, "skills", skill.name)] = leaves.skill(skill)
    for name, tool in participant.tools.items():
        found[path_of(prefix, "tools", name)] = leaves.tool(name, tool)
