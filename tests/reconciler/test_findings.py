"""Findings: the one form of message everywhere, safe to print."""

from __future__ import annotations

from reconciler.findings import Finding, Severity, did_you_mean, quoted, render, tidy


def finding(message: str = "is wrong", **changes: object) -> Finding:
    fields: dict[str, object] = {
        "id": "x",
        "severity": Severity.ERROR,
        "file": "a.yaml",
        "line": 7,
        "column": 3,
        "message": message,
        "fix": "",
    }
    return Finding(**{**fields, **changes})  # type: ignore[arg-type]


def test_is_shown_with_file_line_column_and_what_to_do() -> None:
    assert str(finding(fix="remove it")) == "a.yaml:7:3 is wrong; remove it"
    assert str(finding()) == "a.yaml:7:3 is wrong"


def test_control_characters_of_a_repository_never_reach_the_terminal() -> None:
    shown = str(finding("name \x1b[2J\nfake:1:1 all is well", file="a\x07.yaml"))
    assert shown.isprintable()
    assert "\\x1b" in shown
    assert "\\x07" in shown
    assert quoted("a\u202eb") == '"a\\u202eb"'


def test_tidy_keeps_each_once_in_order_of_place_then_worst_first() -> None:
    late, early = finding(line=9), finding(line=2)
    warned = finding("hm", line=2, severity=Severity.WARNING)
    assert tidy([late, warned, early, late]) == (early, warned, late)


def test_findings_that_are_no_errors_are_marked() -> None:
    warned = finding("hm", severity=Severity.WARNING)
    assert render([warned]) == "a.yaml:7:3 hm [warning]"


def test_json_has_every_field_by_name() -> None:
    assert finding(fix="f").as_json() == {
        "id": "x",
        "severity": "error",
        "file": "a.yaml",
        "line": 7,
        "column": 3,
        "message": "is wrong",
        "fix": "f",
    }


def test_did_you_mean_names_the_closest_or_nothing() -> None:
    assert did_you_mean("smrt", ["smart", "large"]) == 'did you mean "smart"?'
    assert did_you_mean("zzz", ["smart", "large"]) == ""


def test_a_long_value_is_shortened() -> None:
    assert len(quoted("x" * 500)) == 82
