"""Who decides about a path: teams.*.owns, then CODEOWNERS."""

from __future__ import annotations

import pytest

from reconciler.config import Loaded
from tests.support.small_fleet import loaded, tree

TEAMS = (
    "teams:\n"
    "  payments: {members: [ines], owns: ['agents/**', 'skills/**']}\n"
    "  platform: {members: [mara], owns: ['gateway/**', 'skills/**']}\n"
)


def owned(text: str | bytes | None = None, path: str = "CODEOWNERS") -> Loaded:
    return loaded(tree({"teams.yaml": TEAMS, **({} if text is None else {path: text})}))


def rules(result: Loaded) -> list[tuple[str, tuple[str, ...], str]]:
    assert result.fleet is not None, result.findings
    return [(r.pattern, r.owners, str(r.place)) for r in result.fleet.owners]


def test_what_teams_own_is_in_the_order_it_is_written_and_shared_patterns_are_joined() -> None:
    assert rules(owned()) == [
        ("agents/**", ("payments",), "teams.yaml:2:38"),
        ("gateway/**", ("platform",), "teams.yaml:3:38"),
        ("skills/**", ("payments", "platform"), "teams.yaml:3:52"),
    ]


def test_codeowners_come_last_so_that_they_win() -> None:
    text = """\
# the defaults
*       @northwind/platform

/agents/ @northwind/payments @ines  # and Ines
docs/*.md tom@northwind.example
/free\\ text/
  \\#notes @ines
"""
    result = owned(text)
    assert result.findings == ()
    assert rules(result)[3:] == [
        ("*", ("platform",), "CODEOWNERS:2:1"),
        ("/agents/", ("payments", "ines"), "CODEOWNERS:4:1"),
        ("docs/*.md", ("tom@northwind.example",), "CODEOWNERS:5:1"),
        ("/free text/", (), "CODEOWNERS:6:1"),
        ("#notes", ("ines",), "CODEOWNERS:7:3"),
    ]


def test_the_first_place_of_githubs_counts() -> None:
    files = {
        "teams.yaml": TEAMS,
        ".github/CODEOWNERS": "* @first\n",
        "CODEOWNERS": "* @second\n",
        "docs/CODEOWNERS": "* @third\n",
    }
    assert rules(loaded(tree(files)))[-1][1] == ("first",)
    del files[".github/CODEOWNERS"]
    assert rules(loaded(tree(files)))[-1][1] == ("second",)
    assert rules(owned("* @third\n", "docs/CODEOWNERS"))[-1][1] == ("third",)


@pytest.mark.parametrize(
    "line, expected",
    [
        ("* nobody", '"nobody" is not an owner: the line is passed over'),
        ("!x @ines", '"!x" is not a pattern of CODEOWNERS'),
        ("[ab] @ines", '"[ab]" is not a pattern of CODEOWNERS'),
    ],
)
def test_a_line_that_is_not_understood_is_passed_over_with_a_warning(
    line: str, expected: str
) -> None:
    result = owned(f"* @ines\n{line}\n")
    assert [f.id for f in result.findings] == ["codeowners"]
    assert f"CODEOWNERS:2:1 {expected}" in str(result.findings[0])
    assert len(rules(result)) == 4


def test_a_team_of_the_forge_that_is_not_ours_can_approve_nothing_and_is_said() -> None:
    result = owned("* @northwind/platfrom\n")
    said = str(result.findings[0])
    assert "is not a team of teams.yaml: nobody can approve for it here" in said
    assert 'did you mean "platform"?' in said
    assert rules(result)[-1][1] == ("platfrom",)


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"* @ines \x1b[2J\n", b"x" * 2_000_000])
def test_a_file_that_cannot_be_read_refuses_the_commit(raw: bytes) -> None:
    result = owned(raw)
    assert result.fleet is None
    assert result.findings[0].file == "CODEOWNERS"
