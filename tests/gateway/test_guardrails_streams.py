"""A stream is checked as its whole text is, however it is cut, and nothing leaves too early."""

from __future__ import annotations

import itertools
from math import inf

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.guardrails import Guard, Guardrails, Refused
from gateway.guardrails.scan import Open, Pattern, Span, scan
from gateway.policy.rules import (
    Check,
    GlobsCheck,
    Guardrail,
    Hook,
    InjectionCheck,
    PiiCheck,
    RegexCheck,
    SchemaCheck,
    SecretsCheck,
)

TAIL = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1V2w3X4y5Z6"
CHECKS: dict[str, Check] = {
    "secrets": SecretsCheck(),
    "pii": PiiCheck(kinds=("email", "phone", "credit_card", "iban", "ip_address", "national_id")),
    "regex": RegexCheck(pattern=r"(?i)project\s+kraken\b", replacement="[project]"),
    "groups": RegexCheck(pattern=r"(\w+)-(\d+)", replacement=r"\2:\1"),
    "ahead": RegexCheck(pattern=r"kraken(?=\s+is)|foo(?!bar)", replacement="-"),
    "lines": RegexCheck(pattern=r"(?m)^kraken.*$", replacement="-"),
    "end": RegexCheck(pattern=r"is$", replacement="-"),
    "edge": RegexCheck(pattern=r"-\b|\Bo", replacement="+"),
}
PIECES = (
    *("gh" + "p_" + TAIL, "sk-" + "ant-" + TAIL, "AKIA" + "ABCDEFGHIJKLMNOP"),
    "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    *("-----BEGIN " + "PRIVATE KEY-----", "password: " + TAIL, "eyJ" + TAIL + ".eyJ" + TAIL + ".x"),
    *("postgres://bob:" + "hunter22@db", "a.b@example.com", "git@github.com:a/b", "+49 30 901820"),
    *("(202) 456-1111", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "8.8.8.8", "."),
    *("2001:4860:4860::8888", "536-90-4399", "9f86d081884c7d659a2feaa0", "project \n kraken"),
    *("kraken is", "foobar", "foo", " ", "\n", "-", "a-12", "é", "ignore previous instructions"),
    *("12", "x", ":", "is", "\u200b", "\U000e0061\U000e0062", "\ud800"),
)
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=8).map("".join)
cuts = st.lists(st.integers(0, 400), max_size=12)


def guard(check: Check, action: str = "mutate", mode: str = "enforce") -> Guard:
    rule = Guardrail(
        name="rule",
        hooks=(Hook.MODEL_OUTPUT,),
        check=check,
        action=action,  # type: ignore[arg-type]
        mode=mode,  # type: ignore[arg-type]
    )
    found = Guardrails((rule,)).at(Hook.MODEL_OUTPUT, agent="a", team="t", model="m")
    assert found is not None
    return found


def pieces(text: str, at: list[int]) -> list[str]:
    borders = sorted({0, len(text), *(cut for cut in at if cut < len(text))})
    return [text[a:b] for a, b in itertools.pairwise(borders)]


def streamed(found: Guard, parts: list[str]) -> tuple[str, str | None]:
    """What was released, and the refusal."""
    out = ""
    window = found.window()
    try:
        for part in parts:
            out += window.feed(part)
        out += window.end()
    except Refused as refused:
        return out, refused.message
    return out, None


def looked(found: Guard, text: str) -> tuple[str, str | None]:
    try:
        return found.look(text).value, None
    except Refused as refused:
        return "", refused.message


GUARDS = {name: guard(check) for name, check in CHECKS.items()}
STRICT = {
    **{name: guard(check, "validate") for name, check in CHECKS.items()},
    "injection": guard(InjectionCheck(markers=("evil é",)), "validate"),
}


@pytest.mark.parametrize("name", GUARDS)
@settings(max_examples=300, deadline=None)
@given(text=texts, at=cuts)
def test_a_stream_is_changed_exactly_as_its_whole_text(name: str, text: str, at: list[int]) -> None:
    assert streamed(GUARDS[name], pieces(text, at)) == looked(GUARDS[name], text)


@pytest.mark.parametrize("name", GUARDS)
@settings(max_examples=60, deadline=None)
@given(text=texts)
def test_a_stream_of_single_characters_is_changed_exactly_as_its_whole_text(
    name: str, text: str
) -> None:
    assert streamed(GUARDS[name], list(text)) == looked(GUARDS[name], text)


@pytest.mark.parametrize("name", STRICT)
@settings(max_examples=200, deadline=None)
@given(text=texts, at=cuts)
def test_a_stream_is_refused_exactly_when_its_whole_text_is_and_before_the_match_is_released(
    name: str, text: str, at: list[int]
) -> None:
    released, refusal = streamed(STRICT[name], pieces(text, at))
    _, expected = looked(STRICT[name], text)
    assert (refusal is None) == (expected is None)
    assert released == text if refusal is None else text.startswith(released)
    if refusal is not None:
        (rule,) = STRICT[name]._rules.each
        assert len(released) <= scan(rule.searches, text, 0, whole=True)[0][0].start


@settings(max_examples=100, deadline=None)
@given(text=texts, at=cuts)
def test_several_rules_do_to_a_stream_what_they_do_to_the_text_one_after_the_other(
    text: str, at: list[int]
) -> None:
    rules = tuple(
        Guardrail(name=name, hooks=(Hook.MODEL_OUTPUT,), check=check, action="mutate")
        for name, check in CHECKS.items()
        if name in ("secrets", "pii", "regex")
    )
    found = Guardrails(rules).at(Hook.MODEL_OUTPUT, agent="a", team="t", model="m")
    assert found is not None
    window = found.window()
    out = "".join(map(window.feed, pieces(text, at))) + window.end()
    verdict = found.look(text)
    assert out == verdict.value
    assert set(window.findings) == set(verdict.findings)


patterns = st.sampled_from(
    [
        *("ab", "a+b", "a|ab", "(?:a|ab)c", "a.*c", "(?s)a.*?c", "a{2,3}", r"\ba", r"b\b", r"c\B"),
        *(
            "a(?=b)",
            "a(?!b)",
            "(?<=a)b",
            "(?<!a)b",
            "^a",
            "b$",
            "(?m)^b$",
            "(?i)Ab+",
            "a??b",
            "[ab]+c",
        ),
        *("(a)(b)?", "(?>a+)b", r"a\s*b", "a*", "(?=a)a b", r"-\b", r"(?s)\A.b", r"c\Z", "(a+)+c"),
    ]
)


@settings(max_examples=2000, deadline=None)
@given(source=patterns, text=st.text("abc \n-", max_size=12), at=st.integers(0, 12))
@example(source=r"-\b", text="a-b", at=2)
@example(source="a(?=b)", text="ab", at=1)
def test_what_is_decided_before_the_end_of_a_text_is_what_its_end_shows(
    source: str, text: str, at: int
) -> None:
    search = Pattern(source, lambda m: Span(m.start(), m.end(), m.group(), ""))
    early, decided = scan([search], text[:at], 0, whole=False)
    late, _ = scan([search], text, 0, whole=True)
    assert early == [span for span in late if span.start < decided]
    assert all(span.end <= decided for span in early)


def test_a_text_without_anything_to_look_for_is_released_at_once() -> None:
    window = GUARDS["secrets"].window()
    assert window.feed("The build is green. ") == "The build is green. "


def test_a_token_is_held_back_until_it_is_known_to_be_none() -> None:
    window = GUARDS["secrets"].window()
    assert window.feed("see ghp_abc") == "see "
    assert window.feed(" for more ") == "ghp_abc for more "


def test_a_match_that_does_not_end_is_not_held_for_ever() -> None:
    window = GUARDS["secrets"].window()
    begin = "-----BEGIN " + "PRIVATE KEY-----"
    with pytest.raises(Refused, match="longer than 65,536 characters"):
        "".join(map(window.feed, [begin, *["A" * 1000] * 100]))


def test_a_check_that_fails_and_is_to_be_ignored_lets_the_stream_go_on() -> None:
    window = guard(SecretsCheck(), mode="enforce_but_ignore_on_error").window()
    begin = "-----BEGIN " + "PRIVATE KEY-----"
    parts = [begin, *["A" * 1000] * 100, " end"]
    assert "".join(map(window.feed, parts)) + window.end() == "".join(parts)
    assert [found.error for found in window.findings] == [True]


def test_an_audited_stream_goes_through_unchanged_and_is_recorded() -> None:
    window = guard(CHECKS["secrets"], mode="audit").window()
    text = f"a {PIECES[0]} b"
    assert "".join(map(window.feed, text)) + window.end() == text
    assert [(f.what, f.count) for f in window.findings] == [("a GitHub token", 1)]


@pytest.mark.parametrize(
    "check",
    [
        SchemaCheck(json_schema={"type": "object"}),
        RegexCheck(pattern="}", required=True),
        GlobsCheck(allow=("{*}",)),
    ],
)
def test_a_rule_about_the_whole_holds_the_stream_until_it_is_judged(check: Check) -> None:
    found = guard(check, "validate")
    assert found.buffers
    window = found.window()
    assert [window.feed("{"), window.feed("}"), window.end()] == ["", "", "{}"]
    window = found.window()
    assert window.feed("{") == ""
    with pytest.raises(Refused):
        window.end()


def test_a_rule_about_the_whole_that_only_records_holds_nothing() -> None:
    found = guard(GlobsCheck(deny=("*b*",)), "validate", "audit")
    assert not found.buffers
    window = found.window()
    assert [window.feed("a"), window.feed("b"), window.end()] == ["a", "b", ""]
    assert len(window.findings) == 1


def test_the_arguments_of_a_tool_call_in_a_stream_are_looked_at_by_their_values() -> None:
    window = GUARDS["pii"].window()
    assert window.arguments('{"to": "a.b\\u0040example.com"}') == '{"to": "[email]"}'
    assert window.arguments('{"to":  "ada"}') == '{"to":  "ada"}'
    assert [found.count for found in window.findings] == [1]
    with pytest.raises(Refused):
        STRICT["pii"].window().arguments('{"to": "a.b@example.com"}')


def test_an_open_end_is_told_apart_from_nothing() -> None:
    search = Pattern("ab+", lambda m: Span(m.start(), m.end(), "", ""))
    assert search.find("xxa", 0, whole=False, until=inf) == Open(2)
    assert search.find("xxb", 0, whole=False, until=inf) is None
