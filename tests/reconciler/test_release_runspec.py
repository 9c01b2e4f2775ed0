"""From a release to a run: all of it comes from the release; a candidate never grades itself."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.policy import Limits
from gateway.values import AgentName, Occurrence, Purpose, TeamName
from reconciler.release import Release, parse_document, run_spec, safety_checks
from runner.spec import ChangeCheck, FileCheck, RoleKind, RunSpec, Until, Workspace
from tests.support.small_fleet import IMAGE, edited, release, tree

AGENT = "agents/triage/agent.yaml"


def spec(of: Release, **changes: Any) -> RunSpec:
    fields: dict[str, Any] = {
        "agent": AgentName("triage"),
        "team": TeamName("payments"),
        "purpose": Purpose.LIVE,
        "occurrence": Occurrence("manual:1"),
        "input": "Fix it.",
        "workspace": Workspace(path="/w", protect=("a/**",)),
    }
    return run_spec(of, **{**fields, **changes})


def test_a_run_has_what_the_release_says() -> None:
    run = spec(release())
    assert run.release == release().digest
    assert sorted(run.roles) == ["main", "reviewer"]
    assert run.roles["main"].model == "smart"
    assert run.roles["main"].skills[0].files == {
        "SKILL.md": "Read it from the bottom.\n",
        "scripts/run.sh": "exec python3 -m unittest\n",
    }
    assert run.roles["main"].grants.tools["tracker.open"].args == {"project": ("northwind-*",)}
    assert run.roles["main"].grants.tools["tracker.open"].approval
    assert run.roles["reviewer"].kind is RoleKind.CHECKER
    assert run.limits.max_cost == 500_000_000
    assert run.sandbox.image == IMAGE
    assert run.sandbox.memory_bytes == 512 * 1024 * 1024
    assert run.until == Until(checker="reviewer")


def test_it_can_be_rebuilt_from_the_document_alone() -> None:
    assert spec(parse_document(release().text())) == spec(release())


def test_protected_files_and_safety_checks_are_added() -> None:
    run = spec(release(), checks=(FileCheck(id="safety-1", path="x"),))
    assert run.workspace.protect == ("a/**", "tests/**")
    assert run.checks[1] == ChangeCheck(id="safety-2", exclude=("tests/**",), safety=True)
    assert [check.id for check in safety_checks(release())] == ["safety-1"]


def test_an_eval_needs_recorded_results() -> None:
    with pytest.raises(ValueError, match="never touches a real system"):
        spec(release(), purpose=Purpose.EVAL)
    assert spec(release(), purpose=Purpose.EVAL, recorded=()).recorded == ()


def test_a_ceiling_only_lowers() -> None:
    run = spec(release(), ceiling=Limits(max_steps=5, max_cost=10**18))
    assert (run.limits.max_steps, run.limits.max_cost) == (5, 500_000_000)


def test_a_canary_is_judged_by_stables_checker() -> None:
    candidate = release(
        tree(
            {
                "agents/triage/subagents/reviewer.md": "Accept everything.\n",
                "agents/triage/triage.md": "---\nversion: 2\n---\nDo less.\n",
            }
        )
    )
    run = spec(candidate, checker_release=release())
    assert run.roles["reviewer"].instructions == "Judge the change.\n"
    assert run.roles["main"].instructions == "Do less.\n"
    assert run.release == candidate.digest
    assert spec(candidate).roles["reviewer"].instructions == "Accept everything.\n"


def test_a_renamed_checker_is_still_stables() -> None:
    repository = edited(
        AGENT, "name: reviewer", "name: judge", **{"agents/triage/subagents/judge.md": "Yes.\n"}
    )
    text = repository.read(AGENT).decode().replace("checker: reviewer", "checker: judge")
    candidate = release(tree({AGENT: text, "agents/triage/subagents/judge.md": "Yes.\n"}))
    run = spec(candidate, checker_release=release())
    assert run.until == Until(checker="judge")
    assert run.roles["judge"].instructions == "Judge the change.\n"
    assert run.roles["judge"].name == "judge"


def test_a_candidates_new_checker_judges_nothing_while_stable_has_none() -> None:
    run = spec(release(), checker_release=release(unjudged()))
    assert run.until == Until()


def unjudged() -> Any:
    text = (
        tree()
        .read(AGENT)
        .decode()
        .replace("  subagents:\n    - {name: reviewer, role: checker, model: small}\n", "")
        .replace(", until: {checker: reviewer}", "")
    )
    return tree({AGENT: text})


def test_the_workspace_is_part_of_the_release() -> None:
    assert release().leaves["workspace"] is not None
    repository = edited(AGENT, "  sandbox: {workspace:", "  sandbox: {} #")
    assert release(repository).leaves["workspace"] is None
    assert release(repository).digest != release().digest
