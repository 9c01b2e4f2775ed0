"""The lowest room: canonical form, identities, money and labels, and the page that freezes them."""

from __future__ import annotations

import hashlib
import json
import re
from decimal import Decimal
from itertools import product
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.values import (
    MOST_NANO,
    NANO,
    TRUSTED,
    AgentName,
    CallKey,
    EffectKey,
    Integrity,
    Json,
    Label,
    Occurrence,
    RunId,
    Sensitivity,
    StepPath,
    canonical_json,
    content_hash,
    derived_id,
    parse_usd,
    show_usd,
)

PAGE = Path(__file__).parents[2] / "docs" / "formats" / "canonical-json.md"

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
words = st.text(st.characters(codec="ascii", categories=["L", "N"]) | st.sampled_from("-._:"))
names = words.filter(bool)


def examples_of_the_page() -> list[list[str]]:
    block = re.search(r"^```\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert block is not None
    return [example.splitlines() for example in block[1].strip().split("\n\n")]


@pytest.mark.parametrize("source, canonical, digest", examples_of_the_page())
def test_the_page_shows_what_is_written(source: str, canonical: str, digest: str) -> None:
    assert canonical_json(json.loads(source)) == canonical.encode()
    assert content_hash(json.loads(source)) == digest
    assert hashlib.sha256(canonical.encode()).hexdigest() == digest


def test_the_page_shows_how_an_identity_is_derived() -> None:
    shown = re.search(
        r"parts `(\[.*?\])` with the prefix `(\w+)`.*?`(run-\w+)`", PAGE.read_text(), 16
    )
    assert shown is not None
    assert derived_id(shown[2], *json.loads(shown[1])) == shown[3]


@given(values)
def test_canonical_json_reads_back_as_the_same_value(value: Json) -> None:
    assert json.loads(canonical_json(value)) == value


@given(values)
def test_the_canonical_form_of_a_canonical_form_is_itself(value: Json) -> None:
    once = canonical_json(value)
    assert canonical_json(json.loads(once)) == once


@given(st.dictionaries(texts, st.integers(), min_size=2), st.randoms(use_true_random=False))
def test_the_order_of_insertion_leaves_no_trace(value: dict[str, Json], random) -> None:
    shuffled = list(value.items())
    random.shuffle(shuffled)
    assert canonical_json(dict(shuffled)) == canonical_json(value)


@given(st.dictionaries(texts, st.integers(), min_size=2))
def test_keys_stand_in_order_of_their_code_points(value: dict[str, Json]) -> None:
    keys = list(json.loads(canonical_json(value)))
    assert keys == sorted(keys, key=lambda key: [ord(character) for character in key])


@given(values, values)
def test_different_values_have_different_forms(a: Json, b: Json) -> None:
    # repr tells 1 from True, which == does not.
    same = repr(_ordered(a)) == repr(_ordered(b))
    assert (canonical_json(a) == canonical_json(b)) == same


def _ordered(value: Json) -> object:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value)}
    return [_ordered(item) for item in value] if isinstance(value, list) else value


@given(values, st.floats())
def test_a_float_is_refused_wherever_it_hides(value: Json, number: float) -> None:
    for hidden in (number, [value, number], {"a": {"b": [number]}}):
        with pytest.raises(TypeError, match="float"):
            canonical_json(hidden)  # type: ignore[arg-type]


@pytest.mark.parametrize("odd", [{1: 2}, {None: 1}, b"x", {"a": {1}}, object(), Decimal(1)])
def test_what_json_does_not_have_is_refused(odd: object) -> None:
    with pytest.raises(TypeError):
        canonical_json(odd)  # type: ignore[arg-type]


def test_a_string_that_is_no_text_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        canonical_json("\ud800")


@given(st.lists(words | st.integers()), st.lists(words | st.integers()))
def test_derived_identities_are_equal_only_for_equal_parts(
    a: list[str | int], b: list[str | int]
) -> None:
    assert (derived_id("x", *a) == derived_id("x", *b)) == (a == b)


def test_an_identity_has_its_prefix_and_sixteen_digits() -> None:
    assert re.fullmatch(r"hold-[0-9a-f]{16}", derived_id("hold", "a", 1))


@given(names, names, st.integers(min_value=0))
def test_a_call_key_is_read_back(run: str, step: str, call: int) -> None:
    key = CallKey(RunId(run), StepPath(step), call)
    assert CallKey.parse(str(key)) == key


@given(st.text() | st.from_regex(r"[a-z]{1,2}/[0-9.]{1,2}/[-+ _0-9]{1,3}", fullmatch=True))
@example("run-1/7/-1")
@example("run-1/7/+1")
@example("run-1/7/1_0")
@example("run-1/7/01")
@example("run-1/7/٣")
@example("run-1/7/1\n")
@example("run-1//0")
@example("a/b/c/0")
def test_only_what_a_call_key_prints_is_one(text: str) -> None:
    try:
        key = CallKey.parse(text)
    except ValueError:
        return
    assert str(key) == text


effect_keys = st.builds(
    EffectKey,
    agent=names.map(AgentName),
    occurrence=names.map(Occurrence),
    action=names,
    ordinal=st.integers(min_value=0, max_value=99),
)


@given(effect_keys, effect_keys)
def test_effects_have_one_key_exactly_when_they_are_the_same(a: EffectKey, b: EffectKey) -> None:
    assert re.fullmatch(r"eff-[0-9a-f]{32}", str(a))
    assert (str(a) == str(b)) == (a == b)


def test_the_effect_key_is_frozen() -> None:
    key = EffectKey(
        AgentName("ci-triage"),
        Occurrence("schedule:2026-11-23T05:00:00Z"),
        "github.create_pr",
        0,
    )
    assert str(key) == "eff-fd89e128d43c7f145668f83c26d700fb"


ALL_LABELS = [Label(i, s) for i, s in product(Integrity, Sensitivity)]


@pytest.mark.parametrize("label", ALL_LABELS, ids=str)
def test_a_label_is_read_back(label: Label) -> None:
    assert Label.parse(str(label)) == label


@pytest.mark.parametrize("text", ["", "trusted", "trusted/", "trusted/public/x", "public/trusted"])
def test_what_is_no_label_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Label.parse(text)


def test_joining_labels_is_a_lattice_whose_bottom_is_trusted() -> None:
    for a, b, c in product(ALL_LABELS, repeat=3):
        assert a.join(b) == b.join(a)
        assert a.join(b).join(c) == a.join(b.join(c))
        assert a.join(a) == a
        assert a.join(TRUSTED) == a
        untrusted = Integrity.UNTRUSTED in (a.integrity, b.integrity)
        assert (a.join(b).integrity is Integrity.UNTRUSTED) == untrusted


@pytest.mark.parametrize(
    "text, nano",
    [
        ("3.00", 3 * NANO),
        ("$3", 3 * NANO),
        (3, 3 * NANO),
        (0.1, NANO // 10),
        ("1_000", 1000 * NANO),
        ("$1,234,567.50", 1_234_567_500_000_000),
        ("0", 0),
        ("0e99", 0),
        ("0.0000000001", 1),
        ("1e-999999", 1),
        ("1.0000000000000000000000000000000000000001", NANO + 1),
        ("9223372036.854775807", MOST_NANO),
    ],
)
def test_dollars_become_nano_dollars_rounded_up(text: str | float, nano: int) -> None:
    assert parse_usd(text) == nano


@pytest.mark.parametrize(
    "text",
    [
        *("", "$", "$$1", "1 USD", True, "-1", "$-1", "nan", "inf", "sNaN"),
        *("3,00", "1,23,456", ",100"),
        *("9223372036.854775808", "1e10", "1e999999"),
    ],
)
def test_what_is_no_amount_of_money_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="dollars"):
        parse_usd(text)


@pytest.mark.parametrize(
    "nano, text",
    [
        (0, "$0.00"),
        (3 * NANO, "$3.00"),
        (4_200_000, "$0.0042"),
        (13_000, "$0.000013"),
        (1, "$0.000000001"),
        (1_234_567_890_000_000, "$1,234,567.89"),
        (-3 * NANO, "-$3.00"),
        (-4_200_000, "-$0.0042"),
        (NANO - 1, "$1.00"),
    ],
)
def test_money_is_shown(nano: int, text: str) -> None:
    assert show_usd(nano) == text


amounts = st.integers(min_value=0, max_value=9_000_000_000 * NANO)


@given(amounts)
@example(99_999_999)
@example(9_960_000)
def test_money_that_was_shown_reads_back_within_a_twentieth(nano: int) -> None:
    assert abs(parse_usd(show_usd(nano)) - nano) <= nano / 20
    assert show_usd(-nano) in (f"-{show_usd(nano)}", "$0.00")


@given(st.lists(st.integers(min_value=0, max_value=10**15), max_size=20))
def test_sums_of_parsed_money_are_exact(nanos: list[int]) -> None:
    written = [f"{Decimal(nano).scaleb(-9):f}" for nano in nanos]
    assert sum(parse_usd(text) for text in written) == sum(nanos)


@given(st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False))
def test_parsing_money_never_rounds_down(amount: Decimal) -> None:
    nano = parse_usd(amount)
    assert nano >= amount.scaleb(9) > nano - 1
