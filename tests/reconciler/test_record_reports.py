"""Pages and JSON of the record: escaped, quiet, the same bytes for the same rows, no secrets."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.values import Millis
from reconciler.record import views
from reconciler.record.draft import Draft, draft
from reconciler.record.render import markdown
from reconciler.source import MemoryTree
from tests.support.record import DAY, EVIL, GOOD, KEY, NOW, live_run, new_database, sample
from tests.support.record import good as good_outcome


def whole(database: object, now: int = NOW) -> Draft:
    with database.snapshot() as tx:  # type: ignore[attr-defined]
        return draft(tx, None, None, now=Millis(now), tick=1, clean=True, machine="m")


def one(made: Draft, pattern: str) -> str:
    (path,) = [path for path in made.changes if re.fullmatch(pattern, path)]
    return (made.changes[path] or b"").decode()


def test_the_record_has_a_page_for_every_thing(tmp_path: Path) -> None:
    database = new_database(tmp_path / "db")
    names = sample(database)
    made = whole(database)
    for path in (
        "README.md",
        "agents/ci-triage/README.md",
        "agents/ci-triage/cost.svg",
        f"agents/ci-triage/runs/2026/11/{names['canary']}.md",
        f"agents/ci-triage/runs/2026/11/{names['canary']}.json",
        f"rollouts/{names['rejected']}.md",
        f"rollouts/{names['rejected']}.json",
        "costs/2026-11.csv",
        "audit/2026-11.jsonl",
        "state/manifest.json",
        "state/ledger/2026-11.json",
    ):
        assert path in made.changes, path
    evals = {row["run"] for row in database.read("SELECT run FROM runs WHERE purpose = 'eval'")}
    assert evals
    assert not [path for path in made.changes if Path(path).stem in evals]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = new_database(tmp_path / "a"), new_database(tmp_path / "b")
    sample(first)
    sample(second)
    assert whole(first).changes == whole(second).changes


def test_no_secret_reaches_the_record(tmp_path: Path) -> None:
    database = new_database(tmp_path / "db")
    sample(database)
    stored = database.one(
        "SELECT count(*) AS n FROM calls WHERE response LIKE '%' || :k || '%'", k=KEY
    )
    assert stored
    assert stored["n"] > 0, "the sample must hold a secret to be kept out"
    for path, body in whole(database).changes.items():
        assert KEY.encode() not in (body or b""), path
        assert b"/host/path" not in (body or b""), path


def test_texts_of_agents_stay_texts(tmp_path: Path) -> None:
    database = new_database(tmp_path / "db")
    names = sample(database)
    pages = {p: b.decode() for p, b in whole(database).changes.items() if p.endswith(".md") and b}
    assert EVIL in pages[f"agents/ci-triage/runs/2026/11/{names['run']}.md"]  # within a fence
    for path, page in pages.items():
        prose = re.sub(r"(?ms)^(`{3,})\w*\n.*?\n\1$", "", page)
        assert "<script" not in prose, path
        assert re.search(r"(?<!\\)\]\(http", prose) is None, path
        assert "https://" not in prose, path
        assert re.search(r"(?<!\\)@all", prose) is None, path


@given(st.text(max_size=300))
def test_an_inline_text_has_no_markup_left(text: str) -> None:
    shown = markdown.inline(text)
    assert "\n" not in shown
    assert re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]|~#!$@]", re.sub(r"&#8203;", "", shown)) is None
    assert "<" not in shown
    assert ">" not in shown


@given(st.text(alphabet="`~ \nab|\\", max_size=80))
def test_a_block_cannot_be_closed_from_within(text: str) -> None:
    opened, *inside, closing = markdown.block(text, "text").split("\n")
    fence = opened.removesuffix("text")
    assert closing == fence
    assert not any(line.strip().startswith(fence) for line in inside)


def test_a_long_text_is_cut_with_a_note() -> None:
    assert "… 2000 more characters are in the JSON" in markdown.block("x" * 10_000)
    assert markdown.inline("word " * 100).endswith("…")


def test_what_hides_is_made_visible() -> None:
    assert markdown.inline("a\u202eb\x1b[31mc") == "a\\\\u202eb\\\\u001b\\[31mc"


def test_the_rollout_page_says_which_cases_and_how_surely(tmp_path: Path) -> None:
    database = new_database(tmp_path / "db")
    names = sample(database)
    page = one(whole(database), f"rollouts/{names['rejected']}.md")
    assert "surely at least 5 worse" in page
    assert "| case-03 | **1/3** | 3/3 |" in page
    first, last = page.index("case-05 |"), page.index("case-00 |")
    assert first < last, "cases that differ come first"


def test_effects_of_a_release_that_was_taken_back_are_listed_with_who_can_undo_them(
    tmp_path: Path,
) -> None:
    database = new_database(tmp_path / "db")
    names = sample(database)
    with database.snapshot() as tx:
        (effect,) = views.rollout(tx, names["harm"]).effects
        assert (effect.tool, effect.team, effect.run) == (
            "github.create_pr",
            "platform",
            names["canary"],
        )
        assert "pytest" in effect.arguments
        assert views.rollout(tx, names["first"]).effects == ()
    assert "## Effects to undo" in one(whole(database), f"rollouts/{names['harm']}.md")


def test_the_fleet_view_counts_what_happened(tmp_path: Path) -> None:
    database = new_database(tmp_path / "db")
    sample(database)
    with database.snapshot() as tx:
        fleet = views.fleet(tx, NOW)
        triage, keeper = fleet.agents
        spent = views.costs(tx, (), NOW - 6 * DAY - NOW % DAY)
    assert (triage.runs_week, triage.accepted_week) == (4, 3)
    assert fleet.cost_week_nano == spent[0].cost_nano
    assert triage.cost_per_accepted_nano == triage.cost_week_nano // 3
    assert triage.quarantine[0].digest == GOOD
    assert keeper.broken
    assert "did you mean" in keeper.findings[0]
    assert keeper.gated is False


def test_an_unknown_name_says_what_there_is(tmp_path: Path) -> None:
    database = new_database(tmp_path / "db")
    sample(database)
    with database.snapshot() as tx:
        with pytest.raises(KeyError, match="agents: ci-triage, docs-keeper"):
            views.agent(tx, "ci", NOW)
        with pytest.raises(KeyError, match="no rollout x"):
            views.rollout(tx, "x")
        with pytest.raises(ValueError, match="not by 'colour'"):
            views.costs(tx, ("colour",))


def test_an_empty_fleet_says_what_to_do_next(tmp_path: Path) -> None:
    page = one(whole(new_database(tmp_path / "db")), r"README\.md")
    assert "interlock new agent" in page


def test_charts_are_valid_and_need_nothing_from_outside(tmp_path: Path) -> None:
    database = new_database(tmp_path / "db")
    sample(database)
    for path, body in whole(database).changes.items():
        if path.endswith(".svg") and body:
            root = ET.fromstring(body)
            assert root.tag.endswith("svg")
            assert b"prefers-color-scheme:dark" in body
            assert b"href" not in body
            assert b"<script" not in body


def test_the_csv_adds_up_to_the_ledger(tmp_path: Path) -> None:
    database = new_database(tmp_path / "db")
    sample(database)
    lines = one(whole(database), r"costs/2026-11\.csv").splitlines()
    columns = lines[0].split(",")
    nano = sum(int(line.split(",")[columns.index("nano_usd")]) for line in lines[1:])
    total = database.one("SELECT sum(cost_nano) AS n FROM calls")
    assert total
    assert nano == total["n"]


def test_only_what_changed_is_rendered_again(tmp_path: Path) -> None:
    database = new_database(tmp_path / "db")
    sample(database)
    first = whole(database)
    base = MemoryTree({path: body for path, body in first.changes.items() if body is not None})
    later = Millis(NOW + 7_200_000)
    with database.transaction() as tx:
        run = live_run(tx, 0, GOOD, good_outcome(), agent="ci-triage")
        tx.execute(
            "UPDATE runs SET finished_at = :n, created_at = :n WHERE run = :r", n=later, r=run
        )
        tx.execute("UPDATE calls SET settled_at = :n WHERE run = :r", n=later, r=run)
    with database.snapshot() as tx:
        made = draft(tx, base, first.mark, now=later, tick=2, clean=True, machine="m")
    runs = [path for path in made.changes if "/runs/" in path]
    assert sorted(Path(path).stem for path in runs) == [run, run]
    assert made.message.startswith("ci-triage: 1 run, $0.014")
    assert "rollouts/" not in " ".join(made.changes)


def test_a_run_report_is_json_with_every_step(tmp_path: Path) -> None:
    database = new_database(tmp_path / "db")
    names = sample(database)
    told = json.loads(one(whole(database), f"agents/.*/{names['run']}.json"))
    assert told["format"] == "interlock.run-report/1"
    assert [e["step"] for e in told["journal"] if e["event"] == "intent"] == [
        "0",
        "1",
        "2",
        "3",
        "3.0",
    ]
    assert sum(call["cost_nano"] for call in told["calls"]) == 14_000_000
    assert all("response" not in call for call in told["calls"])
