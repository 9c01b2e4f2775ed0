"""The fast way through YAML gives what the strict one gives, or gives way to it."""

# ruff: noqa: E501 - samples read better in rows

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.config import positions
from reconciler.config.plain import MAX_DEPTH, plain
from reconciler.config.positions import Node

SCALARS = st.sampled_from(
    ["a", "on", "12:30", "0.10", "007", "1_000", "-3", "+.5", ".", "-", "~", "null", "true", "True",
     "''", '"x: y"', '"\\x41"', "'it''s'", "2026-01-01", "0x10", "1e3", "a b", "[]", "{}", "|-\n    x",
     "!!str 1", "! 1", "&a x", "*a", "<<", "sk-ant-REDACTED", "@x", "`x", "%x", "é", "\u2028"]
)  # fmt: skip
KEYS = st.sampled_from(
    ["a", "b", "c", "on", "1", "<<", "'a'", '""', "? x", "!!str a", "[a]", "&k d"]
)
LINES = st.lists(
    st.one_of(
        st.builds(lambda i, k, v: f"{' ' * i}{k}: {v}", st.integers(0, 4), KEYS, SCALARS),
        st.builds(lambda i, v: f"{' ' * i}- {v}", st.integers(0, 4), SCALARS),
        st.builds(lambda i, k: f"{' ' * i}{k}:", st.integers(0, 4), KEYS),
        st.builds(lambda k, v: f"x: {{{k}: {v}, l: [{v}, {v}]}}", KEYS, SCALARS),
        st.sampled_from(["---", "...", "# note", "", "\t- x", "%YAML 1.1", "[", "a: b: c"]),
    ),
    max_size=8,
).map("\n".join)


@settings(max_examples=600, deadline=None)
@given(st.one_of(LINES, st.text(alphabet="ab:-[]{}#&*!|>'\"? \n,1.<", max_size=40)))
def test_what_is_read_fast_is_what_the_strict_reader_reads(text: str) -> None:
    fast = plain(text)
    if fast is None:
        return
    strict = positions._strict("f.yaml", text, 1)
    assert strict.findings == ()
    assert strict.root is not None
    assert same(fast.data, strict.root.value)
    document = positions.parse_text("f.yaml", text, first_line=5)
    moved = positions._strict("f.yaml", text, 5)
    for path in paths(strict.root):
        for key in (False, True):
            assert document.at(path, key=key) == moved.at(path, key=key)
        assert document.has(path)
        assert not document.has([*path, "nowhere"])
        assert document.at([*path, "nowhere", 99]) == moved.at([*path, "nowhere", 99])


def paths(node: Node, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every path of a document."""
    below = [p for step, child in node.children.items() for p in paths(child, (*path, step))]
    return [path, *below]


def same(one: Any, other: Any) -> bool:
    """Equal, and of equal types all the way down: 1 is not True."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize(
    "text",
    ["a: 1\na: 2\n", "a: &x 1\nb: *x\n", "<<: {a: 1}\n", "a: !!int 1\n", "[a]: 1\n", "? \n: 1\n",
     "a: 1\n---\nb: 2\n", "a: [\n", "key: ghp_0123456789abcdefghijABCDEFGHIJ012345\n", ""],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_the_strict_reader(text: str) -> None:
    assert plain(text) is None


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_depth_is_bounded_before_the_stack_is(opening: str) -> None:
    # PyYAML's composer recurses in C: without a bound, this text ends the process.
    assert plain(opening * 20_000) is None


def test_the_deepest_document_that_is_allowed_is_read() -> None:
    document = positions.parse("f.yaml", b"[" * (MAX_DEPTH - 1) + b"x" + b"]" * (MAX_DEPTH - 1))
    assert document.findings == ()
    assert document.at([0, 0, 0]).column == 4


def test_nodes_are_there_for_who_asks() -> None:
    document = positions.parse("f.yaml", b"a: {b: 1}\n")
    assert document.root is not None
    assert document.root.children["a"].children["b"].value == 1


def test_documents_of_the_same_text_are_equal() -> None:
    one, two = positions.parse("f.yaml", b"a: 1\n"), positions.parse("f.yaml", b"a: 1\n")
    assert one == two
    assert one != positions.parse("g.yaml", b"a: 1\n")
    assert one != positions.parse("f.yaml", b"\na: 1\n")
