"""Golden plans: what a reviewer sees of realistic pull requests on the example config repo.

The files in tests/reconciler/plans/ are written anew by

    WRITE_GOLDEN=1 .venv/bin/python -m pytest -q tests/reconciler/test_plan_golden.py

Read the difference before you commit it: it is what every reviewer will read.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from reconciler.plan import Plan, Side, diff
from reconciler.plan.render import MARKER, comment, terminal
from tests.reconciler.plans.pull_requests import BASE, HEAD, PULL_REQUESTS, example, side

GOLDEN = Path(__file__).parent / "plans"


@pytest.fixture(scope="module")
def live() -> Side:
    return side(example(), BASE)


def plan_of(name: str, live: Side) -> Plan:
    files = example()
    PULL_REQUESTS[name](files)
    return diff(live, side(files, HEAD))


def as_text(plan: Plan) -> str:
    return (
        json.dumps({**plan.as_json(), "digest": plan.digest}, indent=1, ensure_ascii=False) + "\n"
    )


@pytest.mark.parametrize("name", PULL_REQUESTS)
def test_the_plan_of_a_pull_request_is_the_golden_one(name: str, live: Side) -> None:
    plan = plan_of(name, live)
    made = {"md": comment(plan, live="main"), "json": as_text(plan), "txt": terminal(plan)}
    for suffix, text in made.items():
        file = GOLDEN / f"{name}.{suffix}"
        if os.environ.get("WRITE_GOLDEN"):
            file.write_text(text, encoding="utf-8")
        assert text == file.read_text(encoding="utf-8"), f"{file.name}: see above"


def test_there_is_no_golden_plan_of_nothing() -> None:
    names = {file.stem for file in GOLDEN.iterdir() if file.suffix in (".md", ".json", ".txt")}
    assert names == set(PULL_REQUESTS)


@pytest.mark.parametrize("name", PULL_REQUESTS)
def test_the_same_commits_give_the_same_bytes(name: str, live: Side) -> None:
    once, again = plan_of(name, live), plan_of(name, side(example(), BASE))
    assert once.digest == again.digest
    assert comment(once) == comment(again)
    assert as_text(once) == as_text(again)


HARMLESS = (
    "prompt-edit", "skill-edit", "model-swap", "tighter", "removed-agent", "rename",
    "comments-only", "hostile",
)  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_changes_that_allow_nothing_new_need_no_approval(name: str, live: Side) -> None:
    assert plan_of(name, live).subjects == ()


@pytest.mark.parametrize(
    "name, scope, owners",
    [
        ("new-tool", "agent/release-notes", (("docs",),)),
        ("destructive-tool", "agent/release-notes", (("docs",), ("platform",))),
        ("wider-argument", "agent/ci-triage", (("payments",),)),
        ("higher-budget", "budget/agent-day", (("platform",),)),
        ("new-agent", "agent/changelog", (("platform",),)),
        ("provider-address", "provider/openai", (("platform",),)),
        ("reclassified-tool", "tool/tracker.save_draft", (("platform",),)),
        ("weaker-suite", "agent/ci-triage", (("payments",),)),
        ("team-member", "team/platform", (("platform",),)),
        ("more-often", "agent/dependency-audit", (("security",),)),
        ("gate-dropped", "agent/ci-triage", (("payments",),)),
    ],
)
def test_a_loosening_needs_the_owners_of_the_stricter_place(
    name: str, scope: str, owners: tuple[tuple[str, ...], ...], live: Side
) -> None:
    assert [(s.scope, s.owners) for s in plan_of(name, live).subjects] == [(scope, owners)]


def test_only_a_comment_in_a_file_is_nothing_to_do(live: Side) -> None:
    plan = plan_of("comments-only", live)
    assert plan.empty
    assert "Nothing changes" in comment(plan)
    assert "approve" not in comment(plan)


def test_text_of_a_pull_request_stays_text(live: Side) -> None:
    text = comment(plan_of("hostile", live))
    assert text.count(MARKER) == 1
    assert "<script" not in text
    assert "@everyone" not in text
    assert text.count("</pre>") == text.count("<pre>") == 1
    assert text.count("### Interlock plan") == 2  # the title, and the text within <pre>
    inside = text[text.index("<pre>") : text.index("</pre>")]
    assert "### Interlock plan" in inside
