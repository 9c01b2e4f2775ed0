"""The tables of docs/language say what the models say, in words for people."""

from __future__ import annotations

import re
from pathlib import Path

from reconciler.config.models import KINDS
from reconciler.config.pages import listed, pages
from reconciler.config.reference import ROOTS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = pages(DOCS / "language" / "examples")


def test_the_page_of_the_language_lists_the_current_kinds() -> None:
    page = (DOCS / "config-language.md").read_text(encoding="utf-8")
    assert listed(page) == page, "run: python -m reconciler.config.pages docs/language"


def test_every_key_of_every_document_is_explained() -> None:
    rows = [line for page in PAGES.values() for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 120
    assert [row for row in rows if not row.split(" | ")[-1].strip(" |")] == []


def test_no_mapping_is_explained_twice() -> None:
    headings = [
        heading
        for page in PAGES.values()
        for heading in re.findall(r"^### (.+)$", page, re.MULTILINE)
    ]
    assert len(headings) == len(set(headings))


def test_every_kind_of_document_has_a_table() -> None:
    assert {root for _, root in ROOTS} >= set(KINDS.values())


def test_links_between_the_pages_lead_somewhere() -> None:
    headings = {
        (name, heading.lower().replace(" ", "-"))
        for name, page in PAGES.items()
        for heading in re.findall(r"^### (.+)$", page, re.MULTILINE)
    }
    links = {
        (target or name, anchor)
        for name, page in PAGES.items()
        for target, anchor in re.findall(r"\]\(([a-z-]+\.md)?#([a-z-]+)\)", page)
    }
    assert len(links) > 20
    assert links <= headings
