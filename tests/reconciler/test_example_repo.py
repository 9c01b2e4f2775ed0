"""The example config repo does what the story says: its cases discriminate, offline and for real.

Each variant of the instructions is played by the scripted model on every case: real files, real
`unittest` processes. What is measured here is what the gate of the demo measures in sandboxes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

import pytest

from gateway.policy import Grants, ToolGrant
from gateway.providers.scripted import Observation, Scene, decide
from gateway.values import AgentName
from reconciler.config.fleet import Case, Fleet, ParticipantConfig
from reconciler.config.load import load
from reconciler.source.tree import DirectoryTree
from runner import context
from runner.spec import Recorded, Role, Skill
from tests.support.script_player import Commands, Files, Played, Stage, read_files

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "example-config-repo"
DEMO = ROOT / "reconciler" / "demo"
TESTS = "python3 -m unittest -q"
TRIAGE = AgentName("ci-triage")


def role_of(participant: ParticipantConfig, instructions: str = "") -> Role:
    return Role(
        name=participant.name,
        kind=participant.kind,
        model=participant.model,
        instructions=instructions or participant.instructions.body,
        skills=tuple(
            Skill(name=skill.name, description=skill.description, files=skill.files)
            for skill in participant.skills
        ),
        grants=Grants(tools={name: ToolGrant() for name in participant.tools}),
        tools=participant.builtin,
    )


@dataclass
class Result:
    """How one case ended under one variant."""

    played: Played
    green: bool
    tests_untouched: bool
    proposed: bool

    @property
    def passed(self) -> bool:
        return self.green and self.tests_untouched and self.proposed


@dataclass
class World:
    """The loaded fleet, the script, and every command that was run so far."""

    fleet: Fleet
    stage: Stage
    before: dict[str, Files] = field(default_factory=dict)

    @property
    def cases(self) -> tuple[Case, ...]:
        suite = self.fleet.agents[TRIAGE].suite
        assert suite is not None
        return suite.cases

    def files(self, case: Case) -> Files:
        if case.id not in self.before:
            self.before[case.id] = read_files(EXAMPLE / case.workspace)
        return dict(self.before[case.id])

    def attempt(self, case: Case, instructions: str = "") -> Result:
        before = self.files(case)
        role = role_of(self.fleet.agents[TRIAGE].main, instructions)
        played = self.stage.play(role, case.input, before, recorded=case.recorded)
        return Result(
            played=played,
            green=self.green(restored(played.files, before)),
            tests_untouched=protected(played.files) == protected(before),
            proposed=played.called("tracker__open_change") == 1,
        )

    def suite(self, instructions: str = "") -> dict[str, Result]:
        return {case.id: self.attempt(case, instructions) for case in self.cases}

    def green(self, files: Files) -> bool:
        return self.stage.commands.run(files, TESTS)[0] == 0


def protected(files: Files) -> Files:
    return {path: content for path, content in files.items() if path.startswith("tests/")}


def restored(files: Files, before: Files) -> Files:
    """As the grader sees it: protected files are those of the case."""
    return {p: c for p, c in files.items() if not p.startswith("tests/")} | protected(before)


def passed(results: Mapping[str, Result]) -> set[str]:
    return {name for name, result in results.items() if result.passed}


def variant(name: str) -> str:
    return (DEMO / "changes" / name / "agents" / TRIAGE / "triage.md").read_text()


def live_project(*overlays: str) -> Files:
    files = read_files(DEMO / "project")
    for overlay in overlays:
        added = read_files(DEMO / "project-changes" / overlay)
        for path in added.pop(".delete", b"").decode().split():
            del files[path]
        files |= added
    return files


@pytest.fixture(scope="module")
def world() -> World:
    loaded = load(DirectoryTree(EXAMPLE))
    assert not [str(finding) for finding in loaded.findings]
    assert loaded.fleet is not None
    script = loaded.fleet.platform.providers["offline"].script
    assert script is not None
    return World(loaded.fleet, Stage(script, Commands()))


# ------------------------------------------------------------------------------- the repo itself


def test_the_repo_declares_three_loops_and_a_suite_without_findings(world: World) -> None:
    assert set(world.fleet.agents) == {TRIAGE, "release-notes", "dependency-audit"}
    assert len(world.cases) == 24
    assert sum(case.critical for case in world.cases) == 3
    assert len({case.input for case in world.cases}) == 24


@pytest.mark.parametrize("name", ["worse", "stale-tests", "wording"])
def test_every_change_of_the_story_is_a_valid_commit(name: str, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "repo")
    shutil.copytree(DEMO / "changes" / name, tmp_path / "repo", dirs_exist_ok=True)
    loaded = load(DirectoryTree(tmp_path / "repo"))
    assert not [str(finding) for finding in loaded.findings]


def test_every_case_is_red_as_shipped(world: World) -> None:
    assert [case.id for case in world.cases if world.green(world.files(case))] == []


# ------------------------------------------------------------------------- variants on the suite


def test_the_instructions_repair_every_case_and_leave_the_tests_alone(world: World) -> None:
    results = world.suite()
    assert {name for name, result in results.items() if not result.passed} == set()
    for result in results.values():
        assert result.played.called("load_skill") == 1
        assert len(result.played.calls) <= 16
        assert result.played.said is not None
        assert str(result.played.said["outcome"]).startswith("fixed")


def test_the_reviewer_accepts_every_good_repair_after_reading_a_file(world: World) -> None:
    reviewer = role_of(world.fleet.agents[TRIAGE].subagents[0])
    for case in world.cases:
        result = world.attempt(case)
        verdict = world.stage.review(reviewer, case.input, result.played, world.files(case))
        assert [name for name, _ in verdict.calls] == ["read_file", "finish"]
        assert verdict.said is not None
        assert verdict.said["verdict"] == "accept", case.id


def test_other_words_of_the_same_meaning_repair_every_case(world: World) -> None:
    assert len(passed(world.suite(variant("wording")))) == 24


def test_the_variant_that_corrects_recorded_values_shows_nothing_on_the_suite(
    world: World,
) -> None:
    assert len(passed(world.suite(variant("stale-tests")))) == 24


def test_working_from_the_traceback_alone_fails_most_cases(world: World) -> None:
    results = world.suite(variant("worse"))
    assert 1 <= len(passed(results)) <= 8
    assert not any(result.played.called("read_file") for result in results.values())
    assert all(result.tests_untouched for result in results.values())


def test_instructions_that_do_not_ask_for_reading_make_no_reader(world: World) -> None:
    said = "# CI triage\n\nRepair the failing tests of a Python project.\n"
    assert len(passed(world.suite(said))) <= 8


def test_the_sentinels_pass_no_case(world: World) -> None:
    suite = world.fleet.agents[TRIAGE].suite
    assert suite is not None
    assert {sentinel.id for sentinel in suite.sentinels} == {"does-nothing", "edits-the-tests"}
    for sentinel in suite.sentinels:
        assert sentinel.instructions is not None
        results = world.suite(sentinel.instructions.body)
        assert passed(results) == set(), sentinel.id
        touched = sum(not result.tests_untouched for result in results.values())
        assert (touched >= 12) == (sentinel.id == "edits-the-tests")


@pytest.mark.parametrize("shown", ["another-case", "repaired"])
def test_another_observation_makes_another_act(world: World, shown: str) -> None:
    """The traceback of one case with the file of another, or with its repaired file: no edit."""
    cases = {case.id: case for case in world.cases}
    case = cases["none-handling"]
    traceback = world.stage.commands.run(world.files(case), "python3 -B -m unittest -q -f")[1]
    right = world.files(case)["contacts/addresses.py"]
    wrong = {
        "another-case": world.files(cases["off-by-one"])["instalments/plan.py"],
        "repaired": world.attempt(case).played.files["contacts/addresses.py"],
    }[shown]
    system = world.fleet.agents[TRIAGE].main.instructions.body
    acts = []
    for content in (right, wrong):
        seen = (Observation("shell", traceback), Observation("read_file", content.decode()))
        scene = Scene(system, "due", seen, ("shell", "read_file"))
        acts.append(decide(world.stage.script, scene, {"shell", "edit_file", "finish"})[1])
    assert acts[0] is not None
    assert acts[1] is not None
    assert acts[0][0] == "edit_file"
    assert acts[1][0] != "edit_file"


# ------------------------------------------------------------------------------ the live project


@pytest.mark.parametrize("overlay", ["", "second-bug", "third-bug", "recorded-value"])
def test_the_live_project_is_red_and_is_repaired_in_the_code(world: World, overlay: str) -> None:
    before = live_project(*filter(None, [overlay]))
    assert not world.green(before)
    role = role_of(world.fleet.agents[TRIAGE].main)
    recorded = world.cases[0].recorded
    played = world.stage.play(role, "The scheduled run is due.", before, recorded=recorded)
    assert world.green(played.files)
    assert protected(played.files) == protected(before)
    assert sum(before[path] != played.files[path] for path in before) == 1


@pytest.mark.parametrize("last", ["second-bug", "third-bug", "recorded-value"])
def test_the_bugs_of_the_live_project_can_come_in_any_order(last: str) -> None:
    others = {"second-bug", "third-bug", "recorded-value"} - {last}
    for order in permutations(sorted(others)):
        assert live_project(*order, last) == live_project(last)


def test_several_bugs_at_once_are_repaired_one_after_the_other(world: World) -> None:
    before = live_project("third-bug")
    before |= {"billing/money.py": live_project("recorded-value")["billing/money.py"]}
    before |= {"billing/report.py": live_project("second-bug")["billing/report.py"]}
    before |= {"tests/test_invoices.py": live_project("recorded-value")["tests/test_invoices.py"]}
    role = role_of(world.fleet.agents[TRIAGE].main)
    played = world.stage.play(role, "due", before, recorded=world.cases[0].recorded)
    assert world.green(played.files)
    assert sum(before[path] != played.files[path] for path in before) == 3


def test_on_the_live_project_the_stale_variant_changes_a_test_and_is_rejected(
    world: World,
) -> None:
    before = live_project("recorded-value")
    agent = world.fleet.agents[TRIAGE]
    role = role_of(agent.main, variant("stale-tests"))
    played = world.stage.play(role, "due", before, recorded=world.cases[0].recorded)
    changed = [path for path in before if before[path] != played.files[path]]
    assert changed == ["tests/test_invoices.py"]
    assert world.green(played.files)
    verdict = world.stage.review(role_of(agent.subagents[0]), "due", played, before)
    assert verdict.said is not None
    assert verdict.said["verdict"] == "reject"


def test_an_empty_diff_is_rejected(world: World) -> None:
    agent = world.fleet.agents[TRIAGE]
    before = live_project()
    played = Played((), before, {"outcome": "fixed"}, 0)
    verdict = world.stage.review(role_of(agent.subagents[0]), "due", played, before)
    assert [name for name, _ in verdict.calls] == ["list_files", "finish"]
    assert verdict.said is not None
    assert verdict.said["verdict"] == "reject"


@pytest.mark.parametrize("name", ["wording", "worse", "stale-tests"])
def test_after_a_rejection_the_maker_gives_up_instead_of_claiming_again(
    world: World, name: str
) -> None:
    scene = Scene(
        system=variant(name),
        user="reviewer does not accept the work:\nThe diff is empty: nothing was repaired.",
        observations=(Observation("tracker__open_change", '{"id": "CR-1"}'),),
        called=("shell", "tracker__open_change", "finish"),
    )
    _, call = decide(world.stage.script, scene, {"finish", "tracker__open_change"})
    assert call is not None
    assert (call[0], call[1]["outcome"]) == ("finish", "refused")


# ------------------------------------------------------------------------------- the other loops


def test_the_audit_reports_what_it_read(world: World) -> None:
    role = role_of(world.fleet.agents[AgentName("dependency-audit")].main)
    played = world.stage.play(role, "due", live_project())
    assert played.said is not None
    assert played.said["outcome"] == "2 findings"
    assert "CVE-2024-56201" in played.said["evidence"]
    assert played.files == live_project()


@pytest.mark.parametrize("told", ["", "You made the same call several times. Try something else."])
def test_without_advisories_the_audit_only_repeats_itself(world: World, told: str) -> None:
    role = role_of(world.fleet.agents[AgentName("dependency-audit")].main)
    before = live_project("broken-audit")
    played = world.stage.play(role, "due", before, turns=5, told=told)
    assert played.said is None
    assert played.errors == 5
    assert len({str(call) for call in played.calls}) == 1


def test_the_notes_save_what_the_tracker_listed(world: World) -> None:
    role = role_of(world.fleet.agents[AgentName("release-notes")].main)
    recorded = (
        Recorded(tool="tracker.list_changes", result="- #41 Totals count the last day"),
        Recorded(tool="tracker.save_draft", result='{"id": "D-9"}'),
    )
    played = world.stage.play(role, "due on 2026-11-20", {}, recorded=recorded)
    asked, saved, done = played.calls
    assert asked[1]["since"] == "2026-11-20"
    assert saved[1]["text"] == "- #41 Totals count the last day"
    assert done[0] == "finish"


def test_a_failing_tracker_is_asked_with_another_date_each_time(world: World) -> None:
    role = role_of(world.fleet.agents[AgentName("release-notes")].main)
    system = context.opening(role, "due")[0]["content"]
    asked = set()
    for number in range(5):
        text = f"error: 503 Service Unavailable (request 7c41-{number:04d})"
        scene = Scene(system, "due", (Observation("tracker__list_changes", text),), ())
        _, call = decide(world.stage.script, scene, {"tracker__list_changes"})
        assert call is not None
        asked.add(call[1]["since"])
    assert len(asked) == 5
