"""How a plan is shown: short enough for a forge, safe whatever a repository contains."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.values import AgentName
from reconciler.findings import Finding, Place, Severity
from reconciler.plan.changes import AgentChange, Bill, Capability, LeafChange, Money, Plan, Worst
from reconciler.plan.model import Loosening, Subject
from reconciler.plan.phrases import duration, size, thousandths, tick
from reconciler.plan.render import MARKER, comment, terminal
from reconciler.plan.render.escape import html, sentence
from reconciler.plan.words import compare_texts

A = AgentName("ci-triage")
PLACE = Place("agents/ci-triage/agent.yaml", 3, 5)


def loosening(text: str = "`github.merge_pr` (write)", **more: object) -> Loosening:
    fields: dict[str, object] = {"owners": ("platform",), **more}
    return Loosening("agent/ci-triage", "tool", text, PLACE, **fields)  # type: ignore[arg-type]


def needing(count: int = 1, **more: object) -> tuple[Subject, ...]:
    return tuple(
        Subject(f"agent/a{n}", "rel-1", "rel-2", (loosening(**more),)) for n in range(count)
    )


def changing(before: str | None, after: str | None) -> AgentChange:
    leaf = LeafChange("main/instructions", "instructions", before, after)
    return AgentChange(A, "changed", "payments", PLACE, "rel-1", "rel-2", (leaf,))


def test_the_first_line_says_what_it_can_cost_and_whom_it_needs() -> None:
    bill = Bill(A, Worst(10**9, 10**9, 1), Worst(4 * 10**9, 4 * 10**9, 1))
    plan = Plan(
        None,
        None,
        agents=(changing("a", "b"),),
        gained=(Capability(A, "main", "tool", "`github.merge_pr` (write; public results)", True),),
        money=Money((bill,), 1_200_000_000, 4_800_000_000),
        subjects=needing(),
    )
    line = terminal(plan, width=200).splitlines()[-3]
    assert "1 agent changes (ci-triage)" in line
    assert "can newly: github.merge_pr (write)" in line
    assert "worst case per day $1.20 → $4.80" in line
    assert line.endswith("needs approval of @platform")


def test_words_that_change_are_marked_and_the_rest_is_left_in_peace() -> None:
    hunks = compare_texts("Run the tests once.\nStop.\n", "Run all the tests twice.\nStop.\n")
    pieces = [(p.op, p.text) for hunk in hunks for line in hunk.lines for p in line]
    assert ("added", " all") in pieces
    assert ("removed", "once") in pieces
    assert ("added", "twice") in pieces
    assert ("same", "Stop.") in pieces


@settings(deadline=None)
@given(st.text(alphabet="ab \n.", max_size=80), st.text(alphabet="ab \n.", max_size=80))
def test_a_word_diff_holds_both_texts(before: str, after: str) -> None:
    hunks = compare_texts(before, after)
    assert bool(hunks) is (before.splitlines() != after.splitlines())
    for op, text in (("removed", before), ("added", after)):
        words = "".join(
            p.text for h in hunks for line in h.lines for p in line if p.op in (op, "same")
        )
        kept = re.sub(r"\s", "", words)
        assert kept in re.sub(r"\s", "", text) or len(hunks) > 1


def test_a_comparison_that_would_be_too_expensive_is_told_as_replaced() -> None:
    before, after = "\n".join("abcdefgh"[n % 8] for n in range(5000)), "x\n" * 5000
    (hunk,) = compare_texts(before, after)
    assert len(hunk.lines) == 10_000


def test_a_long_prompt_is_cut_with_a_note_and_the_needs_never_are() -> None:
    text = "\n".join(f"{n} {'word ' * 30}" for n in range(2000))
    plan = Plan(None, None, agents=(changing("old", text),), subjects=needing(12))
    shown = comment(plan, gate="ok", live="main")
    assert len(shown) <= 65_536
    assert "Cut here" in shown or "too long for this comment" in shown
    for n in range(12):
        assert f"`agent/a{n}`" in shown
    assert "/interlock approve" in shown


@pytest.mark.parametrize("count", [1, 300, 3_000])
def test_a_plan_of_any_size_fits_and_names_the_command(count: int) -> None:
    powers = tuple(
        Capability(AgentName(f"a{n}"), "main", "tool", "`x.y` (write) " + "z" * 60, True)
        for n in range(count)
    )
    findings = tuple(
        Finding("x", Severity.ERROR, f"f{n}.yaml", 1, 1, "m" * 100, "f") for n in range(count)
    )
    plan = Plan(
        None,
        None,
        agents=tuple(
            AgentChange(AgentName(f"a{n}"), "changed", "t", PLACE, "rel-1", "rel-2", (), (f"s{n}",))
            for n in range(count)
        ),
        gained=powers,
        collisions=findings,
        subjects=needing(count),
    )
    shown = comment(plan)
    assert len(shown) <= 65_536
    assert "/interlock approve" in shown
    assert "needs approval of" in shown


def test_the_same_change_of_many_agents_is_read_once() -> None:
    leaf = LeafChange("main/skills/x/SKILL.md", "skill `x`", "old words", "new words")
    plan = Plan(
        None,
        None,
        agents=tuple(
            AgentChange(AgentName(f"a{n}"), "changed", "t", PLACE, f"rel-{n}", "rel-x", (leaf,))
            for n in range(100)
        ),
    )
    assert comment(plan).count("<pre>") == 1
    assert "and 94 more" in comment(plan)
    assert terminal(plan).count("skill x") == 1


def test_somebody_who_owns_nothing_cannot_be_asked_and_that_is_said() -> None:
    plan = Plan(None, None, agents=(changing("a", "b"),), subjects=needing(owners=()))
    assert "Nobody owns the files of `agent/a0`" in comment(plan)
    assert "nobody (no owner)" in terminal(plan)


def test_the_gate_s_section_is_the_caller_s_and_the_marker_comes_first() -> None:
    shown = comment(Plan(None, None, agents=(changing("a", "b"),)), gate="| a | b |")
    assert shown.startswith(MARKER + "\n")
    assert "#### Gate\n\n| a | b |" in shown


HOSTILE = st.text(
    alphabet=st.sampled_from(list("`*_<>@#[]()|\\~!$&\n\r\t \u202e\u200b\x1b\x00abhttps://")),
    max_size=60,
)


@settings(deadline=None)
@given(HOSTILE)
def test_values_stay_values_in_markdown(value: str) -> None:
    shown = sentence(f"limit {tick(value)} of agents")
    assert "\n" not in shown
    assert "\u202e" not in shown
    assert "\x1b" not in shown
    outside = "".join(shown.split("`")[::2])
    assert shown.count("`") % 2 == 0
    assert outside.strip() in ("limit  of agents", "limit nothing of agents")


@settings(deadline=None)
@given(HOSTILE)
def test_texts_stay_texts_in_preformatted_html(text: str) -> None:
    shown = html(text)
    assert not re.search(r"[<>@\x00\x1b\u202e\n\r]", shown)
    assert not re.search(r"&(?!amp;|lt;|gt;|#64;)", shown)


@settings(deadline=None)
@given(HOSTILE, HOSTILE)
def test_no_text_of_a_repository_steers_a_terminal(before: str, after: str) -> None:
    plan = Plan(
        None,
        None,
        agents=(changing(before, after),),
        subjects=(Subject("agent/x", "", "", (loosening(text=tick(after)),)),),
    )
    shown = terminal(plan)
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_a_terminal_without_colours_marks_words_as_git_does() -> None:
    shown = terminal(Plan(None, None, agents=(changing("one two three", "one four three"),)))
    assert "one [-two-]{+four+} three" in shown


def test_lines_are_wrapped_to_the_width_of_the_terminal() -> None:
    long = " ".join([f"{tick('some-name')} and"] * 30)
    plan = Plan(None, None, agents=(changing("a", "b"),), subjects=needing(text=long))
    body = [line for line in terminal(plan, width=80).splitlines() if "some-name" in line]
    assert len(body) > 3
    assert max(map(len, body)) <= 80


@pytest.mark.parametrize(
    "say, value, shown",
    [(duration, 5_400_000, "1h30m"), (duration, 0, "0s"), (duration, 1_500, "1s500ms"),
     (size, 512 * 1024**2, "512m"), (size, 1000, "1,000 bytes"), (thousandths, 1250, "1.25"),
     (thousandths, 2000, "2"), (duration, None, "none")],
)  # fmt: skip
def test_figures_are_shown_as_people_write_them(say, value, shown: str) -> None:  # type: ignore[no-untyped-def]
    assert say(value) == shown
