"""From a release to what a runner executes, and to what its roles may do.

Needs the release only, not the commit it came from: a machine that was restored from `state/`
runs it the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.policy import AgentPolicy, Grants, Limits, ToolGrant, lower
from gateway.values import AgentName, Json, Occurrence, Purpose, TeamName
from reconciler.release.model import BadRelease, Release
from runner.spec import (
    ChangeCheck,
    Check,
    Recorded,
    Role,
    RoleKind,
    RunSpec,
    SandboxSpec,
    Skill,
    ToolCheck,
    Until,
    Workspace,
)

MAIN = "main"


def run_spec(
    release: Release,
    *,
    agent: AgentName,
    team: TeamName | str,
    purpose: Purpose,
    occurrence: Occurrence,
    input: str,  # noqa: A002 - the field's name in RunSpec
    workspace: Workspace,
    checks: Sequence[Check] = (),
    recorded: Sequence[Recorded] | None = None,
    checker_release: Release | None = None,
    ceiling: Limits | None = None,
    notes: str = "",
    tags: Sequence[str] = (),
) -> RunSpec:
    """The run of a release.

    `checker_release` is given for a canary's run and is stable's: checkers then come from it,
    because a candidate does not grade itself. Where stable has no checker nothing judges the
    run, and it counts as ungraded. `ceiling` lowers the release's limits. The release's safety
    checks are added to `checks`, its protected globs to the workspace's. Evals must give
    `recorded`, if only an empty list: ValueError without it. BadRelease for a damaged release.
    """
    if purpose is Purpose.EVAL and recorded is None:
        raise ValueError("an eval needs recorded tool results: it never touches a real system")
    declared = roles(release)
    until = Until.model_validate(release.leaves["until"])
    if checker_release is not None:
        declared, until = _judged_by(declared, until, checker_release)
    limits = Limits.model_validate(release.leaves["limits"])
    source: Any = release.leaves["workspace"] or {}
    protect = dict.fromkeys((*workspace.protect, *source.get("protect", ())))
    return RunSpec(
        agent=agent,
        team=TeamName(team),
        release=release.digest,
        purpose=purpose,
        occurrence=occurrence,
        input=input,
        roles=declared,
        limits=lower(limits, ceiling) if ceiling is not None else limits,
        sandbox=SandboxSpec.model_validate(release.leaves["sandbox"]),
        workspace=workspace.model_copy(update={"protect": tuple(protect)}),
        until=until,
        checks=(*checks, *safety_checks(release, taken={check.id for check in checks})),
        recorded=tuple(recorded) if recorded is not None else None,
        notes=notes,
        tags=tuple(tags),
    )


def roles(release: Release) -> dict[str, Role]:
    """`main` and every sub-agent of a release, with what it grants them. BadRelease."""
    names = sorted({path.split("/")[1] for path in release.leaves if path.startswith("subagents/")})
    try:
        found = {MAIN: _role(release, MAIN, MAIN, RoleKind.MAKER, release.leaves["limits"])}
        for name in names:
            prefix = f"subagents/{name}"
            kind = RoleKind(str(release.leaves[f"{prefix}/role"]))
            found[name] = _role(release, name, prefix, kind, release.leaves[f"{prefix}/limits"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadRelease(f"release {release.digest} cannot be run: {error}") from None
    return found


def ceiling_of(release: Release, team: TeamName | str) -> AgentPolicy:
    """What a release grants, as an agent's policy: for releases that are in use while the head
    says otherwise, or says nothing because the agent's file is broken (reconciler.tick.declare).
    """
    return AgentPolicy(
        team=str(team), roles={name: role.grants for name, role in roles(release).items()}
    )


def safety_checks(release: Release, *, taken: set[str] | None = None) -> tuple[Check, ...]:
    """The release's safety checks, with ids that none of `taken` has."""
    found: list[Check] = []
    used = set(taken or ())
    number = 0
    for value in _sequence(release.leaves["safety"]):
        number += 1
        while f"safety-{number}" in used:
            number += 1
        fields = {**value, "id": f"safety-{number}", "safety": True}
        kind = ChangeCheck if value["kind"] == "changes" else ToolCheck
        found.append(kind.model_validate(fields))
    return tuple(found)


def _role(release: Release, name: str, prefix: str, kind: RoleKind, limits: Json) -> Role:
    leaves = release.leaves
    model: Any = leaves[f"{prefix}/model"]
    parameters: Any = leaves[f"{prefix}/parameters"]
    return Role(
        name=name,
        kind=kind,
        model=model["name"],
        parameters=parameters,
        instructions=str(leaves[f"{prefix}/instructions"]),
        skills=tuple(
            Skill(name=skill, description=value["description"], files=value["files"])
            for skill, value in _under(leaves, f"{prefix}/skills/")
        ),
        grants=Grants(
            models=tuple(sorted({model["name"], *(t["name"] for t in model["targets"])})),
            tools={
                tool: ToolGrant(
                    args={k: tuple(v) for k, v in value["args"].items()},
                    approval=value["approval"],
                )
                for tool, value in _under(leaves, f"{prefix}/tools/")
            },
            limits=Limits.model_validate(limits),
        ),
        tools=tuple(str(tool) for tool in _sequence(leaves[f"{prefix}/builtin"])),
    )


def _judged_by(
    candidate: dict[str, Role], until: Until, stable: Release
) -> tuple[dict[str, Role], Until]:
    """The candidate's roles with stable's checkers in the checkers' places."""
    trusted = {n: r for n, r in roles(stable).items() if r.kind is RoleKind.CHECKER}
    found = {
        name: trusted[name] if role.kind is RoleKind.CHECKER and name in trusted else role
        for name, role in candidate.items()
    }
    if until.checker is None or until.checker in trusted:
        return found, until
    named = Until.model_validate(stable.leaves["until"]).checker
    if named is None or named not in trusted:
        return found, Until(command=until.command)
    # Kept under the candidate's name: that is where its policy and its parent look for it.
    found[until.checker] = trusted[named].model_copy(update={"name": until.checker})
    return found, until


def _under(leaves: Mapping[str, Json], prefix: str) -> list[tuple[str, Any]]:
    return [(p.removeprefix(prefix), leaves[p]) for p in sorted(leaves) if p.startswith(prefix)]


def _sequence(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadRelease(f"expected a list, not {type(value).__name__}")
    return value
