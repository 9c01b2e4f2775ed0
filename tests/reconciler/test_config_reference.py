"""docs/config-language.md says what the models say."""

from __future__ import annotations

import re
from pathlib import Path

from reconciler.config.models import KINDS
from reconciler.config.reference import ROOTS, replaced, tables

PAGE = Path(__file__).parents[2] / "docs" / "config-language.md"


def test_the_page_has_the_current_tables() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert replaced(page) == page, (
        "run: python -m reconciler.config.reference docs/config-language.md"
    )


def test_every_key_of_every_document_is_explained() -> None:
    rows = [line for line in tables().splitlines() if line.startswith("| `")]
    assert len(rows) > 120
    assert [row for row in rows if not row.split(" | ")[-1].strip(" |")] == []


def test_every_kind_of_document_has_a_table() -> None:
    assert {root for _, root in ROOTS} >= set(KINDS.values())


def test_links_inside_the_page_lead_somewhere() -> None:
    text = tables()
    headings = {h.lower().replace(" ", "-") for h in re.findall(r"^#### (.+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\(#([a-z-]+)\)", text)) <= headings
